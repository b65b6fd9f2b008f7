"""The workers of a Ray cluster: as many candidates at a time as the cluster has room for.

Where a worker goes, and that it comes back when its process or machine is lost, is Ray's. What it
was doing is given to whoever is free first, rather than waiting for its return: that, and whether
there is room for more workers, the driver looks after. Knows Ray. Refuses to know what a worker
does (`studio.evolve.remote`) and which files it lacks (`studio.evolve.shipping`).
"""

import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.evolve import inputs, shipping
from studio.evolve.crew import TRIES, Crew
from studio.evolve.executors import Bench, Paused
from studio.evolve.placing import Place
from studio.evolve.remote import Errand, Remote, versions
from studio.evolve.shipping import Bundle, File
from studio.evolve.workers import Message, Order

#: Seconds between two questions to a worker whether it is there, and between two looks for room.
PULSE = 2.0
#: Seconds after which one that does not answer is taken for lost; Ray may be bringing it back. The
#: first order takes longer: everything has to be loaded.
GONE, STARTING = 60.0, 300.0


@dataclass(eq=False)
class Actor:
    """A worker, as seen from here.

    Attributes:
        handle: Ray's.
        going: what it was last asked to do; None if it has nothing to do.
        errand: what that is for; None while it starts. wanted: whether somebody waits for it.
        taking: whether files are being sent to it. proven: whether it carried one out before.
        asked: its answer to whether it is there, once it is asked; since: when.
        answered: when it last answered.
    """

    handle: Any
    going: Any
    errand: Errand | None = None
    wanted: bool = False
    taking: bool = False
    proven: bool = False
    asked: Any = None
    since: float = 0.0
    answered: float = field(default_factory=time.monotonic)


