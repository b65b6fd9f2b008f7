"""Races: candidates are asked a few examples, and more only where that can change a ranking.

All of a race are asked the same examples, in blocks that grow. After every block those are dropped
that enough others beat by a paired bound: they would hardly come back, and where they might, it is
by less than all the examples together could tell apart from chance. The rest is asked on. What an
optimizer is told is a ranking of all of them.

Knows scores and how far they can be trusted; how blocks are asked and recorded is for
`studio.evolve.heats`. Refuses to know models, and what a ranking is for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Examples in the first block, at the least, and which part of all; every further block has as many
#: as all before it. Many are answered together in hardly more time than a few.
FIRST, PART = 4, 25


class Rule(NamedTuple):
    """When somebody is dropped.

    Attributes:
        bound: a difference is trusted that is this many standard errors from another sign.
        indifferent: a lead counts that would be more than so many standard errors of a score on all
            the examples.
        left: about which part of a race goes on after a block.
    """

    bound: float
    indifferent: float
    left: float


#: For an optimizer, which sees so many rankings that none has to be right.
RANKING = Rule(1.0, 3.0, 1 / 2)
#: For the one that is reported: nobody corrects a wrong choice any more.
CHOICE = Rule(1.5, 1.5, 3 / 4)
#: The part of a generation whose order is fought for: the few that CMA-ES gives most weight.
LEADERS = 4


def blocks(n: int, seed: Sequence[int]) -> list[list[int]]:
    """The places of ``n`` examples, shuffled and cut into blocks.

    The order is another for every ``seed``, so that no example decides more often than the rest.

    Example:
        >>> [len(block) for block in blocks(20, seed=(0, 1))]
        [4, 4, 8, 4]
    """
    order = np.random.default_rng(list(seed)).permutation(n).tolist()
    first = max(FIRST, n // PART)
    cuts = [0, *(first << k for k in range(n.bit_length()) if first << k < n), n]
    return [order[start:end] for start, end in zip(cuts, cuts[1:], strict=False)]


def expected(n: int, rule: Rule = RANKING) -> int:
    """How many of ``n`` examples a candidate is asked, about.

    Example:
        >>> expected(100)
        13
    """
    sizes = [len(block) for block in blocks(n, (0,))]
    return round(sum(size * rule.left**number for number, size in enumerate(sizes)))


def beaten(
    scores: Sequence[np.ndarray],
    wholes: Sequence[int],
    certain: Sequence[np.ndarray] = (),
    rule: Rule = RANKING,
) -> np.ndarray:
    """Who is beaten by whom.

    Args:
        scores: per task float ``[c, n]``, more is better: of ``c`` candidates on the same ``n``
            examples.
        wholes: per task, how many examples there are in all.
        certain: float ``[c]`` each, more is better: what is known without asking.

    Returns:
        bool ``[c, c]``: whether the candidate of the row is beaten by that of the column. In every
        task the upper bound of its lead over all ``wholes`` examples (the mean of the paired
        differences and ``rule.bound`` standard errors, drawn without replacement) must be no more
        than ``rule.indifferent`` standard errors of a mean over all of them; it must have no lead
        in what is certain; and over all tasks it must be behind, or as good and later.
    """
    count = len(scores[0])
    behind = np.ones((count, count), bool)
    means = np.zeros(count)
    for values, whole in zip(scores, wholes, strict=True):
        n = values.shape[1]
        lead = values[:, None] - values[None]  # [c, c, n]: of the row over the column
        mean = lead.mean(-1)
        # that two agree on a few examples does not prove that they always will: a quarter more,
        # the most that a single score can vary
        spread = np.sqrt((((lead - mean[..., None]) ** 2).sum(-1) + 0.25) / n)
        error = spread * np.sqrt(max(0.0, 1 / n - 1 / whole))
        behind &= mean + rule.bound * error <= rule.indifferent * spread / np.sqrt(whole)
        means += values.mean(1)
    for value in certain:
        behind &= value[:, None] <= value[None]
    number = np.arange(count)
    worse = (means[:, None] < means[None]) | (
        (means[:, None] == means[None]) & (number[:, None] > number[None])
    )
    return behind & worse


def survivors(
    scores: Sequence[np.ndarray],
    wholes: Sequence[int],
    keep: int,
    certain: Sequence[np.ndarray] = (),
    rule: Rule = RANKING,
) -> np.ndarray:
    """bool ``[c]``: who is beaten by fewer than ``keep`` others; arguments as of `beaten`."""
    return beaten(scores, wholes, certain, rule).sum(1) < keep


def told(means: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """What an optimizer is told: a ranking in which whoever was dropped is behind all who were not.

    Args:
        means: float64 ``[c, o]``, each on the examples that the candidate was asked.
        alive: bool ``[c]``, who was not dropped.

    Returns:
        float64 ``[c, o]``: of the dropped at most what the last of the others has, less a hair.

    Example:
        >>> told(np.array([[0.5], [0.75], [0.25]]), np.array([True, False, False])).ravel().round(6)
        array([0.5 , 0.5 , 0.25])
    """
    least = np.nextafter(means[alive].min(0), -np.inf)
    return np.where(alive[:, None], means, np.minimum(means, least))
