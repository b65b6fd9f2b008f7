"""ZeroGPU: a GPU that a Space is lent for a minute at a time, to one function call.

Knows whether this is such a Space, and how a function is marked that needs the GPU; off one the
mark does nothing at all. Refuses to know what is computed there. Marked functions stand at module
level in modules imported before the page is launched; they run in a forked process, so that plain
data goes in and comes out, and nothing else they do is seen afterwards.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable)


def available() -> bool:
    """Whether this is a Space with ZeroGPU."""
    wanted = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    return wanted and importlib.util.find_spec("spaces") is not None


def gpu(duration: float | Callable[..., float] = 60) -> Callable[[Function], Function]:
    """A decorator: every call of the function, or of the generator function, is lent the GPU.

    Args:
        duration: seconds that a call may take at most, or a function of the call's own arguments
            that says so; the shorter, the sooner its turn comes.

    Raises:
        gradio.Error: (the call) no GPU was free, or the visitor's quota is spent.
    """

    def decorated(function: Function) -> Function:
        if not available():
            return function
        import spaces

        return spaces.GPU(duration=duration)(function)

    return decorated


def _renew_thread_pool() -> None:
    """Replace the thread pool that a fork inherits from torch, and whose threads it lacks.

    torch does so itself at the pool's first use, but not safely: where two threads are the first,
    as they are when transformers loads a model, one of them fails ("Invalid thread pool!").
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(torch.get_num_threads())


if hasattr(os, "register_at_fork"):  # not on Windows, which never forks
    os.register_at_fork(after_in_child=_renew_thread_pool)
