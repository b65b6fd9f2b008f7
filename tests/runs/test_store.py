"""The run store: what was recorded stays, whoever writes beside it and whatever happens to it."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

from studio.errors import StudioError
from studio.runs import Evaluation, Outcome, Store, database
from studio.runs import migrations as schema
from studio.runs import store as module
from studio.runs.records import split_reference


def evaluation(subject="candidate:0", score=0.5, split="dev", task="csv", outcomes=3):
    answers = tuple(
        Outcome(
            f"line-{n}", float(n % 2), f"答え\n{n}\u2028\0\ufffd", {"parsed": None, "p": 0.1}, 7
        )
        for n in range(outcomes)
    )
    return Evaluation(subject, task, split, score, 7 * outcomes, 1.5, "", answers)


def fill(store, name="demo", candidates=4):
    run = store.create_run(name, "recipe: ✓\n")
    asked = [(n, np.array([n / 7, -0.0, 5e-324, 1e308])) for n in range(candidates)]
    store.record_ask(run, "cma", 0, asked)
    for number in range(candidates):
        store.record_evaluation(run, evaluation(f"candidate:{number}", number / candidates))
    store.record_tell(run, "cma", {n: n / candidates for n in range(candidates)})
    return run


def everything(store, run):
    record = store.run(run)
    return (record, store.events(run), [(c.id, c.genome.tobytes(), c.score) for c in
            store.candidates(run)], store.evaluations(run))  # fmt: skip


# ── what goes in comes out ────────────────────────────────────────────────────────────────────


def test_genomes_scores_and_answers_come_back_to_the_bit(store):
    run = fill(store)
    for number, candidate in enumerate(store.candidates(run)):
        assert candidate.genome.tobytes() == np.array([number / 7, -0.0, 5e-324, 1e308]).tobytes()
        assert (candidate.id, candidate.stage, candidate.generation) == (number, "cma", 0)
        assert candidate.score == number / 4 and candidate.tokens == 21
    assert store.evaluation(run, "candidate:2", "csv", "dev") == evaluation("candidate:2", 0.5)
    assert store.evaluation(run, "candidate:2", "csv", "test") is None
    kinds = [(event.seq, event.kind) for event in store.events(run)]
    assert kinds == [(0, "ask"), (1, "tell")]


def test_told_values_are_exact_and_in_order(store):
    run = store.create_run("demo", "")
    values = {3: 0.1 + 0.2, 1: 1 / 3, 2: -1e-300}
    store.record_tell(run, "cma", values)
    (event,) = store.events(run)
    assert [(n, float.fromhex(v)) for n, v in event.payload["told"]] == list(values.items())


def test_pending_candidates_have_no_score(store):
    run = store.create_run("demo", "")
    store.record_ask(run, "cma", 0, [(0, np.zeros(2)), (1, np.ones(2))])
    assert [c.score for c in store.candidates(run)] == [None, None]
    assert store.best(run) is None
    store.record_evaluation(run, evaluation("candidate:1", 0.0))
    assert store.best(run).id == 1
    with pytest.raises(StudioError, match="no candidate 7"):
        store.candidate(run, 7)


def test_best_is_the_earliest_of_equals_then_the_declared_winner(store):
    run = store.create_run("demo", "")
    for stage, first in (("cma", 0), ("random", 3)):
        store.record_ask(run, stage, 0, [(first + n, np.zeros(1)) for n in range(3)])
    for number, score in enumerate((0.2, 0.6, 0.6, 0.1, 0.5, 0.9)):
        store.record_evaluation(run, evaluation(f"candidate:{number}", score))
    assert store.best(run, "cma").id == 1
    assert store.best(run, "random").id == 5
    store.append(run, "winner", {"stage": "cma", "id": 2})
    assert store.best(run).id == store.best(run, "cma").id == 2
    assert store.best(run, "random").id == 5


def test_scores_on_other_splits_are_not_the_searchs(store):
    run = fill(store, candidates=2)
    store.record_evaluation(run, evaluation("candidate:0", 0.99, split="selection"))
    store.record_evaluation(run, evaluation("candidate:0", 0.98, split="test"))
    store.record_evaluation(run, evaluation("model:base", 0.3, split="test"))
    assert [c.score for c in store.candidates(run)] == [0.0, 0.5]
    assert [e.subject for e in store.evaluations(run, "test")] == ["candidate:0", "model:base"]
    assert len(store.evaluations(run)) == 3


def test_every_write_is_seen_by_those_who_poll(store):
    run = store.create_run("demo", "")
    versions = [store.run(run).version]
    for write in (
        lambda: store.append(run, "phase", {"name": "cma"}),
        lambda: store.record_ask(run, "cma", 0, [(0, np.zeros(1))]),
        lambda: store.record_evaluation(run, evaluation()),
        lambda: store.set_status(run, "running"),
        lambda: store.request_stop(run),
    ):
        write()
        versions.append(store.run(run).version)
    assert versions == sorted(set(versions))


def test_a_stop_is_remembered_until_the_run_starts_again(store):
    run = store.create_run("demo", "")
    store.set_status(run, "running")
    store.request_stop(run)
    assert store.run(run).stop
    store.set_status(run, "stopped")
    assert store.run(run).stop and store.run(run).status == "stopped"
    store.set_status(run, "running")
    assert not store.run(run).stop


# ── naming runs ───────────────────────────────────────────────────────────────────────────────


def test_runs_are_named_by_any_unambiguous_beginning(store, monkeypatch):
    ids = iter(["ab12cd34", "ab99cd34", "ff00ff00"])
    monkeypatch.setattr(module.secrets, "token_hex", lambda _: next(ids))
    times = iter((1.0, 2.0, 3.0))
    with monkeypatch.context() as patch:
        patch.setattr(module.time, "time", lambda: next(times))
        for name in "abc":
            store.create_run(name, "")
    assert [run.name for run in store.runs()] == ["c", "b", "a"]
    assert store.run("last").id == "ff00ff00"
    assert store.run("ab1").id == "ab12cd34"
    assert store.run("ff00ff00").name == "c"
    with pytest.raises(StudioError, match="'ab' begins the id of 2 runs"):
        store.run("ab")
    for nonsense in ("", "zz", "%", "ab%", "_b12cd34", "' OR 1=1 --", "ab12cd345"):
        with pytest.raises(StudioError, match="There is no run"):
            store.run(nonsense)


def test_an_empty_store_has_no_last_run(store):
    assert store.runs() == []
    with pytest.raises(StudioError, match="no run 'last'"):
        store.run("last")


def test_a_deleted_run_takes_everything_with_it(store):
    kept, gone = fill(store, "kept"), fill(store, "gone")
    before = everything(store, kept)
    store.delete_run(gone)
    assert everything(store, kept) == before
    for table in ("events", "candidates", "evaluations"):
        assert not store._rows(f"SELECT * FROM {table} WHERE run = ?", gone)


# ── versions ──────────────────────────────────────────────────────────────────────────────────


def test_an_older_workspace_is_brought_up_to_date(tmp_path, monkeypatch):
    old = Store(tmp_path / "runs.sqlite")
    run = fill(old)
    before = old.events(run)
    old.close()
    later = [*schema.STEPS, "CREATE TABLE notes (run TEXT); INSERT INTO notes SELECT id FROM runs"]
    monkeypatch.setattr(database, "STEPS", later)
    new = Store(tmp_path / "runs.sqlite")
    assert new._rows("PRAGMA user_version")[0][0] == len(later)
    assert [row["run"] for row in new._rows("SELECT * FROM notes")] == [run]
    assert new.events(run) == before
    new.close()
    Store(tmp_path / "runs.sqlite").close()  # and once only
    with sqlite3.connect(tmp_path / "runs.sqlite") as db:
        assert db.execute("SELECT count(*) FROM notes").fetchone()[0] == 1


def test_a_migration_that_fails_leaves_the_old_version(tmp_path, monkeypatch):
    old = Store(tmp_path / "runs.sqlite")
    run = fill(old)
    old.close()
    broken = [*schema.STEPS, "CREATE TABLE notes (run TEXT); INSERT INTO nowhere VALUES (1)"]
    with monkeypatch.context() as patch:
        patch.setattr(database, "STEPS", broken)
        with pytest.raises(StudioError):
            Store(tmp_path / "runs.sqlite")
    again = Store(tmp_path / "runs.sqlite")
    assert again._rows("PRAGMA user_version")[0][0] == len(schema.STEPS)
    assert not again._rows("SELECT * FROM sqlite_master WHERE name = 'notes'")
    assert len(again.candidates(run)) == 4
    again.close()


def test_a_newer_workspace_is_refused_untouched(tmp_path):
    path = tmp_path / "runs.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    with pytest.raises(StudioError, match="newer EvoLLM Studio; update"):
        Store(path)


# ── import ────────────────────────────────────────────────────────────────────────────────────


def test_runs_of_another_store_are_imported_once_and_it_is_left_alone(store, tmp_path):
    other = Store(tmp_path / "other.sqlite")
    runs = [fill(other, "one"), fill(other, "two")]
    before = [everything(other, run) for run in runs]
    other.save_copy(tmp_path / "sample.sqlite")
    other.close()
    sample = tmp_path / "sample.sqlite"
    content, folder = sample.read_bytes(), sorted(os.listdir(tmp_path))
    mine = fill(store, "mine")
    assert sorted(store.import_runs(sample)) == sorted(runs)
    assert store.import_runs(sample) == []
    assert [everything(store, run) for run in runs] == before
    assert {run.id for run in store.runs()} == {mine, *runs}
    assert sample.read_bytes() == content and sorted(os.listdir(tmp_path)) == folder


def test_a_store_in_use_is_imported_with_its_latest_writes(store, tmp_path):
    other = Store(tmp_path / "other.sqlite")  # stays open: the writes are still in its WAL
    run = fill(other)
    assert store.import_runs(tmp_path / "other.sqlite") == [run]
    assert everything(store, run) == everything(other, run)
    other.close()


def test_what_is_no_store_is_not_imported(store, tmp_path):
    (tmp_path / "junk.sqlite").write_bytes(b"not a database at all" * 99)
    for name in ("junk.sqlite", "absent.sqlite"):
        with pytest.raises(StudioError, match=name):
            store.import_runs(tmp_path / name)
    assert store.runs() == [] and not (tmp_path / "absent.sqlite").exists()


# ── several at once ───────────────────────────────────────────────────────────────────────────


def test_threads_share_a_store(store):
    run = store.create_run("demo", "")
    failures = []

    def write(worker):
        try:
            for n in range(25):
                store.append(run, "phase", {"worker": worker, "n": n})
                assert store.events(run)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    events = store.events(run)
    assert [event.seq for event in events] == list(range(100))
    for worker in range(4):
        own = [e.payload["n"] for e in events if e.payload["worker"] == worker]
        assert own == list(range(25))


WRITER = """
import sys
from studio.runs import Store
path, run, worker, sample = sys.argv[1:]
store = Store(path)
store.import_runs(sample)
for n in range(40):
    store.append(run, "phase", {"worker": worker, "n": n})
