"""How NSGA-II varies candidates, in the library's own terms: continuous genes and switches.

The one module that imports ``pymoo`` at its head; only NSGA2's constructor imports it. It knows no
scores and no ids.
"""

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.config import Config
from pymoo.core.duplicate import DefaultDuplicateElimination
from pymoo.core.mating import Mating
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.selection.tournament import TournamentSelection

# Without its compiled parts, of which NSGA-II uses none, pymoo prints a notice.
Config.warnings["not_compiled"] = False

# Section V.A of Deb et al.: the probability that two parents cross, and the distribution indices
# of simulated binary crossover and polynomial mutation. Each gene mutates with probability 1/d
# (a lone gene with 1/2, or nothing would be inherited): pymoo's default.
CROSSOVER, ETA = 0.9, 20


def algorithm(
    lower: np.ndarray,
    upper: np.ndarray,
    binary: np.ndarray,
    first: np.ndarray,
    random: np.random.Generator,
) -> NSGA2:
    """pymoo's NSGA-II, ready to be asked, drawing from *random* only.

    Args:
        lower, upper: float64 [d].
        binary: bool [d]; these genes are always exactly lower or upper.
        first: float64 [population, d], the first generation; its duplicates stay.
    """
    mating = _FullMating(
        TournamentSelection(func_comp=binary_tournament),
        _Crossover(binary),
        _Mutation(binary),
        eliminate_duplicates=DefaultDuplicateElimination(),
        n_max_iterations=20,
    )
    nsga2 = NSGA2(
        pop_size=len(first), sampling=first, mating=mating, eliminate_duplicates=False, output=None
    )
    problem = Problem(n_var=len(lower), xl=lower, xu=upper)
    # A budget ends the search, never the library. numpy hands a generator given as seed through.
    nsga2.setup(problem, termination=NoTermination(), seed=random)
    return nsga2


class _FullMating(Mating):
    """Offspring that are new, while the space has any, but always as many as were asked for."""

    def do(self, problem, pop, n_offsprings, **kwargs):
        new = super().do(problem, pop, n_offsprings, **kwargs)
        missing = n_offsprings - len(new)
        if missing == 0:
            return new
        return Population.merge(new, self._do(problem, pop, missing, **kwargs)[:missing])


class _Crossover(SBX):
    """Simulated binary crossover; switches are exchanged or not with even odds (uniform)."""

    def __init__(self, binary: np.ndarray):
        super().__init__(prob=CROSSOVER, eta=ETA)
        self._binary = binary

    def _do(self, problem, parents, *args, random_state=None, **kwargs):
        children = super()._do(problem, parents, *args, random_state=random_state, **kwargs)
        switches = parents[:, :, self._binary]
        exchanged = random_state.random(switches.shape[1:]) < 0.5
        children[:, :, self._binary] = np.where(exchanged, switches[::-1], switches)
        return children


class _Mutation(PM):
    """Polynomial mutation; switches are flipped."""

    def __init__(self, binary: np.ndarray):
        super().__init__(prob=1.0, eta=ETA)
        self._binary = binary

    def _do(self, problem, genes, *args, random_state=None, **kwargs):
        mutated = super()._do(problem, genes, *args, random_state=random_state, **kwargs)
        switches = genes[:, self._binary]
        lower, upper = problem.xl[self._binary], problem.xu[self._binary]
        odds = self.get_prob_var(problem, size=(len(genes), 1))
        flipped = random_state.random(switches.shape) < odds
        other = np.where(switches == lower, upper, lower)
        mutated[:, self._binary] = np.where(flipped, other, switches)
        return mutated
