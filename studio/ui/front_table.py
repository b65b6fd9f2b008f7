"""All candidates of a run as a table that is sorted by any of its columns.

The equivalent of the front's picture for whoever reads better than they point. Knows recorded
candidates and words; no Gradio and no store. The page's script makes the rows one tab stop.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.recipe import PROPERTIES
from studio.runs import Candidate
from studio.ui import words
from studio.ui.markup import esc
from studio.ui.strings import say

#: Rows shown at once; the rest is in the CSV file, or first in another order.
SHOWN = 200
NUMBER = ' class="number"'


@dataclass(frozen=True)
class Order:
    """By which column a table is sorted, and whether its highest values come first."""

    column: str
    falling: bool


@dataclass(frozen=True)
class Column:
    """One column: its key, its heading, what it is sorted by, and what is read in it.

    ``value`` is None where a candidate has nothing there; such rows come last in either order.
    """

    key: str
    heading: str
    value: Callable[[Candidate], Any]
    written: Callable[[Candidate], str]
    falling: bool = True
    number: bool = True


def columns(
    objectives: Sequence[str],
    stages: Sequence[str],
    members: Sequence[int],
    language: str,
    metrics: Mapping[str, str],
) -> list[Column]:
    """The columns of a run: a star, a number, where it comes from, and its objectives.

    Args:
        objectives: their names; the mean over the tasks is a column if there are several.
        stages: names of the searches; a column if there are several.
        members: numbers of the candidates on the front.
        metrics: of the tasks, by name.
    """
    on_front = frozenset(members)
    made = []
    if len(objectives) > 1:
        made.append(
            Column(
                "front",
                "★",
                lambda c: (c.id in on_front, c.score),
                lambda c: "★" if c.id in on_front else "",
                number=False,
            )
        )
    for name in objectives:
        heading = words.objective(language, name, metrics.get(name, words.ACCURACY))
        made.append(_of_objective(name, heading))
    tasks = [name for name in objectives if name not in PROPERTIES]
    if len(tasks) > 1:
        made.append(_of_mean(tasks, say(language, "col_mean")))
    if len(stages) > 1:
        place = {name: number for number, name in enumerate(stages)}
        made.append(
            Column(
                "search",
                say(language, "col_search"),
                lambda c: place.get(c.stage),
                lambda c: words.stage(language, c.stage),
                falling=False,
                number=False,
            )
        )
    generation = say(language, "col_generation")
    made.append(
        Column("generation", generation, lambda c: c.generation, lambda c: str(c.generation), False)
    )
    return [
        Column("id", say(language, "col_id"), lambda c: c.id, lambda c: f"#{c.id}", False),
        *made,
    ]


def _of_objective(name: str, heading: str) -> Column:
    def written(candidate: Candidate) -> str:
        return words.value(name, candidate.scores[name]) if name in candidate.scores else "–"

    return Column(
        name, heading, lambda c: c.scores.get(name), written, falling=name not in PROPERTIES
    )


def _of_mean(tasks: Sequence[str], heading: str) -> Column:
    """The mean over the tasks; of fewer it is no match for one of all, and not shown."""

    def value(candidate: Candidate) -> float | None:
        return candidate.score if all(name in candidate.scores for name in tasks) else None

    def written(candidate: Candidate) -> str:
        mean = value(candidate)
        return "–" if mean is None else f"{100 * mean:.1f}"

    return Column("mean", heading, value, written)


def first_order(made: Sequence[Column]) -> Order:
    """The order of a table that nobody sorted: the front first, or the best."""
    return Order(made[1].key, made[1].falling)


def turned(order: Order | None, key: str, made: Sequence[Column]) -> Order:
    """The order after a click on a column's heading: by it, or the other way round.

    >>> columns_ = columns(["jmath"], ["cma"], [], "en", {})
    >>> turned(Order("jmath", True), "jmath", columns_)
    Order(column='jmath', falling=False)
    """
    column = next((column for column in made if column.key == key), None)
    order = order or first_order(made)
    if column is None:
        return order
    return Order(key, not order.falling if order.column == key else column.falling)


def in_order(
    candidates: Sequence[Candidate], made: Sequence[Column], order: Order
) -> list[Candidate]:
    """The candidates by a column, equals as they were; those without a value last."""
    value = next((column.value for column in made if column.key == order.column), made[0].value)
    there = [c for c in candidates if value(c) is not None]
    missing = [c for c in candidates if value(c) is None]
    return sorted(there, key=value, reverse=order.falling) + missing


def table(
    candidates: Sequence[Candidate],
    made: Sequence[Column],
    order: Order | None,
    *,
    selected: int | None,
    best: int | None,
    language: str,
    shown: int = SHOWN,
) -> str:
    """The first rows in an order, headings as buttons that carry ``data-sort``, rows ``data-c``.

    Args:
        candidates: those scored, best first.
        selected: the candidate that is looked into; best: the one that the run reports.
    """
    order = order if order and any(c.key == order.column for c in made) else first_order(made)
    rows = in_order(candidates, made, order)[:shown]
    name = next(column.heading for column in made if column.key == order.column)
    note = say(language, "candidates_all", n=len(candidates))
    if len(rows) < len(candidates):
        note = say(language, "candidates_cut", shown=len(rows), n=len(candidates), column=name)
    # one of the rows must be there to be reached with the tab key
    stop = next((c.id for c in rows if c.id == selected), rows[0].id if rows else None)
    body = "".join(_row(c, made, c.id == selected, c.id == stop, c.id == best) for c in rows)
    head = "".join(_head(column, order) for column in made)
    return (
        f'<section data-best="{"" if best is None else best}">'
        f'<figure class="es-figure es-candidates"><figcaption>{esc(say(language, "candidates"))}'
        f'</figcaption><p class="note">{esc(note)}</p><div class="scroll">'
        f'<table aria-label="{esc(say(language, "candidates"))}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></figure></section>"
    )


def _head(column: Column, order: Order) -> str:
    sorted_by = column.key == order.column
    way = "descending" if order.falling else "ascending"
    arrow = ("▾" if order.falling else "▴") if sorted_by else ""
    number = NUMBER if column.number else ""
    return (
        f'<th scope="col"{number} aria-sort="{way if sorted_by else "none"}">'
        f'<button type="button" data-sort="{esc(column.key)}">{esc(column.heading)}'
        f'<span aria-hidden="true">{arrow}</span></button></th>'
    )


def _row(
    candidate: Candidate, made: Sequence[Column], selected: bool, stop: bool, best: bool
) -> str:
    first, *rest = made
    cells = "".join(
        f"<td{' class=number' if column.number else ''}>{esc(column.written(candidate))}</td>"
        for column in rest
    )
    marked = ' class="best"' if best else ""
    return (
        f'<tr data-c="{candidate.id}"{marked}><th scope="row" class="number">'
        f'<button type="button" data-c="{candidate.id}" tabindex="{0 if stop else -1}" '
        f'aria-pressed="{str(selected).lower()}">{esc(first.written(candidate))}</button></th>'
        f"{cells}</tr>"
    )
