"""Who scores candidates and whole models: jobs in, evaluations out.

A job is plain data: names, numbers and a genome, so that it can be done in this process, in another
or on another machine alike. Knows how a job is done where the models are at hand. Refuses to know
what the evaluations are for, who waits for them, and where they are recorded.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from studio.evolve import spaces
from studio.evolve.evaluate import evaluate, out_of_memory, too_large
from studio.evolve.generate import Decoding, Response
from studio.evolve.spaces import Ancestor, Winner
from studio.merge.space import Live, Space
from studio.recipe import Recipe
from studio.runs.records import Evaluation

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from studio.models import Model
    from studio.tasks.base import Example, Task

    #: Who speaks: a model, its tokenizer, and its processor if it sees.
    Voice = tuple[PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin | None]


#: Who is asked what, and under which split that is recorded: subject, task, label.
Asking = tuple[str, str, str]


class Stopped(Exception):
    """Somebody asked the run to stop."""


class Paused(Exception):
    """The run cannot go on for now; its words, one sentence, say why."""


@dataclass(frozen=True)
class Asked:
    """Which questions a model is asked.

    Attributes:
        task: its name in the recipe.
        split: "dev" or "test".
        places: which of the split's examples, in this order; counted from 0.
        label: the split that the evaluation is recorded under.
        must_end: whether a model that ends not a single answer is broken.
        cut_loops: whether an answer ends where it only repeats itself.
    """

    task: str
    split: str
    places: Sequence[int]
    label: str
    must_end: bool = False
    cut_loops: bool = False


@dataclass(frozen=True, eq=False)  # a genome is an array
class Job:
    """Who is to be scored, and on what.

    Attributes:
        subject: 'model:NAME' for one of the recipe's as it is, 'candidate:N', or 'export:N' for
            what a candidate of a quantized run is exported as.
        asked: in this order.
        stage: the search whose genome it is; not of models.
        genome: float64 ``[d]``; not of models.
    """

    subject: str
    asked: tuple[Asked, ...]
    stage: str = ""
    genome: np.ndarray | None = None


@dataclass
class Bench:
    """What the jobs of a run are done with.

    Attributes:
        run: its id.
        models: of `spaces.open_models`.
        tasks: by name.
        examples: of (task, split), whole.
        ancestors: of `spaces.ancestors`.
        winners: by stage, of those whose spaces build on them; grows as stages end.
        said: by (subject, task, label), responses to some of the examples, by their place: what a
            job that was interrupted had come to.
        batch_size: prompts answered at a time, until it is halved.
        check: called before a model is made or loaded; what it raises ends the work.
        glance: the same, before every token.
        halved: told every new batch size.
        keep: told what a job came to that somebody goes on with later: its key in `said`, and the
            responses that are new.
    """

    run: str
    recipe: Recipe
    models: "list[Model]"
    tasks: "dict[str, Task]"
    examples: "dict[tuple[str, str], list[Example]]"
    ancestors: dict[str, Ancestor] = field(default_factory=dict)
    winners: dict[str, Winner] = field(default_factory=dict)
    said: dict[Asking, dict[int, Response]] = field(default_factory=dict)
    batch_size: int = 1
    check: Callable[[], None] = lambda: None
    glance: Callable[[], None] = lambda: None
    halved: Callable[[int], None] = lambda size: None
    keep: Callable[[Asking, dict[int, Response]], None] = lambda asking, responses: None
    _space: tuple[str, Space] | None = None

    def space(self, stage: str) -> Space:
        """The space of a stage, the same object until another stage's is wanted.

        Raises:
            StudioError: the models do not fit.
        """
        if self._space is None or self._space[0] != stage:
            self._space = None
            found = spaces.won_space(self.recipe, self.models, stage, self.winners)
            self._space = stage, found
        return self._space[1]


class Executor(Protocol):
    """Has jobs done, somewhere. Made with a `Bench`; it dies with the session.

    Attributes:
        workers: how many jobs it likes to have in hand at a time.
    """

    workers: int

    def plan(self) -> int:
        """How many prompts fit the memory at a time, there where the jobs are done.

        Raises:
            StudioError: not even one does.
        """
        ...

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[Evaluation]]]:
        """Each job with its evaluations, in the order asked, as soon as they are there.

        A job is taken from ``jobs`` when there is somebody to do it and not before: what it is may
        depend on how those before it came out. Jobs may come back in any order; whoever stops
        listening has the rest abandoned.

        Raises:
            Stopped: somebody asked the run to stop.
            Paused: it cannot go on here and now.
            StudioError: a job cannot be done.
        """
        ...


class InProcess:
    """Does one job after another here; holds one model at a time."""

    workers = 1

    def __init__(self, bench: Bench):
        self.bench = bench
        self._live: Live | None = None
        self._said: tuple[tuple, Evaluation] | None = None  # what was asked last, and what came

    def plan(self) -> int:
        from studio.evolve.plan import plan

        bench = self.bench
        return plan(bench.recipe, bench.models, list(bench.tasks.values())).batch

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[Evaluation]]]:
        for job in jobs:
            yield job, self._done(job)

    def _done(self, job: Job) -> list[Evaluation]:
        self.bench.check()
        start = time.perf_counter()
        kind, _, name = job.subject.partition(":")
        if kind == "candidate":
            voice = self._candidate(job, name)
            spent = time.perf_counter() - start
        else:
            voice, spent = self._whole(job, kind, name), 0.0
        found = [self._evaluated(voice, job.subject, asked) for asked in job.asked]
        for asked in job.asked:
            self.bench.said.pop((job.subject, asked.task, asked.label))
        return [replace(found[0], seconds=found[0].seconds + spent), *found[1:]]

    def _candidate(self, job: Job, number: str) -> "Voice":
        space = self.bench.space(job.stage)
        if self._live is None or self._live.space is not space:
            self._release()
            recipe = self.bench.recipe
            self._live = space.live(recipe.precision, recipe.base_storage)
        live = self._live
        try:
            live.apply(job.genome)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise too_large(f"The merge of candidate {number}", live.model) from None
        return live.model, live.tokenizer, live.processor

    def _whole(self, job: Job, kind: str, name: str) -> "Voice":
        """A source or the base as it is, or an export: unquantized, and alone in memory."""
        from studio.models.precision import default_device

        self._release()
        bench = self.bench
        if kind == "export":
            space = bench.space(job.stage)
            precision = spaces.unquantized(bench.recipe, space.sources)
            model = space.checkpoint(job.genome, precision, f"candidate {name}")
        else:
            model = next(model for model in bench.models if model.name == name)
        voice = model.load(self._plain_dtype(), default_device())
        return voice, model.tokenizer(), model.processor()

    def _plain_dtype(self) -> "torch.dtype":
        """What sources and exports are scored in."""
        from studio.models.precision import dtype_of

        models = self.bench.models
        sources = models[1:] if self.bench.recipe.base else models
        return dtype_of(spaces.unquantized(self.bench.recipe, sources))

    def _evaluated(self, voice: "Voice", subject: str, asked: Asked) -> Evaluation:
        model, tokenizer, processor = voice
        bench, task = self.bench, self.bench.tasks[asked.task]
        split = bench.examples[asked.task, asked.split]
        examples = [split[place] for place in asked.places]
        # what another task asked the same model in the same words is not asked again
        questions = [(example.id, example.question, example.picture) for example in examples]
        name, length = getattr(task, "asks", task.name), task.max_new_tokens
        words = (subject, asked.label, name, length, asked.cut_loops, questions)
        said = self._said[1] if self._said and self._said[0] == words else None
        evaluation = evaluate(
            model,
            tokenizer,
            task,
            examples,
            subject=subject,
            split=asked.label,
            batch_size=bench.batch_size,
            processor=processor,
            decoding=Decoding(**bench.recipe.decoding.model_dump()),
            on_halving=self._halved,
            on_token=bench.glance,
            must_end=asked.must_end,
            cut_loops=asked.cut_loops,
            said=said,
            known=bench.said.setdefault((subject, asked.task, asked.label), {}),
        )
        self._said = words, evaluation
        return evaluation

    def _halved(self, size: int) -> None:
        self.bench.batch_size = size
        self.bench.halved(size)

    def _release(self) -> None:
        """Give the live model's memory back before another is made or loaded."""
        if self._live is not None:
            self._live = None
            gc.collect()
