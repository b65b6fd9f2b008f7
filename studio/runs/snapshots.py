"""Snapshots of the run store on a volume that outlives the machine, such as a Space's storage.

The live store stays on the local disk: SQLite's locks and small writes are nothing for a volume
that is mounted over a network. What goes there is a whole copy of one moment, written aside, then
renamed, so that whatever is there is complete. ``STUDIO_VOLUME`` names the folder. Refuses to know
what a run is; only whether anything was written since.
"""

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

from studio.errors import StudioError
from studio.runs.database import copy_database
from studio.runs.lock import try_hold
from studio.runs.store import Store
from studio.workspace import subfolder, workspace

#: Seconds between two looks at whether anything was written.
EVERY = 60.0
NAME = "runs.sqlite"

_log = logging.getLogger(__name__)


def volume() -> Path | None:
    """The folder that snapshots go to, None if nobody named one."""
    asked = os.environ.get("STUDIO_VOLUME", "").strip()
    return Path(asked).expanduser() if asked else None


def snapshot(store: Store, folder: str | Path) -> Path:
    """Write the store as it is now to a folder; returns the file, which replaces the one before.

    Raises:
        StudioError: the folder cannot be made or written to; the snapshot before is still there.
    """
    folder = Path(folder)
    target = subfolder(folder.parent, folder.name) / NAME
    aside = target.with_name(f".{NAME}.{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as here:
            copy_database(store.path, Path(here) / NAME)  # a backup wants a disk that can lock
            shutil.copyfile(Path(here) / NAME, aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, target)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StudioError(
            f"The runs cannot be saved to {folder} ({error}); make room there, or let "
            "STUDIO_VOLUME name another folder."
        ) from error
    return target


def restore(folder: str | Path, path: str | Path | None = None) -> bool:
    """Begin with the store that a snapshot holds, where there is none yet; whether that was done.

    Args:
        path: the live store's file, the workspace's by default. One that exists is left alone: it
            is never older than its snapshot.
    """
    source, path = Path(folder) / NAME, Path(path or workspace() / NAME)
    if path.exists() or not source.is_file():
        return False
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, aside)
        with contextlib.closing(sqlite3.connect(aside)) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if not version or database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("it is damaged")
        os.link(aside, path)  # unlike a rename, not over a store that somebody else began just now
    except FileExistsError:
        return False
    except (OSError, sqlite3.Error) as error:
        _log.warning("The snapshot %s cannot be restored: %s", source, error)
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


class Keeper:
    """A thread that writes a snapshot every minute in which anything was recorded.

    Attributes:
        saved: when the latest snapshot was written, seconds since the epoch; None before the first.
        trouble: why the latest could not be written, '' if it could.
    """

    def __init__(self, store: Store, folder: str | Path, every: float = EVERY):
        self.store, self.folder = store, Path(folder)
        self.saved: float | None = None
        self.trouble = ""
        self._every = every
        self._mark: tuple | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)

    def start(self) -> "Keeper":
        self._thread.start()
        return self

    def stop(self) -> None:
        """Write what is not written yet, and end."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self.save()

    def save(self) -> bool:
        """Write a snapshot if anything was recorded since the last one; whether there was."""
        mark = tuple(
            self.store._rows(
                "SELECT count(*), total(version), total(seconds), max(created) FROM runs"
            )[0]
        )
        if mark == self._mark:
            return False
        lock = try_hold(self.store, "snapshot", patience=10)
        if lock is None:
            return False  # another process is writing one; the next look sees what it missed
        try:
            snapshot(self.store, self.folder)
        except StudioError as error:
            if self.trouble != str(error):
                _log.warning("%s", error)
            self.trouble = str(error)
            return False
        finally:
            lock.release()
        self._mark, self.saved, self.trouble = mark, time.time(), ""
        return True

    def _run(self) -> None:
        while not self._over.wait(self._every):
            try:
                self.save()
            except StudioError as error:  # the store itself cannot be read just now
                _log.warning("%s", error)


def keep(store: Store) -> Keeper | None:
    """Begin to keep snapshots where ``STUDIO_VOLUME`` says so; the process's end writes the last.

    None where it does not.
    """
    import atexit

    folder = volume()
    if folder is None:
        return None
    keeper = Keeper(store, folder).start()
    atexit.register(keeper.stop)
    return keeper
