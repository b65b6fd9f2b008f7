"""What a score on a few hundred examples can and cannot say."""

import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054  # two-sided 95 % of the normal distribution


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the mean of per-example scores.

    Right/wrong scores get Wilson's interval (Wilson 1927), honest near 0 and 1; graded scores a
    percentile bootstrap with a fixed seed, so that the same outcomes always give the same interval.

    Args:
        scores: one number per example; at least one.

    Returns:
        (low, high), in the unit of the scores.

    Example:
        >>> low, high = interval([1.0] * 52 + [0.0] * 48)
        >>> round(low, 3), round(high, 3)
        (0.423, 0.615)
    """
    values = np.asarray(scores, np.float64)
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one score")
    mean = float(values.mean())
    if np.isin(values, (0.0, 1.0)).all():
        return wilson(mean, n)
    picks = np.random.default_rng(0).integers(0, n, (2000, n))
    low, high = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def wilson(mean: float, n: int) -> tuple[float, float]:
    """The 95 % confidence interval (Wilson 1927) of the mean of ``n`` scores of 0 or 1.

    Of graded scores with that mean, which vary less, the interval is wider than it need be. For
    one ``n`` both ends rise with the mean.

    Example:
        >>> [round(end, 3) for end in wilson(0.52, 100)]
        [0.423, 0.615]
    """
    centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
