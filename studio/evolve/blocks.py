"""Scoring on ZeroGPU: an executor that sends jobs off in blocks of well under a minute.

The search and its record stay where they are. A block is an order (`studio.evolve.workers`): the
function that carries it out runs in a forked process that is lent a GPU and may be a fork of long
ago. What this process has opened since that fork, the worker cannot see, and weights that waited
here for a fork would take up the memory of the page that everybody looks at.

Knows how much fits a block, from the speed of those before, and how a job too long for one is cut
at its batches. Refuses to know what jobs are for.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import NoReturn

from studio.errors import StudioError
from studio.evolve.executors import Asking, Bench, Job, Paused
from studio.evolve.generate import Response
from studio.evolve.workers import Cut, Message, Order, askings, carry_out, contents
from studio.runs.records import Evaluation
from studio.zero_gpu import gpu

#: Seconds of work in a block: the first, of unknown speed; one in general; the longest there is.
FIRST, USUAL, LONGEST = 15.0, 45.0, 95.0


@dataclass(frozen=True, eq=False)
class Block(Order):
    """An order that has to be done in a while.

    Attributes:
        seconds: to stop working after.
    """

    seconds: float


def lease(block: Block) -> int:
    """Seconds to ask the GPU for: a worker takes some to start, and hears late that time is up."""
    return math.ceil(1.2 * block.seconds + 5)


@gpu(duration=lease)
def score_block(block: Block) -> Iterator[Message]:
    """Do a block's jobs until they are done or the time is up; runs where the GPU is."""
    end = time.monotonic() + block.seconds

    def glance() -> None:
        if time.monotonic() > end:
            raise Cut

    yield from carry_out(block, glance)


class Blocks:
    """Has jobs done in blocks, one after another.

    Where no GPU is to be had, because none is free or the visitor's quota is spent, it pauses the
    run. A stop is heard after the candidate in flight.
    """

    workers = 1

    def __init__(self, bench: Bench):
        self.bench = bench
        self._recipe = bench.recipe.to_yaml()
        self._seconds = FIRST
        self._pace: float | None = None  # seconds per answer, of the block before
        self._opening = 0.0  # seconds before a block's first answer
        self._spent: Counter[str] = Counter()  # by subject: seconds in blocks that cut it short

    def plan(self) -> int:
        return dict(self._messages((), USUAL))["batch"]

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[Evaluation]]]:
        coming = iter(jobs)
        left: list[Job] = []  # taken, and not done yet
        while left or (left := list(islice(coming, 1))):
            self.bench.check()
            block, seconds = self._cut(left, coming)
            done: list[Job] = []
            answers, said, start = 0, 0, time.monotonic()
            for message in self._messages(block, seconds):
                if message[0] == "ready":
                    self._opening, start = message[1], time.monotonic()
                elif message[0] == "halved":
                    self.bench.batch_size = message[1]
                    self.bench.said.clear()
                    self.bench.halved(message[1])
                elif message[0] == "said":
                    said += self._noted(message[1], message[2])
                elif message[0] == "done":
                    job = block[message[1]]
                    done.append(job)
                    answers += _answers(job)
                    yield job, self._whole(job, message[2])
                    self.bench.check()
            if answers + said:
                self._pace = (time.monotonic() - start) / (answers + said)
                self._seconds = max(USUAL, self._seconds)
            else:
                self._stretch(seconds)
            left = [job for job in left if job not in done]
            if left and said:
                self._spent[left[0].subject] += time.monotonic() - start

    def _cut(self, left: list[Job], coming: Iterator[Job]) -> tuple[tuple[Job, ...], float]:
        """The first of the jobs, as many as a block has time for, and the seconds to give it.

        What it takes of those that are coming is added to those that are left.
        """
        if self._pace is None:
            return tuple(left[:1]), self._seconds
        due, block = self._opening, []
        for place in count():
            if place == len(left):
                left += islice(coming, 1)
            if place == len(left):
                break
            due += self._pace * _answers(left[place])
            if block and due > self._seconds:
                break
            block.append(left[place])
        # no more than it is likely to need: the shorter, the sooner its turn comes
        return tuple(block), min(self._seconds, max(FIRST, 1.5 * due))

    def _stretch(self, seconds: float) -> None:
        """Nothing came of a block: the next has twice the time, if there is so much."""
        if seconds >= LONGEST:
            raise StudioError(
                f"Not one batch of answers came within {LONGEST:.0f} seconds of ZeroGPU; use a "
                "smaller batch_size or smaller models, or a machine that has a GPU of its own."
            )
        self._seconds, self._pace = min(2 * seconds, LONGEST), None

    def _whole(self, job: Job, found: list[Evaluation]) -> list[Evaluation]:
        """A job's evaluations, with the time of blocks that it had not come to its end in."""
        for asking in askings(job):
            self.bench.said.pop(asking, None)
        seconds = found[0].seconds + self._spent.pop(job.subject, 0.0)
        return [replace(found[0], seconds=seconds), *found[1:]]

    def _noted(self, asking: Asking, responses: dict[int, Response]) -> int:
        """Keep what a job that was cut short had come to; how many responses are new."""
        known = self.bench.said.setdefault(asking, {})
        new = {place: r for place, r in responses.items() if known.get(place) != r}
        known.update(new)
        if new:
            self.bench.keep(asking, new)
        return len(new)

    def _messages(self, jobs: tuple[Job, ...], seconds: float) -> Iterator[Message]:
        block = Block(**contents(self.bench, self._recipe, jobs), seconds=seconds)
        going = score_block(block)
        try:
            while True:
                try:
                    message = next(going)
                except StopIteration:
                    return
                except Exception as error:  # of the scheduler: ours are messages
                    _pause(error)
                if message[0] == "failed":
                    raise StudioError(message[1]) if message[1] else RuntimeError(message[2])
                yield message
        finally:
            going.close()


def _answers(job: Job) -> int:
    return sum(len(asked.places) for asked in job.asked)


def _pause(error: Exception) -> NoReturn:
    """In a sentence: why there is no GPU now."""
    said = " ".join(str(getattr(error, "message", "") or error).split())[:300].rstrip(".")
    raise Paused(
        f"ZeroGPU lends no GPU now ({said or type(error).__name__}); what was scored is kept, "
        "resume the run later."
    ) from error
