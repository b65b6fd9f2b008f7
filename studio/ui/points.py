"""Pictures whose points are candidates: a front by two objectives, a search's scores over time.

Points carry ``data-c``, a candidate's number, for whoever listens to clicks. Those that matter
most are buttons; all of them, which may be thousands, are one more tab stop, a slider whose script
is the page's (`studio.ui.front_scripts`). Where nothing can be selected, a picture is only a
picture. Drawn as :mod:`studio.ui.plots` draws; knows lists of numbers and words, nothing of runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studio.ui import scales
from studio.ui.markup import esc, percent
from studio.ui.scales import Line


@dataclass(frozen=True)
class Axis:
    """One direction of the scatter: what it is called, and how its values are written."""

    label: str
    write: Callable[[float], str]
    minimised: bool = False


@dataclass(frozen=True)
class Point:
    """One model of a picture; ``number`` is a candidate's, None for a source.

    ``said`` is all there is to know of it in words; ``size`` in [0, 1] is that of its dot;
    ``front`` of what matters most, ``other`` of random search.
    """

    label: str
    said: str
    x: float
    y: float
    number: int | None = None
    front: bool = False
    size: float = 0.3
    other: bool = False


@dataclass(frozen=True)
class Reference:
    """A score that candidates are measured by, and its 95 % interval, all in [0, 1]."""

    label: str
    score: float
    low: float
    high: float


def scatter(
    points: Sequence[Point],
    x: Axis,
    y: Axis,
    *,
    title: str,
    note: str,
    names: Mapping[str, str],
    selected: int | None,
    joined: bool,
) -> str:
    """Candidates by two objectives: the front marked, sources named.

    Args:
        names: what the kinds "front", "beaten" and "source" are called; "all", what the tab stop
            of all points is called, where one is selected.
        selected: the candidate that is looked into.
        joined: draw the border of what the front beats; true of two objectives only.
    """
    at_x, x_ticks = scales.linear([point.x for point in points])
    up, y_ticks = scales.linear([point.y for point in points])

    def at_y(value: float) -> float:
        return 100 - up(value)

    front = sorted((p for p in points if p.front), key=lambda p: (p.x, p.y))
    marks = _grid([at_x(t) for t in x_ticks], [at_y(t) for t in y_ticks])
    if joined and front:
        marks += f'<path class="border" d="{_border(front, at_x, at_y, x.minimised)}"/>'
    words = [_tick_y(at_y(t), y.write(t)) for t in y_ticks]
    words += [_tick_x(at_x(t), x.write(t)) for t in x_ticks]
    sources = [point for point in points if point.number is None]
    for point, place in zip(sources, _label_places(sources, at_x, at_y), strict=True):
        left, top = at_x(point.x), at_y(point.y)
        side = f"left:{left:.2f}%" if left < 60 else f"right:{100 - left:.2f}%"
        words.append(
            f'<i class="source" style="left:{left:.2f}%;top:{top:.2f}%" title="{esc(point.said)}">'
            f'</i><span class="ref-label" style="{side};top:{place:.2f}%" '
            f'title="{esc(point.said)}">{esc(point.label)}</span>'
        )
    kinds = [kind for kind in ("front", "beaten", "source") if kind != "source" or sources]
    return _figure(
        "es-scatter",
        title,
        note,
        "".join(_key(kind, names[kind]) for kind in kinds),
        _area(points, at_x, at_y, marks, "".join(words), names, selected),
        x.label,
        y.label,
    )


def timeline(
    points: Sequence[Point],
    lines: Sequence[Line],
    references: Sequence[Reference],
    *,
    total: int,
    title: str,
    note: str,
    names: Mapping[str, str],
    x_label: str,
    y_label: str,
    selected: int | None,
) -> str:
    """Every candidate's score in the order scored, the best so far, and what it is measured by.

    Args:
        points: ``x`` counts candidates from 1, ``y`` is the score in [0, 1].
        references: each is a line across, with its interval at the right.
        total: candidates at the right edge.
        names: as of `scatter`, of the kinds "front", "beaten" and "other".
    """
    highest = [p.y for p in points] + [r.high for r in references]
    top = scales.ceiling(max(highest, default=1.0))
    total = max(total, 1, *(round(p.x) for p in points))

    def at_x(count: float) -> float:
        return 100 * count / total

    def at_y(score: float) -> float:
        return 100 * (1 - score / top)

    size = scales.step(top)
    y_ticks = [n * size for n in range(round(top / size) + 1)]
    marks = _grid([], [at_y(t) for t in y_ticks])
    marks += "".join(f'<path class="ref" d="M0 {at_y(r.score):.2f}H100"/>' for r in references)
    for line in reversed(lines):
        if line.points:
            marks += f'<path class="{line.style}" d="{scales.stairs(line.points, at_x, at_y)}"/>'
    words = [_tick_y(at_y(t), f"{100 * t:.0f}") for t in y_ticks]
    words += [_tick_x(at_x(n), str(n)) for n in scales.x_ticks(total)]
    places = scales.apart([at_y(r.score) for r in references])
    for number, (reference, place) in enumerate(zip(references, places, strict=True)):
        score, low, high = reference.score, reference.low, reference.high
        said = f"{reference.label}: {percent(score)} ({percent(low)} – {percent(high)})"
        words.append(
            f'<i class="whisker" style="--at:{number % 3};top:{at_y(high):.2f}%;'
            f'bottom:{100 - at_y(low):.2f}%"></i>'
            f'<i class="mean" style="--at:{number % 3};top:{at_y(score):.2f}%"></i>'
            f'<span class="beside" style="top:{place:.2f}%" title="{esc(said)}">'
            f"<b>{percent(score)}</b> <small>{esc(reference.label)}</small></span>"
        )
    kinds = [
        ("front", any(p.front for p in points)),
        ("beaten", any(not p.front and not p.other for p in points)),
        ("other", any(p.other for p in points)),
        ("reference", bool(references)),
    ]
    key = "".join(_key(kind, names[kind]) for kind, there in kinds if there)
    # where there is no room for names beside the picture, the stylesheet shows these
    key += "".join(
        f'<li class="narrow"><b>{percent(r.score)}</b> {esc(r.label)}</li>' for r in references
    )
    return _figure(
        "es-timeline",
        title,
        note,
        key,
        _area(points, at_x, at_y, marks, "".join(words), names, selected),
        x_label,
        y_label,
    )


# ── parts of both ─────────────────────────────────────────────────────────────────────────────


def _figure(
    kind: str, title: str, note: str, key: str, area: str, x_label: str, y_label: str
) -> str:
    return (
        f'<figure class="es-figure es-curve es-points {kind}"><figcaption>{esc(title)}</figcaption>'
        f'<p class="note">{esc(note)}</p><ul class="es-key">{key}</ul>'
        f'<div class="plot" role="group" aria-label="{esc(title)}">'
        f'<span class="axis-y">{esc(y_label)}</span>{area}'
        f'<span class="axis-x">{esc(x_label)}</span></div></figure>'
    )


def _area(
    points: Sequence[Point],
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
    marks: str,
    words: str,
    names: Mapping[str, str],
    selected: int | None,
) -> str:
    """Marks below, then all points, words, and the buttons on top."""
    candidates = [p for p in points if p.number is not None]
    dots = "".join(
        f'<path class="dot{" other" * p.other}" data-c="{p.number}" '
        f'style="stroke-width:{_size(p)}px" d="M{at_x(p.x):.2f} {at_y(p.y):.2f}h0">'
        f"<title>{esc(p.said)}</title></path>"
        for p in candidates
        if not p.front
    )
    buttons = "".join(
        f'<button type="button" class="dot" data-c="{p.number}" aria-label="{esc(p.said)}" '
        f'title="{esc(p.said)}" aria-pressed="{str(p.number == selected).lower()}" '
        f'style="left:{at_x(p.x):.2f}%;top:{at_y(p.y):.2f}%;--size:{_size(p)}px"></button>'
        for p in sorted(candidates, key=lambda p: (p.x, p.y))
        if p.front
    )
    chosen = next((p for p in candidates if p.number == selected), None)
    walk = ring = ""
    if selected is not None and candidates:
        order = sorted(candidates, key=lambda p: (p.x, p.y))
        now = order.index(chosen) + 1 if chosen else 1
        walk = (
            f'tabindex="0" role="slider" aria-label="{esc(names["all"])}" aria-valuemin="1" '
            f'aria-valuemax="{len(order)}" aria-valuenow="{now}" '
            f'aria-valuetext="{esc(order[now - 1].said)}"'
        )
        place = f"left:{at_x(chosen.x):.2f}%;top:{at_y(chosen.y):.2f}%" if chosen else ""
        ring = f'<i class="ring"{"" if chosen else " hidden"} style="{place}"></i>'
    return (
        f'<div class="area"><div class="walk" {walk}><svg viewBox="0 0 100 100" '
        f'preserveAspectRatio="none">{marks}{dots}</svg></div>{words}{buttons}{ring}'
        f'<output class="said" aria-hidden="true"></output></div>'
    )


def _grid(across: Sequence[float], down: Sequence[float]) -> str:
    lines = [f"M0 {y:.2f}H100" for y in down] + [f"M{x:.2f} 0V100" for x in across]
    return f'<path class="grid" d="{"".join(lines)}"/>'


def _tick_y(top: float, word: str) -> str:
    return f'<span class="tick-y" style="top:{top:.2f}%">{esc(word)}</span>'


def _tick_x(left: float, word: str) -> str:
    return f'<span class="tick-x" style="left:{left:.2f}%">{esc(word)}</span>'


def _key(kind: str, word: str) -> str:
    return f'<li><i class="{kind}" aria-hidden="true"></i>{esc(word)}</li>'


def _size(point: Point) -> int:
    return round(9 + 11 * point.size)


def _border(
    front: Sequence[Point],
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
    x_minimised: bool,
) -> str:
    """The stairs between what the front beats and what it does not."""
    path = [f"M{at_x(front[0].x):.2f} {at_y(front[0].y):.2f}"]
    for point in front[1:]:
        across, up = f"H{at_x(point.x):.2f}", f"V{at_y(point.y):.2f}"
        path.append(across + up if x_minimised else up + across)
    return "".join(path)


def _label_places(
    sources: Sequence[Point], at_x: Callable[[float], float], at_y: Callable[[float], float]
) -> list[float]:
    """Where the sources' labels stand, from the top: those of one side apart from each other."""
    places = [at_y(point.y) for point in sources]
    for side in (True, False):
        mine = [i for i, point in enumerate(sources) if (at_x(point.x) < 60) == side]
        for index, place in zip(mine, scales.apart([places[i] for i in mine]), strict=True):
            places[index] = place
    return places
