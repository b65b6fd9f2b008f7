"""Runs that end early: somebody has seen enough, or the hours are over.

What is left out stays left out, however often the run is interrupted afterwards.
"""

import threading

import pytest

from studio import api
from studio.evolve.loop import steps
from studio.recipe import Recipe
from studio.runs import Store
from studio.runs.lock import is_held
from tests.evolve.test_stages import BOTH, PATHS, SEARCH, everything, phases, winners
from tests.evolve.test_stages import work_until_crash as until_crash
from tests.trajectory import recorded

STAGES = ["cma", "random"]


def scored(store, run: str, stage: str) -> list[int]:
    return [c.id for c in store.candidates(run, stage) if c.scores]


def beyond(store, run: str) -> dict[tuple[str, str], list[int]]:
    """(stage, kind) → candidates that no budget counts."""
    return {
        (event.payload["stage"], event.kind): event.payload["ids"]
        for event in store.events(run)
        if event.kind in ("start", "favorite")
    }


def enough_at(store, run: str, stage: str, count: int) -> None:
    """Work on a run; say that it is enough when so many of a stage's candidates are scored."""
    said = False
    for _ in steps(store, run):
        if not said and phases(store, run)[-1] == stage and len(scored(store, run, stage)) == count:
            store.append(run, "enough", {})
            said = True
    assert said


def test_enough_between_two_candidates(tiny_recipe, store):
    run = api.create(tiny_recipe(), store)
    enough_at(store, run, "cma", 6)
    assert store.run(run).status == "finished"
    assert phases(store, run) == ["sources", "cma", "selection", "random", "selection", "report"]
    # six of the second generation's eight, then what the first generation made it believe in
    assert scored(store, run, "cma") == [0, 1, 2, 3, 4, 5, 8]
    assert [c.id for c in store.candidates(run, "cma") if not c.scores] == [6, 7]
    assert beyond(store, run) == {("cma", "favorite"): [8]}
    assert [len(e.payload["told"]) for e in store.events(run)
            if e.kind == "tell" and e.payload["stage"] == "cma"] == [4]  # fmt: skip
    assert scored(store, run, "random") == list(range(9, 15))  # as many, not fourteen
    assert set(winners(store, run)) == set(STAGES)
    roles = [row["role"] for row in api.report(run, store)]
    assert sorted(roles) == ["base", "evolved", "random", "source", "source"]


def test_enough_replays_wherever_the_plug_is_pulled(tiny_recipe, store, monkeypatch):
    whole = api.create(tiny_recipe(), store)
    enough_at(store, whole, "cma", 6)
    run = api.create(tiny_recipe(), store)
    going = steps(store, run)
    while len(scored(store, run, "cma")) < 6:
        next(going)
    store.append(run, "enough", {})
    going.close()
    crashes = 0
    while not until_crash(store, run, 9 + crashes % 5, monkeypatch):
        crashes += 1
        assert crashes < 60
    assert crashes > 4
    assert everything(store, run) == everything(store, whole)


def test_enough_before_the_first_candidate_leaves_where_searches_start(tiny_recipe, store):
    run = api.create(tiny_recipe(), store)
    store.append(run, "enough", {})
    api.resume(run, store)
    assert store.run(run).status == "finished"
    assert beyond(store, run) == {("cma", "start"): [0], ("random", "start"): [1]}
    first, second = store.candidates(run)
    assert first.genome.tobytes() == second.genome.tobytes() and first.scores == second.scores
    before = everything(store, run), recorded(store, run)
    api.resume(run, store)
    assert (everything(store, run), recorded(store, run)) == before


def test_enough_of_weights_is_enough_of_paths(tiny_recipe, store):
    recipe = tiny_recipe(space=BOTH, search=SEARCH, budget={"candidates": 6})
    run = api.create(recipe, store)
    enough_at(store, run, "parameter", 5)
    assert store.run(run).status == "finished"
    found = beyond(store, run)
    # the winner as it is, for no step of a path was tried
    assert scored(store, run, "data_flow") == found["data_flow", "start"]
    assert len(scored(store, run, "random parameter")) == 5
    assert scored(store, run, "random data_flow") == found["random data_flow", "start"]
    assert store.best(run).id == found["data_flow", "start"][0]


def test_enough_of_the_baseline_itself(tiny_recipe, store):
    run = api.create(tiny_recipe(), store)
    enough_at(store, run, "random", 3)
    assert len(scored(store, run, "cma")) == 15 and len(scored(store, run, "random")) == 3
    assert store.run(run).status == "finished"


