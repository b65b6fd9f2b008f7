"""One evolution from start to report, recorded as it goes, resumable from any point.

The loop knows the order of things: score the sources, search (one stage after another, a stage's
winner a source of the next), search again at random with the same budget, compare each stage's
finalists on the whole dev split, and score what is reported once on test. It
refuses to remember anything itself: every step is recorded before the next begins, and a loop over
a run that was interrupted replays the record through the seeded optimizer, checks that it asks the
same genomes bit for bit, and goes on with what is pending.
"""

import gc
import importlib.metadata
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from studio.errors import StudioError
from studio.evolve import inputs, optimizers, spaces
from studio.evolve.evaluate import evaluate, out_of_memory, too_large
from studio.evolve.generate import Decoding
from studio.evolve.optimizers import Optimizer
from studio.merge.space import Live, Space
from studio.recipe import Recipe, Stage
from studio.runs.front import front, gains, hypervolume
from studio.runs.lock import hold
from studio.runs.records import FAILED, FINISHED, RUNNING, STOPPED, Candidate, Evaluation
from studio.runs.store import Store, Told

if TYPE_CHECKING:
    import torch

    from studio.tasks.base import Example, Task


#: Seconds between two looks at whether somebody asked the run to stop.
_GLANCE = 0.5


class _Stopped(Exception):
    """Somebody asked the run to stop."""


def work(store: Store, run: str, on_step: Callable[[], None] = lambda: None) -> None:
    """Work on a run until it is finished, or somebody asks it to stop.

    Args:
        on_step: called after everything that was recorded.

    Raises:
        StudioError: the recipe cannot be carried out, another process works on this run, or its
            record does not replay; the run is then marked failed with that sentence.
    """
    run = store.run(run).id
    lock = hold(store, run)
    try:
        if store.run(run).status == FINISHED:
            return
        store.set_status(run, RUNNING)
        with _stop_on_terminate() as terminated:
            _Loop(store, run, on_step, terminated).run()
        store.set_status(run, FINISHED)
    except (_Stopped, KeyboardInterrupt):
        store.set_status(run, STOPPED)
    except StudioError as error:
        store.set_status(run, FAILED, str(error))
        raise
    except Exception as error:
        store.set_status(run, FAILED, f"{type(error).__name__}: {error}")
        raise
    finally:
        lock.release()
        on_step()


@contextmanager
def _stop_on_terminate() -> Iterator[threading.Event]:
    """An event that a polite kill sets: the run stops before its next token.

    Nothing is recorded in the handler, which may interrupt a transaction of the same store.
    """
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class _Goal:
    """A task among the objectives: the examples the search sees, and the whole dev split."""

    task: "Task"
    seen: "list[Example]"
    dev: "list[Example]"


