"""CMA-ES with margin by the library ``cmaes``: spaces where some genes are switches.

It knows one score a candidate. The library's relaxed solutions, from which it learns, never leave
this file: a caller sees switches only as lower or upper.
"""

from collections.abc import Mapping

import numpy as np

from studio.evolve.optimizers.base import Generations, to_nearer_bound


class CMAwM:
    """CMA-ES with margin (Hamano et al., arXiv 2205.13482) for binary and continuous genes.

    Plain CMA-ES gets stuck once its normal distribution lies on one side of a switch; the margin
    keeps a probability of at least 1/(d * population) for either value. The library is told whole
    generations only: scores are held back until every candidate of a generation has one.

    Args:
        lower, upper: float64 [d].
        initial: float64 [d]; of a binary gene a relaxed mean strictly between its bounds, the
            nearer the middle the more even the odds of its two values.
        binary: bool [d], the genes that take exactly lower or upper; none and all are fine.
        population: candidates per generation.
        sigma: initial standard deviation, as a fraction of each gene's range.
        seed: of the private generator; 0 is valid.

    Example:
        >>> lower, upper = np.array([-1.0, 0.5]), np.array([1.0, 2.0])
        >>> search = CMAwM(lower, upper, np.array([0.5, 1.0]), binary=np.array([True, False]),
        ...                population=8, sigma=0.2, seed=0)
        >>> for _ in range(40):
        ...     search.tell({number: -genes[0] - (genes[1] - 1.5) ** 2
        ...                  for number, genes in search.ask(8)})
        >>> search.favorite().round(2)
        array([-1. ,  1.5])
    """

    def __init__(
        self,
        lower: np.ndarray,
        upper: np.ndarray,
        initial: np.ndarray,
        *,
        binary: np.ndarray,
        population: int,
        sigma: float,
        seed: int,
    ):
        import cmaes

        self._lower, self._upper, self._binary = lower, upper, binary
        # The library has one sigma for all genes: inside, each gene's range is [-1, 1].
        mean = 2 * (initial - lower) / (upper - lower) - 1
        self._es = cmaes.CMAwM(
            mean=mean.astype(np.float64),
            sigma=2 * sigma,
            bounds=np.tile([-1.0, 1.0], (len(mean), 1)),
            steps=np.where(binary, 2.0, 0.0),  # one step from bound to bound; 0 is continuous
            population_size=population,
            seed=seed,
        )
        self._generations = Generations(population)

    def ask(self, n: int) -> list[tuple[int, np.ndarray]]:
        proposed = []
        for _ in range(n):
            solution, relaxed = self._es.ask()
            proposed.append((self._generations.add(relaxed), self._genome(solution)))
        return proposed

    def tell(self, scores: Mapping[int, float]) -> None:
        for relaxed, told in self._generations.complete(scores):
            # cmaes minimises
            self._es.tell([(x, -score) for x, score in zip(relaxed, told, strict=True)])

    def favorite(self) -> np.ndarray:
        """The mean of the distribution (float64 [d]), its binary genes at the nearer bound."""
        return self._genome(self._es.mean)

    def _genome(self, scaled: np.ndarray) -> np.ndarray:
        genes = self._lower + (scaled + 1) / 2 * (self._upper - self._lower)
        genes = np.clip(genes, self._lower, self._upper)
        return to_nearer_bound(genes, self._lower, self._upper, self._binary)
