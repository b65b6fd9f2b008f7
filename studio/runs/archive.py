"""Runs in a file of their own, to keep, send and go on with elsewhere; and reading a stranger's.

An archive is a small run store, compact and self-contained. One that comes from somebody else may
hold anything at all, so it is never opened as a store: nothing in it is run (no views, triggers or
functions), every value is looked at before it is believed, and what is unpacked is bounded. Refuses
to know whose runs they become and which models they may name (`studio.api.archives`).
"""

import json
import math
import os
import re
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs.migrations import STEPS
from studio.runs.records import FAILED, FINISHED, QUEUED, RUNNING, STOPPED
from studio.runs.store import NOT_CARRIED, TABLES, Store, insert

#: Bytes of a file that is read at all, and of one evaluation's answers once unpacked.
MAX_BYTES, MAX_ANSWERS = 512 << 20, 32 << 20
#: Bytes of all answers, and the rows of a table.
MAX_UNPACKED, MAX_ROWS = 1 << 30, 200_000
#: Seconds for SQLite to read one.
_PATIENCE = 60
#: The columns that every version of the schema has, without what an import sets anew.
_COLUMNS = {
    "runs": ("id", "name", "recipe", "created", "status", "message", "seconds"),
    "events": ("run", "seq", "at", "kind", "payload"),
    "candidates": ("run", "id", "stage", "generation", "genome"),
    "evaluations": ("run", "subject", "task", "split", "at", "score", "examples", "tokens",
                    "seconds", "broken", "outcomes"),
}  # fmt: skip

#: What no two rows have in common.
_KEYS = {
    "events": ("run", "seq"),
    "candidates": ("run", "id"),
    "evaluations": ("run", "subject", "task", "split"),
}

Row = dict[str, Any]


@dataclass
class Parcel:
    """One run as it is in an archive: checked rows, and its recipe."""

    run: Row
    recipe: Recipe
    events: list[Row] = field(default_factory=list)
    candidates: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)


def write(store: Store, runs: Sequence[str], path: Path) -> None:
    """Write runs to a file that does not exist yet; it appears when it is complete.

    Raises:
        StudioError: there is such a file already, or it cannot be written.
    """
    if path.exists():
        raise StudioError(f"{path} exists already; choose another name for the exported run.")
    try:
        with tempfile.TemporaryDirectory(dir=path.resolve().parent) as folder:
            other = Store(Path(folder) / "rows.sqlite")
            try:
                with store._transaction(), other._transaction() as db:  # one moment of all tables
                    for table, key in TABLES.items():
                        afresh = NOT_CARRIED if table == "runs" else {}
                        for run in runs:
                            for row in store._rows(f"SELECT * FROM {table} WHERE {key} = ?", run):
                                insert(db, table, dict(row) | afresh)
                other.save_copy(Path(folder) / "archive.sqlite")
            finally:
                other.close()
            os.replace(Path(folder) / "archive.sqlite", path)
    except (OSError, sqlite3.Error) as error:
        raise StudioError(
            f"The run cannot be exported to {path} ({error}); choose another place, or make room."
        ) from error


def read(path: Path) -> list[Parcel]:
    """The runs of an archive that anybody may have made, each value checked.

    Raises:
        StudioError: it is no archive of runs, or something in it cannot be; in one sentence.
    """
    try:
        with open(path, "rb") as file:
            size, head = os.fstat(file.fileno()).st_size, file.read(16)
        if head != b"SQLite format 3\0":
            raise _Refused("it is no exported run")
        if size > MAX_BYTES:
            raise _Refused(f"it is larger than {MAX_BYTES >> 20} MB")
        return _parcels(_tables(path))
    except OSError as error:
        raise StudioError(f"{path.name} cannot be read ({error.strerror}).") from error
    except (_Refused, StudioError, sqlite3.Error, MemoryError) as error:
        raise StudioError(
            f"{path.name} cannot be imported: {error}. Export the run again where it was made."
        ) from error


class _Refused(Exception):
    """Why an archive is not believed."""


# ── rows ──────────────────────────────────────────────────────────────────────────────────────


def _tables(path: Path) -> dict[str, list[Row]]:
    """The rows of the four tables, as SQLite gives them."""
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        database.row_factory = sqlite3.Row
        for kind, most in (
            (sqlite3.SQLITE_LIMIT_LENGTH, 64 << 20),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 10_000),
            (sqlite3.SQLITE_LIMIT_COLUMN, 100),
            (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 20),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
            (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        ):
            database.setlimit(kind, most)
        until = time.monotonic() + _PATIENCE
        database.set_progress_handler(lambda: time.monotonic() > until, 100_000)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            database.execute(f"PRAGMA {pragma}")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > len(STEPS):
            raise _Refused("it was written by a newer EvoLLM Studio; update this one")
        kinds = {
            row["name"]: row["type"] if "VIRTUAL" not in str(row["sql"])[:30].upper() else "virtual"
            for row in database.execute("SELECT name, type, sql FROM sqlite_master")
        }
        if any(kinds.get(table) != "table" for table in TABLES):
            raise _Refused("it is no exported run")
        database.set_authorizer(_only_reads)
        return {table: _rows(database, table) for table in TABLES}
    finally:
        database.close()


