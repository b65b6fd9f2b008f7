"""The page's pictures, drawn by hand: a score over time, the strip of questions, a front.

Marks are SVG stretched to whatever width there is; words are HTML laid over them, so that text
keeps its size at 390 px and at 1440 px. Colours are the theme's CSS variables, so both themes work.
Everything said by a user or a model is escaped. Knows lists of numbers and words; nothing of runs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studio.ui.markup import esc, percent

#: What the three states of a cell are called in the stylesheet.
RIGHT, HALF, WRONG = "right", "half", "wrong"


@dataclass(frozen=True)
class Line:
    """A staircase of the curve: [(candidates scored, best score in [0, 1]), …]."""

    label: str
    style: str  # "main" | "other", with " early" for a search that only leads to another
    points: Sequence[tuple[int, float]]


def curve(
    lines: Sequence[Line],
    references: Mapping[str, float],
    *,
    total: int,
    title: str,
    x_label: str,
    y_label: str,
) -> str:
    """The best-so-far curve, with horizontal reference lines.

    Args:
        references: label → score in [0, 1], such as each source's.
        total: candidates at the right edge.
    """
    values = [value for line in lines for _, value in line.points] + list(references.values())
    top = _ceiling(max(values, default=1.0))
    total = max(total, 1, *(line.points[-1][0] for line in lines if line.points))

    def y(value: float) -> float:
        return 100 * (1 - value / top)

    step = _step(top)
    ticks = [n * step for n in range(int(round(top / step)) + 1)]
    marks = [f'<path class="grid" d="M0 {y(t):.2f}H1000"/>' for t in ticks]
    marks += [f'<path class="ref" d="M0 {y(v):.2f}H1000"/>' for v in references.values()]
    for line in reversed(lines):
        if line.points:
            marks.append(f'<path class="{line.style}" d="{_stairs(line.points, total, y)}"/>')
    labels = [
        f'<span class="tick-y" style="top:{y(t):.2f}%">{round(100 * t)}</span>' for t in ticks
    ]
    labels += [
        f'<span class="tick-x" style="left:{100 * n / total:.2f}%">{n}</span>'
        for n in _x_ticks(total)
    ]
    for (label, value), place in zip(
        references.items(), _apart([y(v) for v in references.values()]), strict=True
    ):
        labels.append(
            f'<span class="ref-label" style="top:{place:.2f}%">{esc(label)} {percent(value)}</span>'
        )
    key = "".join(
        f'<li><svg class="swatch" viewBox="0 0 24 6" aria-hidden="true">'
        f'<path class="{line.style}" d="M0 3H24"/></svg>{esc(line.label)}'
        f" <b>{percent(line.points[-1][1])}</b></li>"
        for line in lines
        if line.points
    )
    said = "; ".join(
        [f"{line.label} {percent(line.points[-1][1])} %" for line in lines if line.points]
        + [f"{label} {percent(value)} %" for label, value in references.items()]
    )
    return (
        f'<figure class="es-figure es-curve"><figcaption>{esc(title)}</figcaption>'
        f'<ul class="es-key">{key}</ul>'
        f'<div class="plot" role="img" aria-label="{esc(f"{title}: {said}")}">'
        f'<span class="axis-y">{esc(y_label)}</span><div class="area">'
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(marks)}</svg>{''.join(labels)}</div>"
        f'<span class="axis-x">{esc(x_label)}</span></div></figure>'
    )


def _stairs(points: Sequence[tuple[int, float]], total: int, y) -> str:
    first, value = points[0]
    path = [f"M{1000 * first / total:.1f} {y(value):.2f}"]
    for (count, value), (_, before) in zip(points[1:], points[:-1], strict=True):
        if value != before or count == points[-1][0]:
            path.append(f"H{1000 * count / total:.1f}V{y(value):.2f}")
    if len(points) == 1:  # a single candidate is still a visible dash
        path.append("h8")
    return "".join(path)


def _ceiling(value: float) -> float:
    """The scale's upper end: a round number that leaves room above the highest value."""
    return next((top for top in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if value <= 0.97 * top), 1.0)


def _step(top: float) -> float:
    return {0.05: 0.01, 0.1: 0.02, 0.2: 0.05, 0.4: 0.1}.get(top, 0.2)


def _x_ticks(total: int) -> list[int]:
    """Zero, some round numbers, and the end."""
    for step in (m * 10**e for e in range(7) for m in (1, 2, 5)):
        if total / step <= 5:
            inner = [n for n in range(step, total, step) if total - n > step / 2]
            return [0, *inner, total]
    return [0, total]


