"""What every tab needs: the store, the engine once it is loaded, and lists of choices.

Knows Gradio and the run store; refuses to know any tab.
"""

import logging
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import import_module

from studio import api, housekeeping
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs.front import front
from studio.runs.records import Candidate, Run
from studio.runs.store import Store
from studio.tasks import TASKS, load_task
from studio.ui import words

_ENGINE = threading.Lock()
log = logging.getLogger("studio.ui")


@cache
def store() -> Store:
    """The workspace's run store, opened once per server, with the sample run in it."""
    opened = api.open_store()
    housekeeping.begin(opened)
    return opened


@cache
def _load_engine() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


def engine(first: Callable[[], None] | None = None) -> None:
    """Wait until torch and transformers are there: called before the first use of a model.

    Under a lock, because transformers' lazy modules break when two threads import them at once.

    Args:
        first: what comes before anybody else who waits here.
    """
    with _ENGINE:
        _load_engine()
        if first:
            first()


def run_choices(runs: list[Run]) -> list[tuple[str, str]]:
    """The run picker's entries, newest first: (what is shown, id)."""
    return [(f"{run.name} · {run.id}", run.id) for run in runs]


@lru_cache(maxsize=64)
def metrics(recipe: str) -> dict[str, str]:
    """The metric of a recipe's (YAML) tasks, by recorded name, as far as it can be told."""
    read = Recipe.from_yaml(recipe)
    items = [item for item in [*read.objectives, *read.report] if item.task]
    found = {}
    for name, item in zip(read.task_names(), items, strict=True):
        if metric := _metric(item.task, item.options):
            found[name] = metric
    return found


def _metric(task: str, options: dict) -> str | None:
    """A task's metric; of one whose files are gone what its kind always has, if it has one."""
    try:
        return load_task(task, **options).metric
    except StudioError:
        module, _, kind = TASKS.get(task, "").partition(":")
        return getattr(getattr(import_module(module), kind), "metric", None) if kind else None


def metric_of(recipe: str, task: str) -> str:
    """One task's metric: accuracy, where it cannot be told."""
    return metrics(recipe).get(task, words.ACCURACY)


def front_of(recipe: Recipe, scored: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Of a run for several objectives: its last search's candidates, and the front among them."""
    names = recipe.objective_names()
    if len(names) < 2:
        return [], []
    last = next(stage for stage in recipe.stages() if stage.final and not stage.baseline)
    whole = [
        c
        for c in scored
        if c.stage == last.name and not c.broken and all(name in c.scores for name in names)
    ]
    return whole, front(whole, names)


def candidate_choices(run: Run, base: Store, language: str) -> list[tuple[str, int]]:
    """A menu of the run's scored candidates: the front (★), then the rest, best first."""
    recipe = Recipe.from_yaml(run.recipe)
    scored = base.ranked(run.id)
    members = {c.id for c in front_of(recipe, scored)[1]}
    own = {stage.name for stage in recipe.stages() if stage.final and not stage.baseline}
    metric = metric_of(run.recipe, recipe.task_names()[0])
    return [
        (
            _called(c, metric, language, marked=c.id in members, own=c.stage in own)
            + (f" · {words.asked(language, c)}" if recipe.search.racing else ""),
            c.id,
        )
        for c in sorted(scored, key=lambda c: c.id not in members)
    ]


def _called(candidate: Candidate, metric: str, language: str, *, marked: bool, own: bool) -> str:
    """A candidate in a menu: '★ #37 · jmath 61.0 · 9 layers', '#3 · 52.4 % · random search'."""
    parts = [f"★ #{candidate.id}" if marked else f"#{candidate.id}"]
    if len(candidate.scores) > 1:
        parts += [words.measure(language, *item) for item in candidate.scores.items()]
    else:
        parts.append(words.score(language, metric, candidate.score))
    if not own:
        parts.append(words.stage(language, candidate.stage))
    return " · ".join(parts)
