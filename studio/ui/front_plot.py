"""The Front tab's picture of all candidates: a front by two objectives, or scores over time.

Reads the run's record and hands :mod:`studio.ui.points` what it draws. Knows no Gradio.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from studio.api.inside import references
from studio.errors import StudioError
from studio.evolve.spaces import open_models
from studio.recipe import PROPERTIES, Recipe, Stage
from studio.runs import Candidate, Run, Store
from studio.runs.records import rank
from studio.ui import curves, pieces, plots, words
from studio.ui.shared import engine, front_of, metric_of
from studio.ui.strings import say

#: Of which runs the sizes of the models are kept, and what they are.
_KEPT = 64
_PROPERTIES: dict[tuple[Store, str], dict[str, dict[str, float]]] = {}


def draw(
    run: Run, scored: Sequence[Candidate], selected: int | None, store: Store, language: str
) -> str:
    """The scatter of a run's front; of one objective, or before there is one, scores over time.

    Args:
        scored: the run's candidates, best first.
        selected: the candidate that is looked into.
    """
    recipe = Recipe.from_yaml(run.recipe)
    if not scored:
        return pieces.empty(say(language, "timeline_empty"))
    best = store.best(run.id)
    found, members = front_of(recipe, scored)
    selected = best.id if selected is None else selected
    if members:
        plot = scatter(run, recipe, found, members, selected, store, language)
    else:
        plot = _timeline(run, recipe, scored, selected, store, language)
    return f'<section data-best="{best.id}">{plot}</section>'


def _names(language: str) -> dict[str, str]:
    return {"all": say(language, "all_points")}


# ── several objectives ────────────────────────────────────────────────────────────────────────


def scatter(
    run: Run,
    recipe: Recipe,
    found: Sequence[Candidate],
    members: Sequence[Candidate],
    selected: int | None,
    store: Store,
    language: str,
    *,
    plain: bool = False,
) -> str:
    """A search's candidates by their first two objectives.

    Args:
        found, members: of :func:`studio.ui.shared.front_of`.
        plain: for who only looks: nothing on it is to be picked.
    """
    objectives = recipe.objective_names()
    note = say(
        language, "front_note_plain" if plain else "front_note", n=len(members), total=len(found)
    )
    if len(objectives) > 2:
        third = words.objective(language, objectives[2], metric_of(run.recipe, objectives[2]))
        note += " " + say(language, "front_size", name=third)
    sources = _source_values(run.id, tuple(objectives), store)
    return plots.scatter(
        _points(objectives, found, members, sources, language),
        *(_axis(name, metric_of(run.recipe, name), language) for name in objectives[:2]),
        title=say(language, "front"),
        note=note,
        names={
            "front": say(language, "on_front"),
            "beaten": say(language, "beaten"),
            "source": say(language, "role_source_point"),
            **({} if plain else _names(language)),
        },
        selected=selected,
        joined=len(objectives) == 2,
    )


def _axis(objective: str, metric: str, language: str) -> plots.Axis:
    minimised = objective in PROPERTIES
    label = words.objective(language, objective, metric)
    if minimised:
        label += f" ({say(language, 'less_is_better')})"
        return plots.Axis(label, words.compact, minimised)
    return plots.Axis(label, lambda value: f"{100 * value:.3g}")


def _points(
    objectives: Sequence[str],
    found: Sequence[Candidate],
    members: Sequence[Candidate],
    sources: Mapping[str, Mapping[str, float]],
    language: str,
) -> list[plots.Point]:
    """The candidates, and the sources as far as their values are known."""
    x, y, *more = objectives
    third = [v[more[0]] for v in (*sources.values(), *(c.scores for c in found)) if more]
    low, high = (min(third), max(third)) if third else (0.0, 0.0)

    def point(label: str, values: Mapping[str, float], **more_of_it: Any) -> plots.Point:
        said = [label, *(words.measure(language, name, values[name]) for name in objectives)]
        size = (values[more[0]] - low) / (high - low) if high > low else 0.3
        return plots.Point(label, " · ".join(said), values[x], values[y], size=size, **more_of_it)

    chosen = {c.id for c in members}
    # of equal candidates the front has the earliest: it is drawn over the others
    drawn = [
        point(
            f"★ #{c.id}" if c.id in chosen else f"#{c.id}",
            c.scores,
            number=c.id,
            front=c.id in chosen,
        )
        for c in sorted(found, key=lambda c: -c.id)
    ]
    return drawn + [point(name, values) for name, values in sources.items()]


def _source_values(
    run: str, objectives: tuple[str, ...], store: Store
) -> dict[str, dict[str, float]]:
    """Each source's value of every objective, of those that have all of them by now."""
    known: dict[str, dict[str, float]] = {}
    for evaluation in store.evaluations(run, "dev"):
        kind, _, name = evaluation.subject.partition(":")
        if kind == "model":
            known.setdefault(name, {})[evaluation.task] = evaluation.score
    for name, values in _PROPERTIES.get((store, run), {}).items():
        known.setdefault(name, {}).update(values)
    return {k: v for k, v in known.items() if all(name in v for name in objectives)}


