"""What the watched run does: where it stands, how its best compares, its curve, its candidates.

Knows the store, which it only reads, and how a record is drawn; refuses to change anything.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from studio import api
from studio.api.standing import leaders, standing
from studio.recipe import PROPERTIES, Recipe
from studio.runs import Candidate
from studio.ui import pieces, plots, words
from studio.ui.markup import esc, percent
from studio.ui.shared import metric_of, metrics, store
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel

#: Rows of the candidate table: beyond these nobody reads, and every poll would carry them.
SHOWN = 200


def build() -> list[Panel]:
    """Lay the monitor out; its parts are drawn by the page's poll."""
    compared = gr.HTML(elem_id="standing")
    curve = gr.HTML(elem_id="curve")
    table = gr.Dataframe(
        headers=["#", "", "", "%", ""],
        interactive=False,
        max_height=320,
        label=text("candidates"),
        show_label=True,
        elem_id="candidates",
        buttons=[],
    )
    return [
        Panel("standing", [compared], _leaders, draw_standing, lambda _: [""]),
        Panel("curve", [curve], _scored, draw_curve, lambda _: [""]),
        Panel("candidates", [table], _scored, draw_table, lambda _: [gr.update(visible=False)]),
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
    return [curves(look.run.id, recipe, look.visit.language)]


def draw_table(look: Look) -> list[Any]:
    """The candidates, best first."""
    recipe = Recipe.from_yaml(look.run.recipe)
    return [_table(look.run.id, recipe, look.visit.language)]


def status(look: Look) -> str:
    """The run's state, bar, and the numbers that change."""
    recipe = Recipe.from_yaml(look.run.recipe)
    several = len(_tasks(recipe)) > 1
    return pieces.status(look.progress, look.visit.language, mean=several, metric=_metric(recipe))


def _tasks(recipe: Recipe) -> list[str]:
    return [name for name in recipe.objective_names() if name not in PROPERTIES]


def _metric(recipe: Recipe) -> str:
    """What the mean over a recipe's tasks is: their metric or, of different ones, a mean."""
    found = {metric_of(recipe.to_yaml(), task) for task in _tasks(recipe)}
    return found.pop() if len(found) == 1 else words.MEAN


def curves(run: str, recipe: Recipe, language: str) -> str:
    """The best score of every stage and, of several objectives, what the front covers."""
    found = api.curve(run, store())
    if not found:
        return pieces.empty(say(language, "waiting"))
    several = len(_tasks(recipe)) > 1
    drawn = plots.curve(
        _lines(recipe, found, language),
        _references(run, _tasks(recipe)),
        total=recipe.budget.candidates,
        title=say(language, "curve_mean" if several else "curve"),
        x_label=say(language, "curve_x"),
        y_label=_y_label(_metric(recipe), language),
    )
    covered = _covered(run, recipe)
    if covered:
        drawn += plots.curve(
            _lines(recipe, covered, language),
            {},
            total=recipe.budget.candidates,
            title=say(language, "curve_hypervolume"),
            x_label=say(language, "curve_x"),
            y_label=say(language, "curve_y_hypervolume"),
        )
    return drawn


def _y_label(metric: str, language: str) -> str:
    right = metric == words.ACCURACY
    return say(language, "curve_y") if right else words.metric(language, metric)


def _lines(
    recipe: Recipe, found: dict[str, list[tuple[int, float]]], language: str
) -> list[plots.Line]:
    """A line per stage: the baseline's are grey, those that only lead to another stage thin."""
    return [
        plots.Line(
            words.stage(language, stage.name),
            ("other" if stage.baseline else "main") + ("" if stage.final else " early"),
            found[stage.name],
        )
        for stage in recipe.stages()
        if stage.name in found
    ]


def _references(run: str, tasks: list[str]) -> dict[str, float]:
    """The mean over the tasks of each model that the search's questions were put to."""
    scores: dict[str, list[float]] = {}
    for evaluation in store().evaluations(run, "dev"):
        if evaluation.subject.startswith("model:") and evaluation.task in tasks:
            name = evaluation.subject.partition(":")[2]
            scores.setdefault(name, []).append(evaluation.score)
    return {k: sum(v) / len(v) for k, v in scores.items() if len(v) == len(tasks)}


def _covered(run: str, recipe: Recipe) -> dict[str, list[tuple[int, float]]]:
    """The hypervolume over the candidates scored: of final stages, which have all objectives."""
    final = {stage.name for stage in recipe.stages() if stage.final}
    asked = {name: [c.generation for c in store().candidates(run, name)] for name in final}
    lines: dict[str, list[tuple[int, float]]] = {}
    for event in store().events(run):
        if event.kind == "front" and event.payload["stage"] in final:
            name, generation = event.payload["stage"], event.payload["generation"]
            count = sum(other <= generation for other in asked[name])
            lines.setdefault(name, []).append((count, event.payload["hypervolume"]))
    return lines


def _table(run: str, recipe: Recipe, language: str) -> Any:
    scored = store().ranked(run)
    names, tasks = recipe.objective_names(), _tasks(recipe)
    several = len(names) > 1
    columns = [
        (say(language, "col_id"), "number", lambda c: c.id),
        (say(language, "col_generation"), "number", lambda c: c.generation),
        (say(language, "col_search"), "str", lambda c: words.stage(language, c.stage)),
    ]
    if several:
        known = metrics(recipe.to_yaml())
        columns += [
            (words.objective(language, name, known.get(name, words.ACCURACY)), "number", value)
            for name, value in zip(names, map(_value_of, names), strict=True)
        ]
    if len(tasks) > 1 or not several:
        head = say(language, "col_mean" if several else "col_score")
        if _metric(recipe) != words.ACCURACY:
            head = words.metric(language, _metric(recipe))
        columns.append((head, "number", lambda c: float(percent(c.score))))
    columns.append((say(language, "tokens_s"), "number", _speed))
    label = say(language, "candidates")
    if len(scored) > SHOWN:
        label = say(language, "table_note", shown=SHOWN, n=len(scored))
    return gr.update(
        visible=bool(scored),
        value={
            "headers": [head for head, _, _ in columns],
            "data": [[value(c) for _, _, value in columns] for c in scored[:SHOWN]],
        },
        datatype=[kind for _, kind, _ in columns],
        label=label,
    )


def _value_of(objective: str) -> Callable[[Candidate], float | None]:
    """A candidate's value for the table: nothing where its stage has no such objective."""

    def value(candidate: Candidate) -> float | None:
        found = candidate.scores.get(objective)
        if found is None:
            return None
        return round(found) if objective in PROPERTIES else float(percent(found))

    return value


def _speed(candidate: Candidate) -> int:
    """Tokens per second."""
    return round(candidate.tokens / candidate.seconds) if candidate.seconds else 0
