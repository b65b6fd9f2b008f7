"""Workers of a Ray cluster of several machines, all of them this one: what they find and survive.

A machine is a raylet of its own, with a process per worker; killing it kills what runs on it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from studio import api
from studio.errors import StudioError
from studio.evolve import cluster as crew_module
from studio.evolve import shipping
from studio.evolve import workers as workers_module
from studio.evolve.cluster import Cluster
from studio.evolve.executors import Asked, Bench, Job
from studio.evolve.inputs import of_models
from studio.evolve.loop import steps
from studio.evolve.placing import Place
from studio.evolve.remote import Errand, Remote, versions
from studio.evolve.shipping import bundles
from studio.evolve.spaces import open_models
from studio.evolve.workers import contents
from studio.models import sources
from studio.runs import Store
from tests.evolve.crews import noted
from tests.evolve.test_stages import everything
from tests.trajectory import recorded

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds for anything to happen at all
STORE = 80 << 20  # bytes of a machine's object store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """A cluster whose head does no work, and two machines with a core each."""
    from ray.cluster_utils import Cluster as Machines

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MACHINES", str(tmp_path_factory.mktemp("machines")))  # for workers' traces
        patch.setenv("RAY_worker_niceness", "0")  # or they would starve on a busy machine
        yield from _machines(Machines)


def _machines(Machines):
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    made = Machines(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=STORE)
    yield made
    made.shutdown()


@pytest.fixture
def place(machines, monkeypatch):
    monkeypatch.setattr(crew_module, "PULSE", 0.5)
    return Place("ray", address=machines.address)


@pytest.fixture
def crews(monkeypatch):
    return noted(monkeypatch, Cluster)


def drive(store, run: str, place: Place):
    """Work on a run step by step."""
    with place.opened() as executor, closing(steps(store, run, executor)) as going:
        yield from going


def finished_as(whole, store, run: str) -> None:
    """The same as the whole run, each of its evaluations once."""
    assert store.run(run).status == "finished"
    assert everything(store, run) == everything(*whole)
    assert set(recorded(store, run)) == set(recorded(*whole))


def workers() -> dict[int, psutil.Process]:
    """The processes of this machine that are a worker now."""
    found = {}
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if re.match("ray::(Remote|Stuck|Fatal|Elsewhere)", line):
            found[process.pid] = process
    return found


def victims() -> list[int]:
    """Those of them that carry an order out first."""
    found = {}
    for pid, process in workers().items():
        try:
            found[pid] = "carry_out" in process.cmdline()[0]
        except (psutil.Error, IndexError):
            continue
    return sorted(found, key=lambda pid: not found[pid])


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


# ── the same as here ──────────────────────────────────────────────────────────────────────────


def test_two_machines_find_what_this_process_finds(recipe, whole, store, place, crews):
    run = api.create(recipe, store)
    seen = set()
    for _ in drive(store, run, place):
        seen |= {actor for actor in crews[0]._actors if actor.errand}
    finished_as(whole, store, run)
    assert len(seen) == 2 and not crews[0]._actors
    wait_for(lambda: not workers())


# ── losses ────────────────────────────────────────────────────────────────────────────────────


def test_killed_workers_come_back_and_nothing_is_counted_twice(recipe, whole, store, place, crews):
    run = api.create(recipe, store)
    killed, due = set(), [5, 12]
    for number, _ in enumerate(drive(store, run, place)):
        if due and number >= due[0] and (found := victims()):
            os.kill(found[0], signal.SIGKILL)
            killed.add(found[0])
            due.pop(0)
    assert len(killed) == 2
    finished_as(whole, store, run)


@pytest.mark.slow
def test_a_worker_that_answers_nothing_is_replaced(recipe, whole, store, place, crews, monkeypatch):
    run = api.create(recipe, store)
    hung = None
    for number, _ in enumerate(drive(store, run, place)):
        proven = all(actor.proven for actor in crews[0]._actors)
        if number >= 5 and hung is None and proven and (found := victims()):
            hung = found[0]
            os.kill(hung, signal.SIGSTOP)
            monkeypatch.setattr(crew_module, "GONE", 10.0)
    wait_for(lambda: hung not in workers())
    finished_as(whole, store, run)


class Stuck(Remote):
    """Gets nothing done with candidate 3, once."""

    def carry_out(self, errand):
        marker = Path(os.environ["MACHINES"]) / f"stuck-{errand.run}"
        if errand.jobs and errand.jobs[0].subject == "candidate:3" and not marker.exists():
            marker.touch()
            time.sleep(3600)
        return super().carry_out(errand)


@pytest.mark.slow
def test_a_worker_that_gets_nothing_done_is_started_again(
    recipe, whole, store, place, crews, monkeypatch
):
    monkeypatch.setattr(crew_module, "Remote", Stuck)
    run = api.create(recipe, store)
    marker = Path(os.environ["MACHINES"]) / f"stuck-{run}"
    hear = Cluster._there

    def hear_impatiently(self, worker):
        # only now, and only so long: loading everything takes long on a busy machine
        waits = marker.exists() and not self._ends
        self.place = replace(place, timeout=10) if waits else place
        return hear(self, worker)

    monkeypatch.setattr(Cluster, "_there", hear_impatiently)
    for _ in drive(store, run, place):
        pass
    assert crews[0]._ends["candidate:3"] == 1
    finished_as(whole, store, run)


class Fatal(Remote):
    """Ends whatever process candidate 3 comes to."""

    def carry_out(self, errand):
        if errand.jobs and errand.jobs[0].subject == "candidate:3":
            os._exit(1)
        return super().carry_out(errand)


def test_a_job_that_kills_three_workers_stops_the_run_with_a_sentence(
    recipe, store, place, monkeypatch
):
    monkeypatch.setattr(crew_module, "Remote", Fatal)
    run = api.create(recipe, store)
    with pytest.raises(StudioError, match="Scoring candidate:3 ended 3 workers of the Ray cluster"):
        for _ in drive(store, run, place):
            pass
    assert store.run(run).status == "failed" and "candidate:3" in store.run(run).message


def test_a_machine_that_dies_and_others_that_join(recipe, whole, store, place, machines, crews):
    run = api.create(recipe, store)
    gone, joined, most = 0, [], 0
    for number, _ in enumerate(drive(store, run, place)):
        if number >= 5 and not gone:
            machines.remove_node(machines.list_all_nodes()[-1], allow_graceful=False)
            gone = number
        elif gone and not joined and number >= gone + 5:
            joined = [machines.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
        most = max(most, len(crews[0]._actors))
    assert joined and most >= 3
    machines.remove_node(joined[1])
    finished_as(whole, store, run)


def test_a_driver_that_is_killed_leaves_no_worker_and_the_run_goes_on(recipe, whole, place):
    """By way of the terminal, which goes on where the run was worked on last."""
    store = Store()
    run = api.create(recipe, store)
    command = [sys.executable, "-m", "studio", "resume", run]
    where = ["--executor", "ray", "--address", place.address]
    driver = subprocess.Popen([*command, *where], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(recorded(store, run)) >= 8 or driver.poll() is not None)
    assert workers()
    driver.kill()
    driver.wait()
    wait_for(lambda: not workers())
    times = recorded(store, run)
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Place.recorded(store, run) == place
    assert times.items() <= recorded(store, run).items()
    finished_as(whole, store, run)
    store.close()


def test_a_stop_is_heard_and_the_run_goes_on_here(recipe, whole, store, place):
    run = api.create(recipe, store)
    going = drive(store, run, place)
    for _ in range(5):
        next(going)
    store.request_stop(run)
    assert len(list(going)) <= 1 and store.run(run).status == "stopped"
    wait_for(lambda: not workers())
    Place().record(store, run)
    api.resume(run, store)
    finished_as(whole, store, run)


# ── what a machine has not got ────────────────────────────────────────────────────────────────


class Elsewhere(Remote):
    """On a machine that has none of the driver's files, but a workspace of its own."""

    def __init__(self, sharers: int):
        super().__init__(sharers)
        shipping._same = lambda path, file: False
        os.environ["STUDIO_WORKSPACE"] = os.environ["MACHINES"] + "/elsewhere"


