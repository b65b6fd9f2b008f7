"""Who works on a run: a file lock, which the operating system lets go of when its holder dies.

So has the workspace's worker, which takes queued runs one after another: its lock is ``WORKER``.
"""

from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from studio.errors import StudioError
from studio.workspace import subfolder

if TYPE_CHECKING:
    from studio.runs.store import Store

#: The name of the lock of the workspace's one worker: no run's id, which is hexadecimal.
WORKER = "worker"
#: Seconds after which a lock is no longer another's glance, which takes it for an instant.
GLANCE = 2.0
#: The same for who cannot wait so long, and may be wrong once in a while.
INSTANT = 0.04


def try_hold(store: "Store", name: str, patience: float = 0.0) -> FileLock | None:
    """Take a lock within ``patience`` seconds; None if another process holds it."""
    # one thread may take a run up and another put it down: a page's generator changes threads
    lock = FileLock(subfolder(store.folder, "locks") / f"{name}.lock", thread_local=False)
    try:
        lock.acquire(timeout=patience, poll_interval=0.01)
    except Timeout:
        return None
    return lock


def hold(store: "Store", run: str) -> FileLock:
    """Become the one worker of a run; release the returned lock when done.

    Raises:
        StudioError: another process is working on it.
    """
    lock = try_hold(store, run, GLANCE)
    if lock is None:
        raise StudioError(
            f"Run {run} is being worked on by another process; stop it first, or watch it with "
            f"`python -m studio show {run}`."
        )
    return lock


def is_held(store: "Store", name: str, patience: float = 0.0) -> bool:
    """Whether some process is working on the run, or is the worker."""
    lock = try_hold(store, name, patience)
    if lock is None:
        return True
    lock.release()
    return False
