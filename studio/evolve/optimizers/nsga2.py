"""NSGA-II by the library ``pymoo``: a front instead of a winner.

It knows several scores a candidate and believes in no centre. What the library minimises, keeps
and mates never leaves this file and ``mating``.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from studio.evolve.optimizers.base import Generations, draw_around, to_nearer_bound


class NSGA2:
    """NSGA-II (Deb et al., IEEE Trans. Evol. Comp. 6(2), 2002) for two objectives or more.

    The first generation is ``initial``, as many ``others`` as there is room for, spread over all of
    them, and normal draws around ``initial``; later ones vary the candidates kept by rank and
    crowding. The library is told whole generations only, and asked for the next
    one only then: ``ask`` hands a generation out in as many pieces as the caller likes.

    Args:
        lower, upper: float64 [d].
        initial: float64 [d]; of a binary gene a relaxed mean between its bounds.
        others: float64 [d] each, in the order of a front.
        binary: bool [d], the genes that take exactly lower or upper; none and all are fine.
        population: candidates per generation, and candidates kept.
        sigma: standard deviation of the first draws, as a fraction of each gene's range.
        seed: of the private generator; 0 is valid.

    Example:
        >>> search = NSGA2(np.zeros(2), np.ones(2), np.full(2, 0.5), binary=np.zeros(2, bool),
        ...                population=8, sigma=0.2, seed=0)
        >>> generation = search.ask(8)
        >>> generation[0]
        (0, array([0.5, 0.5]))
        >>> search.tell({number: (genes[0], -genes[0] - genes[1]) for number, genes in generation})
        >>> [number for number, _ in search.ask(3)]
        [8, 9, 10]
    """

    def __init__(
        self,
        lower: np.ndarray,
        upper: np.ndarray,
        initial: np.ndarray,
        *,
        others: Sequence[np.ndarray] = (),
        binary: np.ndarray,
        population: int,
        sigma: float,
        seed: int,
    ):
        from studio.evolve.optimizers.mating import algorithm

        random = np.random.default_rng(seed)
        places = np.linspace(0, len(others) - 1, min(len(others), population - 1)).round()
        known = [initial, *(others[int(place)] for place in places)]
        draws = [
            draw_around(random, lower, upper, initial, sigma)
            for _ in range(population - len(known))
        ]
        first = to_nearer_bound(np.array([*known, *draws], np.float64), lower, upper, binary)
        self._algorithm = algorithm(lower, upper, binary, first, random)
        self._generations = Generations(population)
        self._generation = self._algorithm.ask()
        self._handed = 0  # of this generation

    def ask(self, n: int) -> list[tuple[int, np.ndarray]]:
        """Propose *n* new candidates, at most what is left of the current generation.

        Raises:
            ValueError: more are asked for; the next generation takes this one's scores.
        """
        if self._generation is None:
            self._generation, self._handed = self._algorithm.ask(), 0
        left = len(self._generation) - self._handed
        if n > left:
            raise ValueError(f"{n} candidates asked, but this generation has only {left} left")
        handed = self._generation[self._handed : self._handed + n]
        self._handed += n
        return [(self._generations.add(x), x.X.astype(np.float64)) for x in handed]

    def tell(self, scores: Mapping[int, Sequence[float]]) -> None:
        for _, told in self._generations.complete(scores):
            self._generation.set("F", -np.array(told, np.float64))  # pymoo minimises
            self._algorithm.tell(infills=self._generation)
            self._generation = None

    def favorite(self) -> None:
        return None
