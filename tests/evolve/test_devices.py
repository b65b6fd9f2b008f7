"""A process per device: what it finds, and what happens when one is killed or hangs."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from studio import api
from studio.errors import StudioError
from studio.evolve import devices, placing
from studio.evolve.devices import Devices
from studio.evolve.loop import steps
from studio.evolve.placing import Place
from studio.runs import Store
from tests.evolve.crews import noted
from tests.evolve.test_stages import BOTH, everything
from tests.trajectory import recorded, trajectory

ROOT = Path(__file__).parents[2]
ALONE = {
    "population": 4,
    "finalists": 1,
    "random_baseline": False,
    "asynchronous": False,
}
TWO = Place("devices", workers=2)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture
def crews(monkeypatch):
    return noted(monkeypatch, Devices)


def drive(store, run: str, place: Place = TWO):
    """Work on a run step by step."""
    with place.opened() as executor, closing(steps(store, run, executor)) as going:
        yield from going


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# ── the same as here ──────────────────────────────────────────────────────────────────────────


def test_two_processes_find_what_this_process_finds(recipe, whole, store, crews):
    run = api.create(recipe, store)
    busy = set()
    for _ in drive(store, run):
        busy |= {process.pid for process in crews[0]._crew.values() if process.order}
    assert store.run(run).status == "finished" and len(busy) == 2
    assert everything(store, run) == everything(*whole)
    assert len(recorded(store, run)) == len(recorded(*whole))
    assert not crews[0]._crew and not any(map(alive, busy))


def test_paths_winners_and_a_candidate_as_source_travel(tiny_recipe, store):
    first = api.evolve(tiny_recipe(budget={"candidates": 2}, search=ALONE), store)
    recipe = tiny_recipe(
        space=BOTH,
        search=ALONE,
        budget={"candidates": 4},
        batch_size="auto",
        sources=[f"{first}:best", tiny_recipe().sources[0]],
    )
    here = api.evolve(recipe, store)
    there = api.create(recipe, store)
    for _ in drive(store, there):
        pass
    assert everything(store, there) == everything(store, here)
    assert [e.payload for e in store.events(there) if e.kind == "batch"] == [{"batch_size": 256}]


def test_told_as_they_come_all_are_scored_once(tiny_recipe, store, crews):
    """No process waits for a generation's last, but for the run's."""
    search = {"population": 4, "random_baseline": False, "asynchronous": True}
    run = api.create(tiny_recipe(search=search), store)
    for _ in drive(store, run):
        pass
    assert store.run(run).status == "finished"
    candidates = store.candidates(run, "cma")
    assert len(candidates) == 14 + 1 and all(c.scores for c in candidates)
    asked = [n for e in store.events(run) if e.kind == "ask" for n in e.payload["ids"]]
    told = [n for e in store.events(run) if e.kind == "tell" for n in store.told(e)]
    assert sorted(asked) == sorted(told) == list(range(14))


# ── losses ────────────────────────────────────────────────────────────────────────────────────


def test_killed_workers_are_replaced_and_nothing_is_counted_twice(
    recipe, whole, store, monkeypatch
):
    run, give = api.create(recipe, store), devices.Process.give
    due, killed = [f"candidate:{number}" for number in (0, 3, 4, 6)], []

    def give_poison(self, order):
        give(self, order)
        if order.jobs and order.jobs[0].subject in due:
            due.remove(order.jobs[0].subject)
            os.kill(self.pid, signal.SIGKILL)
            killed.append(self.pid)

    monkeypatch.setattr(devices.Process, "give", give_poison)
    for _ in drive(store, run):
        pass
    assert len(set(killed)) == 4 and store.run(run).status == "finished"
    assert everything(store, run) == everything(*whole)
    assert set(recorded(store, run)) == set(recorded(*whole))


def test_a_worker_that_hangs_is_replaced(recipe, whole, store, crews, monkeypatch):
    run, give, hung = api.create(recipe, store), devices.Process.give, []

    def give_and_stop(self, order):
        give(self, order)
        if self.proven and not hung:
            hung.append(self.pid)
            os.kill(self.pid, signal.SIGSTOP)
            crews[0].place = replace(TWO, timeout=5)

    monkeypatch.setattr(devices.Process, "give", give_and_stop)
    for _ in drive(store, run):
        if hung and not alive(hung[0]):
            crews[0].place = TWO
    assert not alive(*hung) and trajectory(store, run) == trajectory(*whole)


def test_a_job_that_kills_three_workers_stops_the_run_with_a_sentence(recipe, store, monkeypatch):
    run, give = api.create(recipe, store), devices.Process.give

    def give_poison(self, order):
        give(self, order)
        if order.jobs and order.jobs[0].subject == "candidate:2":
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(devices.Process, "give", give_poison)
    with pytest.raises(StudioError, match="Scoring candidate:2 ended 3 workers .*signal 9"):
        for _ in drive(store, run, Place("devices")):
            pass
    assert store.run(run).status == "failed" and "candidate:2" in store.run(run).message
    before = recorded(store, run)
    api.resume(run, store)
    assert store.run(run).status == "finished"
    assert before.items() <= recorded(store, run).items()


def test_a_stop_is_heard_at_once_and_the_run_goes_on_elsewhere(recipe, whole, store, crews):
    run = api.create(recipe, store)
    going = drive(store, run)
    for _ in range(5):
        next(going)
    store.request_stop(run)
    start = time.monotonic()
    assert len(list(going)) <= 1 and time.monotonic() - start < 5
    assert store.run(run).status == "stopped" and not crews[0]._crew
    times = recorded(store, run)
    api.resume(run, store)  # in this process
    assert times.items() <= recorded(store, run).items()
    assert trajectory(store, run) == trajectory(*whole)


#: Works on a run with two processes, in a process that can be killed.
DRIVER = """
import sys
from studio.evolve.loop import steps
from studio.evolve.placing import Place
from studio.runs import Store
with Place("devices", workers=2).opened() as executor:
    for _ in steps(Store(), sys.argv[1], executor):
        pass