def _only_reads(action: int, table: str | None, _column, _database, inside: str | None) -> int:
    """Of SQLite's many powers, the plain reading of the four tables."""
    plain = action == sqlite3.SQLITE_SELECT or (
        action == sqlite3.SQLITE_READ and table in TABLES and inside is None
    )
    return sqlite3.SQLITE_OK if plain else sqlite3.SQLITE_DENY


def _rows(database: sqlite3.Connection, table: str) -> list[Row]:
    columns = ", ".join(_COLUMNS[table])
    rows = database.execute(f"SELECT {columns} FROM {table}").fetchmany(MAX_ROWS + 1)
    if len(rows) > MAX_ROWS:
        raise _Refused(f"it has more than {MAX_ROWS} {table}")
    return [dict(row) for row in rows]


# ── what is believed ──────────────────────────────────────────────────────────────────────────


def _parcels(tables: dict[str, list[Row]]) -> list[Parcel]:
    parcels: dict[str, Parcel] = {}
    for row in tables["runs"]:
        parcel = _run(row)
        parcels[parcel.run["id"]] = parcel
    if not 1 <= len(parcels) <= 20 or len(parcels) != len(tables["runs"]):
        raise _Refused("it holds no run, or too many")
    stages = {name: {stage.name for stage in p.recipe.stages()} for name, p in parcels.items()}
    for row in tables["candidates"]:
        run = _of(row, parcels)
        _whole(row, "id", "generation")
        _check(row["stage"] in stages[run], "a candidate belongs to a search that is not its run's")
        _check_genome(row["genome"])
        parcels[run].candidates.append(row)
    numbers = {name: {row["id"] for row in p.candidates} for name, p in parcels.items()}
    for row in tables["events"]:
        run = _of(row, parcels)
        parcels[run].events.append(_event(row, numbers[run], stages[run]))
    room = MAX_UNPACKED
    for row in tables["evaluations"]:
        run = _of(row, parcels)
        row, taken = _evaluation(row, numbers[run], min(room, MAX_ANSWERS))
        room -= taken
        parcels[run].evaluations.append(row)
    for table, key in _KEYS.items():
        keys = {tuple(row[column] for column in key) for row in tables[table]}
        _check(len(keys) == len(tables[table]), f"some of its {table} are there twice")
    return list(parcels.values())


def _check(fine: bool, why: str) -> None:
    if not fine:
        raise _Refused(why)


def _of(row: Row, parcels: dict[str, Parcel]) -> str:
    _check(row["run"] in parcels, "some of it belongs to no run")
    return row["run"]


def _text(value: Any, what: str, most: int) -> str:
    _check(isinstance(value, str) and len(value) <= most, f"{what} is no text of sensible length")
    return value


def _whole(row: Row, *names: str) -> None:
    for name in names:
        value = row[name]
        _check(type(value) is int and 0 <= value < 1 << 53, f"the {name} {value!r:.40} is no count")


def _finite(row: Row, *names: str) -> None:
    for name in names:
        value = row[name]
        _check(_is_number(value), f"the {name} {value!r:.40} is no number")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _run(row: Row) -> Parcel:
    _check(bool(re.fullmatch("[0-9a-f]{8}", _text(row["id"], "a run's id", 8))), "an id is none")
    _check(bool(_text(row["name"], "a run's name", 200)), "a run has no name")
    _text(row["message"], "a run's message", 5_000)
    recipe = Recipe.from_yaml(_text(row["recipe"], "a recipe", 256 << 10), "its recipe")
    _finite(row, "created", "seconds")
    known = (QUEUED, RUNNING, STOPPED, FINISHED, FAILED)
    _check(row["status"] in known, "a run's status is none")
    status = STOPPED if row["status"] in (QUEUED, RUNNING) else row["status"]
    created = min(max(0.0, float(row["created"])), time.time())
    seconds = max(0.0, float(row["seconds"]))
    return Parcel(row | {"status": status, "created": created, "seconds": seconds}, recipe)


def _check_genome(genome: Any) -> None:
    import numpy as np

    fine = isinstance(genome, bytes) and len(genome) % 8 == 0 and 0 < len(genome) <= 1 << 20
    _check(fine and bool(np.isfinite(np.frombuffer(genome, "<f8")).all()), "a genome is none")


