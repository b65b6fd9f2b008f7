"""Worker processes really killed, stopped, starved of disk, and the run they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio import api
from studio.errors import StudioError
from studio.runs import Store
from tests.trajectory import recorded, trajectory

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds for anything to happen at all

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture
def store(own_workspace):
    """The store of the workspace, which subprocesses find through the environment."""
    store = Store()
    yield store
    store.close()


@pytest.fixture
def workers():
    """`workers(run, store)` queues a run for a worker process; what still lives at the end is
    killed."""
    started = []

    def start(run, store, **options) -> subprocess.Popen:
        store.enqueue(run)
        command = [sys.executable, "-m", "studio", "worker", "--store", store.path]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, **pipes, **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition, process) -> None:
    """Poll until the condition holds while the process works."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.003)


def starve(store) -> dict:
    """Options of a process whose files cannot grow much: how a full disk feels."""
    import resource

    store._rows("PRAGMA wal_checkpoint(TRUNCATE)")
    limit = Path(store.path).stat().st_size + 65_536
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}


def test_killed_at_any_moment_the_run_ends_as_if_nothing_had_happened(tiny_recipe, store, workers):
    recipe = tiny_recipe(budget={"candidates": 60})
    whole = api.evolve(recipe, store)
    run = api.create(recipe, store)

    times = {}
    for evaluations in (1, 9, "full disk", 70, 110):
        if evaluations == "full disk":
            process = workers(run, store, **starve(store))
            _, said = process.communicate(timeout=PATIENCE)
            assert "free some disk space" in said and "Traceback" not in said
        else:
            process = workers(run, store)
            wait_for(lambda wanted=evaluations: len(recorded(store, run)) >= wanted, process)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert api.progress(run, store).state == "interrupted"
        now = recorded(store, run)
        assert times.items() <= now.items()  # nothing recorded was evaluated again
        times = now
        assert store._rows("PRAGMA integrity_check")[0][0] == "ok"

    done = subprocess.run(
        [sys.executable, "-m", "studio", "resume", run, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["state"] == "finished" and len(shown["sessions"]) == 6
    assert times.items() <= recorded(store, run).items()
    assert trajectory(store, run) == trajectory(store, whole)
    assert store.best(run).id == store.best(whole).id


def test_one_worker_may_be_asked_to_stop_and_no_second_may_join(tiny_recipe, store, workers):
    run = api.create(tiny_recipe(budget={"candidates": 5000}), store)

    process = workers(run, store)
    wait_for(lambda: len(recorded(store, run)) >= 8, process)
    assert api.progress(run, store).state == "running"
    with pytest.raises(StudioError, match="worked on by another process"):
        api.resume(run, store)
    assert store.run(run).status == "running"  # the refused one changed nothing
    process.terminate()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert store.run(run).status == "stopped"
    before = recorded(store, run)

    assert api.restart(run, store) == run  # by a worker of its own
    end = time.monotonic() + PATIENCE
    while len(recorded(store, run)) < len(before) + 3:
        assert time.monotonic() < end
        time.sleep(0.01)
    api.pause(run, store)
    assert api.progress(run, store).state in ("stopping", "stopped")
    while api.progress(run, store).state != "stopped":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert before.items() <= recorded(store, run).items()
    log = store.folder / "logs" / "worker.log"
    assert "Traceback" not in log.read_text()


def test_a_worker_leaves_a_core_to_others(tiny_recipe, store, workers):
    run = api.create(tiny_recipe(budget={"candidates": 5000}), store)
    process = workers(run, store)
    wait_for(lambda: store.events(run), process)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, mine + 5)
