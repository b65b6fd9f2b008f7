"""In whose name the hub is asked: this machine's by default, a visitor's while they are served.

Knows tokens and the hub's gates. Refuses to know why somebody asks, or what is downloaded.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256

from studio.errors import StudioError

#: What huggingface_hub takes as ``token``: a token, False for none, None for the machine's own.
Token = str | bool | None

_TOKEN: ContextVar[Token] = ContextVar("hub_token", default=None)
#: Seconds for which the hub's word that a model is open to somebody is taken.
_KEPT = 600
_granted: dict[tuple[str, str], float] = {}


def token() -> Token:
    """The token that the hub is asked with, in this thread or task."""
    return _TOKEN.get()


@contextmanager
def asking_with(token: Token) -> Iterator[None]:
    """Ask the hub with a visitor's token, or with none (False), within."""
    before = _TOKEN.set(token)
    try:
        yield
    finally:
        _TOKEN.reset(before)


def check(name: str) -> None:
    """Whether the hub lets whoever asks have a model, which may lie in the cache for another.

    Raises:
        StudioError: it is gated or private and they may not, or the hub cannot be asked.
    """
    from huggingface_hub import HfApi, errors

    repository = "/".join(name.partition("@")[0].split("/")[:2])
    bearer = sha256(str(token()).encode()).hexdigest()
    if time.monotonic() - _granted.get((repository, bearer), -_KEPT) < _KEPT:
        return
    try:
        HfApi().auth_check(repository, token=token())
    except errors.GatedRepoError as error:
        raise StudioError(
            f"{repository} is gated: accept its terms at https://huggingface.co/{repository}, sign "
            "in here with that account, and try again."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise StudioError(
            f"There is no repository {repository} that you may read; sign in, or choose another."
        ) from error
    except Exception as error:  # whatever the transport raises
        raise StudioError(
            f"The hub cannot be asked whether {repository} is open to you; try again later, or "
            "choose a bundled model."
        ) from error
    _granted[repository, bearer] = time.monotonic()
