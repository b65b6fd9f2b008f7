"""Runs in a file of their own: whole, resumable, and believed only after a look at every value."""

import csv
import json
import sqlite3
import zlib

import numpy as np
import pytest

from studio import api
from studio.errors import StudioError
from studio.evolve.spaces import rebuild_space
from studio.recipe import Recipe
from studio.runs import Store
from studio.runs import archive as module
from tests.runs.test_store import everything
from tests.trajectory import recorded, trajectory

ANNA = "a" * 32


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where runs are made."""
    store = Store(tmp_path_factory.mktemp("home") / "runs.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="module")
def finished(tiny_recipe, home):
    return api.evolve(tiny_recipe(budget={"candidates": 6}), home)


@pytest.fixture(scope="module")
def exported(finished, home, tmp_path_factory):
    """The file of a finished run. Read-only."""
    home.share(finished)
    return api.archive(finished, tmp_path_factory.mktemp("files") / "run.sqlite", home)


def believed(store, run):
    """What an import keeps of a record."""
    record, *rest = everything(store, run)
    return (record.name, record.recipe, record.created, record.status, record.seconds), rest


# ── there and back ────────────────────────────────────────────────────────────────────────────


def test_a_run_comes_back_whole(home, finished, exported, store):
    assert api.unarchive(exported, store, ANNA, [].append) == [finished]
    assert believed(store, finished) == believed(home, finished)
    record = store.run(finished)
    assert (record.owner, record.share) == (ANNA, None)
    assert api.report(finished, store) == api.report(finished, home)
    with pytest.raises(StudioError, match="exists already"):
        api.archive(finished, exported, home)


@pytest.fixture(autouse=True)
def local_models_are_allowed(monkeypatch):
    """The tiny family's folders are named by path; who may name which is tested below."""
    monkeypatch.setattr(api.archives, "_check_names", lambda *_: None)


def test_imported_twice_it_is_two_runs(finished, exported, store):
    first, second = (api.unarchive(exported, store)[0] for _ in range(2))
    assert first == finished != second
    assert believed(store, first) == believed(store, second)


def test_an_unfinished_run_goes_on_where_it_was(tiny_recipe, home, store, tmp_path):
    recipe = tiny_recipe(budget={"candidates": 8})
    whole = api.evolve(recipe, home)
    run = api.create(recipe, home)
    api.resume(run, home, lambda p: p.done >= 5 and api.pause(run, home))
    for status in ("running", "queued"):  # as if it had been exported while it was at work
        home.set_status(run, status)
        file = api.archive(run, tmp_path / f"{status}.sqlite", home)
    (here,) = api.unarchive(file, store)
    assert here == run and api.progress(run, store).state == "stopped" and store.queue() == []
    before = recorded(store, run)
    assert len(before) >= 5
    api.resume(run, store)
    assert before.items() <= recorded(store, run).items()
    assert trajectory(store, run) == trajectory(home, whole)
    home.set_status(run, "stopped")


def test_what_a_run_is_made_of_comes_with_it(tiny_recipe, home, finished, store, tmp_path):
    document = tiny_recipe(budget={"candidates": 4}).model_dump(mode="json")
    document["sources"][0] = f"{finished}:best"
    run = api.evolve(Recipe.from_dict(document), home)
    file = api.archive(run, tmp_path / "second.sqlite", home)
    assert api.unarchive(file, store) == [run, finished]
    assert (tmp_path / "out").mkdir() is None
    assert api.export(run, tmp_path / "out" / "model", store=store).is_dir()
    (again,) = api.unarchive(file, store)  # what it needs is here
    assert again != run and len(store.runs()) == 3
    with store._transaction() as db:
        db.execute("UPDATE runs SET recipe = recipe || '# another' WHERE id = ?", (finished,))
    with pytest.raises(StudioError, match=f"Another run {finished} is here"):
        api.unarchive(file, store)
    assert len(store.runs()) == 3


