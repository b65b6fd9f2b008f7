"""How a run's state is told from its record and from who works on it."""

import time

import numpy as np
import pytest

from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store, progress
from studio.runs.lock import hold


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    yield store
    store.close()


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


def test_a_worker_that_never_came_up_is_told(store, run, monkeypatch):
    store.append(run, "queued", {})
    assert state(store, run) == "queued"
    later = time.time() + 61
    monkeypatch.setattr(progress.time, "time", lambda: later)
    assert state(store, run) == "interrupted"
    lock = hold(store, run)  # it was only slow
    assert state(store, run) == "queued"
    lock.release()


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
