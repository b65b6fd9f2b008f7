"""A process per device of this machine: as many candidates at a time as there are GPUs.

Without a GPU there is one device, the CPU, and as many processes share its cores as are asked for.
Knows how a process is started, heard and replaced. Refuses to know what it does with an order
(`studio.evolve.workers`).

A process is started afresh, never forked: a fork has no use for the GPU that its parent has seen.
It is not `multiprocessing`'s either, which would run the user's script a second time to find what
is to be called. Orders come by its standard input and messages go by its standard output, pickled:
both ends are this program. It ends when its input does, so that none outlives whoever started it.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from studio.errors import StudioError
from studio.evolve.crew import TRIES, Crew
from studio.evolve.executors import Bench
from studio.evolve.placing import Place
from studio.evolve.workers import Cut, Message, Order, carry_out

#: Seconds between two signs of life of a process that is at work.
_PULSE = 1.0
#: Seconds without one at the least that it takes to start, and to load everything.
STARTING = 300.0


class Devices(Crew["Process"]):
    """Has jobs done by one process per device; raises StudioError if there are fewer devices."""

    def __init__(self, bench: Bench, place: Place):
        super().__init__(bench, place)
        self._environments = _environments(place.workers)
        self.workers = len(self._environments)
        self._crew: dict[int, Process] = {}  # by device
        self._inbox: queue.SimpleQueue[tuple[Process, Message | None]] = queue.SimpleQueue()
        self._ended: Counter[str] = Counter()  # by whom it was that they were scoring

    def _free(self) -> "Process | None":
        for device, environment in enumerate(self._environments):
            if device not in self._crew:
                sharers = 1 if "CUDA_VISIBLE_DEVICES" in environment else self.workers
                self._crew[device] = Process(environment, sharers, self._inbox)
            if self._crew[device].order is None:
                return self._crew[device]
        return None

    def _give(self, worker: "Process", order: Order) -> None:
        worker.give(order)

    def _news(self, seconds: float) -> "tuple[Process, list[Message] | None] | None":
        try:
            worker, message = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return self._silent()
        if worker not in self._crew.values():
            return None  # the last words of one that was replaced
        worker.heard = time.monotonic()
        if message is None:
            return self._lost(worker, worker.ending())
        if message[0] == "end":
            messages, worker.messages, worker.order = worker.messages, [], None
            worker.proven = True
            return worker, messages
        if message[0] != "alive":
            worker.messages.append(message)
        return self._silent()

    def _silent(self) -> "tuple[Process, None] | None":
        """A process that has an order and has not been heard for too long, lost."""
        for worker in self._crew.values():
            silence, longest = time.monotonic() - worker.heard, self.place.timeout
            if not worker.proven:
                longest = max(longest, STARTING)
            if worker.order is not None and silence > longest:
                return self._lost(worker, f"nothing was heard for {silence:.0f} seconds")
        return None

    def _lost(self, worker: "Process", why: str) -> "tuple[Process, None]":
        """Let a process go; another takes its place when there is something to do."""
        self._crew = {device: other for device, other in self._crew.items() if other is not worker}
        worker.end()
        if worker.order is not None and worker.wanted:
            jobs = worker.order.jobs
            subject = jobs[0].subject if jobs else "plan"
            self._ended[subject] += 1
            if self._ended[subject] == TRIES:
                raise StudioError(
                    f"Scoring {subject} ended {TRIES} workers one after another ({why}); most "
                    "often memory is short: take fewer workers or a smaller batch_size, or a "
                    "longer timeout if they are only slow, then resume the run."
                )
        return worker, None

    def _cut(self, worker: "Process") -> None:
        worker.cut()

    def close(self) -> None:
        for worker in self._crew.values():
            worker.end()
        self._crew = {}


def _environments(workers: int | None) -> list[dict[str, str]]:
    """What each process finds in its environment: its GPU, or its share of the cores."""
    import torch

    if devices := torch.cuda.device_count():
        if workers is not None and workers > devices:
            raise StudioError(
                f"There are {devices} GPUs for {workers} workers; each needs one, so take fewer."
            )
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = seen.split(",") if seen else [str(number) for number in range(devices)]
        return [{"CUDA_VISIBLE_DEVICES": name} for name in names[: workers or devices]]
    workers = workers or 1
    threads = str(max(1, torch.get_num_threads() // workers))
    return [{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}] * workers


class Process:
    """One worker, as seen from here.

    Args:
        environment: added to this process's own.
        sharers: how many such processes share the memory.
        inbox: gets (this, message) of each message, and None at the end.

    Attributes:
        order: what it is doing, None if nothing; wanted: whether somebody waits for it.
        messages: of that order, so far.
        heard: when there was the last sign of life, by `time.monotonic`.
        proven: whether it has carried out an order before.
    """

    def __init__(self, environment: dict[str, str], sharers: int, inbox: queue.SimpleQueue):
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "studio.evolve.devices", str(sharers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
        self._inbox = inbox
        self._outbox: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self.order: Order | None = None
        self.wanted = self.proven = False
        self.messages: list[Message] = []
        self.heard = time.monotonic()
        for task in (self._listen, self._speak):  # a process that hangs must not hang this one
            threading.Thread(target=task, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def give(self, order: Order) -> None:
        self.order, self.wanted, self.heard = order, True, time.monotonic()
        self._outbox.put(order)

    def cut(self) -> None:
        self.wanted = False
        self._outbox.put(None)

    def _speak(self) -> None:
        try:
            while True:
                pickle.dump(self._outbox.get(), self._process.stdin)
                self._process.stdin.flush()
        except (OSError, ValueError):  # it is dead, which whoever listens hears
            pass

    def _listen(self) -> None:
        try:
            while True:
                self._inbox.put((self, pickle.load(self._process.stdout)))
        except Exception:  # killed in the middle of a word, it may have left any nonsense
            self._inbox.put((self, None))

    def ending(self) -> str:
        """In words: how the process ended."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                stream.close()
            except OSError:  # what was not read yet
                pass


def _work(sharers: int) -> None:
    """Be a worker: carry out one order after another until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to hear
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    cut = threading.Event()
    # whatever prints something must not do so in the middle of a message
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    said = time.monotonic()

    def send(message: Message) -> None:
        nonlocal said
        pickle.dump(message, out)
        out.flush()
        said = time.monotonic()

    def glance() -> None:
        if cut.is_set():
            raise Cut
        if time.monotonic() - said > _PULSE:
            send(("alive",))

    def listen() -> None:
        try:
            while True:
                order = pickle.load(sys.stdin.buffer)
                if order is None:
                    cut.set()
                else:
                    cut.clear()
                    orders.put(order)
        except EOFError:
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        for message in carry_out(orders.get(), glance, sharers):
            send(message)
        send(("end",))


if __name__ == "__main__":
    _work(int(sys.argv[1]))
