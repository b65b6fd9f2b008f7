"""A run's pictures for a notebook, the same as the page's: curve, front, report, strip, recipe.

Knows how to read a run's record and what to draw of it; how it is drawn is `studio.ui.plots`' and
`studio.ui.pieces`'. Every function returns HTML; `show` makes it a figure that stays.
"""

from functools import lru_cache
from typing import Any

from studio import api
from studio.errors import StudioError
from studio.evolve.spaces import open_models, rebuild_space
from studio.recipe import PROPERTIES, Recipe
from studio.runs.front import front as not_dominated
from studio.runs.records import Candidate
from studio.runs.store import Store
from studio.tasks import load_task
from studio.ui import pieces, plots, words
from studio.ui.strings import say
from studio.widgets.answers import strip as strip_of
from studio.widgets.looks import Figure


def show(html: str) -> Figure:
    """HTML as a figure, to be a cell's last line."""
    return Figure(html)


def status(run: str, store: Store, language: str = "en") -> str:
    """Where a run stands, in numbers."""
    recipe = _recipe(run, store)
    several = len(_tasks(recipe)) > 1
    at = api.progress(run, store)
    return pieces.status(at, language, mean=several, metric=_metric(recipe))


def curve(run: str, store: Store, language: str = "en") -> str:
    """The best score so far of every search, and the sources' as lines to be crossed."""
    recipe, found = _recipe(run, store), api.curve(run, store)
    if not found:
        return pieces.empty(say(language, "waiting"))
    tasks, metric = _tasks(recipe), _metric(recipe)
    known: dict[str, list[float]] = {}
    for evaluation in store.evaluations(run, "dev"):
        kind, _, name = evaluation.subject.partition(":")
        if kind == "model" and evaluation.task in tasks:
            known.setdefault(name, []).append(evaluation.score)
    accurate = metric == words.ACCURACY
    return plots.curve(
        [
            plots.Line(
                words.stage(language, stage.name),
                ("other" if stage.baseline else "main") + ("" if stage.final else " early"),
                found[stage.name],
            )
            for stage in recipe.stages()
            if stage.name in found
        ],
        {name: sum(v) / len(v) for name, v in known.items() if len(v) == len(tasks)},
        total=recipe.budget.candidates,
        title=say(language, "curve_mean" if len(tasks) > 1 else "curve"),
        x_label=say(language, "curve_x"),
        y_label=say(language, "curve_y") if accurate else words.metric(language, metric),
    )


def report(run: str, store: Store, language: str = "en") -> str:
    """The scores on the test questions, with their intervals."""
    return pieces.report(api.report(run, store), language, _metrics(store.run(run).recipe))


def strip(run: str, store: Store, language: str = "en", task: str | None = None) -> str:
    """The paper's figure: which test questions base, sources and winner get right."""
    recipe = _recipe(run, store)
    task = task or _tasks(recipe)[0]
    order = {"base": 0, "source": 1, "random": 2, "stage": 3, "exported": 4, "evolved": 5}
    rows = sorted(api.strip(run, task, "test", store), key=lambda row: order[row["role"]])
    said = {
        row["label"]: store.evaluation(run, row["subject"], task, "test")
        for row in rows
        if row["role"] not in ("random", "exported")
    }
    asked = next(t for t in recipe.build_tasks() if t.name == task)
    return strip_of(said, asked.examples("test"), asked.metric, language)


def inside(run: str, store: Store, language: str = "en", which: str | int = "best") -> str:
    """What a candidate is made of: a heat map of weights, or a path through layers."""
    number = store.pick(run, which).id
    kind, sources, rows = _table(store, store.run(run).id, number)
    if kind == "data_flow":
        return pieces.path(rows, sources, number, language)
    return pieces.heat_map(rows, number, language)


