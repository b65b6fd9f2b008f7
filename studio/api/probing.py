"""How long a run will take, what memory and how much disk, told before it is started.

A probe of about ten seconds does what the run's searches would: it opens the models, makes the live
model and answers questions with the first genomes that the search will propose, in the batches that
the run would take; the rest is counting. It works in a process of its own, which ends with it, so
that whoever asks never holds the models, and can leave.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.api.processes import bounded, python_path
from studio.api.recipes import anchor_all, as_recipe
from studio.errors import StudioError
from studio.recipe import Recipe, Stage
from studio.runs import Store
from studio.runs.lock import try_hold
from studio.workspace import subfolder

if TYPE_CHECKING:
    from studio.merge.space import Live, Space
    from studio.tasks.base import Task

#: Seconds of answering, over all stages and tasks.
ANSWERING = 10.0
#: Seconds to wait for other probes of the workspace.
_TURN = 60.0
#: Bytes that the record of an answer takes, before one was seen.
_RECORD = 400


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: until its report, None where it was not measured.
        candidate_seconds: for one candidate of the search, on average; None likewise.
        memory: bytes of the device's memory, at the most.
        disk: bytes of the record and one export; of the record alone before it was measured.
        answers: of all models to all questions, about.
        batch: answers at a time.
        measured: whether a probe answered questions.
    """

    seconds: float | None
    candidate_seconds: float | None
    memory: int
    disk: int
    answers: int
    batch: int
    measured: bool


def estimate(
    recipe: Recipe | str | Path,
    store: Store | None = None,
    limit: float = 180.0,
    left: threading.Event | None = None,
) -> Estimate:
    """Probe a recipe in a process of its own.

    Args:
        limit: seconds after which the process is killed; what was planned by then is returned.
        left: set by who no longer wants to know: the process is killed at once.

    Raises:
        StudioError: the recipe could not be run (the sentence that starting it would give), or the
            process ended before it planned anything.
    """
    store = store or Store()
    recipe = anchor_all(as_recipe(recipe), store)
    with tempfile.TemporaryDirectory() as folder:
        document, said = Path(folder) / "recipe.yaml", Path(folder) / "said"
        document.write_text(recipe.to_yaml(), encoding="utf-8")
        logs = subfolder(store.folder, "logs")
        with said.open("wb") as output, (logs / "probe.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "studio", "probe", str(document), "--store", store.path],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env={**os.environ, **bounded(), "PYTHONPATH": python_path()},
            )
        until = time.monotonic() + limit
        try:
            while process.poll() is None and time.monotonic() < until:
                if left is not None and left.wait(0.05):
                    break
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
        lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    if found and "error" in found[-1]:
        raise StudioError(found[-1]["error"])
    if not found:
        raise StudioError(
            f"The time could not be estimated within {limit:.0f} seconds; start the run and see, "
            "or try again when less is going on."
        )
    return Estimate(**found[-1])


def probe(recipe: Recipe, store: Store, seconds: float = ANSWERING) -> Iterator[dict[str, Any]]:
    """What the process says: the plan alone, then the same with what was measured."""
    began = time.perf_counter()
    found = _Probe(recipe, store)
    planned = found.planned()
    opened = time.perf_counter() - began
    yield asdict(planned)
    lock = try_hold(store, "probe", _TURN)  # two at once would measure each other
    if lock is not None:
        try:
            yield asdict(found.measured(planned, opened, seconds))
        finally:
            lock.release()