"""


def test_processes_share_a_file(tmp_path):
    """Three processes open a store of their own, import the same runs and write to one log."""
    sample = Store(tmp_path / "sample.sqlite")
    imported = fill(sample)
    sample.close()
    path = tmp_path / "runs.sqlite"
    store = Store(path)
    run = store.create_run("demo", "")
    arguments = [sys.executable, "-c", WRITER, str(path), run]
    writers = [
        subprocess.Popen([*arguments, str(n), str(tmp_path / "sample.sqlite")], stderr=-1)
        for n in range(3)
    ]
    for writer in writers:
        _, said = writer.communicate(timeout=60)
        assert writer.returncode == 0, said.decode()
    assert [event.seq for event in store.events(run)] == list(range(120))
    assert len(store.candidates(imported)) == 4
    store.close()


def test_many_create_the_same_file_at_once(tmp_path):
    failures = []
    gate = threading.Barrier(8)

    def create():
        gate.wait()
        try:
            Store(tmp_path / "runs.sqlite").close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ── accidents ─────────────────────────────────────────────────────────────────────────────────

KILLED = """
import os, sys
import numpy as np
from studio.runs import Store, store as module
store = Store(sys.argv[1])
append = module._append
def halfway(*arguments):
    append(*arguments)
    os.kill(os.getpid(), 9)
