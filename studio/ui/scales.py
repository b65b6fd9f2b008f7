"""Where things stand in a picture: scales between round numbers, stairs, labels kept apart.

Everything is in per cent of the picture's width or height, from the left or the top. Knows numbers
only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A staircase of a curve: [(candidates scored, best score in [0, 1]), …]."""

    label: str
    style: str  # "main" | "other", with " early" for a search that only leads to another
    points: Sequence[tuple[int, float]]


def stairs(
    points: Sequence[tuple[int, float]], x: Callable[[int], float], y: Callable[[float], float]
) -> str:
    """A line that goes across, then up, as an SVG path; a single point is a visible dash."""
    first, value = points[0]
    path = [f"M{x(first):.1f} {y(value):.2f}"]
    for (count, value), (_, before) in zip(points[1:], points[:-1], strict=True):
        if value != before or count == points[-1][0]:
            path.append(f"H{x(count):.1f}V{y(value):.2f}")
    if len(points) == 1:
        path.append("h8")
    return "".join(path)


def ceiling(value: float) -> float:
    """A scale's upper end: a round number that leaves room above the highest score.

    >>> ceiling(0.5), ceiling(0.99)
    (0.6, 1.0)
    """
    return next((top for top in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if value <= 0.97 * top), 1.0)


def step(top: float) -> float:
    """The distance of the lines of a grid from 0 to ``top``, which is a `ceiling`."""
    return {0.05: 0.01, 0.1: 0.02, 0.2: 0.05, 0.4: 0.1}.get(top, 0.2)


def x_ticks(total: int) -> list[int]:
    """Zero, some round numbers, and the end."""
    for size in (m * 10**e for e in range(7) for m in (1, 2, 5)):
        if total / size <= 5:
            inner = [n for n in range(size, total, size) if total - n > size / 2]
            return [0, *inner, total]
    return [0, total]


def apart(places: Sequence[float], gap: float = 7.5) -> list[float]:
    """Label positions (per cent from the top) pushed apart so that none covers another."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    # Crowds gather at the bottom, where weak sources are: settle from below.
    floor = 100 - gap / 2
    for index in reversed(order):
        moved[index] = min(moved[index], floor)
        floor = moved[index] - gap
    return moved


def linear(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies in per cent between two round numbers, and round numbers on the way."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    size = next(m * 10**e for e in range(-6, 15) for m in (1, 2, 5) if span / (m * 10**e) <= 5)
    first, last = math.floor(low / size), max(math.ceil(high / size), math.floor(low / size) + 1)
    ticks = [n * size for n in range(first, last + 1)]
    width = (last - first) * size
    return lambda value: 100 * (value - first * size) / width, ticks
