"""One evolution from start to report, recorded as it goes, resumable from any point.

The loop knows the order of things: score the sources, search, search again at random with the same
budget, compare the finalists on the whole dev split, and score what is reported once on test. It
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
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from studio.errors import StudioError
from studio.evolve import inputs
from studio.evolve.evaluate import evaluate
from studio.evolve.optimizers import CMA, Optimizer, RandomSearch
from studio.recipe import Recipe
from studio.runs.lock import hold
from studio.runs.records import FAILED, FINISHED, RUNNING, STOPPED, Candidate, Evaluation
from studio.runs.store import Store

if TYPE_CHECKING:
    from studio.merge.live import LiveModel
    from studio.tasks.base import Example, Task


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
    """An event that a polite kill sets: the run stops after the candidate in flight.

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


class _Loop:
    """One session of work on a run."""

    def __init__(
        self, store: Store, run: str, on_step: Callable[[], None], terminated: threading.Event
    ):
        self.store, self.run_id, self.on_step = store, run, on_step
        self.terminated = terminated
        self.recipe = Recipe.from_yaml(store.run(run).recipe, "The recorded recipe")
        self.models = self.recipe.open_models()
        self.space = self.recipe.build_space(self.models)
        self.tasks = self.recipe.build_tasks()
        self.objective = self.tasks[0]
        dev = self.objective.examples("dev")
        self.dev = dev[: self.recipe.objectives[0].examples]
        self.whole_dev = dev
        # A report that cannot be made should fail now, not after the search.
        self.test = {task.name: task.examples("test") for task in self.tasks}
        self._note_inputs()
        halvings = sum(event.kind == "halving" for event in store.events(run))
        self.batch_size = max(1, self.recipe.batch_size >> halvings)
        self._live: LiveModel | None = None
        self._clock = time.monotonic()

    def _note_inputs(self) -> None:
        """Record what the run works on and how many answers that takes, or see it is unchanged."""
        splits = {(self.objective.name, "dev"): self.whole_dev}
        splits |= {(name, "test"): examples for name, examples in self.test.items()}
        now = inputs.of_models(self.models) | inputs.of_examples(splits)
        inputs.check(self.store, self.run_id, now)
        if not inputs.recorded(self.store, self.run_id):
            payload = {"fingerprints": now, "answers": self._answers()}
            self.store.append(self.run_id, "inputs", payload)

    def _answers(self) -> int:
        """How many answers the whole run takes: sources, searches, finalists and report."""
        search, dev = self.recipe.search, len(self.dev)
        again = len(self.whole_dev) if len(self.whole_dev) > dev else 0
        searches = len(self.recipe.stages())
        return (
            len(self.models) * dev
            + searches * (self.recipe.budget.candidates * dev + search.finalists * again)
            + (len(self.models) + searches) * sum(map(len, self.test.values()))
        )

    def run(self) -> None:
        self.store.append(self.run_id, "session", _versions())
        self._begin("sources")
        self._score_models(self.objective, "dev", self.dev)
        for stage in self.recipe.stages():
            self._begin(stage)
            self._search(stage)
            self._begin("selection")
            self._select(stage)
        self._begin("report")
        for task in self.tasks:
            self._report(task)

    def _begin(self, phase: str) -> None:
        self.store.append(self.run_id, "phase", {"name": phase})

    # ── the search ────────────────────────────────────────────────────────────────────────────

    def _optimizer(self, stage: str) -> Optimizer:
        space, search, seed = self.space, self.recipe.search, self.recipe.seed
        if stage == "random":
            return RandomSearch(space.lower, space.upper, seed=seed)
        return CMA(
            space.lower,
            space.upper,
            space.initial,
            population=search.population,
            sigma=search.sigma,
            seed=seed,
        )

    def _search(self, stage: str) -> None:
        """Spend the budget of candidates, going on from whatever the record holds."""
        candidates = self.store.candidates(self.run_id)
        first = sum(c.stage != stage and _before(c.stage, stage, self.recipe) for c in candidates)
        optimizer = self._optimizer(stage)
        asked, pending = self._replay(stage, optimizer, first)
        generation = len(asked)
        count = sum(asked)
        while pending or count < self.recipe.budget.candidates:
            if not pending:
                n = min(self.recipe.search.population, self.recipe.budget.candidates - count)
                pending = [(first + number, genome) for number, genome in optimizer.ask(n)]
                self.store.record_ask(self.run_id, stage, generation, pending)
                generation, count = generation + 1, count + n
            told = {number: self._score(number, genome) for number, genome in pending}
            self.store.record_tell(self.run_id, stage, told)
            optimizer.tell({number - first: score for number, score in told.items()})
            pending = []
        self._favorite(stage, optimizer, first + count, generation)

    def _replay(
        self, stage: str, optimizer: Optimizer, first: int
    ) -> tuple[list[int], list[tuple[int, np.ndarray]]]:
        """Bring a fresh optimizer to where the record ends.

        Returns:
            how many candidates each generation asked, and those asked but not yet told.
        """
        recorded = {c.id: c.genome for c in self.store.candidates(self.run_id, stage)}
        asked: list[int] = []
        pending: dict[int, np.ndarray] = {}
        for event in self.store.events(self.run_id):
            if event.payload.get("stage") != stage:
                continue
            if event.kind == "ask":
                proposed = optimizer.ask(len(event.payload["ids"]))
                for number, genome in proposed:
                    _check_same(first + number, genome, recorded)
                    pending[first + number] = genome
                asked.append(len(proposed))
            elif event.kind == "tell":
                told = {number: float.fromhex(value) for number, value in event.payload["told"]}
                optimizer.tell({number - first: value for number, value in told.items()})
                for number in told:
                    del pending[number]
        return asked, list(pending.items())

    def _favorite(self, stage: str, optimizer: Optimizer, number: int, generation: int) -> None:
        """Score the optimizer's favourite too: under noise the mean often beats every sample."""
        genome = optimizer.favorite()
        if genome is None:
            return
        recorded = {c.id: c.genome for c in self.store.candidates(self.run_id, stage)}
        if number in recorded:
            _check_same(number, genome, recorded)
        else:
            asked = [(number, genome)]
            self.store.record_ask(self.run_id, stage, generation, asked, kind="favorite")
        self._score(number, genome)

    def _score(self, number: int, genome: np.ndarray) -> float:
        """A candidate's score on the search's examples; never evaluated twice."""
        subject = f"candidate:{number}"
        done = self.store.evaluation(self.run_id, subject, self.objective.name, "dev")
        if done is None:
            done = self._evaluate_candidate(number, genome, self.objective, "dev", self.dev)
        return done.score

    def _select(self, stage: str) -> None:
        """Compare the stage's finalists on the whole dev split; the winner is what it reports."""
        if any(
            event.kind == "winner" and event.payload["stage"] == stage
            for event in self.store.events(self.run_id)
        ):
            return
        ranked = self.store.ranked(self.run_id, stage)
        finalists = ranked[: self.recipe.search.finalists]
        last = max(ranked, key=lambda c: c.id)
        if stage != "random" and last not in finalists:
            finalists.append(last)  # the optimizer's favourite competes whatever it scored
        scores: dict[int, float] = {}
        for candidate in finalists:
            if len(self.dev) == len(self.whole_dev):
                scores[candidate.id] = candidate.score or 0.0
            else:
                scores[candidate.id] = self._reported(
                    candidate, self.objective, "selection", self.whole_dev
                ).score
        winner = max(scores, key=lambda number: (scores[number], -number))
        self.store.append(self.run_id, "winner", {"stage": stage, "id": winner})

    # ── evaluations ───────────────────────────────────────────────────────────────────────────

    def _report(self, task: "Task") -> None:
        """Score base, sources and each stage's winner once on the test split."""
        self._score_models(task, "test", self.test[task.name])
        for stage in self.recipe.stages():
            winner = self.store.best(self.run_id, stage)
            self._reported(winner, task, "test", self.test[task.name])

    def _reported(
        self, candidate: Candidate, task: "Task", split: str, examples: list["Example"]
    ) -> Evaluation:
        subject = f"candidate:{candidate.id}"
        done = self.store.evaluation(self.run_id, subject, task.name, split)
        return done or self._evaluate_candidate(
            candidate.id, candidate.genome, task, split, examples
        )

    def _evaluate_candidate(
        self, number: int, genome: np.ndarray, task: "Task", split: str, examples: list["Example"]
    ) -> Evaluation:
        if self._live is None:
            from studio.merge.live import LiveModel

            self._live = LiveModel(self.space, precision=self.recipe.precision)
        self._check_stop()
        start = time.perf_counter()
        self._live.apply(genome)
        applied = time.perf_counter() - start
        evaluation = self._evaluate(
            self._live.model, self._live.tokenizer, f"candidate:{number}", task, split, examples
        )
        evaluation = replace(evaluation, seconds=evaluation.seconds + applied)
        self._record(evaluation)
        return evaluation

    def _score_models(self, task: "Task", split: str, examples: list["Example"]) -> None:
        """Score base and sources as they are, one at a time in memory."""
        from studio.merge.ingredients import dtype_of
        from studio.merge.live import default_device

        for checkpoint in self.models:
            subject = f"model:{checkpoint.name}"
            if self.store.evaluation(self.run_id, subject, task.name, split):
                continue
            self._check_stop()
            self._release()
            model = checkpoint.load(dtype_of(self.recipe.precision), default_device())
            tokenizer = checkpoint.tokenizer()
            self._record(self._evaluate(model, tokenizer, subject, task, split, examples))
            del model

    def _evaluate(self, model, tokenizer, subject, task, split, examples) -> Evaluation:
        return evaluate(
            model,
            tokenizer,
            task,
            examples,
            subject=subject,
            split=split,
            batch_size=self.batch_size,
            on_halving=self._halved,
        )

    def _halved(self, size: int) -> None:
        self.batch_size = size
        self.store.append(self.run_id, "halving", {"batch_size": size})

    def _record(self, evaluation: Evaluation) -> None:
        self.store.record_evaluation(self.run_id, evaluation)
        now = time.monotonic()
        self.store.add_seconds(self.run_id, now - self._clock)
        self._clock = now
        self.on_step()

    def _release(self) -> None:
        """Give the live model's memory back before a whole source is loaded."""
        if self._live is not None:
            self._live = None
            gc.collect()

    def _check_stop(self) -> None:
        if self.terminated.is_set() or self.store.run(self.run_id).stop:
            raise _Stopped


def _before(stage: str, other: str, recipe: Recipe) -> bool:
    order = recipe.stages()
    return order.index(stage) < order.index(other)


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

    packages = ("torch", "transformers", "numpy", "cma", "safetensors", "evollm-studio")
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