def _apart(places: Sequence[float], gap: float = 7.5) -> list[float]:
    """Label positions (per cent from the top) pushed apart so that none covers another."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    # Crowds gather at the bottom, where weak sources are: settle from below.
    floor = 100 - gap / 2
    for index in reversed(order):
        moved[index] = min(moved[index], floor)
        floor = moved[index] - gap
    return moved


@dataclass(frozen=True)
class Axis:
    """One direction of the scatter: what it is called, and how its values are written."""

    label: str
    write: Callable[[float], str]
    minimised: bool = False


@dataclass(frozen=True)
class Point:
    """One model of the scatter; ``number`` is a candidate's, None for a source.

    ``said`` is all there is to know of it in words; ``size`` in [0, 1] is that of its dot.
    """

    label: str
    said: str
    x: float
    y: float
    number: int | None = None
    front: bool = False
    size: float = 0.3


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

    Dots carry ``data-c``, the candidate's number, for whoever listens to clicks. The front's are
    buttons; the others, which may be thousands, are left to the mouse.

    Args:
        names: what the kinds "front", "beaten" and "source" are called.
        selected: the candidate that is looked into.
        joined: draw the border of what the front beats; true of two objectives only.
    """
    at_x, x_ticks = _scale([point.x for point in points])
    at_y, y_ticks = _scale([point.y for point in points])
    front = sorted((p for p in points if p.front), key=lambda p: (p.x, p.y))
    sources = [point for point in points if point.number is None]
    marks = [f'<path class="grid" d="M0 {100 - at_y(t):.2f}H100"/>' for t in y_ticks]
    marks += [f'<path class="grid" d="M{at_x(t):.2f} 0V100"/>' for t in x_ticks]
    if joined and front:
        marks.append(f'<path class="border" d="{_border(front, at_x, at_y, x.minimised)}"/>')
    marks += [
        f'<path class="dot" data-c="{p.number}" style="stroke-width:{_size(p)}px" '
        f'd="M{at_x(p.x):.2f} {100 - at_y(p.y):.2f}h0"><title>{esc(p.said)}</title></path>'
        for p in points
        if p.number is not None and not p.front
    ]
    words = [
        f'<span class="tick-y" style="top:{100 - at_y(t):.2f}%">{esc(y.write(t))}</span>'
        for t in y_ticks
    ]
    words += [
        f'<span class="tick-x" style="left:{at_x(t):.2f}%">{esc(x.write(t))}</span>'
        for t in x_ticks
    ]
    for point, place in zip(sources, _label_places(sources, at_x, at_y), strict=True):
        left, top = at_x(point.x), 100 - at_y(point.y)
        side = f"left:{left:.2f}%" if left < 60 else f"right:{100 - left:.2f}%"
        words.append(
            f'<i class="source" style="left:{left:.2f}%;top:{top:.2f}%" title="{esc(point.said)}">'
            f'</i><span class="ref-label" style="{side};top:{place:.2f}%" '
            f'title="{esc(point.said)}">{esc(point.label)}</span>'
        )
    words += [
        f'<button type="button" class="dot" data-c="{p.number}" aria-label="{esc(p.said)}" '
        f'title="{esc(p.said)}" aria-pressed="{str(p.number == selected).lower()}" '
        f'style="left:{at_x(p.x):.2f}%;top:{100 - at_y(p.y):.2f}%;--size:{_size(p)}px"></button>'
        for p in front
    ]
    key = "".join(
        f'<li><i class="{kind}" aria-hidden="true"></i>{esc(names[kind])}</li>'
        for kind in ("front", "beaten", "source")
    )
    return (
        f'<figure class="es-figure es-curve es-scatter"><figcaption>{esc(title)}</figcaption>'
        f'<p class="note">{esc(note)}</p><ul class="es-key">{key}</ul>'
        f'<div class="plot" role="group" aria-label="{esc(title)}">'
        f'<span class="axis-y">{esc(y.label)}</span><div class="area">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{"".join(marks)}</svg>'
        f'{"".join(words)}</div><span class="axis-x">{esc(x.label)}</span></div></figure>'
    )


def _size(point: Point) -> int:
    return round(9 + 11 * point.size)


