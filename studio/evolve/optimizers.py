"""Optimizers behind one interface: ask for candidates, tell their scores.

``ask(n) -> [(id, genome)]`` and ``tell({id: score})``, scores maximised; ids count up from 0.
Nothing outside this module knows which library proposes. Every optimizer owns a private random
generator, so that the same seed and the same scores give the same genomes bit for bit, whatever
else the process draws (resuming a run depends on it).
"""

import warnings
from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Optimizer(Protocol):
    """Proposes genomes (float64 [d]) within [lower, upper] and learns from their scores."""

    def ask(self, n: int) -> list[tuple[int, np.ndarray]]:
        """Propose *n* new candidates."""
        ...

    def tell(self, scores: Mapping[int, float]) -> None:
        """Learn the scores of asked candidates: higher is better, in any order or grouping."""
        ...

    def favorite(self) -> np.ndarray | None:
        """The centre of what the optimizer believes in (float64 [d]), if it believes in one."""
        ...


class RandomSearch:
    """Uniform sampling within the bounds: the baseline every search has to beat.

    Example:
        >>> search = RandomSearch(np.zeros(2), np.ones(2), seed=0)
        >>> [number for number, _ in search.ask(3)]
        [0, 1, 2]
    """

    def __init__(self, lower: np.ndarray, upper: np.ndarray, *, seed: int):
        self._lower, self._upper = lower, upper
        self._random = np.random.default_rng(seed)
        self._asked = 0

    def ask(self, n: int) -> list[tuple[int, np.ndarray]]:
        first, self._asked = self._asked, self._asked + n
        return [
            (number, self._random.uniform(self._lower, self._upper))
            for number in range(first, first + n)
        ]

    def tell(self, scores: Mapping[int, float]) -> None:
        """Learns nothing."""

    def favorite(self) -> None:
        return None


class CMA:
    """CMA-ES (Hansen, arXiv 1604.00772) by the library ``cma``, as the paper searches PS.

    Starts at ``initial`` (the paper: every parameter at 0.5). The library is told whole generations
    only: scores are held back until every candidate of a generation has one.

    Args:
        lower, upper, initial: float64 [d].
        population: candidates per generation.
        sigma: initial standard deviation, as a fraction of each gene's range.
        seed: of the private generator; 0 is valid.
    """

    def __init__(
        self,
        lower: np.ndarray,
        upper: np.ndarray,
        initial: np.ndarray,
        *,
        population: int,
        sigma: float,
        seed: int,
    ):
        with warnings.catch_warnings():  # that its plots lack matplotlib is nobody's concern
            warnings.simplefilter("ignore")
            import cma

        random = np.random.default_rng(seed)
        self._lower, self._upper = lower, upper
        # cma refuses a single dimension (slerp with one t): a second one without effect keeps it
        # company, and is cut off again in ask
        spare = 1 if len(initial) == 1 else 0
        low, high = np.append(lower, [0.0] * spare), np.append(upper, [1.0] * spare)
        self._es = cma.CMAEvolutionStrategy(
            np.append(initial, [0.5] * spare).astype(np.float64),
            sigma,
            {
                "bounds": [list(low), list(high)],
                "CMA_stds": (high - low).astype(np.float64),
                "popsize": population,
                # cma draws from numpy's global generator unless given both of these
                "randn": lambda *shape: random.standard_normal(shape),
                "seed": np.nan,
                "verbose": -9,
            },
        )
        self._population = population
        self._asked = 0
        self._waiting: dict[int, np.ndarray] = {}  # cma's own solutions, by id
        self._scores: dict[int, float] = {}

    def ask(self, n: int) -> list[tuple[int, np.ndarray]]:
        proposed = []
        for solution in self._es.ask(number=n):
            self._waiting[self._asked] = solution
            proposed.append((self._asked, self._genome(solution)))
            self._asked += 1
        return proposed

    def tell(self, scores: Mapping[int, float]) -> None:
        self._scores.update(scores)
        known = sorted(number for number in self._waiting if number in self._scores)
        while len(known) >= self._population:
            generation, known = known[: self._population], known[self._population :]
            solutions = [self._waiting.pop(number) for number in generation]
            losses = [-self._scores.pop(number) for number in generation]  # cma minimises
            self._es.tell(solutions, losses)

    def favorite(self) -> np.ndarray:
        return self._genome(self._es.result.xfavorite)

    def _genome(self, solution: np.ndarray) -> np.ndarray:
        """What the library means; its boundary transformation can overshoot by a rounding."""
        genes = np.array(solution, np.float64)[: len(self._lower)]
        return np.clip(genes, self._lower, self._upper)