def test_files_are_sent_once_to_each_machine(recipe, whole, store, place, crews, monkeypatch):
    monkeypatch.setattr(crew_module, "Remote", Elsewhere)
    run = api.create(recipe, store)
    for _ in drive(store, run, place):
        pass
    finished_as(whole, store, run)
    shelf = Path(os.environ["MACHINES"]) / "elsewhere" / "shipped"
    copies = [folder for folder in shelf.iterdir() if folder.is_dir()]
    names = {Path(bundle.path).name for bundle in crews[0]._bundles}
    assert names == {"base", "ja", "math", "questions.csv"} and len(copies) == 4
    assert names == {file.name for folder in copies for file in folder.iterdir()}
    assert not crews[0]._pieces


@pytest.fixture
def errand(recipe, monkeypatch):
    """Sources to be scored, as an errand that this process is to carry out for another."""
    monkeypatch.setattr(sources, "elsewhere", {})
    monkeypatch.setattr(workers_module, "_kept", None)
    models = open_models(recipe)
    tasks = {task.name: task for task in recipe.build_tasks()}
    bench = Bench("0123abcd", recipe, models, tasks, {}, batch_size=8)
    job = Job(f"model:{models[1].name}", (Asked("csv", "dev", range(5), "dev"),))
    return Errand(
        **contents(bench, recipe.to_yaml(), [job]),
        bundles=tuple(bundles(recipe, {})),
        fingerprints=of_models(models),
        versions=versions(),
    )


