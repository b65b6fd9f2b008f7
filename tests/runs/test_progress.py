"""How a run's state is told from its record and from who works on it."""

import pytest

from studio.recipe import Recipe
from studio.runs import Store, progress
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