def _scale(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies in per cent between two round numbers, and round numbers on the way."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    step = next(m * 10**e for e in range(-6, 15) for m in (1, 2, 5) if span / (m * 10**e) <= 5)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    ticks = [n * step for n in range(first, last + 1)]
    width = (last - first) * step
    return lambda value: 100 * (value - first * step) / width, ticks


def _border(
    front: Sequence[Point],
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
    x_minimised: bool,
) -> str:
    """The stairs between what the front beats and what it does not."""
    stairs = [f"M{at_x(front[0].x):.2f} {100 - at_y(front[0].y):.2f}"]
    for point in front[1:]:
        across, up = f"H{at_x(point.x):.2f}", f"V{100 - at_y(point.y):.2f}"
        stairs.append(across + up if x_minimised else up + across)
    return "".join(stairs)


def _label_places(
    sources: Sequence[Point], at_x: Callable[[float], float], at_y: Callable[[float], float]
) -> list[float]:
    """Where the sources' labels stand, from the top: those of one side apart from each other."""
    places = [100 - at_y(point.y) for point in sources]
    for side in (True, False):
        mine = [i for i, point in enumerate(sources) if (at_x(point.x) < 60) == side]
        for index, place in zip(mine, _apart([places[i] for i in mine]), strict=True):
            places[index] = place
    return places


@dataclass(frozen=True)
class Row:
    """One model's row of the strip: its score in [0, 1] and a state per question.

    ``values`` are the scores of the questions, in [0, 1], where those are more than right or wrong:
    a HALF cell is then as high as its score.
    """

    label: str
    role: str
    score: float
    states: Sequence[str]
    best: bool = False
    values: Sequence[float] = ()


def strip(
    rows: Sequence[Row],
    questions: Sequence[str],
    *,
    title: str,
    note: str,
    names: Mapping[str, str],
    selected: int | None,
) -> str:
    """The paper's figure: one column per question, filled where a model is right.

    The three states differ in height and texture, not in colour alone, and so do scores in between,
    where rows have values. Where one question is
    selected, columns carry ``data-q`` (from 1) for whoever listens to clicks, and the whole is one
    tab stop; where none is, the strip is a picture whose columns only say what they are.

    Args:
        questions: the text of each question, shown on hover.
        names: what the states RIGHT, HALF and WRONG are called.
        selected: the question marked at first, from 1, or None where there is nothing to choose.
    """
    count = len(questions)
    pick, at, marker = "", 0.0, ""
    if selected is not None:
        at, marker = (selected - 0.5) / max(count, 1), '<span class="marker"></span>'
        pick = (
            f'tabindex="0" role="slider" aria-label="{esc(title)}" '
            f'aria-valuemin="1" aria-valuemax="{count}" aria-valuenow="{selected}"'
        )
    labels, tracks = [], []
    for row in rows:
        said = ", ".join(
            f"{row.states.count(state)} {names[state]}"
            for state in (RIGHT, HALF, WRONG)
            if state in row.states
        )
        best = " best" if row.best else ""
        labels.append(
            f'<div class="name{best}"><span title="{esc(row.label)}">{esc(row.label)}</span>'
            f"<b>{percent(row.score)}</b></div>"
        )
        tracks.append(
            f'<div class="cells{best}" role="img" aria-label="{esc(f"{row.label}: {said}")}">'
            f'<svg viewBox="0 0 {count} 10" preserveAspectRatio="none" aria-hidden="true">'
            f"{_cells(row, RIGHT)}{_cells(row, HALF)}</svg></div>"
        )
    columns = "".join(
        f'<rect data-q="{number}" x="{number - 1}" width="1" height="10"><title>'
        f"{number}. {esc(question)}\n{esc(_verdicts(rows, number - 1, names))}</title></rect>"
        for number, question in enumerate(questions, start=1)
    )
    key = "".join(
        f'<li><i class="{state}" aria-hidden="true"></i>{esc(names[state])}</li>'
        for state in (RIGHT, HALF, WRONG)
    )
    return (
        f'<figure class="es-figure es-strip" data-count="{count}" '
        f'style="--at:{at:.5f}">'
        f"<figcaption>{esc(title)}</figcaption>"
        f'<ul class="es-key">{key}</ul><p class="note">{esc(note)}</p>'
        f'<div class="rows"><div>{"".join(labels)}</div><div class="tracks">{"".join(tracks)}'
        f'<div class="over" {pick}>'
        f'<svg viewBox="0 0 {count} 10" preserveAspectRatio="none">{columns}</svg>'
        f"{marker}</div></div></div></figure>"
    )


def _cells(row: Row, state: str) -> str:
    """One path of all cells in a state; neighbours stay apart by a hairline."""
    cells = []
    for index, other in enumerate(row.states):
        if other == state:
            share = 1.0 if state == RIGHT else row.values[index] if row.values else 0.5
            cells.append(f"M{index + 0.06:g} {10 - 10 * share:.4g}h.88V10h-.88z")
    return f'<path class="{state}" d="{"".join(cells)}"/>' if cells else ""


def _verdicts(rows: Sequence[Row], index: int, names: Mapping[str, str]) -> str:
    return "\n".join(
        f"{row.label}: {percent(row.values[index]) if row.values else names[row.states[index]]}"
        for row in rows
    )
