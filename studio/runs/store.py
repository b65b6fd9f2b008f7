"""The run store: one SQLite file per workspace, and the truth about every run in it.

Records, in order, what was asked of the optimizer and what it was told, every evaluation with its
per-example outcomes, and the software versions of every session. Every method is one transaction:
kill the process at any moment and the file holds everything up to the last finished call. Refuses
to know what an optimizer, a model or a task is.

    >>> store = Store(":memory:")
    >>> run = store.create_run("demo", "name: demo")
    >>> store.append(run, "ask", {"ids": [0]})
    >>> [event.kind for event in store.events(run)]
    ['ask']
"""

import json
import re
import secrets
import shutil
import sqlite3
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from studio.errors import StudioError
from studio.runs.migrations import STEPS
from studio.runs.records import QUEUED, Candidate, Evaluation, Event, Outcome, Run
from studio.workspace import workspace

#: Seconds to wait for others who write.
_BUSY = 30

#: What an optimizer is told of a candidate: a score, or one per objective.
Told = float | Sequence[float]


class Store:
    """The runs of one workspace. Safe to use from several threads and processes at once.

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

    # ── runs ──────────────────────────────────────────────────────────────────────────────────

    def create_run(self, name: str, recipe: str) -> str:
        """Record a new queued run of a recipe (YAML); returns its id (8 hex digits)."""
        run = secrets.token_hex(4)
        with self._transaction() as db:
            db.execute(
                "INSERT INTO runs (id, name, recipe, created, status) VALUES (?, ?, ?, ?, ?)",
                (run, name, recipe, time.time(), QUEUED),
            )
        return run

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        return [_run(row) for row in self._rows("SELECT * FROM runs ORDER BY created DESC, id")]

    def run(self, run: str) -> Run:
        """One run by its id or an unambiguous beginning of it; 'last' is the newest.

        Raises:
            StudioError: there is no such run, or the beginning fits several.
        """
        if run == "last":
            rows = self._rows("SELECT * FROM runs ORDER BY created DESC LIMIT 1")
        else:
            rows = self._rows(
                "SELECT * FROM runs WHERE substr(id, 1, length(?)) = ? AND ? <> ''", run, run, run
            )
        if len(rows) == 1:
            return _run(rows[0])
        if not rows:
            raise StudioError(f"There is no run '{run}'; `python -m studio runs` lists them.")
        raise StudioError(f"'{run}' begins the id of {len(rows)} runs; give more of the id.")

    def delete_run(self, run: str) -> None:
        """Forget a run and everything recorded of it."""
        with self._transaction() as db:
            db.execute("DELETE FROM runs WHERE id = ?", (run,))

    def set_status(self, run: str, status: str, message: str = "") -> None:
        """Where the run stands; queueing or starting it again clears an earlier wish to stop."""
        with self._transaction() as db:
            db.execute(
                "UPDATE runs SET status = ?, message = ?, version = version + 1, "
                "stop = CASE WHEN ? IN ('queued', 'running') THEN 0 ELSE stop END WHERE id = ?",
                (status, message, status, run),
            )

    def request_stop(self, run: str) -> None:
        """Ask whoever works on the run to stop before its next token."""
        with self._transaction() as db:
            db.execute("UPDATE runs SET stop = 1, version = version + 1 WHERE id = ?", (run,))

    def add_seconds(self, run: str, seconds: float) -> None:
        """Add working time to the run's total."""
        with self._transaction() as db:
            db.execute("UPDATE runs SET seconds = seconds + ? WHERE id = ?", (seconds, run))

    def import_runs(self, path: str | Path) -> list[str]:
        """Copy the runs of another store that this one does not hold; returns their ids.

        The other file is only read: it may be bundled, and lie where nobody may write.

        Raises:
            StudioError: there is no such file or it is no run store; nothing is imported.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "runs.sqlite"
            try:
                _copy(path, copy)
            except sqlite3.Error as error:
                raise StudioError(
                    f"The runs of {path} cannot be imported ({error}); check the path, or get the "
                    "file again."
                ) from error
            other = Store(copy)
            try:
                with self._transaction() as db:
                    # looked up in the transaction: another process may be importing the same file
                    mine = {run.id for run in self.runs()}
                    new = [run.id for run in other.runs() if run.id not in mine]
                    for table, key in _TABLES.items():
                        for run in new:
                            for row in other._rows(f"SELECT * FROM {table} WHERE {key} = ?", run):
                                marks = ", ".join("?" * len(row))
                                db.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(row))
                return new
            finally:
                other.close()

    def save_copy(self, path: str | Path) -> None:
        """Write the whole store as one compact, self-contained file that does not exist yet."""
        with self._lock:
            self._db.execute("VACUUM INTO ?", (str(path),))

    # ── the log ───────────────────────────────────────────────────────────────────────────────

    def append(self, run: str, kind: str, payload: dict[str, Any]) -> None:
        """Add an event to the run's log."""
        with self._transaction() as db:
            _append(db, run, kind, payload)

    def events(self, run: str) -> list[Event]:
        """The run's log, in order."""
        rows = self._rows("SELECT * FROM events WHERE run = ? ORDER BY seq", run)
        return [
            Event(row["seq"], row["at"], row["kind"], json.loads(row["payload"])) for row in rows
        ]

    def record_ask(
        self,
        run: str,
        stage: str,
        generation: int,
        asked: Sequence[tuple[int, np.ndarray]],
        kind: str = "ask",
    ) -> None:
        """Record that the optimizer proposed these candidates: (id, genome float64 [d]).

        ``kind`` is 'ask', or 'favorite' for the optimizer's favourite, which it was not asked for.
        """
        with self._transaction() as db:
            _append(db, run, kind, {"stage": stage, "ids": [number for number, _ in asked]})
            db.executemany(
                "INSERT INTO candidates VALUES (?, ?, ?, ?, ?)",
                [
                    (run, number, stage, generation, np.asarray(genome, "<f8").tobytes())
                    for number, genome in asked
                ],
            )

    def record_tell(self, run: str, stage: str, told: Mapping[int, Told]) -> None:
        """Record exactly what the optimizer is told, in the order of the mapping."""
        payload = {"stage": stage, "told": [[number, _exact(v)] for number, v in told.items()]}
        self.append(run, "tell", payload)

    @staticmethod
    def told(event: Event) -> dict[int, Told]:
        """What `record_tell` recorded, to the bit."""
        return {
            number: float.fromhex(value)
            if isinstance(value, str)
            else tuple(map(float.fromhex, value))
            for number, value in event.payload["told"]
        }

    # ── evaluations ───────────────────────────────────────────────────────────────────────────

    def record_evaluation(self, run: str, *evaluations: Evaluation) -> None:
        """Record a model's outcomes on splits, all or none of them; a second one of the same
        replaces the first."""
        rows = [
            (run, e.subject, e.task, e.split, time.time(), e.score, len(e.outcomes), e.tokens,
             e.seconds, e.broken, _packed(e.outcomes))
            for e in evaluations
        ]  # fmt: skip
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            db.execute("UPDATE runs SET version = version + 1 WHERE id = ?", (run,))

    def evaluation(self, run: str, subject: str, task: str, split: str) -> Evaluation | None:
        """A recorded evaluation with its outcomes, or None."""
        rows = self._rows(
            "SELECT * FROM evaluations WHERE run = ? AND subject = ? AND task = ? AND split = ?",
            run,
            subject,
            task,
            split,
        )
        return _evaluation(rows[0]) if rows else None

    def evaluations(self, run: str, split: str | None = None) -> list[Evaluation]:
        """Evaluations of the run's whole models and reported candidates, oldest first.

        Those of the search itself (candidates on dev) are left out: see :meth:`candidates`.
        """
        rows = self._rows(
            "SELECT * FROM evaluations WHERE run = ? AND (? IS NULL OR split = ?) "
            "AND NOT (split = 'dev' AND subject LIKE 'candidate:%') ORDER BY at",
            run,
            split,
            split,
        )
        return [_evaluation(row) for row in rows]

    def answers(self, run: str) -> int:
        """How many answers are recorded, over all models, tasks and splits."""
        rows = self._rows("SELECT total(examples) AS n FROM evaluations WHERE run = ?", run)
        return int(rows[0]["n"])

    def candidates(self, run: str, stage: str | None = None) -> list[Candidate]:
        """All candidates in the order asked, with their dev scores."""
        return self._candidates("c.run = ? AND (? IS NULL OR c.stage = ?)", run, stage, stage)

    def _candidates(self, which: str, *values: Any) -> list[Candidate]:
        """The candidates that a condition picks, with a row per objective until they are one."""
        rows = self._rows(
            "SELECT c.*, e.task, e.score, e.examples, e.tokens, e.seconds, e.broken "
            "FROM candidates c "
            "LEFT JOIN evaluations e ON e.run = c.run AND e.subject = 'candidate:' || c.id "
            f"AND e.split = 'dev' WHERE {which} ORDER BY c.id, e.rowid",
            *values,
        )
        return [_candidate(list(group)) for _, group in groupby(rows, itemgetter("id"))]

    def candidate(self, run: str, number: int) -> Candidate:
        """One candidate; raises StudioError if the run has none of that number."""
        for candidate in self._candidates("c.run = ? AND c.id = ?", run, number):
            return candidate
        raise StudioError(f"Run {run} has no candidate {number}; `python -m studio show {run}`.")

    def ranked(self, run: str, stage: str | None = None) -> list[Candidate]:
        """Scored candidates by their score in the search, best first.

        Of equals the earliest that is not broken; a mean over more tasks comes before one over
        fewer, which is no match for it.
        """
        scored = [c for c in self.candidates(run, stage) if c.score is not None]
        return sorted(scored, key=lambda c: (-len(c.tasks), -c.score, bool(c.broken), c.id))

    def pick(self, run: str, which: str | int = "best") -> Candidate:
        """The candidate of a number, or the one the run reports for 'best'.

        Raises:
            StudioError: ``which`` is neither, or there is no such candidate.
        """
        if which != "best":
            if not re.fullmatch(r"[0-9]{1,9}", str(which)):
                raise StudioError(
                    f"{str(which)[:40]!r} is no candidate; choose 'best' or a candidate's number."
                )
            return self.candidate(run, int(which))
        best = self.best(run)
        if best is None:
            raise StudioError(f"Run {run} has no scored candidate yet; wait for the first.")
        return best

    def best(self, run: str, stage: str | None = None) -> Candidate | None:
        """The candidate a run (or one of its stages) reports; None before the first score.

        Once the finalists were compared on the whole dev split, the winner of that; until then the
        highest score, the earliest of equals. Without a stage, a winner that only became another
        stage's source does not count.
        """
        for event in self.events(run):
            if event.kind != "winner":
                continue
            payload = event.payload
            if payload["stage"] == stage or (stage is None and payload.get("final", True)):
                return self.candidate(run, payload["id"])
        return next(iter(self.ranked(run, stage)), None)