module._append = halfway
store.record_ask(sys.argv[2], "cma", 1, [(n, np.zeros(3)) for n in range(10, 20)])
"""


def test_a_process_killed_within_a_transaction_leaves_nothing_of_it(tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    run = fill(store)
    before = everything(store, run)
    killed = subprocess.run([sys.executable, "-c", KILLED, store.path, run])
    assert killed.returncode == -9
    assert everything(store, run) == before
    store.record_ask(run, "cma", 1, [(10, np.zeros(3))])  # nor is anything locked
    assert len(store.candidates(run)) == 5
    store.close()


def test_a_failing_write_leaves_nothing_half_written(store):
    run = fill(store)
    before = everything(store, run)
    with pytest.raises(sqlite3.IntegrityError):  # candidate 3 exists: the ask event goes too
        store.record_ask(run, "cma", 1, [(4, np.zeros(1)), (3, np.zeros(1))])
    assert everything(store, run) == before


def test_a_full_disk_is_a_sentence_and_loses_nothing(store):
    run = fill(store)
    pages = store._rows("PRAGMA page_count")[0][0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 3}")
    written = 0
    with pytest.raises(StudioError, match="free some disk space.*recorded is safe"):
        for number in range(1000):
            store.record_ask(run, "random", number, [(100 + number, np.random.rand(200))])
            written += 1
    assert written > 0
    assert len(store.candidates(run)) == 4 + written
    assert len(store.events(run)) == 2 + written
    store._db.execute("PRAGMA max_page_count = 100000")
    store.record_ask(run, "random", written, [(100 + written, np.zeros(200))])
    assert store._rows("PRAGMA integrity_check")[0][0] == "ok"


@pytest.mark.parametrize("content", [b"junk" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "runs.sqlite"
    path.write_bytes(content)
    with pytest.raises(StudioError, match="runs.sqlite cannot be opened"):
        Store(path)
    assert path.read_bytes() == content


def test_a_damaged_page_is_a_sentence_for_readers_and_writers(tmp_path):
    path = tmp_path / "runs.sqlite"
    store = Store(path)
    run = fill(store, candidates=200)
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    store = Store(path)
    with pytest.raises(StudioError, match="cannot be read.*restore it from a copy"):
        store.candidates(run)
    with pytest.raises(StudioError, match="runs.sqlite cannot be"):
        store.record_ask(run, "cma", 9, [(999, np.zeros(3))])
    store.close()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "runs.sqlite", tmp_path / "absent" / "runs.sqlite", tmp_path):
        with pytest.raises(StudioError, match="cannot be opened.*writable"):
            Store(path)


def test_the_workspace_is_a_sentence_too(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path / "file" / "workspace"))
    with pytest.raises(StudioError, match="set STUDIO_WORKSPACE"):
        Store()
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path / "new" / "workspace"))
    Store().close()
    assert (tmp_path / "new" / "workspace" / "runs.sqlite").is_file()


def test_what_was_committed_survives_a_power_cut(store):
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_disk_without_a_free_page_is_called_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    folder = tmp_path / "runs.sqlite"
    folder.mkdir()  # SQLite cannot open it, whatever the reason
    with pytest.raises(StudioError, match="disk of the run store .* is full; free some space"):
        Store(folder)


def test_candidates_are_ranked_and_picked(store):
    run = store.create_run("demo", "name: demo")
    with pytest.raises(StudioError, match="no scored candidate yet"):
        store.pick(run)
    store.record_ask(run, "cma", 0, [(n, np.zeros(1)) for n in range(4)])
    for number, score in ((0, 0.5), (1, 0.75), (2, 0.75)):
        store.record_evaluation(
            run, Evaluation(f"candidate:{number}", "t", "dev", score, 0, 0.0, "", ())
        )
    assert [c.id for c in store.ranked(run)] == [1, 2, 0]
    assert store.pick(run).id == 1 and store.pick(run, "2").id == 2 and store.pick(run, 3).id == 3
    with pytest.raises(StudioError, match="no candidate 9"):
        store.pick(run, "9")


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("last:best", ("last", "best")),
        ("fd28ea7f:12", ("fd28ea7f", "12")),
        ("bonsai-ja", None),
        ("fd28:worst", None),
        ("fd28:١", None),
        ("owner/name:best", None),
        (":best", None),
    ],
)
def test_names_that_mean_a_candidate(name, means):
    assert split_reference(name) == means


def test_a_mean_over_more_tasks_comes_first(store):
    run = store.create_run("demo", "name: demo")
    store.record_ask(run, "cma", 0, [(number, np.zeros(1)) for number in range(3)])
    for number, scores in enumerate([{"a": 1.0}, {"a": 0.4, "b": 0.5}, {"a": 0.3, "length": 9.0}]):
        for task, value in scores.items():
            store.record_evaluation(run, evaluation(f"candidate:{number}", value, task=task))
    assert [c.id for c in store.ranked(run)] == [1, 0, 2]
    assert store.best(run).score == pytest.approx(0.45)
