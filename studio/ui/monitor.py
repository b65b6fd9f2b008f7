"""What the watched run does: where it stands, how its best compares, its curve.

Knows the store, which it only reads, and how a record is drawn; refuses to change anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from studio.api.standing import leaders, standing
from studio.recipe import Recipe
from studio.ui import curves, pieces, words
from studio.ui.markup import esc
from studio.ui.shared import metrics, store
from studio.ui.strings import say
from studio.ui.wiring import Look, Panel


def build() -> list[Panel]:
    """Lay the monitor out; its parts are drawn by the page's poll."""
    compared = gr.HTML(elem_id="standing")
    curve = gr.HTML(elem_id="curve")
    return [
        Panel("standing", [compared], _leaders, draw_standing, lambda _: [""]),
        Panel("curve", [curve], _scored, draw_curve, lambda _: [""]),
    ]


def _scored(look: Look) -> Any:
    """Changes with every candidate that is scored, and with what the record says of the search."""
    return look.progress.done, look.progress.best_id, look.progress.stage, look.run.status


def _leaders(look: Look) -> Any:
    recipe = Recipe.from_yaml(look.run.recipe)
    found = leaders(look.run.id, recipe, store())
    return look.progress.stage, *((role, c.id, c.scores) for role, c in found.items())


def draw_standing(look: Look) -> list[str]:
    """The best so far beside the sources and random search."""
    rows = standing(look.run.id, store())
    if not any(row["role"] in ("random", "evolved") for row in rows):
        return [""]
    return [standing_table(rows, look.visit.language, metrics(look.run.recipe))]


def standing_table(
    rows: Sequence[dict[str, Any]],
    language: str,
    metrics: Mapping[str, str] = pieces.EACH_ACCURACY,
) -> str:
    """Scores on the search's questions with their 95 % intervals, drawn.

    Args:
        rows: of :func:`studio.api.standing.standing`.
        metrics: what the scores of each task are, if they are not accuracies.
    """
    body = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = sorted((row for row in rows if row["task"] == task), key=lambda row: row["score"])
        counts = {row["n"] for row in mine}
        measured = words.metric(language, metrics.get(task, words.ACCURACY))
        body.append(
            f'<tr class="task"><th colspan="4" scope="rowgroup">{esc(task)} · {esc(measured)} · '
            f"n = {'–'.join(str(n) for n in sorted({min(counts), max(counts)}))}</th></tr>"
        )
        for row in mine:
            called = row["model"]
            if row["role"] in ("random", "evolved"):
                role = say(language, f"role_{row['role']}")
                called = f"{role} {called}"
            body.append(
                f'<tr class="{esc(row["role"])}"><th scope="row">{esc(called)}</th>'
                f"{pieces.interval_cells(row)}</tr>"
            )
    return (
        f'<figure class="es-figure es-report"><figcaption>{esc(say(language, "standing"))}'
        f'</figcaption><p class="note">{esc(say(language, "standing_note"))}</p>'
        f'<table><thead><tr><th scope="col">{esc(say(language, "col_model"))}</th>'
        f'<th scope="col" class="number">{esc(say(language, "col_score"))}</th>'
        f'<th scope="col" class="number range">{esc(say(language, "col_interval"))}</th>'
        f"{pieces.scale_cell()}</tr></thead><tbody>{''.join(body)}</tbody></table></figure>"
    )


def draw_curve(look: Look) -> list[str]:
    """The best score over the candidates scored, stage by stage."""
    recipe = Recipe.from_yaml(look.run.recipe)
    return [curves.curves(look.run.id, recipe, store(), look.visit.language)]


def status(look: Look) -> str:
    """The run's state, bar, and the numbers that change."""
    recipe = Recipe.from_yaml(look.run.recipe)
    several = len(curves.tasks(recipe)) > 1
    return pieces.status(
        look.progress, look.visit.language, mean=several, metric=curves.metric(recipe)
    )
