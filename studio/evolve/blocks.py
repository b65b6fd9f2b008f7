"""Scoring on ZeroGPU: an executor that sends jobs off in blocks of well under a minute.

The search and its record stay where they are. A block is plain data, and so is what comes back: the
function that does it runs in a forked process that is lent a GPU, has no database, and may be a
fork of long ago. So it opens the models itself, by name: what this process has opened since that
fork, the worker cannot see, and weights that waited here for a fork would take up the memory of the
page that everybody looks at. What a worker has opened it keeps, for as long as it lives.

Knows how much fits a block, from the speed of those before, and how a job too long for one is cut
at its batches. Refuses to know what jobs are for.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from studio.errors import StudioError
from studio.evolve import spaces
from studio.evolve.executors import Asking, Bench, InProcess, Job, Paused
from studio.evolve.generate import Response
from studio.evolve.spaces import Ancestor, Winner
from studio.recipe import Recipe
from studio.runs.records import Evaluation
from studio.zero_gpu import gpu

#: Seconds of work in a block: the first, of unknown speed; one in general; the longest there is.
FIRST, USUAL, LONGEST = 15.0, 45.0, 95.0


@dataclass(frozen=True, eq=False)
class Block:
    """Jobs, and all it takes to do them elsewhere; plain data.

    Attributes:
        run: its id; recipe: as YAML.
        ancestors, winners, said, batch_size: as of `Bench`.
        jobs: done in this order; none of them: say how many prompts fit the memory at a time.
        seconds: to stop working after.
    """

    run: str
    recipe: str
    ancestors: dict[str, Ancestor]
    winners: dict[str, Winner]
    said: dict[Asking, dict[int, Response]]
    batch_size: int
    jobs: tuple[Job, ...]
    seconds: float


#: What comes back of a block, in this order. A kind and what it says:
#: "ready" (seconds it took to open everything), "batch" (prompts that fit), "halved" (the new batch
#: size), "done" (a job's place in the block, its evaluations), "said" (an asking and the responses
#: to it so far), "failed" (a sentence for the user, or ""; the error's name and words).
Message = tuple[Any, ...]


def lease(block: Block) -> int:
    """Seconds to ask the GPU for: a worker takes some to start, and hears late that time is up."""
    return math.ceil(1.2 * block.seconds + 5)


class _TimeUp(Exception):
    """The block's seconds are over."""


#: What this worker opened last, and for which run.
_kept: tuple[str, InProcess] | None = None


@gpu(duration=lease)
def score_block(block: Block) -> Iterator[Message]:
    """Do a block's jobs until they are done or the time is up; runs where the GPU is.

    Whatever goes wrong is a message, for an exception would lose its words on the way; what is
    raised is the scheduler's.
    """
    end = time.monotonic() + block.seconds
    messages: list[Message] = []

    def glance() -> None:
        if time.monotonic() > end:
            raise _TimeUp

    try:
        start = time.monotonic()
        executor = _opened(block)
        bench = executor.bench
        bench.batch_size, bench.said = block.batch_size, dict(block.said)
        bench.winners |= block.winners
        bench.check = bench.glance = glance
        bench.halved = lambda size: messages.append(("halved", size))
        yield "ready", time.monotonic() - start
        if not block.jobs:
            yield "batch", executor.plan()
        going = executor.run(block.jobs)
        for place in range(len(block.jobs)):
            _, found = next(going)
            yield from messages
            messages.clear()
            yield "done", place, found
    except _TimeUp:
        yield from messages
        yield from (("said", asking, those) for asking, those in bench.said.items() if those)
    except StudioError as error:
        yield "failed", str(error), ""
    except Exception as error:
        yield "failed", "", f"{type(error).__name__}: {error}"


def _opened(block: Block) -> InProcess:
    """An executor for the block's run: the one this worker has, if it is the same run's."""
    global _kept
    if _kept is None or _kept[0] != block.run:
        _kept = None  # the memory first
        recipe = Recipe.from_yaml(block.recipe)
        tasks = {task.name: task for task in recipe.build_tasks()}
        models = spaces.reopen_models(recipe, block.ancestors)
        _kept = block.run, InProcess(Bench(block.run, recipe, models, tasks, _Examples(tasks)))
    return _kept[1]


class _Examples(dict):
    """The examples of (task, split), read when they are wanted first."""

    def __init__(self, tasks: Mapping[str, Any]):
        super().__init__()
        self._tasks = tasks

    def __missing__(self, key: tuple[str, str]) -> list:
        task, split = key
        self[key] = self._tasks[task].examples(split)
        return self[key]


class Blocks:
    """Has jobs done in blocks, one after another.

    Where no GPU is to be had, because none is free or the visitor's quota is spent, it pauses the
    run. A stop is heard after the candidate in flight.
    """

    def __init__(self, bench: Bench):
        self.bench = bench
        self._recipe = bench.recipe.to_yaml()
        self._seconds = FIRST
        self._pace: float | None = None  # seconds per answer, of the block before
        self._opening = 0.0  # seconds before a block's first answer
        self._spent: Counter[str] = Counter()  # by subject: seconds in blocks that cut it short

    def plan(self) -> int:
        return dict(self._messages((), USUAL))["batch"]

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, list[Evaluation]]]:
        left = list(jobs)
        while left:
            self.bench.check()
            block, seconds = self._cut(left)
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

    def _cut(self, jobs: list[Job]) -> tuple[tuple[Job, ...], float]:
        """The first of the jobs, as many as a block has time for, and the seconds to give it."""
        if self._pace is None:
            return tuple(jobs[:1]), self._seconds
        due, block = self._opening, []
        for job in jobs:
            due += self._pace * _answers(job)
            if block and due > self._seconds:
                break
            block.append(job)
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
        for asking in _askings(job):
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
        bench = self.bench
        askings = [asking for job in jobs for asking in _askings(job)]
        said = {asking: bench.said[asking] for asking in askings if asking in bench.said}
        block = Block(
            bench.run,
            self._recipe,
            bench.ancestors,
            bench.winners,
            said,
            bench.batch_size,
            jobs,
            seconds,
        )
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


def _askings(job: Job) -> list[Asking]:
    return [(job.subject, asked.task, asked.label) for asked in job.asked]


def _answers(job: Job) -> int:
    return sum(asked.count for asked in job.asked)


def _pause(error: Exception) -> NoReturn:
    """In a sentence: why there is no GPU now."""
    said = " ".join(str(getattr(error, "message", "") or error).split())[:300].rstrip(".")
    raise Paused(
        f"ZeroGPU lends no GPU now ({said or type(error).__name__}); what was scored is kept, "
        "resume the run later."
    ) from error