_TABLES = {"runs": "id", "events": "run", "candidates": "run", "evaluations": "run"}


def _disk_is_full(folder: Path) -> bool:
    """SQLite calls a disk without one free page an I/O error."""
    try:
        return shutil.disk_usage(folder).free < 1 << 16
    except OSError:
        return False


def _copy(path: str | Path, copy: Path) -> None:
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


def _append(db: sqlite3.Connection, run: str, kind: str, payload: dict[str, Any]) -> None:
    db.execute(
        "INSERT INTO events SELECT ?, coalesce(max(seq), -1) + 1, ?, ?, ? FROM events "
        "WHERE run = ?",
        (run, time.time(), kind, json.dumps(payload), run),
    )
    db.execute("UPDATE runs SET version = version + 1 WHERE id = ?", (run,))


def _run(row: sqlite3.Row) -> Run:
    return Run(**{**dict(row), "stop": bool(row["stop"])})


def _exact(told: Told) -> str | list[str]:
    """Floats as hex, so that they come back to the bit."""
    return float(told).hex() if isinstance(told, int | float) else [float(v).hex() for v in told]


def _packed(outcomes: Sequence[Outcome]) -> bytes:
    rows = [[o.example, o.score, o.response, o.details, o.tokens] for o in outcomes]
    return zlib.compress(json.dumps(rows, ensure_ascii=False).encode())


def _candidate(rows: list[sqlite3.Row]) -> Candidate:
    """A candidate from its rows, one per objective; a pending one has a single row without."""
    first = rows[0]
    scored = [row for row in rows if row["task"] is not None]
    return Candidate(
        id=first["id"],
        stage=first["stage"],
        generation=first["generation"],
        genome=np.frombuffer(first["genome"], "<f8").astype(np.float64),
        scores={row["task"]: row["score"] for row in scored},
        examples=sum(row["examples"] for row in scored),
        tokens=sum(row["tokens"] for row in scored),
        seconds=sum(row["seconds"] for row in scored),
        broken=next((row["broken"] for row in scored if row["broken"]), ""),
    )


def _evaluation(row: sqlite3.Row) -> Evaluation:
    outcomes = tuple(Outcome(*item) for item in json.loads(zlib.decompress(row["outcomes"])))
    return Evaluation(
        subject=row["subject"],
        task=row["task"],
        split=row["split"],
        score=row["score"],
        tokens=row["tokens"],
        seconds=row["seconds"],
        broken=row["broken"],
        outcomes=outcomes,
    )
