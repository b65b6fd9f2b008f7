"""Scoring on ZeroGPU: in blocks, by a worker that is lent for a while, or not.

The lender of most tests is a stand-in (`tests.evolve.lender`); the last ones run the real package
``spaces`` against a scheduler's stub, up to where it would touch a driver.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from studio import api, zero_gpu
from studio.errors import StudioError
from studio.evolve import blocks, generate, workers
from studio.evolve.blocks import Blocks, lease, score_block
from studio.evolve.loop import steps
from studio.runs import Store
from studio.runs.lock import is_held
from tests.evolve.lender import Lender, Scheduler
from tests.evolve.test_stages import BOTH, everything
from tests.trajectory import recorded, trajectory

ROOT = Path(__file__).parents[2]
ALONE = {"population": 4, "finalists": 1, "random_baseline": False}


@pytest.fixture
def lender(monkeypatch):
    lender = Lender(score_block, lease)
    monkeypatch.setattr(blocks, "score_block", lender)
    monkeypatch.setattr(workers, "_kept", None)
    return lender


@pytest.fixture
def bonsai(tiny_recipe):
    """`bonsai(**changes)`: a recipe of the bundled models, short enough for a test."""

    def make(**changes):
        return tiny_recipe(
            base="bonsai-base",
            sources=["bonsai-ja", "bonsai-math"],
            space={"method": "dare_ties", "layer_granularity": "all"},
            **{"budget": {"candidates": 6}, **changes},
        )

    return make


def drive(store, run: str) -> None:
    for _ in steps(store, run, Blocks):
        pass


# ── granting ──────────────────────────────────────────────────────────────────────────────────


def test_blocks_find_what_this_process_finds(bonsai, store, lender):
    here = api.evolve(bonsai(), store)
    there = api.create(bonsai(), store)
    drive(store, there)
    assert store.run(there).status == "finished"
    assert everything(store, there) == everything(store, here)
    assert len(lender.lent) > 5 and not workers._kept  # nothing was scored here
    assert len(lender.lent[0].jobs) == 1  # of unknown speed
    assert max(len(block.jobs) for block in lender.lent) > 1
    assert all(block.seconds <= blocks.USUAL for block in lender.lent)
    jobs = [job.subject for block in lender.lent for job in block.jobs]
    assert len(jobs) == len(recorded(store, there))


def test_blocks_of_two_spaces_and_of_a_candidate_as_source(tiny_recipe, store, lender):
    """Winners of a stage, and a candidate of another run, travel as plain data."""
    first = api.evolve(tiny_recipe(budget={"candidates": 2}, search=ALONE), store)
    recipe = tiny_recipe(
        space=BOTH,
        search=ALONE,
        budget={"candidates": 4},
        sources=[f"{first}:best", tiny_recipe().sources[0]],
    )
    here = api.evolve(recipe, store)
    there = api.create(recipe, store)
    drive(store, there)
    assert everything(store, there) == everything(store, here)
    assert any(block.winners for block in lender.lent)
    assert set(lender.lent[0].ancestors) == {f"{first}:{store.best(first).id}"}


def test_a_batch_of_auto_is_planned_there(tiny_recipe, store, lender):
    run = api.create(tiny_recipe(batch_size="auto", budget={"candidates": 2}, search=ALONE), store)
    drive(store, run)
    assert [e.payload for e in store.events(run) if e.kind == "batch"] == [{"batch_size": 256}]
    assert lender.lent[0].jobs == () and store.run(run).status == "finished"


def test_halved_there_is_halved_here(tiny_recipe, store, lender, monkeypatch):
    import torch

    from studio.evolve import unpadded

    decode = unpadded.decode

    def cramped(*arguments, slots, **options):
        if slots > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(*arguments, slots=slots, **options)

    monkeypatch.setattr(unpadded, "decode", cramped)
    run = api.create(tiny_recipe(budget={"candidates": 2}, search=ALONE), store)
    drive(store, run)
    halvings = [e.payload["batch_size"] for e in store.events(run) if e.kind == "halving"]
    assert halvings == [4, 2] and store.run(run).status == "finished"
    assert [block.batch_size for block in lender.lent[:2]] == [8, 2]


# ── a job longer than a block ─────────────────────────────────────────────────────────────────


@pytest.fixture
def slow(monkeypatch, lender):
    """By the workers' clock every batch takes ten seconds, and nothing else any time."""
    decode, now = generate._padded, [0.0]

    def slowly(*arguments, **options):
        now[0] += 10
        return decode(*arguments, **options)

    # as on a GPU, batch by batch
    monkeypatch.setattr(generate, "_decoder", lambda model, longest: (slowly, 1))
    monkeypatch.setattr(blocks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(blocks, "FIRST", 15.0)
    monkeypatch.setattr(blocks, "USUAL", 15.0)
    lender.duration = lambda block: 60


def test_a_job_too_long_for_a_block_is_cut_and_gone_on_with(tiny_recipe, store, lender, slow):
    """Two batches a job and one a block; and every third block is refused."""
    recipe = tiny_recipe(
        base=None,
        space={"method": "slerp", "layer_granularity": "all"},
        batch_size=4,
        search=ALONE,
        budget={"candidates": 2},
    )
    here = api.evolve(recipe, store)
    run = api.create(recipe, store)
    lender.refuses = lambda call: call % 3 == 2
    sessions = 0
    while store.run(run).status != "finished":
        drive(store, run)
        sessions += 1
        assert sessions < 40
    assert sessions > 4 and trajectory(store, run) == trajectory(store, here)
    said = [e.payload for e in store.events(run) if e.kind == "said"]
    places = [
        (payload["subject"], payload["label"], place)
        for payload in said
        for place, *_ in payload["responses"]
    ]
    assert len(said) > 4 and len(places) == len(set(places)) == 4 * len(said)
    assert any(block.said for block in lender.lent)


def test_nothing_in_the_longest_block_is_a_sentence(tiny_recipe, store, lender, slow, monkeypatch):
    for name, seconds in (("FIRST", 2.0), ("USUAL", 2.0), ("LONGEST", 6.0)):
        monkeypatch.setattr(blocks, name, seconds)
    run = api.create(tiny_recipe(), store)
    with pytest.raises(StudioError, match="Not one batch .* ZeroGPU; use a smaller batch_size"):
        drive(store, run)
    assert store.run(run).status == "failed" and [b.seconds for b in lender.lent] == [2, 4, 6]


# ── refusing ──────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_pauses_and_nothing_is_counted_twice(tiny_recipe, store, lender):
    recipe = tiny_recipe(budget={"candidates": 5}, search=ALONE)
    here = api.evolve(recipe, store)
    run = api.create(recipe, store)
    lender.refuses = lambda call: call in (0, 2, 4)
    times, messages = {}, []
    while store.run(run).status != "finished":
        drive(store, run)
        now = recorded(store, run)
        assert times.items() <= now.items() and not is_held(store, run)
        times = now
        messages.append(store.run(run).message)
    assert len(messages) == 4 and not messages[-1]
    assert all("ZeroGPU lends no GPU now (You have exceeded your quota" in m for m in messages[:3])
    assert all(m.endswith("resume the run later.") and "\n" not in m for m in messages[:3])
    assert everything(store, run) == everything(store, here)
    jobs = [job.subject + asked.label for b in lender.lent for job in b.jobs for asked in job.asked]
    assert len(jobs) == len(set(jobs)) == len(recorded(store, run))


def test_a_worker_that_is_killed_pauses_the_run(tiny_recipe, store, lender):
    lender.duration = lambda block: 0.01
    run = api.create(tiny_recipe(budget={"candidates": 2}, search=ALONE), store)
    drive(store, run)
    assert store.run(run).status == "stopped" and "GPU task aborted" in store.run(run).message
    lender.duration = lease
    drive(store, run)
    assert store.run(run).status == "finished"


def test_a_page_that_closes_pauses_the_run(tiny_recipe, store, lender):
    recipe = tiny_recipe(budget={"candidates": 5}, search=ALONE)
    here = api.evolve(recipe, store)
    run = api.create(recipe, store)
    while store.run(run).status != "finished":
        going = steps(store, run, Blocks)
        for _ in zip(range(6), going, strict=False):
            pass
        going.close()
        assert store.run(run).status in ("stopped", "finished") and not store.run(run).message
        assert not is_held(store, run)
    assert everything(store, run) == everything(store, here)


def test_a_stop_is_heard_between_two_candidates(tiny_recipe, store, lender):
    run = api.create(tiny_recipe(), store)
    going = steps(store, run, Blocks)
    for _ in range(5):
        next(going)
    store.request_stop(run)
    assert list(going) == [] and store.run(run).status == "stopped"
    assert len(recorded(store, run)) == 5


def test_an_error_there_fails_the_run_in_the_same_words(tiny_recipe, store, lender, monkeypatch):
    monkeypatch.setattr(
        workers.spaces,
        "reopen_models",
        lambda *_: (_ for _ in ()).throw(StudioError("Put it back.")),
    )
    run = api.create(tiny_recipe(), store)
    with pytest.raises(StudioError, match="Put it back."):
        drive(store, run)
    assert store.run(run).message == "Put it back."
    monkeypatch.setattr(workers.spaces, "reopen_models", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        drive(store, run)
    assert "ZeroDivisionError" in store.run(run).message


# ── the mark, and the real package ────────────────────────────────────────────────────────────


def test_off_a_space_the_mark_does_nothing(monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert not zero_gpu.available()
    assert zero_gpu.gpu(duration=5)(lease) is lease
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(zero_gpu.importlib.util, "find_spec", lambda name: None)
    assert not zero_gpu.available() and zero_gpu.gpu()(lease) is lease


#: A process that has computed with torch, its fork, and four threads there that are the first to.
FORKS = """
import os, threading, torch
from studio import zero_gpu
numbers = torch.ones(300_000)
torch.set_num_threads(2)
(numbers + numbers).sum()
failed = 0
for _ in range(40):
    if fork := os.fork():
        failed += os.waitpid(fork, 0)[1] != 0
        continue
    wrong, start = [], threading.Barrier(4)

    def compute():
        start.wait()
        try:
            numbers.clone()
        except RuntimeError as error:
            wrong.append(error)

    threads = [threading.Thread(target=compute) for _ in range(4)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    os._exit(bool(wrong))
print(failed)
"""


def test_threads_of_a_fork_may_all_compute_at_once():
    done = subprocess.run(
        [sys.executable, "-c", FORKS], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["0"], done.stderr


#: Where a driver would be touched, nothing is: all else is the package's own.
WITHOUT_DRIVER = """
import sys
import spaces.zero.torch as driver
driver.init = lambda uuid: None
driver.move = lambda callback=None: None
from spaces.zero import client
from studio.evolve import blocks
from studio.evolve.loop import steps
from studio.runs import Store
client.startup_report()
store = Store()
for _ in steps(store, sys.argv[1], blocks.Blocks):
    pass
print(store.run(sys.argv[1]).status, "|", store.run(sys.argv[1]).message)
"""


def with_spaces(scheduler: Scheduler, run: str, folder: Path) -> str:
    """Work on a run of the test's workspace in a process that takes itself for a ZeroGPU Space."""
    groups = folder / "cgroup"
    groups.write_text("0::/space\n")
    environment = os.environ | {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": scheduler.address,
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(groups),
        "ZEROGPU_OFFLOAD_DIR": str(folder / "tensors"),
        "HOME": str(folder),
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DRIVER, run],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_real_package_schedules_allows_and_releases(tiny_recipe, tmp_path):
    store = Store()
    recipe = tiny_recipe(budget={"candidates": 4}, search=ALONE)
    here = api.evolve(recipe, store)
    run = api.create(recipe, store)
    scheduler = Scheduler(granting=3)
    try:
        said = with_spaces(scheduler, run, tmp_path)
        assert said.startswith("stopped | ZeroGPU lends no GPU now (")
        assert "quota" in said or "GPU limit" in said
        paths = scheduler.paths()
        assert paths[0] == "/startup-report" and paths.count("/schedule") == 4
        assert paths.count("/release") == 3 and paths.count("/allow") == 1  # one worker, kept
        times = recorded(store, run)
        assert times
        scheduler.granting = 100
        assert with_spaces(scheduler, run, tmp_path).startswith("finished |")
    finally:
        scheduler.shutdown()
    assert times.items() <= recorded(store, run).items()
    assert trajectory(store, run) == trajectory(store, here)
    asked = [float(p["durationSeconds"]) for path, p in scheduler.asked if path == "/schedule"]
    assert all(5 < seconds <= lease_of(blocks.USUAL) for seconds in asked)
    store.close()


def lease_of(seconds: float) -> float:
    """What is asked for a block, by the package: on the usual GPU a second is one of quota."""
    return max(1.2 * seconds + 6, 0)
