"""Whose a run is: links, deletion and expiry, which touch nothing of anybody else's."""

import os
import time

from studio import api
from studio.runs import Store
from studio.runs.lock import hold

ANNA, BERT = "a" * 32, "b" * 32


def age(store, run: str, days: float) -> None:
    with store._transaction() as db:
        db.execute("UPDATE runs SET created = created - ? WHERE id = ?", (86_400 * days, run))


def test_runs_have_owners(store):
    mine, hers = store.create_run("mine", ""), store.create_run("hers", "", ANNA)
    assert (store.run(mine).owner, store.run(hers).owner) == ("", ANNA)
    assert [run.id for run in store.runs(ANNA)] == [hers]
    assert [run.id for run in store.runs("")] == [mine]
    assert {run.id for run in store.runs()} == {mine, hers}
    assert store.runs(BERT) == []


def test_a_link_is_made_once_and_shows_one_run(store):
    run, other = store.create_run("one", ""), store.create_run("two", "")
    assert store.run(run).share is None and store.shared("") is None
    token = api.share(run[:6], store)
    assert len(token) >= 20 and api.share(run, store) == token != api.share(other, store)
    assert store.shared(token).id == run
    assert store.shared(token[:-1]) is None
    assert token not in repr(store.run(run))


def test_all_that_is_somebodys_is_deleted_and_nothing_else(store):
    kept = [store.create_run("shared", ""), store.create_run("his", "", BERT)]
    gone = [store.create_run("hers", "", ANNA) for _ in range(2)]
    busy = store.create_run("hers, at work", "", ANNA)
    for owner in (ANNA, BERT, "local"):
        for kind in ("uploads", "chats", "exports"):
            (store.folder / kind / owner).mkdir(parents=True)
            (store.folder / kind / owner / "file").write_text("words")
    lock = hold(store, busy)
    assert api.forget(ANNA, store) == [busy]
    assert store.run(busy).stop
    assert {run.id for run in store.runs()} == {*kept, busy}
    lock.release()
    assert api.forget(ANNA, store) == []
    assert {run.id for run in store.runs()} == set(kept)
    assert not set(gone) & {path.stem for path in (store.folder / "locks").iterdir()}
    left = {path.parent.name for path in store.folder.glob("*/*/file")}
    assert left == {BERT, "local"}
    assert api.forget("", store) == [] and api.forget("../..", store) == []
    assert {run.id for run in store.runs()} == set(kept)


def test_what_is_owned_expires(store):
    old, new = store.create_run("old", "", ANNA), store.create_run("new", "", ANNA)
    shared, busy = store.create_run("shared", ""), store.create_run("at work", "", BERT)
    for run in (old, shared, busy):
        age(store, run, 7.1)
    before = time.time() - 8 * 86_400
    files = {}
    for owner in (ANNA, BERT, "local"):
        folder = store.folder / "exports" / owner / "model"
        folder.mkdir(parents=True)
        for name in ("config.json", "weights"):
            files[owner, name] = folder / name
            files[owner, name].write_text("")
            os.utime(files[owner, name], (before, before))
        os.utime(folder, (before, before))
    os.utime(files[BERT, "weights"])  # written to since: the export is kept whole
    lock = hold(store, busy)
    assert api.expire(7, store) == [old]
    assert store.run(busy).stop and not store.run(new).stop
    lock.release()
    assert api.expire(7, store) == [busy]
    assert {run.id for run in store.runs()} == {new, shared}
    assert {key for key, path in files.items() if path.exists()} == {
        (owner, name) for owner in (BERT, "local") for name in ("config.json", "weights")
    }
    assert not (store.folder / "exports" / ANNA).exists()


def test_bundled_runs_are_everybodys(store, tmp_path):
    other = Store(tmp_path / "other.sqlite")
    run = other.create_run("theirs", "", ANNA)
    token = other.share(run)
    assert store.import_runs(tmp_path / "other.sqlite") == [run]
    other.close()
    record = store.run(run)
    assert (record.owner, record.share) == ("", None) and store.shared(token) is None
