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
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from studio.errors import StudioError
from studio.runs.database import Database, copy_database
from studio.runs.lock import try_hold
from studio.runs.records import QUEUED, Candidate, Evaluation, Event, Outcome, Run, rank

#: What an optimizer is told of a candidate: a score, or one per objective.
Told = float | Sequence[float]


class Store(Database):
    """The runs of one workspace. Safe to use from several threads and processes at once.

    Args:
        path: the SQLite file, created if absent; by default ``runs.sqlite`` of the workspace.

    Raises:
        StudioError: the file cannot be opened, is no run store, or is from a newer Studio.
    """

    # ── runs ──────────────────────────────────────────────────────────────────────────────────

    def create_run(self, name: str, recipe: str, owner: str = "") -> str:
        """Record a new run of a recipe (YAML); returns its id (8 hex digits).

        No worker takes it before it is put in the queue: see :meth:`enqueue`.
        """
        run = secrets.token_hex(4)
        with self._transaction() as db:
            db.execute(
                "INSERT INTO runs (id, name, recipe, created, status, owner) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (run, name, recipe, time.time(), QUEUED, owner),
            )
        return run

    def runs(self, owner: str | None = None) -> list[Run]:
        """All runs, or those of one owner, newest first."""
        rows = self._rows(
            "SELECT * FROM runs WHERE ? IS NULL OR owner = ? ORDER BY created DESC, id",
            owner,
            owner,
        )
        return [_run(row) for row in rows]

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

    def delete_idle(self, run: str) -> bool:
        """Forget a run unless somebody works on it, who is then asked to stop; whether it went."""
        lock = try_hold(self, run)
        if lock is None:
            self.request_stop(run)
            return False
        try:
            self.delete_run(run)
        finally:
            lock.release()
        # not before: some systems refuse to delete what is open
        Path(lock.lock_file).unlink(missing_ok=True)
        return True

    def forget(self, owner: str) -> list[str]:
        """Delete all runs of an owner; '' is none.

        Returns:
            the ids of those that are being worked on, which were asked to stop.
        """
        runs = self.runs(owner) if owner else []
        return [run.id for run in runs if not self.delete_idle(run.id)]

    def share(self, run: str) -> str:
        """The token of the run's read-only link, made when it is first asked for."""
        with self._transaction() as db:
            db.execute(
                "UPDATE runs SET share = ?, version = version + 1 WHERE id = ? AND share IS NULL",
                (secrets.token_urlsafe(16), run),
            )
        return self.run(run).share

    def shared(self, token: str) -> Run | None:
        """The run that a read-only link shows, or None."""
        rows = self._rows("SELECT * FROM runs WHERE share = ?", token)
        return _run(rows[0]) if rows else None

    def enqueue(self, run: str, expected: float | None = None) -> None:
        """Put the run at the end of the queue; an earlier wish to stop is forgotten.

        Args:
            expected: seconds that it will take, for those who wait behind it.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE runs SET status = ?, stop = 0, message = '', queued = ?, "
                "expected = coalesce(?, expected), version = version + 1 WHERE id = ?",
                (QUEUED, time.time(), expected, run),
            )

    def queue(self) -> list[Run]:
        """The runs that wait for the workspace's worker, the next one first."""
        rows = self._rows(
            "SELECT * FROM runs WHERE status = ? AND NOT stop AND queued IS NOT NULL "
            "ORDER BY queued, created, id",
            QUEUED,
        )
        return [_run(row) for row in rows]

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

    def set_place(self, run: str, place: str) -> None:
        """Note where the run is worked on from now on: JSON, or '' for wherever one looks at it."""
        with self._transaction() as db:
            db.execute("DELETE FROM places WHERE run = ?", (run,))
            if place:
                db.execute("INSERT INTO places VALUES (?, ?)", (run, place))

    def place(self, run: str) -> str:
        """Where the run is worked on: JSON, or ''."""
        rows = self._rows("SELECT place FROM places WHERE run = ?", run)
        return rows[0]["place"] if rows else ""

    def import_runs(self, path: str | Path) -> list[str]:
        """Copy the runs of another store that this one does not hold; returns their ids.

        The other file is only read: it may be bundled, and lie where nobody may write. Whose the
        runs were there, and their links, stay there.

        Raises:
            StudioError: there is no such file or it is no run store; nothing is imported.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "runs.sqlite"
            try:
                copy_database(path, copy)
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
                    for table, key in TABLES.items():
                        afresh = NOT_CARRIED if table == "runs" else {}
                        for run in new:
                            for row in other._rows(f"SELECT * FROM {table} WHERE {key} = ?", run):
                                insert(db, table, dict(row) | afresh)
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

    def events(self, run: str, kind: str | None = None) -> list[Event]:
        """The run's log, in order; of one kind of event, or of all."""
        rows = self._rows(
            "SELECT * FROM events WHERE run = ? AND (? IS NULL OR kind = ?) ORDER BY seq",
            run,
            kind,
            kind,
        )
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
             e.seconds, e.broken, packed(e.outcomes))
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

        Where some were asked more than others, by what their scores are at least. Of equals the
        earliest that is not broken; a mean over more tasks comes before one over fewer, which is no
        match for it.
        """
        scored = [c for c in self.candidates(run, stage) if c.score is not None]
        return sorted(scored, key=rank)

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


#: The tables, and the column of each that names the run.
TABLES = {"runs": "id", "events": "run", "candidates": "run", "evaluations": "run"}
#: What a run is given afresh in every store that it comes to.
NOT_CARRIED = {"owner": "", "share": None, "queued": None, "expected": None}


def insert(db: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Insert a row by the names of its columns, which another store may have in another order."""
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


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


def packed(outcomes: Sequence[Outcome]) -> bytes:
    """Outcomes as they are recorded: zlib of JSON."""
    rows = [
        # that an answer was cut is said where it was
        [o.example, o.score, o.response, o.details, o.tokens, *([True] if o.runaway else [])]
        for o in outcomes
    ]
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
