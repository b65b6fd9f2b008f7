"""CMA-ES by the library ``cma``.

It knows one score a candidate and continuous genes only: a space that reads a gene's sign as a
switch sees to that itself.
"""

import warnings
from collections.abc import Mapping

import numpy as np

from studio.evolve.optimizers.base import Generations


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
        self._generations = Generations(population)

    def ask(self, n: int) -> list[tuple[int, np.ndarray]]:
        solutions = self._es.ask(number=n)
        return [(self._generations.add(s), self._genome(s)) for s in solutions]

    def tell(self, scores: Mapping[int, float]) -> None:
        for solutions, told in self._generations.complete(scores):
            # mirrored steps of a small population, which are left over where it is asked one by one
            self._es.pop_injection_directions = []
            self._es.tell(solutions, [-score for score in told])  # cma minimises

    def favorite(self) -> np.ndarray:
        return self._genome(self._es.result.xfavorite)

    def _genome(self, solution: np.ndarray) -> np.ndarray:
        """What the library means; its boundary transformation can overshoot by a rounding."""
        genes = np.array(solution, np.float64)[: len(self._lower)]
        return np.clip(genes, self._lower, self._upper)
