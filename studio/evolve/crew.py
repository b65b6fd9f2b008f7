"""Jobs in the hands of several workers at a time: what every kind of crew has in common.

The run's record has one writer, and it is not here: a crew hands out jobs, each to one worker, and
hands on what comes back, each once. A worker that is lost has its job done by another; what comes
of a job that somebody else did meanwhile is dropped. Knows orders and messages
(`studio.evolve.workers`). Refuses to know where workers are, and how one hears from them.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from contextlib import closing
from typing import Generic, TypeVar

from studio.errors import StudioError
from studio.evolve.executors import Bench, Job
from studio.evolve.placing import Place
from studio.evolve.workers import Message, Order, askings, contents
from studio.runs.records import Evaluation

#: Seconds between two looks at whether somebody asked the run to stop.
POLL = 0.25
#: How many workers may end over one job before the run stops: a fourth would not fare better.
TRIES = 3

Worker = TypeVar("Worker", bound=Hashable)
#: The jobs of an order: one, or none where a plan is wanted.
Jobs = tuple[Job, ...]


class Crew(ABC, Generic[Worker]):
    """An `Executor` over several workers; `close` it.

    Attributes:
        workers: how many there are, or shall be.
    """

    workers: int

    def __init__(self, bench: Bench, place: Place):
        self.bench, self.place = bench, place
        self._recipe = bench.recipe.to_yaml()

    # ── what a kind of crew knows ─────────────────────────────────────────────────────────────

    @abstractmethod
    def _free(self) -> Worker | None:
        """A worker that has nothing to do, perhaps a new one."""

    @abstractmethod
    def _give(self, worker: Worker, order: Order) -> None:
        """Have a free worker carry out an order; returns at once."""

    @abstractmethod
    def _news(self, seconds: float) -> tuple[Worker, list[Message] | None] | None:
        """What one worker's order came to, or None if nothing did within some seconds.

        Its messages are None where the worker is lost, and another has to do it all again.

        Raises:
            StudioError: the order is not worth another worker.
            Paused: there is nobody to do it.
        """

    @abstractmethod
    def _cut(self, worker: Worker) -> None:
        """Have a worker leave its order, whose news nobody waits for any more."""

    @abstractmethod
    def close(self) -> None:
        """Let all workers go."""

    # ── what all have in common ───────────────────────────────────────────────────────────────

    def plan(self) -> int:
        with closing(self._handed([()])) as going:
            _, messages = next(going)
        return next(message[1] for message in messages if message[0] == "batch")

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[Evaluation]]]:
        with closing(self._handed((job,) for job in jobs)) as going:
            for (job,), messages in going:
                yield job, self._evaluations(job, messages)

    def _handed(self, orders: Iterable[Jobs]) -> Iterator[tuple[Jobs, list[Message]]]:
        """What comes of each order; the next is taken when there is a worker for it."""
        coming, again = iter(orders), deque[Jobs]()
        doing: dict[Worker, Jobs] = {}
        more = True
        try:
            while more or again or doing:
                while (more or again) and (worker := self._free()):
                    jobs = again.popleft() if again else next(coming, None)
                    if jobs is None:
                        more = False
                        break
                    doing[worker] = jobs
                    self._give(worker, Order(**contents(self.bench, self._recipe, jobs)))
                self.bench.check()
                news = self._news(POLL) if doing or again or more else None
                if news is None or news[0] not in doing:
                    continue
                worker, messages = news
                jobs = doing.pop(worker)
                if messages is None:
                    again.append(jobs)
                    continue
                yield jobs, self._heard(messages)
        finally:
            for worker in doing:
                self._cut(worker)

    def _heard(self, messages: list[Message]) -> list[Message]:
        """Act on what the messages say of the run as a whole."""
        for message in messages:
            # others in hand may have had the larger batch, too: what is halved is halved once
            if message[0] == "halved" and message[1] < self.bench.batch_size:
                self.bench.batch_size = message[1]
                self.bench.said.clear()
                self.bench.halved(message[1])
            elif message[0] == "failed":
                raise StudioError(message[1]) if message[1] else RuntimeError(message[2])
        return messages

    def _evaluations(self, job: Job, messages: list[Message]) -> list[Evaluation]:
        for asking in askings(job):
            self.bench.said.pop(asking, None)
        return next(message[2] for message in messages if message[0] == "done")
