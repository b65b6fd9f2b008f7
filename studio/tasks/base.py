"""What a task is: examples, a prompt for each, and a score for one response at a time.

Knows nothing about models, tokenizers or generation. The evaluator, in turn, knows tasks only
through this protocol, and through a second one for benchmarks that no response answers: which of
several endings a model finds likeliest, say. Those are lent the model itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from studio.errors import StudioError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """One question with its reference answer.

    ``id`` is unique within a split and stays the same from day to day. ``meta`` is JSON-able and is
    shown to people; scoring never depends on it. ``picture`` is what the question is about: an
    encoded image file or the path of one, opened by ``vlm.pictures`` alone.
    """

    id: str
    question: str
    answer: str
    meta: dict[str, Any] = field(default_factory=dict)
    picture: Path | bytes | None = None


@dataclass(frozen=True)
class Score:
    """What one response earned: ``value`` in [0, 1], and why, JSON-able, for the record.

    Tasks with an answer language put into ``details``: ``parsed`` (the answer as it was read, or
    None), ``right`` (whether that is the reference), ``language`` (the likeliest language of the
    response) and ``p`` (the probability that it is in the language asked for).
    """

    value: float
    details: dict[str, Any]


@runtime_checkable
class Task(Protocol):
    """A benchmark. ``metric`` names the mean of ``Score.value``; more is better."""

    name: str
    metric: str
    max_new_tokens: int

    def examples(self, split: str) -> list[Example]:
        """The examples of ``"train"``, ``"dev"`` or ``"test"``, always in the same order.

        Raises:
            StudioError: the task has no such split, or its data cannot be read.
        """
        ...

    def prompt(self, example: Example, chat: bool) -> str:
        """The user's turn (``chat``), or the whole prompt for a model without a chat template."""
        ...

    def score(self, example: Example, response: str) -> Score:
        """The score of one response, on its own."""
        ...


@dataclass(frozen=True)
class Measurement:
    """What one example came to: the response that was scored, its score, and its length.

    ``tokens`` is 0 where nothing was generated; ``runaway``: the response only repeated itself and
    was cut.
    """

    response: str
    score: Score
    tokens: int = 0
    runaway: bool = False


@runtime_checkable
class LiveTask(Protocol):
    """A benchmark that measures a model itself, where responses alone cannot be scored.

    It asks and scores; the evaluator does the rest as for any task: what is recorded, smaller
    batches when memory runs out, models that are broken, stopping between two forward passes.
    ``max_new_tokens`` is 0, for the evaluator generates nothing.
    """

    name: str
    metric: str
    max_new_tokens: int

    def examples(self, split: str) -> list[Example]:
        """As of :class:`Task`."""
        ...

    def measure(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        examples: list[Example],
        batch_size: int,
    ) -> list[Measurement]:
        """One measurement per example, in their order; the model is lent, and left as it was.

        Raises:
            StudioError: the model cannot be measured so.
        """
        ...


def check_split(task: str, split: str, splits: Iterable[str], hint: str = "") -> None:
    """StudioError unless ``split`` is one of the task's ``splits``; ``hint`` ends the sentence."""
    splits = list(splits)
    if split not in splits:
        raise StudioError(
            f"The task {task} has no {split!r} split, only {' and '.join(splits)}{hint}."
        )
