"""The front of a run: the candidates that no other candidate beats in every objective.

Knows objectives by name and which of them are to be small; refuses to know how they were measured.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from studio.recipe import PROPERTIES
from studio.runs.records import Candidate


def gains(scores: Mapping[str, float], objectives: Sequence[str]) -> tuple[float, ...]:
    """One number per objective, all to be maximised: minimised ones are negated."""
    return tuple(-scores[name] if name in PROPERTIES else scores[name] for name in objectives)


def front(candidates: Sequence[Candidate], objectives: Sequence[str]) -> list[Candidate]:
    """The non-dominated among those scored on all objectives and not broken, the first best first.

    Of candidates with equal scores the earliest stands for all.
    """
    known: dict[tuple[float, ...], Candidate] = {}
    for candidate in candidates:
        if not candidate.broken and all(name in candidate.scores for name in objectives):
            known.setdefault(gains(candidate.scores, objectives), candidate)
    if not known:
        return []
    values = np.array(list(known))
    better = (values[:, None] >= values[None]).all(-1) & (values[:, None] > values[None]).any(-1)
    kept = [c for c, beaten in zip(known.values(), better.any(0), strict=True) if not beaten]
    return sorted(kept, key=lambda c: gains(c.scores, objectives), reverse=True)


def hypervolume(
    candidates: Sequence[Candidate], objectives: Sequence[str], worst: Mapping[str, float]
) -> float:
    """The share, in [0, 1], of all values that some candidate of the front is at least as good as.

    Measured from the worst of every objective: 0 for a task, ``worst`` for a property (by which it
    is also divided). Zitzler & Thiele 1998; computed by pymoo.
    """
    from pymoo.indicators.hv import HV

    points = [
        [
            c.scores[name] / worst[name] if name in PROPERTIES else 1 - c.scores[name]
            for name in objectives
        ]
        for c in front(candidates, objectives)
    ]
    if not points:
        return 0.0
    return float(HV(ref_point=np.ones(len(objectives)))(np.array(points)))
