"""Who works on a run: a file lock, which the operating system lets go of when its holder dies."""

from filelock import FileLock, Timeout

from studio.errors import StudioError
from studio.runs.store import Store
from studio.workspace import subfolder


def _file(store: Store, run: str) -> FileLock:
    return FileLock(subfolder(store.folder, "locks") / f"{run}.lock")


def hold(store: Store, run: str) -> FileLock:
    """Become the one worker of a run; release the returned lock when done.

    Raises:
        StudioError: another process is working on it.
    """
    lock = _file(store, run)
    try:
        lock.acquire(timeout=2)  # a glance by is_held elsewhere takes the lock for an instant
    except Timeout:
        raise StudioError(
            f"Run {run} is being worked on by another process; stop it first, or watch it with "
            f"`python -m studio show {run}`."
        ) from None
    return lock


def is_held(store: Store, run: str) -> bool:
    """Whether some process is working on the run."""
    lock = _file(store, run)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
