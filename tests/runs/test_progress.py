"""How a run's state is told from its record and from who works on it."""

import time

import numpy as np
import pytest

from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, progress
from studio.runs.lock import hold


@pytest.fixture
def run(store):
    recipe = Recipe(base="bonsai-base", sources=["bonsai-ja"], objectives=[{"task": "jmath"}])
    return store.create_run(recipe.name, recipe.to_yaml())


def state(store, run) -> str:
    return progress.progress(store, run).state


def test_the_states_of_a_run(store, run):
    assert state(store, run) == "queued"
    lock = hold(store, run)
    store.set_status(run, "running")
    assert state(store, run) == "running"
    store.request_stop(run)
    assert state(store, run) == "stopping"
    lock.release()  # the process died before it could stop
    assert state(store, run) == "interrupted"
    for status in ("stopped", "failed", "finished"):
        store.set_status(run, status)
        assert state(store, run) == status


def test_stopped_before_anybody_began(store, run):
    store.request_stop(run)
    assert state(store, run) == "stopped"


def test_a_run_that_ends_while_it_is_looked_at_was_not_interrupted(store, run, monkeypatch):
    store.set_status(run, "running")

    def ends_now(*_):
        store.set_status(run, "finished")
        return False

    monkeypatch.setattr(progress, "is_held", ends_now)
    assert state(store, run) == "finished"


def test_whoever_did_not_begin_what_it_made_is_told(store, run, monkeypatch):
    assert state(store, run) == "queued"
    later = time.time() + 61
    monkeypatch.setattr(progress.time, "time", lambda: later)
    assert state(store, run) == "interrupted"
    lock = hold(store, run)  # it was only slow
    assert state(store, run) == "queued"
    lock.release()
    store.enqueue(run)  # in the queue it may wait for days
    assert state(store, run) == "queued"


def test_time_left_counts_finalists_and_report_too(store, run):
    store.append(run, "inputs", {"fingerprints": {}, "answers": 1000})
    store.record_ask(run, "cma", 0, [(0, np.zeros(2))])

    def answered(subject, split, count):
        outcomes = tuple(Outcome(str(n), 1.0, "", {}, 1) for n in range(count))
        store.record_evaluation(
            run, Evaluation(subject, "jmath", split, 1.0, count, count / 10, "", outcomes)
        )

    assert progress.progress(store, run).eta is None
    answered("candidate:0", "dev", 100)  # ten answers a second
    assert progress.progress(store, run).eta == pytest.approx(90)
    answered("candidate:0", "test", 250)
    assert progress.progress(store, run).eta == pytest.approx(65)
    store.set_status(run, "finished")
    assert progress.progress(store, run).eta == 0


def test_places_in_the_queue(store, run):
    def place(name):
        found = progress.progress(store, name)
        return found.position, found.wait

    recipe = store.run(run).recipe
    second, third = (store.create_run("later", recipe) for _ in range(2))
    assert place(run) == (None, None)  # made, but nobody put it in the queue
    for name in (run, second, third):
        store.enqueue(name)
    assert [name.id for name in store.queue()] == [run, second, third]
    assert [place(name)[0] for name in (run, second, third)] == [1, 2, 3]
    assert [place(name)[1] for name in (run, second, third)] == [0, None, None]
    store.enqueue(run, 100)  # once more: to the end, and with an estimate
    assert [place(name)[0] for name in (second, third, run)] == [1, 2, 3]
    store.enqueue(third, 40)
    store.request_stop(second)
    assert place(second) == (None, None)
    assert place(run) == (1, 0) and place(third) == (2, 100)
    lock = hold(store, run)
    store.set_status(run, "running")
    store.add_seconds(run, 30)
    assert place(run) == (0, 0)
    assert place(third) == (1, 70)
    assert progress.progress(store, run).eta == 70  # until it has a pace of its own
    lock.release()  # killed: nobody waits for it any more
    assert place(run) == (None, None) and place(third) == (1, 0)
    store.enqueue(second)
    assert place(second) == (2, 40)


def test_time_left_knows_of_searches_that_end_early(store, run):
    def asked(number, stage):
        store.record_ask(run, stage, 0, [(number, np.zeros(2))])
        store.record_evaluation(run, ten_answers(number))

    budget = Recipe.from_yaml(store.run(run).recipe).budget.candidates
    store.append(run, "inputs", {"fingerprints": {}, "answers": 2 * 10 * budget + 500})
    for number in range(4):
        asked(number, "cma")
    assert progress.progress(store, run).eta == pytest.approx(2 * budget - 4 + 50)
    store.append(run, "enough", {})  # four more for the baseline, finalists and the report
    assert progress.progress(store, run).eta == pytest.approx(4 + 50)
    asked(4, "random")
    assert progress.progress(store, run).eta == pytest.approx(3 + 50)


def test_time_left_knows_of_a_budget_of_hours(store):
    document = {"base": "bonsai-base", "sources": ["bonsai-ja"], "objectives": [{"task": "jmath"}]}
    recipe = Recipe.from_dict(document | {"budget": {"candidates": 1000, "hours": 0.1}})
    run = store.create_run(recipe.name, recipe.to_yaml())
    store.append(run, "inputs", {"fingerprints": {}, "answers": 2 * 1000 * 10 + 100})
    store.record_ask(run, "cma", 0, [(0, np.zeros(2))])
    store.record_evaluation(run, ten_answers(0))
    store.add_seconds(run, 60)
    assert progress.progress(store, run).eta == pytest.approx(300 + 10)


def ten_answers(number: int) -> Evaluation:
    """Ten answers in a second."""
    outcomes = tuple(Outcome(str(n), 1.0, "", {}, 1) for n in range(10))
    return Evaluation(f"candidate:{number}", "jmath", "dev", 1.0, 10, 1.0, "", outcomes)
