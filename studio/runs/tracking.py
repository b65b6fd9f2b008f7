"""The scalars of a run where people look: its record, followed into the files of a tracker.

Knows where the files lie, who may write them, and that the record is the truth: whoever begins to
follow a run writes it anew from its first candidate, so that nothing is there twice, however often
the run was interrupted. Refuses to know what is written (`studio.runs.scalars`), and to be the end
of a run: what cannot be written is a warning.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

from studio.errors import StudioError
from studio.runs.lock import try_hold
from studio.runs.scalars import Report, Scalars, Sink
from studio.runs.store import Store
from studio.workspace import subfolder

#: Where each tracker's class is; its module imports the tracker's library at its head.
TRACKERS = {"tensorboard": "studio.runs.tensorboard:TensorBoard"}
#: Seconds between two looks at the record while somebody works on it.
EVERY = 2.0

_log = logging.getLogger(__name__)


def chosen(name: str | None = None) -> type[Sink] | None:
    """The tracker of a name, or else of ``STUDIO_TRACK``; None if neither names one.

    Raises:
        StudioError: there is no such tracker, or its library is not installed.
    """
    name = (name or os.environ.get("STUDIO_TRACK", "")).strip()
    if not name:
        return None
    if name not in TRACKERS:
        raise StudioError(f"There is no tracker '{name[:40]}'; choose {', '.join(TRACKERS)}.")
    module, _, wanted = TRACKERS[name].partition(":")
    try:
        return getattr(import_module(module), wanted)
    except ModuleNotFoundError as error:
        raise StudioError(
            f"Tracking with {name} needs the package {error.name}; run `pip install tensorboardX`."
        ) from None


def folder_of(store: Store, run: str) -> Path:
    """Where a run's scalars lie: ``tracking/NAME-ID`` in the workspace."""
    record = store.run(run)
    return store.folder / "tracking" / f"{plain(record.name)[:40]}-{record.id}"


def forget(store: Store, run: str) -> None:
    """Delete the scalars of a run, by its whole id; there may be none."""
    for folder in (store.folder / "tracking").glob(f"*-{run}"):
        shutil.rmtree(folder, ignore_errors=True)
    (store.folder / "locks" / f"{run}.tracking.lock").unlink(missing_ok=True)


def write(store: Store, run: str, tracker: type[Sink], report: Report) -> Path:
    """Write the scalars of what is recorded of a run; returns their folder.

    Args:
        run: its whole id.

    Raises:
        StudioError: they cannot be written, or another process is writing them.
    """
    with _begun(store, run, tracker, report) as (scalars, folder):
        try:
            scalars.look(last=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
    return folder


@contextmanager
def follow(
    store: Store, run: str, tracker: type[Sink] | None, report: Report
) -> Iterator[Callable[[], None]]:
    """As `write`, again and again: yields what is called whenever something was recorded.

    It does nothing unless the last time is a while ago; at the end all is written that the record
    holds by then. Without a tracker nothing happens.
    """
    scalars: Scalars | None = None
    looked = 0.0

    def look(last: bool = False) -> None:
        nonlocal scalars, looked
        if scalars is None or not (last or time.monotonic() - looked > EVERY):
            return
        try:
            scalars.look(last)
        except OSError as error:
            _log.warning("Run %s is no longer tracked: %s", run, error)
            scalars = None
        looked = time.monotonic()

    with ExitStack() as stack:
        if tracker:
            try:
                scalars, _ = stack.enter_context(_begun(store, run, tracker, report))
            except StudioError as error:
                _log.warning("Run %s is not tracked. %s", run, error)
        try:
            yield look
        finally:
            look(last=True)


@contextmanager
def _begun(
    store: Store, run: str, tracker: type[Sink], report: Report
) -> Iterator[tuple[Scalars, Path]]:
    """Scalars of which nothing is written yet, and their folder, which nobody else writes to."""
    lock = try_hold(store, f"{run}.tracking")
    if lock is None:
        raise StudioError(
            f"Another process is writing the scalars of run {run}; wait until it has ended."
        )
    try:
        folder = folder_of(store, run)
        shutil.rmtree(folder, ignore_errors=True)
        sink = tracker(subfolder(folder.parent, folder.name))
        try:
            scalars = Scalars(store, run, sink, report)
        except OSError as error:
            raise _unwritable(folder, error) from error
        yield scalars, folder
    finally:
        lock.release()


def _unwritable(folder: Path, error: OSError) -> StudioError:
    return StudioError(f"{folder} cannot be written ({error}); make room there.")


def plain(name: str) -> str:
    """A name as that of a folder.

    >>> plain("../owner/model (2)")
    'owner-model-2'
    """
    return re.sub(r"[^\w.-]+|\.\.+", "-", name).strip(".-") or "unnamed"
