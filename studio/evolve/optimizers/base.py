"""What the optimizers share: the interface, whole generations, and draws around a genome.

It knows no algorithm and no library.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Optimizer(Protocol):
    """Proposes genomes (float64 [d]) within [lower, upper] and learns from their scores."""

    def ask(self, n: int) -> list[tuple[int, np.ndarray]]:
        """Propose *n* new candidates."""
        ...

    def tell(self, scores: Mapping[int, float | Sequence[float]]) -> None:
        """Learn the scores of asked candidates: higher is better, in any order or grouping.

        One finite float a candidate, or one per objective where the optimizer searches several.
        """
        ...

    def favorite(self) -> np.ndarray | None:
        """The centre of what the optimizer believes in (float64 [d]), if it believes in one."""
        ...


class Generations:
    """Numbers what is proposed and holds scores back until a whole generation has them.

    A library learns from a generation at once; callers tell in any order and grouping, and what is
    learnt must not depend on it.

    Example:
        >>> generations = Generations(2)
        >>> [generations.add(solution) for solution in "abc"]
        [0, 1, 2]
        >>> generations.complete({2: 0.3, 1: 0.2})
        [(['b', 'c'], [0.2, 0.3])]
    """

    def __init__(self, population: int):
        self._population = population
        self._asked = 0
        self._waiting: dict[int, Any] = {}  # the library's own solutions, by id
        self._scores: dict[int, Any] = {}

    def add(self, solution: Any) -> int:
        """The id under which the solution's score will be told."""
        number, self._asked = self._asked, self._asked + 1
        self._waiting[number] = solution
        return number

    def complete(self, scores: Mapping[int, Any]) -> list[tuple[list[Any], list[Any]]]:
        """Take in scores; solutions and scores, by id, of each generation that they complete."""
        self._scores.update(scores)
        known = sorted(number for number in self._waiting if number in self._scores)
        whole = []
        while len(known) >= self._population:
            generation, known = known[: self._population], known[self._population :]
            solutions = [self._waiting.pop(number) for number in generation]
            whole.append((solutions, [self._scores.pop(number) for number in generation]))
        return whole


def draw_around(
    random: np.random.Generator,
    lower: np.ndarray,
    upper: np.ndarray,
    initial: np.ndarray,
    sigma: float,
) -> np.ndarray:
    """A normal draw around *initial* (float64 [d]) with a deviation of *sigma* gene ranges.

    What falls outside is reflected at the bound, so that no mass piles up on it; clipping is left
    for the rare draw that is more than a whole range outside.
    """
    genes = initial + sigma * (upper - lower) * random.standard_normal(len(lower))
    genes = np.where(genes < lower, 2 * lower - genes, genes)
    genes = np.where(genes > upper, 2 * upper - genes, genes)
    return np.clip(genes, lower, upper)


def to_nearer_bound(
    genes: np.ndarray, lower: np.ndarray, upper: np.ndarray, binary: np.ndarray
) -> np.ndarray:
    """*genes* (float64 [..., d]) with the binary ones exactly at a bound; the middle is low."""
    bound = np.where(genes > (lower + upper) / 2, upper, lower)
    return np.where(binary, bound, genes)