def test_runs_made_of_each_other_are_refused(store, tmp_path):
    other = Store(tmp_path / "other.sqlite")
    runs = [other.create_run("one", ""), other.create_run("two", "")]
    for run, source in (runs, runs[::-1]):
        recipe = {"base": "a", "sources": [f"{source}:0"], "objectives": [{"task": "jmath"}]}
        with other._transaction() as db:
            text = Recipe.from_dict(recipe).to_yaml()
            db.execute("UPDATE runs SET recipe = ? WHERE id = ?", (text, run))
    module.write(other, runs, tmp_path / "both.sqlite")
    module.write(other, runs[:1], tmp_path / "one.sqlite")
    with pytest.raises(StudioError, match="made of itself"):
        api.unarchive(tmp_path / "both.sqlite", store)
    assert store.runs() == []
    other.delete_run(runs[0])
    with pytest.raises(StudioError, match="made of itself"):  # by way of what is here
        api.unarchive(tmp_path / "one.sqlite", other)
    other.close()


def test_who_imports_may_be_refused_a_model(exported, store):
    def allow(recipe):
        raise StudioError(f"Not {len(recipe.sources)} sources.")

    with pytest.raises(StudioError, match="Not 2 sources"):
        api.unarchive(exported, store, ANNA, allow)
    assert store.runs() == []


def test_an_owner_names_no_files_of_this_machine(store, tmp_path, monkeypatch, tiny_recipe):
    monkeypatch.undo()
    other = Store(tmp_path / "other.sqlite")
    mine = tmp_path / "uploads" / ANNA / "mine.csv"
    plain = {"base": "bonsai-base", "sources": ["bonsai-ja"], "objectives": [{"task": "jmath"}]}
    table = [{"task": "csv", "options": {"path": str(mine)}}]
    theirs = store.create_run("another's", "", "b" * 32)
    bad = [
        {"sources": [str(tmp_path)]},
        {"base": "~/model"},
        {"sources": ["./model"]},
        {"sources": ["bonsai-ja", f"{theirs}:1"]},
        {"objectives": [{"task": "csv", "options": {"path": "/etc/passwd"}}]},
        {"report": [{"task": "csv", "options": {"path": f"{mine.parent}/../x.csv"}}]},
    ]
    for number, changes in enumerate([*bad, {}, {"report": table}]):
        run = other.create_run("run", Recipe.from_dict(plain | changes).to_yaml())
        file = tmp_path / f"{number}.sqlite"
        module.write(other, [run], file)
        if changes in bad:
            with pytest.raises(StudioError, match="not here|another machine"):
                api.unarchive(file, store, ANNA)
        else:
            assert api.unarchive(file, store, ANNA) == [run]
        assert api.unarchive(file, store)  # whoever has the machine may name its files
    other.close()


# ── strangers ─────────────────────────────────────────────────────────────────────────────────


def bomb() -> bytes:
    """Many megabytes of an answer, in some thousand bytes."""
    return zlib.compress(b'[["x", 1, "' + b" " * (module.MAX_ANSWERS + 1) + b'", {}, 1]]')


def nested() -> bytes:
    return zlib.compress(b"[" * 100_000 + b"]" * 100_000)


