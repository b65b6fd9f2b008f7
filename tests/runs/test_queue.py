"""The queue: one worker a workspace, runs one after another, and none that is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio import api
from studio.api import processes, queueing
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Store
from studio.runs.lock import WORKER, hold, is_held, try_hold
from tests.trajectory import recorded, trajectory

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120


@pytest.fixture
def store(own_workspace):
    store = Store()
    yield store
    for run in store.runs():
        store.request_stop(run.id)
    until(lambda: not is_held(store, WORKER))
    store.close()


@pytest.fixture
def nobody(monkeypatch):
    """No worker is started; `woken` counts how often one would have been."""
    woken = []
    monkeypatch.setattr(processes, "detach", lambda *arguments: woken.append(arguments))
    return woken


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def states(store, *runs) -> list[str]:
    return [api.progress(run, store).state for run in runs]


def spans(store, runs) -> list[tuple[float, float]]:
    """When each run was first and last written to by whoever worked on it."""
    return [(store.events(run)[0].at, max(recorded(store, run).values())) for run in runs]


# ── workers ───────────────────────────────────────────────────────────────────────────────────


def test_runs_are_worked_on_one_after_another_oldest_first(tiny_recipe, store):
    recipe = tiny_recipe(budget={"candidates": 4}, seed=3)
    runs = api.repeat(recipe, 3, store)
    until(lambda: states(store, *runs) == ["finished"] * 3)
    times = [moment for span in spans(store, runs) for moment in span]
    assert times == sorted(times)
    assert [Recipe.from_yaml(store.run(run).recipe).seed for run in runs] == [3, 4, 5]
    assert [store.run(run).name for run in runs] == [f"tiny, seed {seed}" for seed in (3, 4, 5)]
    again = api.evolve(tiny_recipe(budget={"candidates": 4}, seed=5), store)
    assert trajectory(store, runs[2]) == trajectory(store, again)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_worker_leaves_no_stuck_queue(tiny_recipe, store):
    first = api.start(tiny_recipe(budget={"candidates": 5000}), store)
    second = api.start(tiny_recipe(budget={"candidates": 4}), store)
    until(lambda: len(recorded(store, first)) > 4)
    assert states(store, first, second) == ["running", "queued"]
    assert [api.progress(run, store).position for run in (first, second)] == [0, 1]
    listed = subprocess.run(
        ["ps", "-ww", "-e", "-o", "pid,args"], capture_output=True, text=True
    ).stdout
    (line,) = (line for line in listed.splitlines() if store.path in line)
    os.kill(int(line.split()[0]), signal.SIGKILL)
    until(lambda: not is_held(store, WORKER))
    until(lambda: states(store, first, second) == ["interrupted", "finished"])  # looking wakes


def test_many_start_runs_at_once_and_go_away(tiny_recipe, store, tmp_path):
    """Each in a process of its own, which ends at once: as pages of a server that restarts."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny_recipe(budget={"candidates": 4}).to_yaml(), encoding="utf-8")
    code = f"from studio import api; print(api.start({str(recipe)!r}))"
    pages = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    runs = [page.communicate(timeout=PATIENCE)[0].strip() for page in pages]
    until(lambda: {store.run(run).status for run in runs} == {"finished"})
    found = sorted(spans(store, runs))
    assert all(end <= start for (_, end), (start, _) in zip(found, found[1:], strict=False))


def test_a_run_that_cannot_be_carried_out_holds_up_no_other(tiny_recipe, store, nobody):
    runs = api.repeat(tiny_recipe(budget={"candidates": 4}), 2, store)
    with store._transaction() as db:
        db.execute("UPDATE runs SET recipe = 'name: nothing' WHERE id = ?", (runs[0],))
    told = []
    api.work_off(store, lambda run, error: told.append((run, type(error))))
    assert told == [(runs[0], StudioError)]
    assert [store.run(run).status for run in runs] == ["failed", "finished"]
    assert store.queue() == []


# ── races ─────────────────────────────────────────────────────────────────────────────────────