class Cluster(Crew[Actor]):
    """Has jobs done by the workers of a Ray cluster; a GPU each where there are any."""

    def __init__(self, bench: Bench, place: Place):
        super().__init__(bench, place)
        import ray

        self._ray = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            _connect(place.address)
        self._bundles = tuple(shipping.bundles(bench.recipe, bench.ancestors))
        self._fingerprints = inputs.of_models(bench.models)
        self._pieces: dict[tuple[Bundle, File], list[Any]] = {}
        self._actors: list[Actor] = []
        self._needs, self._sharers = self._sized()
        self._ends: Counter[str] = Counter()  # of workers, by whom it was that they were scoring
        self._looked = 0.0
        self._answered = time.monotonic()  # when any worker last did
        self._grow()

    @property
    def workers(self) -> int:
        return max(1, len(self._actors))

    # ── room ──────────────────────────────────────────────────────────────────────────────────

    def _nodes(self) -> list[dict[str, float]]:
        """What each machine of the cluster has."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _sized(self) -> tuple[dict[str, float], int]:
        """What a worker needs, and how many of them share a machine's memory."""
        nodes = self._nodes()
        if any(node.get("GPU") for node in nodes):
            return {"num_gpus": 1, "num_cpus": 1}, 1
        cores = [int(node["CPU"]) for node in nodes if node.get("CPU")] or [1]
        each = min(cores)
        if self.place.workers:
            each = max(1, min(each, sum(cores) // self.place.workers))
        return {"num_cpus": each}, max(1, max(cores) // each)

    def _room(self) -> int:
        """How many workers there should be."""
        if self.place.workers:
            return self.place.workers
        kind, each = ("GPU", 1) if "num_gpus" in self._needs else ("CPU", self._needs["num_cpus"])
        # with room for none one is asked for all the same: a cluster that can grow hears of it
        return max(1, sum(int(node.get(kind, 0) // each) for node in self._nodes()))

    def _grow(self) -> None:
        """Start workers for the room there is, now and then."""
        if time.monotonic() - self._looked < PULSE:
            return
        self._looked = time.monotonic()
        made = self._ray.remote(
            max_restarts=-1, max_task_retries=-1, max_concurrency=2, **self._needs
        )(Remote)
        while len(self._actors) < self._room():
            handle = made.remote(self._sharers)
            self._actors.append(Actor(handle, handle.silence.remote()))

    # ── orders ────────────────────────────────────────────────────────────────────────────────

    def _free(self) -> Actor | None:
        self._grow()
        return next((actor for actor in self._actors if actor.going is None), None)

    def _give(self, worker: Actor, order: Order) -> None:
        own = {item.name: getattr(order, item.name) for item in fields(Order)}
        worker.errand = Errand(
            **own, bundles=self._bundles, fingerprints=self._fingerprints, versions=versions()
        )
        worker.wanted = True
        worker.answered = self._answered = time.monotonic()  # one that is free has
        self._send(worker)

    def _send(self, worker: Actor) -> None:
        # once: where Ray cannot reach a machine, it would use up all its tries within a second
        once = worker.handle.carry_out.options(max_task_retries=0)
        worker.going = once.remote(worker.errand)

    def _cut(self, worker: Actor) -> None:
        worker.wanted = False
        worker.handle.cut.remote()

    def _news(self, seconds: float) -> tuple[Actor, list[Message] | None] | None:
        self._grow()
        if lost := self._missed():
            return lost
        for worker in self._actors:
            if worker.errand and worker.asked is None and time.monotonic() - worker.since > PULSE:
                worker.asked, worker.since = worker.handle.silence.remote(), time.monotonic()
        answers = {actor.asked: actor for actor in self._actors if actor.asked is not None}
        going = {actor.going: actor for actor in self._actors if actor.going is not None}
        if not going:
            time.sleep(seconds)
            return None
        ready, _ = self._ray.wait([*going, *answers], num_returns=1, timeout=seconds)
        if not ready:
            return None
        self._answered = time.monotonic()
        if ready[0] in answers:
            return self._there(answers[ready[0]])
        return self._came(going[ready[0]])

    def _missed(self) -> tuple[Actor, None] | None:
        """A worker that has not answered for too long, lost; or nobody has."""
        now = time.monotonic()
        for worker in self._actors:
            longest = GONE if worker.proven else max(GONE, STARTING)
            if worker.errand and now - worker.answered > longest + PULSE:
                return self._lost(worker)
        if now - self._answered > self.place.timeout:
            cores = f"CPU cores: {self._needs['num_cpus']}"
            each = "one GPU" if "num_gpus" in self._needs else cores
            raise Paused(
                f"The Ray cluster had no room for a worker ({each}) in {self.place.timeout:.0f} "
                "seconds; what was scored is kept, resume the run when it has."
            )
        return None

    def _there(self, worker: Actor) -> None:
        """Hear how long a worker that is there has got nothing done."""
        answer, worker.asked = worker.asked, None
        try:
            silence = self._ray.get(answer)
        except self._ray.exceptions.RayError:
            return  # Ray is bringing it back
        worker.answered = time.monotonic()
        if worker.errand and silence > self.place.timeout:
            self._ray.kill(worker.handle, no_restart=False)  # and so its errand ends

    def _came(self, worker: Actor) -> tuple[Actor, list[Message] | None] | None:
        """Hear what came of what a worker was asked to do, and ask on."""
        going, errand, worker.going = worker.going, worker.errand, None
        try:
            said = self._ray.get(going)
        except self._ray.exceptions.RayError as error:
            why = " ".join(str(error).split())[:300]
            if errand is None or worker.taking:
                raise StudioError(
                    f"A worker cannot start on the Ray cluster ({why}); install the same Studio, "
                    "Python and libraries on all its machines."
                ) from error
            return self._ended(worker, why)
        if errand is None:
            return None  # it has started
        if worker.taking:
            worker.taking = False
            if not any(other.taking for other in self._actors):
                self._pieces.clear()
            if said:
                raise StudioError(said)
            self._send(worker)
            return None
        if said and said[0][0] == "missing":
            bundle = said[0][1][0]
            pieces = {file: self._put(bundle, file) for file in bundle.files}
            worker.going, worker.taking = worker.handle.take_in.remote(bundle, pieces), True
            return None
        worker.errand, worker.proven = None, True
        return worker, said

    def _ended(self, worker: Actor, why: str) -> tuple[Actor, None]:
        """Take back what a worker was doing that ended; Ray brings the worker back."""
        jobs, wanted = worker.errand.jobs, worker.wanted
        worker.going, worker.errand, worker.proven = worker.handle.silence.remote(), None, False
        if wanted:
            subject = jobs[0].subject if jobs else "plan"
            self._ends[subject] += 1
            if self._ends[subject] == TRIES:
                raise StudioError(
                    f"Scoring {subject} ended {TRIES} workers of the Ray cluster one after another "
                    f"({why}); most often memory is short: take fewer workers or a smaller "
                    "batch_size, or a longer timeout if they are only slow, then resume the run."
                )
        return worker, None

    def _put(self, bundle: Bundle, file: File) -> list[Any]:
        """A file in the cluster's object store, once for all who ask for it at about the time."""
        if (bundle, file) not in self._pieces:
            path = Path(bundle.path) / file.name if file.name else bundle.path
            with open(path, "rb") as stream:
                pieces = iter(partial(stream.read, shipping.PIECE), b"")
                self._pieces[bundle, file] = [self._ray.put(piece) for piece in pieces]
        return self._pieces[bundle, file]

    def _lost(self, worker: Actor) -> tuple[Actor, None]:
        """Let a worker go; there may be room for another."""
        self._actors.remove(worker)
        self._ray.kill(worker.handle)
        return worker, None

    def close(self) -> None:
        for worker in self._actors:
            with suppress(self._ray.exceptions.RayError):  # the cluster is gone
                self._ray.kill(worker.handle)
        self._actors = []
        if self._mine:
            self._ray.shutdown()


def _connect(address: str) -> None:
    """Join a cluster.

    Raises:
        StudioError: there is none at the address.
    """
    import ray

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what runs here
    try:
        host, _, port = address.rpartition("//")[2].rpartition(":")
        if host:  # Ray would go on trying for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address or None, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise StudioError(
            f"There is no Ray cluster to join at {address or 'this machine'} ({why}); start one "
            "with `ray start --head`, or leave the address out for this machine alone."
        ) from error
    finally:
        if main:  # Ray takes the signal, after which a run could not end in order
            signal.signal(signal.SIGTERM, before)