"""


def test_a_driver_that_is_killed_leaves_no_process_and_the_run_goes_on(recipe, whole):
    store = Store()
    run = api.create(recipe, store)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, run], cwd=ROOT)
    end = time.monotonic() + 600
    while len(recorded(store, run)) < 8:
        assert driver.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    workers = [process.pid for process in psutil.Process(driver.pid).children()]
    driver.kill()
    driver.wait()
    assert len(workers) == 2
    while any(map(alive, workers)):
        assert time.monotonic() < end
        time.sleep(0.05)
    times = recorded(store, run)
    for _ in drive(store, run):
        pass
    assert times.items() <= recorded(store, run).items()
    assert everything(store, run) == everything(*whole)
    store.close()


def test_a_run_goes_on_where_it_was_worked_on_last(recipe, store, crews, tmp_path):
    run = api.create(recipe, store)
    place = Place("devices", workers=2, timeout=60)
    seen = []

    def look(progress) -> None:
        seen.append(len(crews))
        if progress.done == 4:
            api.pause(run, store)

    api.resume(run, store, look, place=place)
    assert store.run(run).status == "stopped" and Place.recorded(store, run) == place
    copy = Store(tmp_path / "copy.sqlite")
    api.unarchive(api.archive(run, tmp_path / "run.sqlite", store), store=copy)
    assert Place.recorded(copy, run) == Place()  # a stranger's file says nothing of that
    copy.close()
    api.resume(run, store)
    assert len(crews) == 2 and store.run(run).status == "finished"
    Place().record(store, run)
    assert store.place(run) == ""


# ── how many ──────────────────────────────────────────────────────────────────────────────────


def test_a_process_per_gpu_or_a_share_of_the_cores_each(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    own = [{"CUDA_VISIBLE_DEVICES": str(number)} for number in range(3)]
    assert devices._environments(None) == own and devices._environments(2) == own[:2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    assert devices._environments(2)[1] == {"CUDA_VISIBLE_DEVICES": "GPU-b"}
    with pytest.raises(StudioError, match="There are 3 GPUs for 4 workers"):
        devices._environments(4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert devices._environments(None) == [{"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "8"}]
    assert [e["OMP_NUM_THREADS"] for e in devices._environments(3)] == ["2"] * 3


def test_a_place_that_cannot_be_is_a_sentence(monkeypatch):
    for said, options in {
        "no executor 'moon'; choose one of here, devices, ray": {"executor": "moon"},
        "takes a number of workers": {"workers": 2},
        "from 1 on": {"executor": "devices", "workers": 0},
        "Only the executor ray has an address": {"executor": "devices", "address": "auto"},
        "above 0 seconds": {"timeout": 0},
    }.items():
        with pytest.raises(StudioError, match=said):
            Place(**options)
    monkeypatch.setattr(placing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudioError, match=r'pip install "evollm-studio\[cluster\]"'):
        Place("ray")
