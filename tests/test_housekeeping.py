"""What a serving Studio does by itself."""

import os
import time

from studio import housekeeping
from studio.runs import Store
from studio.visitors import EXPIRY_DAYS, owner_of

RECIPE = "base: bonsai-base\nsources: [bonsai-ja]\nobjectives: [{task: jmath}]\n"
ANNA = owner_of("token", "a" * 40)


def age(store: Store, run: str, days: float) -> None:
    with store._transaction() as db:
        db.execute("UPDATE runs SET created = ? WHERE id = ?", (time.time() - 86400 * days, run))


def eventually(true) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False


def test_what_visitors_left_expires_in_public_only(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path))
    store = Store(tmp_path / "runs.sqlite")
    old = store.create_run("old", RECIPE, owner=ANNA)
    new = store.create_run("new", RECIPE, owner=ANNA)
    nobodys = store.create_run("nobody's", RECIPE)
    for run in (old, new, nobodys):
        store.set_status(run, "finished")
    for run in (old, nobodys):
        age(store, run, EXPIRY_DAYS + 1)
    talk = tmp_path / "chats" / ANNA / "talk.json"
    talk.parent.mkdir(parents=True)
    talk.write_text("{}")
    long_ago = time.time() - 86400 * (EXPIRY_DAYS + 1)
    os.utime(talk, (long_ago, long_ago))
    monkeypatch.setenv("STUDIO_PUBLIC", "0")
    housekeeping.begin(store).set()
    time.sleep(0.3)
    assert {run.id for run in store.runs()} == {old, new, nobodys} and talk.exists()
    monkeypatch.setenv("STUDIO_PUBLIC", "1")
    stopped = housekeeping.begin(store)
    assert eventually(lambda: {run.id for run in store.runs()} == {new, nobodys})
    assert eventually(lambda: not talk.exists())
    stopped.set()
    store.close()
