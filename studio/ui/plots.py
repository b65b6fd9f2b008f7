"""The page's pictures, drawn by hand: the best score over time, the strip of questions, a front.

Marks are SVG stretched to whatever width there is; words are HTML laid over them, so that text
keeps its size at 390 px and at 1440 px. Colours are the theme's CSS variables, so both themes work.
Everything said by a user or a model is escaped. Knows lists of numbers and words; nothing of runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studio.ui import scales
from studio.ui.markup import esc, percent
from studio.ui.points import Axis, Point, Reference, scatter, timeline
from studio.ui.scales import Line

__all__ = [
    "HALF", "RIGHT", "WRONG", "Axis", "Line", "Point", "Reference", "Row", "curve", "scatter",
    "strip", "timeline",
]  # fmt: skip

#: What the three states of a cell are called in the stylesheet.
RIGHT, HALF, WRONG = "right", "half", "wrong"


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
    top = scales.ceiling(max(values, default=1.0))
    total = max(total, 1, *(line.points[-1][0] for line in lines if line.points))

    def y(value: float) -> float:
        return 100 * (1 - value / top)

    def x(count: int) -> float:
        return 1000 * count / total

    step = scales.step(top)
    ticks = [n * step for n in range(int(round(top / step)) + 1)]
    marks = [f'<path class="grid" d="M0 {y(t):.2f}H1000"/>' for t in ticks]
    marks += [f'<path class="ref" d="M0 {y(v):.2f}H1000"/>' for v in references.values()]
    for line in reversed(lines):
        if line.points:
            marks.append(f'<path class="{line.style}" d="{scales.stairs(line.points, x, y)}"/>')
    labels = [
        f'<span class="tick-y" style="top:{y(t):.2f}%">{round(100 * t)}</span>' for t in ticks
    ]
    labels += [
        f'<span class="tick-x" style="left:{100 * n / total:.2f}%">{n}</span>'
        for n in scales.x_ticks(total)
    ]
    for (label, value), place in zip(
        references.items(), scales.apart([y(v) for v in references.values()]), strict=True
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
