"""A run's pictures for a notebook, the same as the page's: curve, front, report, strip, recipe.

Knows how to read a run's record and what to draw of it; how it is drawn is `studio.ui.plots`' and
`studio.ui.pieces`'. Every function returns HTML; `show` makes it a figure that stays.
"""

from studio import api
from studio.api.inside import inside as look_inside
from studio.recipe import Recipe
from studio.runs.store import Store
from studio.ui import curves, front_plot, pieces, versus
from studio.ui.shared import front_of, metrics
from studio.ui.strings import say
from studio.widgets.answers import strip as strip_of
from studio.widgets.looks import Figure


def show(html: str) -> Figure:
    """HTML as a figure, to be a cell's last line."""
    return Figure(html)


def status(run: str, store: Store, language: str = "en") -> str:
    """Where a run stands, in numbers."""
    recipe = _recipe(run, store)
    several = len(curves.tasks(recipe)) > 1
    at = api.progress(run, store)
    return pieces.status(at, language, mean=several, metric=curves.metric(recipe))


def curve(run: str, store: Store, language: str = "en") -> str:
    """The best score so far of every search, and the sources' as lines to be crossed."""
    return curves.curves(store.run(run).id, _recipe(run, store), store, language)


def report(run: str, store: Store, language: str = "en") -> str:
    """The scores on the test questions, with their intervals."""
    return pieces.report(api.report(run, store), language, metrics(store.run(run).recipe))


def strip(run: str, store: Store, language: str = "en", task: str | None = None) -> str:
    """The paper's figure: which test questions base, sources and winner get right."""
    recipe = _recipe(run, store)
    task = task or curves.tasks(recipe)[0]
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
    return versus.inside(look_inside(run, which, store), language)


def front(run: str, store: Store, language: str = "en") -> str:
    """The candidates of the last search by its first two objectives; '' where there is one."""
    record, recipe = store.run(run), _recipe(run, store)
    names = recipe.objective_names()
    if len(names) < 2:
        return ""
    found, members = front_of(recipe, store.ranked(record.id))
    if not members:
        return pieces.empty(say(language, "front_empty"))
    front_plot.know_models(record, store)
    plot = front_plot.scatter(record, recipe, found, members, None, store, language, plain=True)
    table = [(c.id, c.scores) for c in members]
    best = store.best(record.id).id
    return pieces.front(plot, table, names, None, best, language, metrics(record.recipe))


def _recipe(run: str, store: Store) -> Recipe:
    return Recipe.from_yaml(store.run(run).recipe)