def _document(text: Any, what: str) -> Any:
    """JSON, all of whose words can be written down."""
    try:
        value = json.loads(text, parse_constant=lambda name: _check(False, f"{what} has a {name}"))
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError):  # UnicodeError is a ValueError
        raise _Refused(f"{what} cannot be read") from None
    return value


def _event(row: Row, numbers: set[int], stages: set[str]) -> Row:
    _whole(row, "seq")
    _finite(row, "at")
    kind = row["kind"]
    _check(bool(re.fullmatch("[a-z_]{1,32}", _text(kind, "an event", 32))), "an event is none")
    payload = _document(_text(row["payload"], "an event", 32 << 20), f"the event '{kind}'")
    fine = isinstance(payload, dict)
    if fine and kind in _EVENTS:
        try:
            fine = _EVENTS[kind](payload, numbers) and payload.get("stage", next(iter(stages))) in (
                stages
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            fine = False
    _check(fine, f"the event '{kind}' cannot be read")
    return row


def _told(told: Any, numbers: set[int]) -> bool:
    for number, values in told:
        for value in [values] if isinstance(values, str) else values:
            if not math.isfinite(float.fromhex(value)):
                return False
        if number not in numbers:
            return False
    return True


def _size(payload: Row, _numbers: set[int]) -> bool:
    return type(payload["batch_size"]) is int and 0 < payload["batch_size"] < 1 << 20


def _asked(payload: Row, numbers: set[int]) -> bool:
    return "stage" in payload and numbers.issuperset(payload["ids"])


#: What events must hold for whoever reads them: their names, and numbers of candidates there are.
_EVENTS: dict[str, Callable[[Row, set[int]], bool]] = {
    "ask": _asked,
    "start": _asked,
    "favorite": _asked,
    "tell": lambda p, numbers: "stage" in p and _told(p["told"], numbers),
    "winner": lambda p, numbers: (
        "stage" in p and p["id"] in numbers and numbers.issuperset(p.get("front", ()))
    ),
    "front": lambda p, _: (
        "stage" in p and all(_is_number(p[key]) for key in ("generation", "size", "hypervolume"))
    ),
    "origin": lambda p, _: (
        "stage" in p
        and bool(p["genomes"])
        and all(math.isfinite(float.fromhex(gene)) for genes in p["genomes"] for gene in genes)
    ),
    "uniform": _asked,
    "phase": lambda p, _: isinstance(p["name"], str),
    "inputs": lambda p, _: (
        _is_number(p["answers"])
        and all(isinstance(value, str) for value in p["fingerprints"].values())
    ),
    "said": lambda p, _: (
        all(isinstance(p[key], str) for key in ("subject", "task", "label"))
        and all(
            type(place) is int
            and isinstance(text, str)
            and type(tokens) is int
            and runaway in ([], [True])
            for place, text, tokens, *runaway in p["responses"]
        )
    ),
    "batch": _size,
    "halving": _size,
}


def _evaluation(row: Row, numbers: set[int], room: int) -> tuple[Row, int]:
    """An evaluation, and how many bytes its answers are."""
    subject = _text(row["subject"], "a subject", 1_000)
    kind, _, name = subject.partition(":")
    known = kind == "model" and name
    if kind in ("candidate", "export") and re.fullmatch("[0-9]{1,9}", name):
        known = int(name) in numbers
    _check(bool(known), "something is scored that is not in it")
    _text(row["task"], "a task's name", 300)
    _text(row["broken"], "a reason", 5_000)
    _check(row["split"] in ("dev", "selection", "test"), "a split is none")
    _finite(row, "at", "score", "seconds")
    _whole(row, "examples", "tokens")
    packed = row["outcomes"]
    _check(isinstance(packed, bytes), "answers cannot be read")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, room + 1)
    except zlib.error:
        raise _Refused("answers cannot be read") from None
    _check(len(text) <= room and not unpacker.unconsumed_tail, "its answers are too large")
    outcomes = _document(text, "an answer")
    fine = isinstance(outcomes, list) and len(outcomes) == row["examples"]
    _check(fine and all(map(_is_outcome, outcomes)), "an answer cannot be read")
    return row, len(text)


def _is_outcome(item: Any) -> bool:
    if not (isinstance(item, list) and len(item) >= 5):
        return False
    example, score, response, details, tokens, *runaway = item
    return (
        isinstance(example, str)
        and _is_number(score)
        and isinstance(response, str)
        and isinstance(details, dict)
        and type(tokens) is int
        and tokens >= 0
        and runaway in ([], [True])
    )
