"""Random search, uniform or around a genome: the baselines every search has to beat.

It learns nothing from any score, and so takes any number of objectives.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from studio.evolve.optimizers.base import draw_around


class RandomSearch:
    """Uniform sampling within the bounds.

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
        return [(number, self._draw()) for number in range(first, first + n)]

    def tell(self, scores: Mapping[int, float | Sequence[float]]) -> None:
        """Learns nothing."""

    def favorite(self) -> None:
        return None

    def _draw(self) -> np.ndarray:
        return self._random.uniform(self._lower, self._upper)


class RandomAround(RandomSearch):
    """Independent normal draws around ``initial``: what CMA-ES would ask if it never learnt.

    The honest baseline where uniform genomes are all broken (a path that keeps half of all layers
    speaks no language): it grants chance the same good start.

    Args:
        lower, upper, initial: float64 [d].
        sigma: standard deviation, as a fraction of each gene's range.
        seed: of the private generator; 0 is valid.

    Example:
        >>> search = RandomAround(np.zeros(2), np.ones(2), np.full(2, 0.5), sigma=1e-9, seed=0)
        >>> search.ask(1)[0][1].round(6)
        array([0.5, 0.5])
    """

    def __init__(
        self,
        lower: np.ndarray,
        upper: np.ndarray,
        initial: np.ndarray,
        *,
        sigma: float,
        seed: int,
    ):
        super().__init__(lower, upper, seed=seed)
        self._initial, self._sigma = initial, sigma

    def _draw(self) -> np.ndarray:
        return draw_around(self._random, self._lower, self._upper, self._initial, self._sigma)