def test_a_run_queued_as_the_worker_leaves_is_not_forgotten(
    tiny_recipe, store, nobody, monkeypatch
):
    first = api.start(tiny_recipe(budget={"candidates": 4}), store)
    late = []
    assert len(nobody) == 1

    class Leaving:
        """The lock of a worker that has just found the queue empty."""

        def __init__(self, lock):
            self.lock = lock

        def release(self):
            if not late:
                late.append(api.start(tiny_recipe(budget={"candidates": 4}), store))
                assert len(nobody) == 1  # who started it saw a worker, and woke none
            self.lock.release()

    monkeypatch.setattr(queueing, "try_hold", lambda *args: Leaving(try_hold(*args)))
    api.work_off(store)
    assert [store.run(run).status for run in (first, *late)] == ["finished"] * 2


def test_a_second_worker_leaves_at_once(store, nobody, monkeypatch):
    monkeypatch.setattr(queueing, "GLANCE", 0.05)
    store.enqueue(store.create_run("waits", ""))
    lock = hold(store, WORKER)
    told = []
    api.work_off(store, lambda run, error: told.append(run))
    assert told == [] and len(store.queue()) == 1
    lock.release()
    api.work_off(store, lambda run, error: told.append(run))
    assert len(told) == 1 and store.queue() == []


def test_a_worker_is_woken_where_it_is_needed(store, nobody, monkeypatch):
    run = store.create_run("waits", "")
    assert not api.wake(store)  # nobody waits
    store.enqueue(run)
    lock = hold(store, WORKER)
    assert not api.wake(store)  # one is at work
    lock.release()
    assert api.wake(store) and not api.wake(store)  # one is on its way
    later = time.time() + 60
    monkeypatch.setattr(processes.time, "time", lambda: later)
    assert api.wake(store)  # it never came
    assert len(nobody) == 2
    monkeypatch.undo()


def test_threads_are_bounded(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cores, asked, threads in ((8, "", 7), (1, "", 1), (8, "3", 3), (8, "lots", 7)):
        monkeypatch.setenv("STUDIO_THREADS", asked)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: range(n), raising=False)
        assert processes.bounded()["OMP_NUM_THREADS"] == str(threads)


# ── wishes ────────────────────────────────────────────────────────────────────────────────────


def test_a_paused_run_leaves_the_queue_and_comes_back_at_its_end(tiny_recipe, store, nobody):
    first, second = api.repeat(tiny_recipe(), 2, store)
    with pytest.raises(StudioError, match="in the queue already"):
        api.restart(first, store)
    api.pause(first, store)
    assert states(store, first, second) == ["stopped", "queued"]
    api.restart(first, store)
    assert [run.id for run in store.queue()] == [second, first]
    for run in (first, second):
        api.pause(run, store)


def test_finishing_needs_something_to_finish_with(tiny_recipe, store, nobody):
    run = api.start(tiny_recipe(budget={"candidates": 4}), store)
    with pytest.raises(StudioError, match="no scored candidate yet"):
        api.finish(run, store)
    api.work_off(store)
    with pytest.raises(StudioError, match="finished already"):
        api.finish(run, store)
    assert not [event for event in store.events(run) if event.kind == "enough"]


def test_a_paused_run_that_is_to_finish_is_queued_for_that(tiny_recipe, store, nobody):
    run = api.create(tiny_recipe(budget={"candidates": 5000}), store)
    api.resume(run, store, lambda p: p.best is not None and api.pause(run, store))
    assert states(store, run) == ["stopped"]
    for _ in range(2):
        api.finish(run, store)
    assert [event.kind for event in store.events(run)].count("enough") == 1
    assert [waiting.id for waiting in store.queue()] == [run]


def test_a_recipe_is_duplicated_and_repeated(tiny_recipe, store, nobody):
    recipe = tiny_recipe(name="mine")
    run = api.create(recipe, store)
    assert api.duplicate(run, store) == Recipe.from_yaml(store.run(run).recipe) == recipe
    for seeds in (0, 101):
        with pytest.raises(StudioError, match="1 to 100 seeds"):
            api.repeat(recipe, seeds, store)
    with pytest.raises(StudioError, match="no-such-model"):
        api.repeat(tiny_recipe(sources=["no-such-model"]), 2, store)
    assert store.queue() == []