class _Loop:
    """One session of work on a run."""

    def __init__(
        self, store: Store, run: str, on_step: Callable[[], None], terminated: threading.Event
    ):
        self.store, self.run_id, self.on_step = store, run, on_step
        self.terminated = terminated
        self.recipe = Recipe.from_yaml(store.run(run).recipe, "The recorded recipe")
        self.models = spaces.open_models(self.recipe, store)
        spaces.check(self.recipe, self.models)
        self.tasks = self.recipe.build_tasks()
        wanted = [item for item in self.recipe.objectives if item.task]
        self.goals: dict[str, _Goal] = {}
        for item, task in zip(wanted, self.tasks, strict=False):
            dev = task.examples("dev")
            self.goals[task.name] = _Goal(task, dev[: item.examples], dev)
        # A report that cannot be made should fail now, not after the search.
        self.test = {task.name: task.examples("test") for task in self.tasks}
        self._note_inputs()
        self.batch_size = self._batch_size()
        self._live: Live | None = None
        self._ending: dict[str, bool] = {}  # see `_ends`
        self._said: tuple[tuple, Evaluation] | None = None  # what was asked last, and what came
        self._looked = 0.0
        self._clock = time.monotonic()

    def _note_inputs(self) -> None:
        """Record what the run works on and how many answers that takes, or see it is unchanged."""
        splits = {(name, "dev"): goal.dev for name, goal in self.goals.items()}
        splits |= {(name, "test"): examples for name, examples in self.test.items()}
        now = inputs.of_models(self.models) | inputs.of_examples(splits)
        inputs.check(self.store, self.run_id, now)
        if not inputs.recorded(self.store, self.run_id):
            payload = {"fingerprints": now, "answers": self._answers()}
            self.store.append(self.run_id, "inputs", payload)

    def _batch_size(self) -> int:
        """The recipe's, or what a plan found when the run began; halved as often as recorded."""
        size = self.recipe.batch_size
        events = self.store.events(self.run_id)
        if size == "auto":
            planned = [e.payload["batch_size"] for e in events if e.kind == "batch"]
            size = planned[0] if planned else self._plan()
        halvings = sum(event.kind == "halving" for event in events)
        return max(1, size >> halvings)

    def _plan(self) -> int:
        """The batch that fits the memory that is free now; recorded, it is the run's for good."""
        from studio.evolve.plan import plan

        size = plan(self.recipe, self.models, self.tasks).batch
        self.store.append(self.run_id, "batch", {"batch_size": size})
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
        searched = sum(
            self.recipe.budget.candidates * seen.get(name, 0)
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

    def run(self) -> None:
        self.store.append(self.run_id, "session", _versions())
        self._begin("sources")
        for goal in self.goals.values():
            self._score_models(goal.task, "dev", goal.seen)
        for stage in self.recipe.stages():
            space = spaces.recorded_space(
                self.store, self.run_id, self.recipe, self.models, stage.name
            )
            self._release()  # the space before is done with
            self._begin(stage.name)
            self._search(stage, space)
            self._begin("selection")
            self._select(stage, space)
        self._begin("report")
        self._report()

    def _begin(self, phase: str) -> None:
        self.store.append(self.run_id, "phase", {"name": phase})

    # ── the search ────────────────────────────────────────────────────────────────────────────

    def _optimizer(self, stage: Stage, space: Space) -> Optimizer:
        search = self.recipe.search
        return optimizers.make(
            stage.optimizer,
            lower=space.lower,
            upper=space.upper,
            initial=space.initial,
            binary=space.binary,
            population=search.population,
            sigma=search.sigma,
            seed=stage.seed,
            objectives=len(stage.objectives),
            # nearly every path far from the start is broken: random search may start there too
            around=space.kind == "data_flow",
        )

    def _search(self, stage: Stage, space: Space) -> None:
        """Spend the budget of candidates, going on from whatever the record holds."""
        first = self._first_number(stage)
        if space.kind == "data_flow":
            self._extra("start", stage, space, first, 0, space.initial)
            first += 1
        optimizer = self._optimizer(stage, space)
        asked, pending = self._replay(stage, optimizer, first)
        generation = len(asked)
        count = sum(asked)
        while pending or count < self.recipe.budget.candidates:
            if not pending:
                n = min(self.recipe.search.population, self.recipe.budget.candidates - count)
                pending = [(first + number, genome) for number, genome in optimizer.ask(n)]
                self.store.record_ask(self.run_id, stage.name, generation, pending)
                generation, count = generation + 1, count + n
            told = {number: self._score(number, genome, stage, space) for number, genome in pending}
            # before it is told: what was told is not looked at again after an interruption
            self._note_front(stage, space, generation - 1)
            self.store.record_tell(self.run_id, stage.name, told)
            optimizer.tell({number - first: score for number, score in told.items()})
            pending = []
        favorite = optimizer.favorite()
        if favorite is not None:  # under noise it often beats every sample
            self._extra("favorite", stage, space, first + count, generation, favorite)

    def _first_number(self, stage: Stage) -> int:
        """The number of the stage's first candidate: they are counted through the whole run."""
        earlier = set()
        for other in self.recipe.stages():
            if other.name == stage.name:
                break
            earlier.add(other.name)
        return sum(c.stage in earlier for c in self.store.candidates(self.run_id))

    def _replay(
        self, stage: Stage, optimizer: Optimizer, first: int
    ) -> tuple[list[int], list[tuple[int, np.ndarray]]]:
        """Bring a fresh optimizer to where the record ends.

        Returns:
            how many candidates each generation asked, and those asked but not yet told.
        """
        recorded = {c.id: c.genome for c in self.store.candidates(self.run_id, stage.name)}
        asked: list[int] = []
        pending: dict[int, np.ndarray] = {}
        for event in self.store.events(self.run_id):
            if event.payload.get("stage") != stage.name:
                continue
            if event.kind == "ask":
                proposed = optimizer.ask(len(event.payload["ids"]))
                for number, genome in proposed:
                    _check_same(first + number, genome, recorded)
                    pending[first + number] = genome
                asked.append(len(proposed))
            elif event.kind == "tell":
                told = self.store.told(event)
                optimizer.tell({number - first: value for number, value in told.items()})
                for number in told:
                    del pending[number]
        return asked, list(pending.items())

    def _extra(
        self, kind: str, stage: Stage, space: Space, number: int, generation: int, genome
    ) -> None:
        """Score a candidate beyond the budget: where a search starts, or what it believes in."""
        recorded = {c.id: c.genome for c in self.store.candidates(self.run_id, stage.name)}
        if number in recorded:
            _check_same(number, genome, recorded)
        else:
            asked = [(number, genome)]
            self.store.record_ask(self.run_id, stage.name, generation, asked, kind=kind)
        self._score(number, genome, stage, space)

    def _score(self, number: int, genome: np.ndarray, stage: Stage, space: Space) -> Told:
        """What the optimizer is told of a candidate; never evaluated twice."""
        candidate = self.store.candidate(self.run_id, number)
        if not candidate.scores:
            self._record(*(self._measured(number, genome, n, space) for n in stage.objectives))
            candidate = self.store.candidate(self.run_id, number)
        if len(stage.objectives) == 1:
            return candidate.scores[stage.objectives[0]]
        scores = candidate.scores
        if candidate.broken:  # a short path that says nothing is not worth its shortness
            scores = dict.fromkeys(stage.objectives, 0.0) | space.worst()
        return gains(scores, stage.objectives)

    def _measured(
        self, number: int, genome: np.ndarray, objective: str, space: Space
    ) -> Evaluation:
        """A candidate's value of one objective."""
        if objective in self.goals:
            goal = self.goals[objective]
            return self._evaluate_candidate(number, genome, space, goal.task, "dev", goal.seen)
        value = space.properties(genome)[objective]
        return Evaluation.of_property(f"candidate:{number}", objective, value)

    def _note_front(self, stage: Stage, space: Space, generation: int) -> None:
        which = {"stage": stage.name, "generation": generation}
        if len(stage.objectives) == 1 or any(
            event.kind == "front" and which.items() <= event.payload.items()
            for event in self.store.events(self.run_id)
        ):
            return
        found = self.store.candidates(self.run_id, stage.name)
        payload = {
            **which,
            "size": len(front(found, stage.objectives)),
            "hypervolume": hypervolume(found, stage.objectives, space.worst()),
        }
        self.store.append(self.run_id, "front", payload)

    def _select(self, stage: Stage, space: Space) -> None:
        """Compare the stage's finalists on the whole dev split; the winner is what it reports.

        Of several objectives the finalists are the front's, and those that are still not dominated
        are reported beside the winner, the one with the best mean over the tasks.
        """
        if any(
            event.kind == "winner" and event.payload["stage"] == stage.name
            for event in self.store.events(self.run_id)
        ):
            return
        compared = [
            replace(candidate, scores=self._on_whole_dev(candidate, stage, space))
            for candidate in self._finalists(stage)
        ]
        winner = max(compared, key=lambda c: (c.score, not c.broken, -c.id))
        payload = {"stage": stage.name, "id": winner.id, "final": stage.final}
        if len(stage.objectives) > 1:
            payload["front"] = [c.id for c in front(compared, stage.objectives)]
        self.store.append(self.run_id, "winner", payload)

    def _finalists(self, stage: Stage) -> list[Candidate]:
        ranked = self.store.ranked(self.run_id, stage.name)
        most = self.recipe.search.finalists
        if len(stage.objectives) > 1:
            best = front(ranked, stage.objectives) or ranked
            return sorted(best, key=lambda c: (-c.score, c.id))[:most]
        finalists = ranked[:most]
        # where the search began, and the optimizer's favourite, compete whatever they scored
        beyond = {
            number
            for event in self.store.events(self.run_id)
            if event.kind in ("start", "favorite") and event.payload["stage"] == stage.name
            for number in event.payload["ids"]
        }
        return finalists + [c for c in ranked[most:] if c.id in beyond]

    def _on_whole_dev(self, candidate: Candidate, stage: Stage, space: Space) -> dict[str, float]:
        """A candidate's scores with the tasks' examples all seen."""
        scores = dict(candidate.scores)
        for name in stage.objectives:
            goal = self.goals.get(name)
            if goal and len(goal.seen) < len(goal.dev):
                found = self._reported(candidate, space, goal.task, "selection", goal.dev)
                scores[name] = found.score
        return scores

    # ── evaluations ───────────────────────────────────────────────────────────────────────────

    def _report(self) -> None:
        """Score base, sources and what the stages found once on the test split."""
        for task in self.tasks:
            self._score_models(task, "test", self.test[task.name])
        for stage in self.recipe.stages():
            if stage.baseline and not stage.final:
                continue
            space = None
            for number in self._results(stage):
                candidate = self.store.candidate(self.run_id, number)
                for task in self.tasks:
                    subject = f"candidate:{number}"
                    if self.store.evaluation(self.run_id, subject, task.name, "test"):
                        continue
                    space = space or spaces.recorded_space(
                        self.store, self.run_id, self.recipe, self.models, stage.name
                    )
                    self._reported(candidate, space, task, "test", self.test[task.name])
            if self.recipe.quantized and stage.final and not stage.baseline:
                self._report_export(stage)

    def _report_export(self, stage: Stage) -> None:
        """Score what the stage's winner is exported as: unquantized, and so another model."""
        number = self._results(stage)[0]
        missing = [
            task
            for task in self.tasks
            if not self.store.evaluation(self.run_id, f"export:{number}", task.name, "test")
        ]
        if not missing:
            return
        from studio.models.precision import default_device

        self._release()
        self._check_stop()
        space = spaces.recorded_space(self.store, self.run_id, self.recipe, self.models, stage.name)
        genome = self.store.candidate(self.run_id, number).genome
        precision = spaces.unquantized(self.recipe, space.sources)
        exported = space.checkpoint(genome, precision, f"{self.run_id}:{number}")
        voice = (
            exported.load(self._plain_dtype(), default_device()),
            exported.tokenizer(),
            exported.processor(),
        )
        for task in missing:
            examples = self.test[task.name]
            self._record(self._evaluate(voice, f"export:{number}", task, "test", examples))

    def _results(self, stage: Stage) -> list[int]:
        """The numbers of a stage's winner and, of several objectives, of its front."""
        for event in self.store.events(self.run_id):
            if event.kind == "winner" and event.payload["stage"] == stage.name:
                found = [event.payload["id"]]
                return found + [n for n in event.payload.get("front", []) if n not in found]
        return []

    def _reported(
        self,
        candidate: Candidate,
        space: Space,
        task: "Task",
        split: str,
        examples: list["Example"],
    ) -> Evaluation:
        subject = f"candidate:{candidate.id}"
        done = self.store.evaluation(self.run_id, subject, task.name, split)
        if done is None:
            done = self._evaluate_candidate(
                candidate.id, candidate.genome, space, task, split, examples
            )
            self._record(done)
        return done

    def _evaluate_candidate(
        self,
        number: int,
        genome: np.ndarray,
        space: Space,
        task: "Task",
        split: str,
        examples: list["Example"],
    ) -> Evaluation:
        self._check_stop()
        if self._live is None or self._live.space is not space:
            self._release()
            self._live = space.live(self.recipe.precision, self.recipe.base_storage)
        start = time.perf_counter()
        try:
            self._live.apply(genome)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise too_large(f"The merge of candidate {number}", self._live.model) from None
        applied = time.perf_counter() - start
        live = self._live
        voice = (live.model, live.tokenizer, live.processor)
        evaluation = self._evaluate(voice, f"candidate:{number}", task, split, examples)
        return replace(evaluation, seconds=evaluation.seconds + applied)

    def _score_models(self, task: "Task", split: str, examples: list["Example"]) -> None:
        """Score base and sources as they are, unquantized, one at a time in memory."""
        from studio.models.precision import default_device

        for checkpoint in self.models:
            subject = f"model:{checkpoint.name}"
            if self.store.evaluation(self.run_id, subject, task.name, split):
                continue
            self._check_stop()
            self._release()
            voice = (
                checkpoint.load(self._plain_dtype(), default_device()),
                checkpoint.tokenizer(),
                checkpoint.processor(),
            )
            self._record(self._evaluate(voice, subject, task, split, examples))
            del voice

    def _plain_dtype(self) -> "torch.dtype":
        """What sources and exports are scored in."""
        from studio.models.precision import dtype_of

        sources = self.models[1:] if self.recipe.base else self.models
        return dtype_of(spaces.unquantized(self.recipe, sources))

    def _evaluate(self, voice: tuple, subject, task, split, examples) -> Evaluation:
        """Evaluate who speaks: a model, its tokenizer, and its processor if it sees."""
        model, tokenizer, processor = voice
        # what another task asked the same model in the same words is not asked again
        questions = [(example.id, example.question, example.picture) for example in examples]
        name, length = getattr(task, "asks", task.name), task.max_new_tokens
        asked = (subject, split, name, length, questions)
        said = self._said[1] if self._said and self._said[0] == asked else None
        evaluation = evaluate(
            model,
            tokenizer,
            task,
            examples,
            subject=subject,
            split=split,
            batch_size=self.batch_size,
            processor=processor,
            decoding=Decoding(**self.recipe.decoding.model_dump()),
            on_halving=self._halved,
            on_token=self._glance,
            must_end=not subject.startswith("model:") and self._ends(task),
            said=said,
        )
        self._said = asked, evaluation
        return evaluation

    def _ends(self, task: "Task") -> bool:
        """Whether any model of the run ends an answer to this task by itself.

        Then so must a candidate: one that never does is broken. Plain language models never do.
        """
        if task.name not in self._ending:
            split = "dev" if task.name in self.goals else "test"
            answered = (
                self.store.evaluation(self.run_id, f"model:{model.name}", task.name, split)
                for model in self.models
            )
            self._ending[task.name] = any(
                outcome.tokens < task.max_new_tokens
                for evaluation in answered
                if evaluation and not evaluation.broken  # which said nothing at all
                for outcome in evaluation.outcomes
            )
        return self._ending[task.name]

    def _halved(self, size: int) -> None:
        self.batch_size = size
        self.store.append(self.run_id, "halving", {"batch_size": size})

    def _record(self, *evaluations: Evaluation) -> None:
        self.store.record_evaluation(self.run_id, *evaluations)
        now = time.monotonic()
        self.store.add_seconds(self.run_id, now - self._clock)
        self._clock = now
        self.on_step()

    def _release(self) -> None:
        """Give the live model's memory back before a whole source is loaded."""
        if self._live is not None:
            self._live = None
            gc.collect()

    def _glance(self) -> None:
        """Between two tokens: whether to stop, read from the store now and then."""
        if self.terminated.is_set() or time.monotonic() - self._looked > _GLANCE:
            self._check_stop()

    def _check_stop(self) -> None:
        self._looked = time.monotonic()
        if self.terminated.is_set() or self.store.run(self.run_id).stop:
            raise _Stopped


def _check_same(number: int, genome: np.ndarray, recorded: dict[int, np.ndarray]) -> None:
    if number not in recorded or genome.tobytes() != recorded[number].tobytes():
        raise StudioError(
            f"The run does not replay: candidate {number} is asked with another genome than was "
            "recorded. Resume with the library versions and the kind of machine it was begun on "
            "(`python -m studio show RUN --json` lists them), or start the recipe anew."
        )


def _versions() -> dict[str, str]:
    """What this session computes with."""
    import torch

    packages = (
        "torch",
        "transformers",
        "numpy",
        "cma",
        "cmaes",
        "pymoo",
        "scipy",
        "moocore",
        "safetensors",
        "evollm-studio",
    )
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a folder, not installed
            continue
    return {
        **found,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