def front(run: str, store: Store, language: str = "en") -> str:
    """The candidates of the last search by its first two objectives; '' where there is one."""
    recipe = _recipe(run, store)
    names = recipe.objective_names()
    if len(names) < 2:
        return ""
    last = next(stage for stage in recipe.stages() if stage.final and not stage.baseline)
    found = [
        c
        for c in store.ranked(run, last.name)
        if not c.broken and all(name in c.scores for name in names)
    ]
    members = not_dominated(found, names)
    if not members:
        return pieces.empty(say(language, "front_empty"))
    note = say(language, "front_note_plain", n=len(members), total=len(found))
    if len(names) > 2:
        note += " " + say(language, "front_size", name=words.objective(language, names[2]))
    known = _metrics(store.run(run).recipe)
    best = store.best(run).id
    plot = plots.scatter(
        _points(found, members, _sources(run, recipe, store), names, language),
        *(_axis(name, known.get(name, words.ACCURACY), language) for name in names[:2]),
        title=say(language, "front"),
        note=note,
        names={
            "front": say(language, "on_front"),
            "beaten": say(language, "beaten"),
            "source": say(language, "role_source_point"),
        },
        selected=None,
        joined=len(names) == 2,
    )
    table = [(c.id, c.scores) for c in members]
    return pieces.front(plot, table, names, None, best, language, known)


def _points(
    found: list[Candidate],
    members: list[Candidate],
    sources: dict[str, dict[str, float]],
    names: list[str],
    language: str,
) -> list[plots.Point]:
    x, y, *more = names
    third = [v[more[0]] for v in (*sources.values(), *(c.scores for c in found)) if more]
    low, high = (min(third), max(third)) if third else (0.0, 0.0)

    def point(label: str, values: dict[str, float], **of_it: Any) -> plots.Point:
        said = [label, *(words.measure(language, name, values[name]) for name in names)]
        size = (values[more[0]] - low) / (high - low) if high > low else 0.3
        return plots.Point(label, " · ".join(said), values[x], values[y], size=size, **of_it)

    chosen = {c.id for c in members}
    drawn = [
        point(f"#{c.id}", c.scores, number=c.id, front=c.id in chosen)
        for c in sorted(found, key=lambda c: -c.id)
    ]
    return drawn + [point(name, values) for name, values in sources.items()]


def _sources(run: str, recipe: Recipe, store: Store) -> dict[str, dict[str, float]]:
    """Each source's value of every objective, of those that have all of them by now."""
    names = recipe.objective_names()
    known: dict[str, dict[str, float]] = {}
    for evaluation in store.evaluations(run, "dev"):
        kind, _, name = evaluation.subject.partition(":")
        if kind == "model":
            known.setdefault(name, {})[evaluation.task] = evaluation.score
    if set(names) & set(PROPERTIES):
        for model in open_models(recipe, store):
            values = {"length": float(model.layers), "parameters": float(model.parameters)}
            known.setdefault(model.name, {}).update(values)
    return {model: v for model, v in known.items() if all(name in v for name in names)}


def _axis(name: str, metric: str, language: str) -> plots.Axis:
    label = words.objective(language, name, metric)
    if name in PROPERTIES:
        label += f" ({say(language, 'less_is_better')})"
        return plots.Axis(label, words.compact, minimised=True)
    return plots.Axis(label, lambda value: f"{100 * value:.3g}")


@lru_cache(maxsize=64)
def _table(store: Store, run: str, number: int) -> tuple[str, list[str], list[dict[str, Any]]]:
    """The kind of space, its sources, and what a candidate's genome means."""
    candidate = store.candidate(run, number)
    space = rebuild_space(store, run, candidate.stage)
    return space.kind, [source.name for source in space.sources], space.table(candidate.genome)


def _recipe(run: str, store: Store) -> Recipe:
    return Recipe.from_yaml(store.run(run).recipe)


def _tasks(recipe: Recipe) -> list[str]:
    return [name for name in recipe.objective_names() if name not in PROPERTIES]


def _metric(recipe: Recipe) -> str:
    """What the mean over a recipe's tasks is: their metric or, of different ones, a mean."""
    known = _metrics(recipe.to_yaml())
    found = {known.get(task, words.ACCURACY) for task in _tasks(recipe)}
    return found.pop() if len(found) == 1 else words.MEAN


@lru_cache(maxsize=64)
def _metrics(recipe: str) -> dict[str, str]:
    """The metric of a recipe's (YAML) tasks, by recorded name; not of those that are gone."""
    read = Recipe.from_yaml(recipe)
    items = [item for item in [*read.objectives, *read.report] if item.task]
    found = {}
    for name, item in zip(read.task_names(), items, strict=True):
        try:
            found[name] = load_task(item.task, **item.options).metric
        except StudioError:
            continue
    return found
