"""Two candidates beside each other: their recipes, and what one of them answers better.

Takes what :mod:`studio.api.inside` says of each and returns escaped HTML. Knows no Gradio and no
store.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.api.inside import Inside, ahead, shared_layers
from studio.ui import pieces, words
from studio.ui.markup import esc
from studio.ui.strings import say

#: A weight (or t), and its density, if any.
Cell = tuple[float, float | None]


def recipes(one: Inside, other: Inside, language: str) -> str:
    """The recipes of two candidates: weights with their difference, or one beside the other."""
    title = say(language, "versus", a=one.number, b=other.number)
    if one.kind == other.kind == "parameter":
        note, body = _difference(one, other, language)
    else:
        note, body = _each(one, other, language)
    return (
        f'<figure class="es-figure es-versus es-heat"><figcaption>{esc(title)}</figcaption>'
        f'<p class="note">{esc(note)}</p>{body}</figure>'
    )


def _each(one: Inside, other: Inside, language: str) -> tuple[str, str]:
    drawn = "".join(f"<div>{inside(found, language)}</div>" for found in (one, other))
    lengths = {"length_a": len(one.rows), "length_b": len(other.rows)}
    key = "versus_paths" if one.kind == other.kind else "versus_kinds"
    shared = shared_layers(one, other) if one.kind == other.kind else 0
    note = say(language, key, a=one.number, b=other.number, n=shared, **lengths)
    return note, f'<div class="each">{drawn}</div>'


def inside(found: Inside, language: str) -> str:
    """One candidate's heat map or path."""
    if found.kind == "data_flow":
        return pieces.path(found.rows, found.sources, found.number, language)
    return pieces.heat_map(found.rows, found.number, language)


def _difference(one: Inside, other: Inside, language: str) -> tuple[str, str]:
    """Three columns a source: the one, the other, and what the other has more."""
    mine, theirs = _cells(one, language), _cells(other, language)
    slerp = any(row["t"] is not None for row in one.rows)
    dense = any(row["density"] is not None for row in [*one.rows, *other.rows])
    columns = list(dict.fromkeys(column for _, column in mine))
    places = list(dict.fromkeys(place for place, _ in mine))
    top = max([1.0] + [abs(value) for cells in (mine, theirs) for value, _ in cells.values()])
    body = []
    for place in places:
        tds = []
        for column in columns:
            a, b = mine.get((place, column)), theirs.get((place, column))
            if a is None or b is None:
                tds.append('<td colspan="3">–</td>')
                continue
            tds += [pieces.heat(*a, top), pieces.heat(*b, top), _change(a, b)]
        body.append(f'<tr><th scope="row">{esc(place)}</th>{"".join(tds)}</tr>')
    heads = "".join(f'<th scope="colgroup" colspan="3">{esc(name)}</th>' for name in columns)
    under = (
        f'<th scope="col">#{one.number}</th><th scope="col">#{other.number}</th>'
        f'<th scope="col"><abbr title="{esc(say(language, "difference"))}">Δ</abbr></th>'
    ) * len(columns)
    key = "versus_note_t" if slerp else "versus_note_dense" if dense else "versus_note"
    return say(language, key, a=one.number, b=other.number), (
        f'<div class="scroll"><table><thead><tr><th scope="col" rowspan="2">'
        f"{esc(say(language, 'group'))}</th>{heads}</tr><tr>{under}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _change(a: Cell, b: Cell) -> str:
    """The cell of a difference: of the weights, and of the densities where both have one."""
    small = ""
    if a[1] is not None and b[1] is not None:
        small = f"<small>{signed(b[1] - a[1])}</small>"
    return f'<td class="change"><b>{signed(b[0] - a[0])}</b>{small}</td>'


def signed(value: float) -> str:
    """A difference with its sign, a minus that is as wide as a plus.

    >>> signed(0.5), signed(-0.5), signed(-0.001)
    ('+0.50', '−0.50', '0.00')
    """
    written = f"{value:+.2f}"
    return "0.00" if written[1:] == "0.00" else written.replace("-", "−")


def _cells(found: Inside, language: str) -> dict[tuple[str, str], Cell]:
    """(layer group, source) → (weight, density), or (t, None)."""
    cells = {}
    for row in found.rows:
        place = words.group(language, row["group"])
        place += f" · {row['filter']}" if row["filter"] else ""
        value = row["t"] if row["t"] is not None else row["weight"]
        cells[place, row["source"] or "t"] = value, row["density"]
    return cells


def questions(
    rows: Sequence[Mapping[str, Any]], one: int, other: int, language: str, *, graded: bool
) -> str:
    """The questions that one of two answers better, as buttons that carry ``data-q``, from 1.

    Args:
        rows: of ``api.inside.asked``, both among them.
    """
    key = "only_one_graded" if graded else "only_one"
    names = {number: f"candidate:{number}" for number in (one, other)}
    if any(name not in [row["subject"] for row in rows] for name in names.values()):
        return pieces.empty(say(language, "not_the_same", n=other))
    lists = []
    for number, name in names.items():
        rest = [theirs for theirs in names.values() if theirs != name]
        better = ahead(rows, name, rest)
        buttons = "".join(
            f'<li><button type="button" data-q="{q}" '
            f'aria-label="{esc(say(language, "question"))} {q}">{q}</button></li>'
            for q in better
        )
        title = say(language, key, n=number, count=len(better))
        lists.append(f"<div><h4>{esc(title)}</h4><ul>{buttons}</ul></div>")
    return f'<section class="es-only">{"".join(lists)}</section>'
