"""The page's own handlers over a real store: entering, and looking at the watched run."""

from dataclasses import replace

import pytest

from studio import api
from studio.runs import Store
from studio.runs.lock import hold
from studio.ui import monitor, page, shared, strings, words
from studio.ui.wiring import Look, Panel, Visit
from studio.visitors import Visitor, owner_of

RECIPE = "base: bonsai-base\nsources: [bonsai-ja, bonsai-math]\nobjectives: [{task: jmath}]\n"
ENGLISH = Visit(token="a" * 43)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    made = Store(tmp_path / "runs.sqlite")
    for module in (page, monitor, shared):
        monkeypatch.setattr(module, "store", lambda: made)
    yield made
    made.close()


def panel(name: str, key, **more) -> Panel:
    def draw(at, *given):
        return [(name, at.progress.state, at.fresh, *given)]

    return Panel(name, [name], key, draw, lambda language: [f"no {name}"], **more)


STATE = panel("state", lambda at: at.progress.state)
SCORED = panel("scored", lambda at: at.progress.done, slow=True, given=["question"])


def looks(visit: Visit, run: str | None, known: dict) -> list[dict]:
    """What a page is told, step by step; nothing where it is told to skip."""
    steps = page.look(visit, run, known, [SCORED, STATE], ["7"], "run", "seen")
    return [step for step in steps if "__type__" not in step]


def entered() -> dict:
    return {"entered": True}


def test_a_page_that_has_not_entered_is_told_nothing(store):
    run = store.create_run("waiting", RECIPE)
    assert looks(ENGLISH, run, {}) == []


def test_no_run_is_one_sentence_said_once(store):
    [told] = looks(ENGLISH, None, entered())
    assert told["state"] == "no state" and told["scored"] == "no scored"
    assert looks(ENGLISH, None, told["seen"]) == []


def test_what_is_slow_comes_last_and_what_did_not_change_not_at_all(store):
    run = store.create_run("stopped", RECIPE)
    store.set_status(run, "stopped")
    first, second = looks(ENGLISH, run, entered())
    assert first["state"] == ("state", "stopped", True) and "scored" not in first
    assert second == {"scored": ("scored", "stopped", True, "7")}
    assert looks(ENGLISH, run, first["seen"]) == []
    store.set_status(run, "failed", "why")
    [told] = looks(ENGLISH, run, first["seen"])
    assert told["state"] == ("state", "failed", False) and "scored" not in told


def test_a_run_whose_worker_is_gone_is_seen_though_nothing_was_written(store):
    run = store.create_run("busy", RECIPE)
    store.set_status(run, "running")
    lock = hold(store, run)
    told, *_ = looks(ENGLISH, run, entered())
    assert told["state"][1] == "running"
    lock.release()
    told, *_ = looks(ENGLISH, run, told["seen"])
    assert told["state"][1] == "interrupted"


def test_a_visitor_who_may_not_see_a_run_watches_none(store):
    run = store.create_run("theirs", RECIPE, owner=owner_of("token", "b" * 43))
    stranger = Visit(Visitor(owner_of("token", "a" * 43), public=True, host=False))
    [told] = looks(stranger, run, entered())
    assert told["state"] == "no state" and run not in repr(told)


def test_entering_gives_a_token_and_opens_a_run(store, monkeypatch):
    monkeypatch.setattr(page, "_bundled", lambda: [])
    kept, guest, language, picker, seen = page.enter(Visit(language="ja"))
    assert len(kept["token"]) >= 40 and kept["language"] == language == "ja"
    assert guest == frozenset() and picker["value"] is None and seen
    again, *_ = page.enter(replace(ENGLISH, token=kept["token"]))
    assert again["token"] == kept["token"]
    old, new = (store.create_run(name, RECIPE) for name in ("old", "new"))
    assert page.enter(ENGLISH)[3]["value"] == new
    store.set_status(old, "running")  # what is at work goes before what is newer
    assert page.enter(ENGLISH)[3]["value"] == old
    assert page.enter(replace(ENGLISH, query={"run": new}))[3]["value"] == new


def test_a_link_opens_a_run_to_be_looked_at(store, monkeypatch):
    monkeypatch.setattr(page, "_bundled", lambda: [])
    run = store.create_run("theirs", RECIPE, owner=owner_of("token", "b" * 43))
    store.set_status(run, "stopped")
    stranger = Visit(Visitor("", public=True, host=False))
    link = store.share(run)
    _, guest, _, picker, _ = page.enter(replace(stranger, query={"share": link}))
    assert guest == {run} and picker["value"] == run
    assert [value for _, value in picker["choices"]] == [run]


def phases() -> list[str]:
    """The phases that the loop recorded in the bundled sample run."""
    sample = Store(":memory:")
    sample.import_runs(api.SAMPLE_RUN)
    events = [event for found in sample.runs() for event in sample.events(found.id)]
    sample.close()
    return list(dict.fromkeys(e.payload["name"] for e in events if e.kind == "phase"))


@pytest.mark.parametrize("language", strings.LANGUAGES)
def test_every_phase_can_be_shown(store, language):
    recorded = phases()
    assert recorded == ["sources", "cma", "selection", "random", "report"]
    run = store.create_run("busy", RECIPE)
    store.set_status(run, "running")
    lock = hold(store, run)
    try:
        for phase in recorded:
            store.append(run, "phase", {"name": phase})
            progress = api.progress(run, store)
            assert progress.stage == phase
            at = Look(Visit(language=language), store.run(run), progress, fresh=False)
            assert words.phase(language, phase) in monitor.status(at)
    finally:
        lock.release()