def test_enough_with_several_objectives(tiny_recipe, store, questions):
    options = {"path": str(questions), "match": "contains", "max_new_tokens": 2}
    objectives = [{"task": "csv", "options": options, "examples": 5}, {"property": "length"}]
    run = api.create(
        tiny_recipe(space=PATHS, search=SEARCH, budget={"candidates": 12}, objectives=objectives),
        store,
    )
    enough_at(store, run, "nsga2", 6)  # the start, a generation, and one of the next
    fronts = [e.payload for e in store.events(run) if e.kind == "front"]
    assert [f["generation"] for f in fronts if f["stage"] == "nsga2"] == [0, 1]
    assert len(scored(store, run, "random")) == 1 + 5
    assert store.run(run).status == "finished"


# ── hours ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def slow(monkeypatch):
    """Every job takes an hour, to the clock of the record."""
    monkeypatch.setattr(
        Store,
        "add_seconds",
        lambda self, run, seconds: self._db.execute(
            "UPDATE runs SET seconds = seconds + 3600 WHERE id = ?", (run,)
        ),
    )


def test_hours_are_shared_by_the_searches(tiny_recipe, store, slow, monkeypatch):
    # three models and five candidates: half of the hours
    recipe = tiny_recipe(budget={"candidates": 14, "hours": 16}, search={"population": 4,
                         "finalists": 1})  # fmt: skip
    run = api.evolve(recipe, store)
    assert [e.payload for e in store.events(run) if e.kind == "enough"] == [
        {"stage": "cma"}, {"stage": "random"}]  # fmt: skip
    assert scored(store, run, "cma") == [0, 1, 2, 3, 4, 8]
    spent = 3 + 5 + 1 + sum(key[2] == "selection" and int(key[0].split(":")[1]) <= 8
                            for key in recorded(store, run))  # fmt: skip
    assert len(scored(store, run, "random")) == min(5, 16 - spent)
    assert store.run(run).status == "finished"
    again = api.create(recipe, store)
    crashes = 0
    while not until_crash(store, again, 9 + crashes % 5, monkeypatch):
        crashes += 1
    assert crashes > 4
    assert len([e for e in store.events(again) if e.kind == "enough"]) == 2
    assert store.run(again).status == "finished"


def test_hours_that_are_not_reached_change_nothing(tiny_recipe, store):
    budget = {"candidates": 4}
    plain = api.evolve(tiny_recipe(budget=budget), store)
    timed = api.evolve(tiny_recipe(budget=budget | {"hours": 5}), store)
    assert everything(store, plain) == everything(store, timed)
    assert "hours" not in Recipe.from_yaml(store.run(plain).recipe).to_yaml()


# ── who drives ────────────────────────────────────────────────────────────────────────────────


def test_whoever_closes_the_steps_leaves_a_run_to_resume(tiny_recipe, store):
    whole = api.evolve(tiny_recipe(budget={"candidates": 6}), store)
    run = api.create(tiny_recipe(budget={"candidates": 6}), store)
    sessions = 0
    while store.run(run).status != "finished":
        going = steps(store, run)
        for _ in zip(range(4), going, strict=False):
            assert store.run(run).status == "running" and is_held(store, run)
        going.close()
        assert not is_held(store, run)
        assert store.run(run).status in ("stopped", "finished") and not store.run(run).message
        sessions += 1
    assert sessions > 3
    assert everything(store, run) == everything(store, whole)


def test_nobody_listens_any_longer(tiny_recipe, store):
    """A generator that is forgotten instead of closed."""
    run = api.create(tiny_recipe(), store)
    going = steps(store, run)
    next(going)
    del going
    assert store.run(run).status == "stopped" and not is_held(store, run)


def test_a_step_is_taken_by_whichever_thread_is_free(tiny_recipe, store):
    """As a web server drives a generator: the record, the lock and the model know no thread."""
    recipe = tiny_recipe(budget={"candidates": 4})
    whole = api.evolve(recipe, store)
    run = api.create(recipe, store)
    going, left = steps(store, run), [True]

    def step():
        left[0] = next(going, "the end") is None

    while left[0]:
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    going.close()
    assert store.run(run).status == "finished" and not is_held(store, run)
    assert everything(store, run) == everything(store, whole)
