"""A workspace's database: one SQLite file, kept up to date, every write all or nothing.

Knows SQLite's ways with several processes, power cuts, full disks and damaged files, and says each
in a sentence. Refuses to know what the tables mean (`studio.runs.store`).
"""

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.runs.migrations import STEPS
from studio.workspace import workspace

#: Seconds to wait for others who write.
_BUSY = 30


class Database:
    """Safe to use from several threads and processes at once.

    Args:
        path: the SQLite file, created if absent; by default ``runs.sqlite`` of the workspace.

    Raises:
        StudioError: the file cannot be opened, is no run store, or is from a newer Studio.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = str(path or workspace() / "runs.sqlite")
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(
                self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._db.row_factory = sqlite3.Row
            self._use_wal()
            # NORMAL could lose the last transactions to a power cut; one fsync per candidate is
            # nothing beside its evaluation
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate()
        except sqlite3.Error as error:
            if _disk_is_full(self.folder):
                raise StudioError(
                    f"The disk of the run store {self.path} is full; free some space, what was "
                    "recorded is safe."
                ) from error
            raise StudioError(
                f"The run store {self.path} cannot be opened ({error}); check that the folder is "
                "writable, or set STUDIO_WORKSPACE to another."
            ) from error

    def _use_wal(self) -> None:
        """Turn write-ahead logging on. SQLite does not wait for others who do so just now."""
        until = time.monotonic() + _BUSY
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(STEPS):
            raise StudioError(
                f"The run store {self.path} was written by a newer EvoLLM Studio; update this one."
            )
        for number in range(version, len(STEPS)):
            # Another process may have migrated meanwhile: read the version again, locked.
            script = f"{STEPS[number]}; PRAGMA user_version = {number + 1};"
            with self._transaction() as db:
                if db.execute("PRAGMA user_version").fetchone()[0] == number:
                    for statement in _statements(script):
                        db.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction, all or nothing; a full disk becomes a sentence."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise StudioError(
                    f"The run store {self.path} cannot be written ({error}); free some disk space "
                    "or check its permissions, then resume: what was recorded is safe."
                ) from error
            except sqlite3.IntegrityError:  # of our own making, not of the file
                raise
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.DatabaseError) -> StudioError:
        return StudioError(
            f"The run store {self.path} cannot be read ({error}); restore it from a copy, or move "
            "it away to begin a new one."
        )

    @property
    def folder(self) -> Path:
        """Where the file lies, and with it the locks and logs of its runs."""
        return Path(self.path).resolve().parent

    def close(self) -> None:
        """Close the connection; the store is not usable after."""
        with self._lock:
            self._db.close()


def _disk_is_full(folder: Path) -> bool:
    """SQLite calls a disk without one free page an I/O error."""
    try:
        return shutil.disk_usage(folder).free < 1 << 16
    except OSError:
        return False


def copy_database(path: str | Path, copy: Path) -> None:
    """A snapshot of another store. One that nobody writes to is not touched at all."""
    path = Path(path).resolve()
    quiet = not path.with_name(path.name + "-wal").exists()
    source = sqlite3.connect(f"{path.as_uri()}?mode=ro{'&immutable=1' if quiet else ''}", uri=True)
    target = sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()


def _statements(script: str) -> Iterator[str]:
    """The statements of a script: sqlite3's executescript would commit, and break atomicity."""
    statement = ""
    for piece in script.split(";"):
        statement += piece
        if sqlite3.complete_statement(statement + ";"):
            if statement.strip():
                yield statement
            statement = ""
        else:
            statement += ";"
