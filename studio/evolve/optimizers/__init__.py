"""Optimizers behind one interface: ask for candidates, tell their scores.

``ask(n) -> [(id, genome)]`` and ``tell({id: score})``, scores maximised; ids count up from 0.
Nothing outside this folder knows which library proposes, and nothing inside it knows what a genome
means or how it was scored. Every optimizer owns a private random generator, so that the same seed
and the same scores give the same genomes bit for bit, whatever else the process draws (resuming a
run depends on it). One algorithm a file; a library is imported when its optimizer is made.
"""

from collections.abc import Sequence

import numpy as np

from studio.errors import StudioError
from studio.evolve.optimizers.base import Optimizer
from studio.evolve.optimizers.cma_es import CMA
from studio.evolve.optimizers.cmawm import CMAwM
from studio.evolve.optimizers.nsga2 import NSGA2
from studio.evolve.optimizers.random_search import RandomAround, RandomSearch

__all__ = ["CMA", "NSGA2", "CMAwM", "Optimizer", "RandomAround", "RandomSearch", "make"]

NAMES = ("cma", "cmaes", "nsga2", "random")


def make(
    name: str,
    *,
    lower: np.ndarray,
    upper: np.ndarray,
    initial: np.ndarray,
    binary: np.ndarray,
    population: int,
    sigma: float,
    seed: int,
    objectives: int = 1,
    around: bool = False,
    others: Sequence[np.ndarray] = (),
) -> Optimizer:
    """The optimizer of that name.

    Args:
        name: ``cma`` (CMA-ES, every gene continuous), ``cmaes`` (CMA-ES with margin, for spaces
            with binary genes), ``nsga2`` (two objectives or more) or ``random``.
        lower, upper, initial: float64 [d].
        binary: bool [d], the genes that take one of two values.
        population: candidates per generation.
        sigma: initial standard deviation, as a fraction of each gene's range.
        seed: of the private generator; 0 is valid.
        objectives: how many scores a candidate gets.
        around: random draws are normal around ``initial`` rather than uniform.
        others: float64 [d] each, what else is known to be good: ``nsga2`` begins with them, too.

    Raises:
        StudioError: there is no such optimizer, or it searches another number of objectives.

    Example:
        >>> space = dict(lower=np.zeros(2), upper=np.ones(2), initial=np.full(2, 0.5))
        >>> search = make("random", **space, binary=np.zeros(2, bool), population=8, sigma=0.2,
        ...               seed=0)
        >>> [number for number, _ in search.ask(2)]
        [0, 1]
    """
    if name not in NAMES:
        raise StudioError(f"There is no optimizer {name!r}: choose one of {', '.join(NAMES)}.")
    if name in ("cma", "cmaes") and objectives != 1:
        raise StudioError(
            f"The optimizer {name!r} searches exactly one objective, not {objectives}: choose "
            "nsga2, or keep one objective."
        )
    if name == "nsga2" and objectives < 2:
        raise StudioError(
            f"The optimizer 'nsga2' searches two objectives or more, not {objectives}: choose "
            "cma or cmaes, or add an objective."
        )
    if name == "random":
        if around:
            return RandomAround(lower, upper, initial, sigma=sigma, seed=seed)
        return RandomSearch(lower, upper, seed=seed)
    common = {"population": population, "sigma": sigma, "seed": seed}
    if name == "cma":
        return CMA(lower, upper, initial, **common)
    if name == "cmaes":
        return CMAwM(lower, upper, initial, binary=binary, **common)
    return NSGA2(lower, upper, initial, others=others, binary=binary, **common)
