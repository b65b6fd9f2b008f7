"""The far side of an executor: jobs done in another process, on this machine or on another.

An order is plain data, and so are the messages that come back. Whoever carries one out has no
database and none of the driver's objects, so it opens the models itself, by name, and keeps what it
opened for as long as it lives. Knows how an order is carried out, and how it is cut short. Refuses
to know how orders and messages travel, who sends them, and what becomes of a worker that dies.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.evolve import spaces
from studio.evolve.executors import Asking, Bench, InProcess, Job
from studio.evolve.generate import Response
from studio.evolve.spaces import Ancestor, Winner
from studio.recipe import Recipe

if TYPE_CHECKING:
    from studio.tasks.base import Example

#: What comes back, in this order. A kind and what it says:
#: "ready" (seconds it took to open everything), "batch" (prompts that fit), "halved" (the new batch
#: size), "done" (a job's place in the order, its evaluations), "said" (an asking and the responses
#: to it so far, of what was cut short), "failed" (a sentence for the user, or ""; the error's name
#: and words).
Message = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Order:
    """Jobs, and all it takes to do them elsewhere; plain data.

    Attributes:
        run: its id; recipe: as YAML.
        ancestors, winners, said, batch_size: as of `Bench`.
        jobs: done in this order; none of them: say how many prompts fit the memory at a time.
    """

    run: str
    recipe: str
    ancestors: dict[str, Ancestor]
    winners: dict[str, Winner]
    said: dict[Asking, dict[int, Response]]
    batch_size: int
    jobs: tuple[Job, ...]


def contents(bench: Bench, recipe: str, jobs: Iterable[Job]) -> dict[str, Any]:
    """What an order for these jobs holds, by the names of its attributes.

    Args:
        recipe: the bench's, as YAML.
    """
    jobs = tuple(jobs)
    wanted = [asking for job in jobs for asking in askings(job)]
    return {
        "run": bench.run,
        "recipe": recipe,
        "ancestors": bench.ancestors,
        "winners": bench.winners,
        "said": {asking: bench.said[asking] for asking in wanted if asking in bench.said},
        "batch_size": bench.batch_size,
        "jobs": jobs,
    }


def askings(job: Job) -> list[Asking]:
    """Whom a job asks what, one for each that it `asked`."""
    return [(job.subject, asked.task, asked.label) for asked in job.asked]


class Cut(Exception):
    """What a glance raises to end an order before it is done."""


#: What this process opened last, and for which run.
_kept: tuple[str, InProcess] | None = None


def carry_out(order: Order, glance: Callable[[], None], sharers: int = 1) -> Iterator[Message]:
    """Do an order's jobs until they are done, or its glance cuts them short.

    Whatever goes wrong is a message, for an exception may lose its words on the way; what is
    raised is the transport's.

    Args:
        glance: called before every model that is made or loaded, and before every token.
        sharers: how many workers plan to use the same memory.
    """
    messages: list[Message] = []
    try:
        start = time.monotonic()
        executor = _opened(order)
        bench = executor.bench
        bench.batch_size, bench.said = order.batch_size, dict(order.said)
        bench.winners |= order.winners
        bench.check = bench.glance = glance
        bench.halved = lambda size: messages.append(("halved", size))
        yield "ready", time.monotonic() - start
        if not order.jobs:
            yield "batch", _planned(bench, sharers)
        going = executor.run(order.jobs)
        for place in range(len(order.jobs)):
            _, found = next(going)
            yield from messages
            messages.clear()
            yield "done", place, found
    except Cut:
        yield from messages
        yield from (("said", asking, those) for asking, those in bench.said.items() if those)
    except StudioError as error:
        yield "failed", str(error), ""
    except Exception as error:
        yield "failed", "", f"{type(error).__name__}: {error}"


def _planned(bench: Bench, sharers: int) -> int:
    from studio.evolve.plan import plan

    tasks = list(bench.tasks.values())
    return plan(bench.recipe, bench.models, tasks, sharers=sharers).batch


def _opened(order: Order) -> InProcess:
    """An executor for the order's run: the one this process has, if it is the same run's."""
    global _kept
    if _kept is None or _kept[0] != order.run:
        _kept = None  # the memory first
        recipe = Recipe.from_yaml(order.recipe)
        tasks = {task.name: task for task in recipe.build_tasks()}
        models = spaces.reopen_models(recipe, order.ancestors)
        _kept = order.run, InProcess(Bench(order.run, recipe, models, tasks, _Examples(tasks)))
    return _kept[1]


class _Examples(dict):
    """The examples of (task, split), read when they are wanted first."""

    def __init__(self, tasks: Mapping[str, Any]):
        super().__init__()
        self._tasks = tasks

    def __missing__(self, key: tuple[str, str]) -> "list[Example]":
        task, split = key
        self[key] = self._tasks[task].examples(split)
        return self[key]