VIEW = """
    ALTER TABLE {0} RENAME TO kept;
    CREATE VIEW {0} AS SELECT {1} FROM kept;
"""
HOSTILE = {
    "a view for a table": VIEW.format("events", "run, seq, at, kind, payload"),
    "a view without end": """
        DROP TABLE events; CREATE VIEW events AS WITH RECURSIVE n(i) AS
        (SELECT 0 UNION ALL SELECT i + 1 FROM n)
        SELECT (SELECT id FROM runs) AS run, i AS seq, 0 AS at, 'x' AS kind, '{}' AS payload FROM n
    """,
    "a computed column": """
        CREATE TABLE more (run, seq, at, kind, payload AS (hex(zeroblob(40000000))));
        INSERT INTO more SELECT run, seq, at, kind FROM events LIMIT 1; DROP TABLE events;
        ALTER TABLE more RENAME TO events
    """,
    "a virtual table": """
        CREATE VIRTUAL TABLE more USING fts5(run, seq, at, kind, payload);
        DROP TABLE events; ALTER TABLE more RENAME TO events
    """,
    "no events": "DROP TABLE events",
    "no runs": "PRAGMA foreign_keys = OFF; DELETE FROM runs",
    "columns of others": "ALTER TABLE runs RENAME COLUMN recipe TO receipt",
    "a newer store": "PRAGMA user_version = 99",
    "an id that is markup": "UPDATE runs SET id = '<script>'",
    "an id of another kind": "UPDATE runs SET id = x'00'",
    "text that is none": "UPDATE runs SET name = CAST(x'ff00ff' AS TEXT)",
    "a name that is a number": "UPDATE runs SET name = x'01'",
    "a long name": "UPDATE runs SET name = hex(zeroblob(200))",
    "a status of its own": "UPDATE runs SET status = 'sold'",
    "a time that is none": "UPDATE runs SET created = 'yesterday'",
    "endless work": "UPDATE runs SET seconds = 9e999",
    "a recipe that is none": "UPDATE runs SET recipe = '!!python/object/apply:os.system [id]'",
    "a recipe of another kind": "UPDATE runs SET recipe = 'sources: 3'",
    "an event that is no document": "UPDATE events SET payload = '[' WHERE seq = 0",
    "an event that is no object": "UPDATE events SET payload = '[]' WHERE seq = 0",
    "a winner that is nobody": """UPDATE events SET payload = '{"stage": "cma", "id": 999}'
        WHERE kind = 'winner'""",
    "a winner of no search": """UPDATE events SET payload = '{"stage": "x", "id": 0}'
        WHERE kind = 'winner'""",
    "a tell that is no number": """UPDATE events SET
        payload = '{"stage": "cma", "told": [[0, "nan"]]}' WHERE kind = 'tell'""",
    "a tell of another form": """UPDATE events SET payload = '{"stage": "cma", "told": 3}'
        WHERE kind = 'tell'""",
    "an ask for nobody": """UPDATE events SET payload = '{"stage": "cma", "ids": [[]]}'
        WHERE kind = 'ask'""",
    "no batch": "INSERT INTO events SELECT id, 900, 0, 'batch', '{\"batch_size\": 0}' FROM runs",
    "half a word": 'UPDATE events SET payload = \'{"x": "\\ud800"}\' WHERE seq = 0',
    "a search of another recipe": "UPDATE candidates SET stage = 'elsewhere'",
    "a genome of seven bytes": "UPDATE candidates SET genome = x'00000000000000'",
    "a genome that is not finite": "UPDATE candidates SET genome = x'000000000000f87f'",
    "a genome that is text": "UPDATE candidates SET genome = 'abcdefgh'",
    "an evaluation of nobody": """UPDATE evaluations SET subject = 'candidate:999'
        WHERE split = 'dev' AND subject = 'candidate:0'""",
    "a path for a subject": """UPDATE evaluations SET subject = '../../etc/passwd'
        WHERE split = 'dev' AND subject = 'candidate:0'""",
    "everything twice": """CREATE TABLE more AS SELECT * FROM evaluations;
        INSERT INTO more SELECT * FROM evaluations; DROP TABLE evaluations;
        ALTER TABLE more RENAME TO evaluations""",
    "a score of words": "UPDATE evaluations SET score = 'good'",
    "fewer answers than it says": "UPDATE evaluations SET examples = examples + 1",
    "answers that are none": "UPDATE evaluations SET outcomes = x'00ff'",
    "answers that are text": "UPDATE evaluations SET outcomes = 'yes'",
    "a bomb": bomb,
    "a nest": nested,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_not_believed_is_a_sentence_and_changes_nothing(exported, store, tmp_path, case):
    file = tmp_path / "gift.sqlite"
    file.write_bytes(exported.read_bytes())
    change = HOSTILE[case]
    with sqlite3.connect(file) as db:
        if callable(change):
            db.execute("UPDATE evaluations SET examples = 1, outcomes = ?", (change(),))
        else:
            db.executescript(change)
    db.close()
    with pytest.raises(StudioError, match="gift.sqlite cannot be imported: ") as said:
        api.unarchive(file, store)
    assert "\n" not in str(said.value) and str(tmp_path) not in str(said.value)
    assert len(str(said.value)) < 500 and store.runs() == []


def test_what_is_no_database_is_a_sentence(store, tmp_path, exported, monkeypatch):
    contents = {
        "words": b"SQL" * 999,
        "nothing": b"",
        "a head": b"SQLite format 3\0" + b"\xff" * 999,
    }
    contents["half"] = exported.read_bytes()[:20_000]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StudioError, match=f"{name} cannot be imported"):
            api.unarchive(tmp_path / name, store)
    for name in ("absent", "."):
        with pytest.raises(StudioError, match="cannot be read"):
            api.unarchive(tmp_path / name, store)
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 10)
    with pytest.raises(StudioError, match="larger than"):
        api.unarchive(exported, store)
    assert store.runs() == []