def know_models(run: Run, store: Store) -> bool:
    """See how long and how large the models of a run are, if that is an objective of it.

    Waits for torch the first time. Without this, sources are not in the picture of such a run.

    Returns:
        whether more is known now than before.
    """
    recipe = Recipe.from_yaml(run.recipe)
    if (store, run.id) in _PROPERTIES or not set(recipe.objective_names()) & set(PROPERTIES):
        return False
    engine()
    try:
        models = open_models(recipe, store)
    except StudioError:  # they are gone; the candidates are still there
        models = []
    while len(_PROPERTIES) >= _KEPT:
        _PROPERTIES.pop(next(iter(_PROPERTIES)))
    _PROPERTIES[store, run.id] = {
        model.name: {"length": float(model.layers), "parameters": float(model.parameters)}
        for model in models
    }
    return bool(models)


# ── one objective ─────────────────────────────────────────────────────────────────────────────


def _timeline(
    run: Run,
    recipe: Recipe,
    candidates: Sequence[Candidate],
    selected: int,
    store: Store,
    language: str,
) -> str:
    """Searches one after the other; random search over the one that it is compared with."""
    tasks = [name for name in recipe.objective_names() if name not in PROPERTIES]
    metric = metric_of(run.recipe, tasks[0])
    own = [stage for stage in recipe.stages() if not stage.baseline]
    scored_by = {
        stage.name: sorted((c for c in candidates if c.stage == stage.name), key=lambda c: c.id)
        for stage in recipe.stages()
    }
    span = curves.extent(run.id, recipe, map(len, scored_by.values()), store)
    beginnings = {stage.name: n * span for n, stage in enumerate(own)}
    points, lines = [], []
    for stage in recipe.stages():
        start, scored = _beginning(stage, beginnings), scored_by[stage.name]
        best, stairs = None, []
        for place, candidate in enumerate(scored, start=start + 1):
            # of two that were asked as much the higher score; a few lucky answers are no record
            record = best is None or rank(candidate) < rank(best)
            best = candidate if record else best
            stairs.append((place, best.score))
            point = _point(
                candidate, place, record and not candidate.broken, stage, metric, language
            )
            if recipe.search.racing:
                point = replace(point, said=f"{point.said} · {words.asked(language, candidate)}")
            points.append(point)
        if stairs:
            style = "other" if stage.baseline else "main"
            lines.append(plots.Line(stage.name, style, stairs))
    # the others first: what evolved is drawn over random search
    points.sort(key=lambda point: not point.other)
    several = len(tasks) > 1
    name = words.metric(language, words.MEAN if several else metric)
    return plots.timeline(
        points,
        lines,
        [] if several else _references(run, store, language),
        total=span * len(own),
        title=f"{say(language, 'timeline')}: {', '.join(tasks)}",
        note=say(language, "timeline_note"),
        names={
            "front": say(language, "record"),
            "beaten": say(language, "candidate"),
            "other": say(language, "random"),
            "reference": say(language, "reference"),
            **_names(language),
        },
        x_label=say(language, "curve_x"),
        y_label=f"{name}, %" if metric == words.ACCURACY else f"{name} (0–100)",
        selected=selected,
    )


def _beginning(stage: Stage, beginnings: Mapping[str, int]) -> int:
    if not stage.baseline:
        return beginnings[stage.name]
    rest = stage.name.removeprefix("random").strip()
    return beginnings.get(rest, 0 if len(beginnings) == 1 else max(beginnings.values()))


def _point(
    candidate: Candidate, place: int, record: bool, stage: Stage, metric: str, language: str
) -> plots.Point:
    label = f"#{candidate.id}"
    said = [label, words.score(language, metric, candidate.score)]
    said.append(words.stage(language, stage.name))
    return plots.Point(
        label,
        " · ".join(said),
        place,
        candidate.score,
        number=candidate.id,
        front=record and not stage.baseline,
        size=0.0 if stage.baseline or not record else 0.1,
        other=stage.baseline,
    )


def _references(run: Run, store: Store, language: str) -> list[plots.Reference]:
    found = references(run.id, store)
    return [
        plots.Reference(
            say(language, "random") if one.role == "random" else one.subject.partition(":")[2],
            one.score,
            one.low,
            one.high,
        )
        for one in sorted(found, key=lambda one: one.score)
    ]
