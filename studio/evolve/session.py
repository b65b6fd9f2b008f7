"""One session of work on a run: what is opened, what is recorded, and when to stop.

Knows the run's record and its executor, and that whatever an executor hands back is recorded before
anything else happens. Refuses to know the order of things (`studio.evolve.loop`), how candidates
are proposed (`studio.evolve.search`) and what is reported (`studio.evolve.report`).
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studio.errors import StudioError
from studio.evolve import inputs, racing, spaces
from studio.evolve.executors import Asked, Asking, Bench, Executor, InProcess, Job, Stopped
from studio.evolve.generate import Response
from studio.merge.space import Space
from studio.recipe import Recipe, Stage
from studio.runs.records import Evaluation, Event
from studio.runs.store import Store

if TYPE_CHECKING:
    from studio.tasks.base import Example, Task


#: Seconds between two looks at whether somebody asked the run to stop.
GLANCE = 0.5


@dataclass(frozen=True)
class Goal:
    """A task among the objectives: the examples the search sees, and the whole dev split."""

    task: "Task"
    seen: "list[Example]"
    dev: "list[Example]"


class Session:
    """A run, opened to be worked on.

    Args:
        executor: makes, of a bench, who does the jobs.
        terminated: set when the process is asked to end.

    Raises:
        StudioError: the recipe cannot be carried out, or its models or examples changed.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        executor: Callable[[Bench], Executor] = InProcess,
        terminated: threading.Event | None = None,
    ):
        self.store, self.run = store, run
        self.terminated = terminated or threading.Event()
        self.recipe = Recipe.from_yaml(store.run(run).recipe, "The recorded recipe")
        self.models = spaces.open_models(self.recipe, store)
        spaces.check(self.recipe, self.models)
        self.tasks = self.recipe.build_tasks()
        wanted = [item for item in self.recipe.objectives if item.task]
        self.goals: dict[str, Goal] = {}
        for item, task in zip(wanted, self.tasks, strict=False):
            dev = task.examples("dev")
            self.goals[task.name] = Goal(task, dev[: item.examples], dev)
        # A report that cannot be made should fail now, not after the search.
        self.test = {task.name: task.examples("test") for task in self.tasks}
        splits = {(name, "dev"): goal.dev for name, goal in self.goals.items()}
        splits |= {(name, "test"): examples for name, examples in self.test.items()}
        self._note_inputs(splits)
        self.bench = Bench(
            run,
            self.recipe,
            self.models,
            {task.name: task for task in self.tasks},
            splits,
            ancestors=spaces.ancestors(self.recipe, store),
            said=self._said(),
            check=self.check_stop,
            glance=self._glance,
            halved=self._halved,
            keep=self._keep,
        )
        self.executor = executor(self.bench)
        self.bench.batch_size = self._batch_size()
        self._ending: dict[str, bool] = {}  # see `_ends`
        self._looked = 0.0
        self._clock = time.monotonic()

    def _note_inputs(self, splits: "dict[tuple[str, str], list[Example]]") -> None:
        """Record what the run works on and how many answers that takes, or see it is unchanged."""
        now = inputs.of_models(self.models) | inputs.of_examples(splits)
        inputs.check(self.store, self.run, now)
        if not inputs.recorded(self.store, self.run):
            self.append("inputs", {"fingerprints": now, "answers": self._answers()})

    def _said(self) -> dict[Asking, dict[int, Response]]:
        """What jobs had come to that were interrupted, as recorded by `_keep`."""
        found: dict[Asking, dict[int, Response]] = {}
        for event in self.events():
            payload = event.payload
            if event.kind == "halving":  # from here on in other batches
                found.clear()
            if event.kind != "said":
                continue
            asking = payload["subject"], payload["task"], payload["label"]
            new = {place: Response(*said) for place, *said in payload["responses"]}
            found.setdefault(asking, {}).update(new)
        return {asking: those for asking, those in found.items() if not self.evaluation(*asking)}

    def _batch_size(self) -> int:
        """The recipe's, or what a plan found when the run began; halved as often as recorded."""
        size = self.recipe.batch_size
        events = self.events()
        if size == "auto":
            planned = [e.payload["batch_size"] for e in events if e.kind == "batch"]
            size = planned[0] if planned else self._plan()
        halvings = sum(event.kind == "halving" for event in events)
        return max(1, size >> halvings)

    def _plan(self) -> int:
        """The batch that fits the memory that is free now; recorded, it is the run's for good."""
        size = self.executor.plan()
        self.append("batch", {"batch_size": size})
        return size

    def _answers(self) -> int:
        """How many answers the whole run takes: sources, searches, finalists and report.

        An estimate for who waits: of several objectives as many may be reported as are finalists.
        """
        stages, search = self.recipe.stages(), self.recipe.search
        seen = {name: len(goal.seen) for name, goal in self.goals.items()}
        again = {
            name: len(goal.dev) if len(goal.dev) > len(goal.seen) else 0
            for name, goal in self.goals.items()
        }
        apiece = dict(seen)
        if search.racing:
            apiece = {name: racing.expected(n) for name, n in seen.items()}
            again = {
                name: racing.expected(len(goal.dev), racing.CHOICE)
                for name, goal in self.goals.items()
            }
        searched = sum(
            self.recipe.budget.candidates * apiece.get(name, 0)
            + search.finalists * again.get(name, 0)
            for stage in stages
            for name in stage.objectives
        )
        reported = sum(
            search.finalists if len(stage.objectives) > 1 else 1
            for stage in stages
            if stage.final or not stage.baseline
        )
        return (
            len(self.models) * sum(seen.values())
            + searched
            + (len(self.models) + reported) * sum(map(len, self.test.values()))
        )

    # ── the record ────────────────────────────────────────────────────────────────────────────

    def append(self, kind: str, payload: dict) -> None:
        """Add an event to the run's log."""
        self.store.append(self.run, kind, payload)

    def events(self, kind: str = "", stage: str = "") -> list[Event]:
        """The run's log, in order: all of it, or events of one kind, or of one stage."""
        return [
            event
            for event in self.store.events(self.run, kind or None)
            if stage in ("", event.payload.get("stage"))
        ]

    def evaluation(self, subject: str, task: str, label: str) -> Evaluation | None:
        """What is recorded of a subject on a task, or None."""
        return self.store.evaluation(self.run, subject, task, label)

    def space(self, stage: Stage) -> Space:
        """The space of a stage all of whose pool have ended; raises as `spaces.build_space`."""
        self.bench.winners |= spaces.recorded_winners(self.store, self.run, self.recipe, stage.name)
        return self.bench.space(stage.name)

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────

    def measure(
        self,
        jobs: Iterable[Job],
        whole: Callable[[Job, list[Evaluation]], list[Evaluation]] = lambda job, found: found,
    ) -> Iterator[Job]:
        """Have jobs done, and each recorded as it comes; yields each after that.

        Args:
            whole: what is to be recorded of a job, given its evaluations.

        Raises:
            Stopped, Paused, StudioError: as `Executor.run`.
        """
        with closing(self.executor.run(jobs)) as going:
            for job, found in going:
                self.store.record_evaluation(self.run, *whole(job, found))
                now = time.monotonic()
                self.store.add_seconds(self.run, now - self._clock)
                self._clock = now
                yield job

    def measure_models(self, task: "Task", split: str, count: int) -> Iterator[None]:
        """Score base and sources as they are on a task."""
        asked = Asked(task.name, split, range(count), split)
        yield from self.measure(
            [
                Job(subject, (asked,))
                for subject in dict.fromkeys(f"model:{model.name}" for model in self.models)
                if self.evaluation(subject, task.name, split) is None
            ]
        )

    def asked(self, task: str, split: str, places: Sequence[int], label: str = "") -> Asked:
        """Questions to a candidate or an export; ``label`` is the split unless it is given."""
        return Asked(task, split, places, label or split, must_end=self._ends(task))

    def candidate_job(self, number: int, genome: np.ndarray, stage: Stage, *asked: Asked) -> Job:
        """A candidate of a stage, to be asked."""
        return Job(f"candidate:{number}", asked, stage.name, genome)

    def _ends(self, task: str) -> bool:
        """Whether any model of the run ends an answer to this task by itself.

        Then so must a candidate: one that never does is broken. Plain language models never do.
        """
        if task not in self._ending:
            split = "dev" if task in self.goals else "test"
            longest = self.bench.tasks[task].max_new_tokens
            answered = (
                self.evaluation(f"model:{model.name}", task, split) for model in self.models
            )
            self._ending[task] = any(
                outcome.tokens < longest and not outcome.runaway
                for evaluation in answered
                if evaluation and not evaluation.broken  # which said nothing at all
                for outcome in evaluation.outcomes
            )
        return self._ending[task]

    def _keep(self, asking: Asking, responses: Mapping[int, Response]) -> None:
        subject, task, label = asking
        rows = [
            [place, r.text, r.tokens, *([True] if r.runaway else [])]
            for place, r in responses.items()
        ]
        payload = {"subject": subject, "task": task, "label": label, "responses": rows}
        self.append("said", payload)

    def _halved(self, size: int) -> None:
        self.append("halving", {"batch_size": size})

    # ── stopping ──────────────────────────────────────────────────────────────────────────────

    def _glance(self) -> None:
        """Between two tokens: whether to stop, read from the store now and then."""
        if self.terminated.is_set() or time.monotonic() - self._looked > GLANCE:
            self.check_stop()

    def check_stop(self) -> None:
        """Raises Stopped if somebody asked the run to stop, or the process to end."""
        self._looked = time.monotonic()
        if self.terminated.is_set() or self.store.run(self.run).stop:
            raise Stopped


def check_same(number: int, genome: np.ndarray, recorded: dict[int, np.ndarray]) -> None:
    """See that a candidate is asked again as it was recorded, to the bit.

    Raises:
        StudioError: it is not.
    """
    if number not in recorded or genome.tobytes() != recorded[number].tobytes():
        raise StudioError(
            f"The run does not replay: candidate {number} is asked with another genome than was "
            "recorded. Resume with the library versions and the kind of machine it was begun on "
            "(`python -m studio show RUN --json` lists them), or start the recipe anew."
        )