def test_triggers_do_nothing_and_states_are_made_anew(exported, finished, store, tmp_path):
    file = tmp_path / "gift.sqlite"
    file.write_bytes(exported.read_bytes())
    with sqlite3.connect(file) as db:
        db.executescript(
            f"""
            UPDATE runs SET status = 'running', owner = '{ANNA}', share = 'known', stop = 1,
              version = -7, queued = 1, expected = 1, created = 9e15;
            CREATE TRIGGER evil AFTER INSERT ON runs BEGIN DELETE FROM events; END;
            CREATE TABLE more (x);
            """
        )
    db.close()
    assert api.unarchive(file, store) == [finished]
    record = store.run(finished)
    assert (record.status, record.owner, record.share) == ("stopped", "", None)
    assert (record.stop, record.version, record.queued) == (False, 0, None)
    assert record.created < 9e10 and store.shared("known") is None
    assert len(store.events(finished)) > 5
    names = {row["name"] for row in store._rows("SELECT name FROM sqlite_master")}
    assert not names & {"evil", "more"}


# ── a spreadsheet ─────────────────────────────────────────────────────────────────────────────


def test_all_candidates_are_a_table(home, finished):
    head, *rows = csv.reader(api.candidates_csv(finished, home))
    candidates = home.candidates(finished)
    assert head[:8] == ["id", "stage", "generation", "score", "csv", "tokens", "seconds", "broken"]
    assert head[8:] == rebuild_space(home, finished, "cma").names and len(head) == 12
    assert len(rows) == len(candidates)
    for row, c in zip(rows, candidates, strict=True):
        assert [int(row[0]), row[1], float(row[3])] == [c.id, c.stage, c.score]
        assert [float(value) for value in row[8:]] == c.genome.tolist()


def test_no_cell_is_a_formula_and_pending_ones_are_empty(store):
    recipe = {"base": "gone", "sources": ["gone too"], "objectives": [{"task": "jmath"}]}
    run = store.create_run("run", Recipe.from_dict(recipe).to_yaml())
    store.record_ask(run, "cma", 0, [(0, np.array([-1.5, 2.0])), (1, np.zeros(2))])
    words = '=HYPERLINK("http://x","y")'
    with store._transaction() as db:
        db.execute(
            "INSERT INTO evaluations "
            "VALUES (?, 'candidate:0', 'jmath', 'dev', 0, 0.5, 0, 0, 0, ?, ?)",
            (run, words, zlib.compress(json.dumps([]).encode())),
        )
    head, first, second = csv.reader(api.candidates_csv(run, store))
    assert head[-2:] == ["g0", "g1"]
    assert first[7:] == [f"'{words}", "-1.5", "2.0"]
    assert second[3:5] == ["", ""]
