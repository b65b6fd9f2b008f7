"""Snapshots: a volume holds one whole moment of the store, and a new machine begins there."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from studio import api
from studio.errors import StudioError
from studio.runs import Store, snapshots
from tests.runs.test_store import everything, fill

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path):
    (tmp_path / "live").mkdir()
    store = Store(tmp_path / "live" / "runs.sqlite")
    yield store
    store.close()


def test_a_new_machine_begins_where_the_snapshot_was(store, tmp_path):
    run = fill(store)  # what was recorded is still in the write-ahead log
    file = api.snapshot(store, tmp_path / "volume")
    assert [path.name for path in file.parent.iterdir()] == ["runs.sqlite"]
    fill(store, "later")
    before = everything(store, run)
    path = tmp_path / "new" / "runs.sqlite"
    path.parent.mkdir()
    assert api.restore(tmp_path / "volume", path)
    again = Store(path)
    assert everything(again, run) == before and len(again.runs()) == 1
    again.delete_run(run)
    again.close()
    assert not api.restore(tmp_path / "volume", path)  # a store that is there is newer
    assert sorted(os.listdir(path.parent)) == ["runs.sqlite"]
    again = Store(path)
    assert again.runs() == []
    again.close()


def test_without_a_whole_snapshot_there_is_nothing_to_restore(tmp_path):
    path = tmp_path / "runs.sqlite"
    (tmp_path / "volume").mkdir()
    assert not api.restore(tmp_path / "absent", path)
    for damaged in (b"", b"SQLite format 3\0" + b"\xff" * 5000, b"words" * 999):
        (tmp_path / "volume" / "runs.sqlite").write_bytes(damaged)
        assert not api.restore(tmp_path / "volume", path)
    assert os.listdir(tmp_path) == ["volume"]


def test_a_volume_that_cannot_be_written_keeps_the_snapshot_before(store, tmp_path, monkeypatch):
    fill(store)
    file = api.snapshot(store, tmp_path / "volume")
    before = file.read_bytes()
    fill(store)

    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots.shutil, "copyfile", full)
    keeper = snapshots.Keeper(store, tmp_path / "volume")
    assert not keeper.save() and "No space left" in keeper.trouble
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]
    monkeypatch.undo()
    assert keeper.save() and keeper.trouble == "" and file.read_bytes() != before
    (tmp_path / "file").write_text("")
    with pytest.raises(StudioError, match="a file is in the way"):
        api.snapshot(store, tmp_path / "file")


def test_only_what_changed_is_written(store, tmp_path):
    keeper = snapshots.Keeper(store, tmp_path / "volume")
    assert keeper.save() and not keeper.save()
    run = fill(store)
    other = Store(store.path)
    for change in (
        lambda: None,  # the run itself
        lambda: other.append(run, "phase", {"name": "cma"}),
        lambda: other.add_seconds(run, 1),
        lambda: other.share(run),
        lambda: other.delete_run(run),
    ):
        change()
        assert keeper.save() and not keeper.save()
    other.close()


def test_a_process_writes_its_last_snapshot_as_it_ends(own_workspace, tmp_path):
    code = (
        "from studio import api; store = api.open_store(); keeper = api.keep(store); "
        "print(store.create_run('mine', ''))"
    )
    environment = os.environ | {"STUDIO_VOLUME": str(tmp_path / "volume")}
    runs = []
    for _ in range(2):  # the second time on a new machine, so to speak
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        runs.append(done.stdout.strip())
        for path in own_workspace.glob("runs.sqlite*"):
            path.unlink()
    with sqlite3.connect(tmp_path / "volume" / "runs.sqlite") as database:
        kept = {row[0] for row in database.execute("SELECT id FROM runs")}
    database.close()
    assert set(runs) <= kept


def test_without_a_volume_nothing_is_kept(store, monkeypatch):
    monkeypatch.delenv("STUDIO_VOLUME", raising=False)
    assert api.keep(store) is None