def test_a_machine_that_has_everything_does_the_job(errand, whole):
    kinds = {message[0]: message for message in Remote(1).carry_out(errand)}
    assert list(kinds) == ["ready", "done"]
    [found] = kinds["done"][2]
    store, run = whole
    before = store.evaluation(run, *(found.subject, found.task, found.split))
    assert replace(found, seconds=0.0) == replace(before, seconds=0.0)


def test_a_machine_without_the_files_says_so(errand, monkeypatch):
    monkeypatch.setattr(shipping, "_same", lambda path, file: False)
    assert Remote(1).carry_out(errand) == [("missing", list(errand.bundles))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"versions": {"torch": "1.0"}},
            r"torch is \S+ on this machine and 1\.0 where the run is recorded; install the same",
        ),
        (
            {"fingerprints": defaultdict(str)},
            r"The model .*base is another on this machine than where the run is recorded; bring",
        ),
    ],
)
def test_a_machine_on_which_candidates_would_differ_refuses(errand, change, said):
    [(kind, sentence, _)] = Remote(1).carry_out(replace(errand, **change))
    assert kind == "failed" and re.search(said, sentence)


def test_what_is_cut_says_how_far_it_came(errand):
    remote = Remote(1)
    remote._glance = lambda: remote.cut() or Remote._glance(remote)
    assert [message[0] for message in remote.carry_out(errand)] == ["ready"]
    assert remote.silence() < 60


# ── no cluster ────────────────────────────────────────────────────────────────────────────────


def test_no_room_pauses_the_run(recipe, store, place, crews):
    """Two workers on two cores there are; those of a crew of five more have to wait for theirs."""
    first, second = api.create(recipe, store), api.create(recipe, store)
    going = drive(store, first, place)
    next(going)
    assert list(drive(store, second, replace(place, timeout=4))) == []
    assert store.run(second).status == "stopped"
    assert "had no room for a worker (CPU cores: 1) in 4 seconds" in store.run(second).message
    going.close()
    assert store.run(first).status == "stopped"


def test_no_cluster_is_a_sentence(recipe, store):
    run = api.create(recipe, store)
    with pytest.raises(StudioError, match=r"no Ray cluster to join at 127\.0\.0\.1:9 .*ray start"):
        for _ in drive(store, run, Place("ray", address="127.0.0.1:9")):
            pass
