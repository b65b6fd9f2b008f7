"""What a run's record is made of, as it is read: plain values, and the names of a run's states.

Knows nothing of where they are kept (`studio.runs.store`) or how they came about.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from studio.recipe import PROPERTIES
from studio.runs.statistics import wilson

QUEUED, RUNNING, STOPPED, FINISHED, FAILED = "queued", "running", "stopped", "finished", "failed"


@dataclass(frozen=True)
class Run:
    """A row of the runs table; ``recipe`` is YAML, times are in seconds since the epoch.

    Attributes:
        owner: whose it is; '' where everybody shares one workspace, and of bundled runs.
        share: the token of its read-only link, None if it has none.
        queued: when it was put in the queue of the workspace's worker, None if it never was.
        expected: seconds that it was estimated to take, None if nobody estimated.
    """

    id: str
    name: str
    recipe: str
    created: float
    status: str
    stop: bool
    message: str
    version: int
    seconds: float
    owner: str = ""
    share: str | None = field(default=None, repr=False)
    queued: float | None = None
    expected: float | None = None


@dataclass(frozen=True)
class Event:
    """One entry of a run's log."""

    seq: int
    at: float
    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A genome (float64 [d]) and what the search measured of it.

    ``scores`` has each objective's value on the search's examples, by name, as measured (nothing
    negated); it is empty while the candidate is pending. ``examples``, ``tokens`` and ``seconds``
    are those of all objectives together.
    """

    id: int
    stage: str
    generation: int
    genome: np.ndarray
    scores: dict[str, float]
    examples: int
    tokens: int
    seconds: float
    broken: str

    @property
    def score(self) -> float | None:
        """The mean of the tasks' scores, in [0, 1]; None while pending."""
        tasks = self.tasks
        return sum(tasks.values()) / len(tasks) if tasks else None

    @property
    def tasks(self) -> dict[str, float]:
        """The scores without properties, which are measured in other units."""
        return {name: value for name, value in self.scores.items() if name not in PROPERTIES}


def rank(candidate: Candidate) -> tuple:
    """A key that sorts scored candidates, best first: see `Store.ranked`."""
    c = candidate
    least, _ = wilson(min(1.0, c.score), max(1, c.examples))
    return -len(c.tasks), -least, -c.score, bool(c.broken), c.id


@dataclass(frozen=True)
class Outcome:
    """What a model answered to one example: ``score`` in [0, 1], the task's ``details``.

    ``runaway``: the answer only repeated itself and was cut.
    """

    example: str
    score: float
    response: str
    details: dict[str, Any]
    tokens: int
    runaway: bool = False


@dataclass(frozen=True)
class Evaluation:
    """A model's score on one split of one task; ``subject`` is 'candidate:N' or 'model:NAME'."""

    subject: str
    task: str
    split: str
    score: float
    tokens: int
    seconds: float
    broken: str
    outcomes: tuple[Outcome, ...]

    @classmethod
    def of_property(cls, subject: str, name: str, value: float) -> "Evaluation":
        """A property of a candidate, recorded beside its tasks' scores: nothing was generated."""
        return cls(subject, name, "dev", value, tokens=0, seconds=0.0, broken="", outcomes=())


#: 'RUN:12' or 'RUN:best', RUN being a run's id, its beginning, or 'last'.
_REFERENCE = re.compile(r"([0-9a-z]{1,8}):(best|\d{1,9})", re.ASCII)


def split_reference(name: str) -> tuple[str, str] | None:
    """The run and the candidate that a name means, or None if it is not of that form.

    >>> split_reference("last:best")
    ('last', 'best')
    >>> split_reference("bonsai-ja") is None
    True
    """
    match = _REFERENCE.fullmatch(name)
    return (match[1], match[2]) if match else None
