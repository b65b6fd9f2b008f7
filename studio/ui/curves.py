"""A run's curves: the best score so far of every search and, of several objectives, the front's.

Reads the run's record and hands :mod:`studio.ui.plots` what it draws. Knows no Gradio.
"""

from collections.abc import Iterable

from studio import api
from studio.recipe import PROPERTIES, Recipe
from studio.runs import Store
from studio.runs.records import FINISHED
from studio.ui import pieces, plots, words
from studio.ui.shared import metric_of
from studio.ui.strings import say


def curves(run: str, recipe: Recipe, store: Store, language: str) -> str:
    """The best score of every stage and, of several objectives, what the front covers."""
    found = api.curve(run, store)
    if not found:
        return pieces.empty(say(language, "waiting"))
    several = len(tasks(recipe)) > 1
    total = extent(run, recipe, (count for line in found.values() for count, _ in line), store)
    drawn = plots.curve(
        _lines(recipe, found, language),
        _references(run, tasks(recipe), store),
        total=total,
        title=say(language, "curve_mean" if several else "curve"),
        x_label=say(language, "curve_x"),
        y_label=_y_label(metric(recipe), language),
    )
    covered = _covered(run, recipe, store)
    if covered:
        drawn += plots.curve(
            _lines(recipe, covered, language),
            {},
            total=total,
            title=say(language, "curve_hypervolume"),
            x_label=say(language, "curve_x"),
            y_label=say(language, "curve_y_hypervolume"),
        )
    return drawn


def extent(run: str, recipe: Recipe, counts: Iterable[int], store: Store) -> int:
    """How many candidates a search's axis has room for.

    Args:
        counts: how many each search has scored: where a finished run ended before its budget was
            spent, no room is kept for the rest.
    """
    budget = recipe.budget.candidates
    if store.run(run).status != FINISHED:
        return budget
    return min(max(counts, default=budget), budget) or budget


def tasks(recipe: Recipe) -> list[str]:
    """The objectives that are tasks, by their recorded names."""
    return [name for name in recipe.objective_names() if name not in PROPERTIES]


def metric(recipe: Recipe) -> str:
    """What the mean over a recipe's tasks is: their metric or, of different ones, a mean."""
    found = {metric_of(recipe.to_yaml(), task) for task in tasks(recipe)}
    return found.pop() if len(found) == 1 else words.MEAN


def _y_label(measured: str, language: str) -> str:
    right = measured == words.ACCURACY
    return say(language, "curve_y") if right else words.metric(language, measured)


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


def _references(run: str, tasks: list[str], store: Store) -> dict[str, float]:
    """The mean over the tasks of each model that the search's questions were put to."""
    scores: dict[str, list[float]] = {}
    for evaluation in store.evaluations(run, "dev"):
        if evaluation.subject.startswith("model:") and evaluation.task in tasks:
            name = evaluation.subject.partition(":")[2]
            scores.setdefault(name, []).append(evaluation.score)
    return {k: sum(v) / len(v) for k, v in scores.items() if len(v) == len(tasks)}


def _covered(run: str, recipe: Recipe, store: Store) -> dict[str, list[tuple[int, float]]]:
    """The hypervolume over the candidates scored: of final stages, which have all objectives."""
    final = {stage.name for stage in recipe.stages() if stage.final}
    asked = {name: [c.generation for c in store.candidates(run, name)] for name in final}
    lines: dict[str, list[tuple[int, float]]] = {}
    for event in store.events(run):
        if event.kind == "front" and event.payload["stage"] in final:
            name, generation = event.payload["stage"], event.payload["generation"]
            count = sum(other <= generation for other in asked[name])
            lines.setdefault(name, []).append((count, event.payload["hypervolume"]))
    return lines