class _Probe:
    """One recipe, opened."""

    def __init__(self, recipe: Recipe, store: Store):
        from studio.evolve import racing
        from studio.evolve.spaces import open_models

        self.recipe = recipe
        self.models = open_models(recipe, store)
        self.tasks = recipe.build_tasks()
        wanted = [item for item in recipe.objectives if item.task]
        dev = {task.name: task.examples("dev") for task in self.tasks[: len(wanted)]}
        self.searched = {
            task.name: dev[task.name][: item.examples]
            for item, task in zip(wanted, self.tasks, strict=False)
        }
        #: questions of a task that finalists are asked besides
        self.again = {
            name: len(dev[name]) if len(dev[name]) > len(seen) else 0
            for name, seen in self.searched.items()
        }
        #: questions that a candidate of the search is asked
        self.apiece = {name: len(seen) for name, seen in self.searched.items()}
        if recipe.search.racing:
            self.apiece = {name: racing.expected(n) for name, n in self.apiece.items()}
            self.again = {
                name: racing.expected(len(dev[name]), racing.CHOICE) for name in self.searched
            }
        self.test = {task.name: len(task.examples("test")) for task in self.tasks}

    def planned(self) -> Estimate:
        """What can be said before anything is loaded."""
        from studio.evolve.plan import plan

        found = plan(self.recipe, self.models, self.tasks)
        answers = self._answers()
        return Estimate(None, None, found.peak, _RECORD * answers, answers, found.batch, False)

    def _answers(self) -> int:
        """How many answers the whole run takes."""
        searched = sum(
            count
            for name, count in self.apiece.items()
            for stage in self.recipe.stages()
            if name in stage.objectives
        )
        besides = sum(count * size for _, size, count in self._work())
        return searched * self.recipe.budget.candidates + besides

    def _work(self) -> Iterator[tuple[str, int, int]]:
        """All there is to do but to search: (task, questions at a time, how often)."""
        recipe, finalists = self.recipe, self.recipe.search.finalists
        stages = recipe.stages()
        for name, seen in self.searched.items():
            yield name, len(seen), len(self.models)
            if self.again[name]:
                asked = sum(name in stage.objectives for stage in stages)
                yield name, self.again[name], asked * finalists
        reported = sum(
            finalists if len(stage.objectives) > 1 else 1
            for stage in stages
            if stage.final or not stage.baseline
        )
        for name, questions in self.test.items():
            yield name, questions, len(self.models) + reported

    # ── measuring ─────────────────────────────────────────────────────────────────────────────

    def measured(self, planned: Estimate, opened: float, seconds: float) -> Estimate:
        """The plan with what answering a few questions tells."""
        stages = self.recipe.stages()
        own = [stage for stage in stages if not stage.baseline]
        share = seconds / len(stages)
        winners: dict[str, Any] = {}
        searches, speeds, apiece = 0.0, [], []
        for number, stage in enumerate(own):
            space = self._space(stage, winners)
            start = time.perf_counter()
            live = space.live(self.recipe.precision, self.recipe.base_storage)
            loaded = time.perf_counter() - start
            # a baseline's candidates lie elsewhere, and may speak for longer
            beside = [stage, *stages[len(own) + number :][:1]]
            for one in beside:
                speed = self._search(one, space, live, planned.batch, share)
                apiece.append(speed.candidate)
                searches += self.recipe.budget.candidates * speed.candidate
                speeds.append(speed)
            del live
        plain: dict[str, Timing] = {}
        for speed in reversed(speeds):
            plain |= speed.timing
        # of tasks that are only reported nothing is known
        some = next(iter(plain.values()))
        whole = sum(
            count * plain.get(name, some).seconds(size, planned.batch)
            for name, size, count in self._work()
        )
        loads = loaded * len(self.models) * (1 + len(self.tasks)) / 2
        record = sum(speed.bytes for speed in speeds) / len(speeds) * planned.answers
        return replace(
            planned,
            seconds=opened + loads + searches + whole,
            candidate_seconds=sum(apiece) / len(apiece),
            disk=int(record + self._export(space)),
            measured=True,
        )

    def _space(self, stage: Stage, winners: dict[str, Any]) -> "Space":
        """The space of a stage; later ones are laid out over where earlier ones begin."""
        from studio.evolve.spaces import build_space, unquantized

        space = build_space(self.recipe, stage, self.models, winners)
        precision = unquantized(self.recipe, space.sources)
        winners[stage.name] = space.checkpoint(space.initial, precision, stage.name)
        return space

    def _search(
        self, stage: Stage, space: "Space", live: "Live", batch: int, seconds: float
    ) -> "_Speed":
        """Score what the search will propose first, for as long as there is time."""
        from studio.evolve.evaluate import evaluate
        from studio.evolve.generate import Decoding
        from studio.evolve.optimizers import make
        from studio.runs.store import packed

        search = self.recipe.search
        optimizer = make(
            stage.optimizer,
            lower=space.lower, upper=space.upper, initial=space.initial, binary=space.binary,
            population=search.population, sigma=search.sigma, seed=stage.seed,
            objectives=len(stage.objectives), around=space.kind == "data_flow",
        )  # fmt: skip
        genomes = iter([genome for _, genome in optimizer.ask(search.population)])
        tasks = [task for task in self.tasks if task.name in stage.objectives]
        until = time.perf_counter() + seconds
        timing: dict[str, Timing] = {task.name: Timing() for task in tasks}
        taken: list[float] = []
        bytes_each: list[float] = []
        decoding = Decoding(**self.recipe.decoding.model_dump())

        def answer(task: "Task", count: int) -> float:
            start, passes = time.perf_counter(), 0

            def pace() -> None:
                nonlocal passes
                if time.perf_counter() > until + seconds and passes:
                    raise _Slow
                passes += 1

            try:
                found = evaluate(
                    live.model, live.tokenizer, task, self.searched[task.name][:count],
                    subject="probe", split="dev", batch_size=batch, processor=live.processor,
                    decoding=decoding, on_token=pace,
                )  # fmt: skip
            except _Slow:  # as if no answer ended by itself
                taken = time.perf_counter() - start
                return taken * max(1.0, task.max_new_tokens / passes)
            bytes_each.append(len(packed(found.outcomes)) / count + 40)
            return time.perf_counter() - start

        start = time.perf_counter()
        live.apply(space.initial)
        applied = time.perf_counter() - start
        for task in tasks:  # more and more questions, while there is time
            most = self.apiece[task.name]
            share = until - seconds + seconds / 2 / len(tasks) * (1 + tasks.index(task))
            # the first is slower than any other, and says little of many at a time
            first, count = answer(task, 1), min(8, most)
            if time.perf_counter() > until:
                timing[task.name].note(1, first)
                continue
            while True:
                timing[task.name].note(count, answer(task, count))
                more = min(most, 4 * count)
                expected = timing[task.name].seconds(more, batch)
                if count == most or time.perf_counter() + expected > share:
                    break
                count = more
        whole = applied + sum(
            timing[task.name].seconds(self.apiece[task.name], batch) for task in tasks
        )
        while time.perf_counter() + whole < until and (genome := next(genomes, None)) is not None:
            start = time.perf_counter()
            live.apply(genome)
            for task in tasks:
                answer(task, self.apiece[task.name])
            taken.append(time.perf_counter() - start)
        return _Speed(
            candidate=sum(taken) / len(taken) if taken else whole,
            timing=timing,
            bytes=sum(bytes_each) / len(bytes_each) if bytes_each else _RECORD,
        )

    def _export(self, space: "Space") -> int:
        """Bytes of an export, as large as where the search begins."""
        from studio.evolve.spaces import unquantized

        entry = 4 if unquantized(self.recipe, space.sources) == "fp32" else 2
        return int(entry * space.properties(space.initial)["parameters"])


class _Slow(Exception):
    """Answers take longer than there is time to try."""


@dataclass(frozen=True)
class _Speed:
    """Seconds of a whole candidate, of answers to each task, and bytes of an answer's record."""

    candidate: float
    timing: "dict[str, Timing]"
    bytes: float


class Timing:
    """Seconds of a batch, as a line through what was measured of the two largest."""

    def __init__(self) -> None:
        self.points: dict[int, float] = {}

    def note(self, count: int, seconds: float) -> None:
        self.points[count] = seconds

    def seconds(self, questions: int, batch: int) -> float:
        """Of so many questions, a batch at a time."""
        full, rest = divmod(questions, batch)
        return full * self._batch(batch) + (self._batch(rest) if rest else 0.0)

    def _batch(self, count: int) -> float:
        *before, (large, slow) = sorted(self.points.items())
        if not before:
            return slow * count / large
        small, fast = before[-1]
        # noise apart, more questions never take less time, and never more than in proportion
        each = min(max(0.0, (slow - fast) / (large - small)), slow / large)
        return max(slow + each * (count - large), slow * count / large / 20)
