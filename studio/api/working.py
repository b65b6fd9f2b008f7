"""Working on runs in this process: make one, carry it out, go on with it, forget it."""

from collections.abc import Callable
from pathlib import Path

from studio.api.reading import progress
from studio.api.recipes import anchor_all, as_recipe
from studio.errors import StudioError
from studio.evolve.spaces import check, open_models
from studio.recipe import Recipe
from studio.runs import Progress, Store
from studio.runs.lock import is_held

OnProgress = Callable[[Progress], None]


def create(recipe: Recipe | str | Path, store: Store | None = None, owner: str = "") -> str:
    """Record a run of a recipe whose models and tasks were checked; returns its id."""
    store = store or Store()
    recipe = anchor_all(as_recipe(recipe), store)
    check(recipe, open_models(recipe, store))
    searched = sum(item.task is not None for item in recipe.objectives)
    for number, task in enumerate(recipe.build_tasks()):
        if number < searched:
            task.examples("dev")
        task.examples("test")
    return store.create_run(recipe.name, recipe.to_yaml(), owner)


def evolve(
    recipe: Recipe | str | Path, store: Store | None = None, on_progress: OnProgress | None = None
) -> str:
    """Run a recipe from start to report in this process; returns the run's id.

    Raises:
        StudioError: a recipe, model or task is not usable.
    """
    store = store or Store()
    return resume(create(recipe, store), store, on_progress)


def resume(run: str, store: Store | None = None, on_progress: OnProgress | None = None) -> str:
    """Go on with a run in this process, from whatever its record holds; returns its id."""
    from studio.evolve.loop import work

    store = store or Store()
    run = store.run(run).id
    step = (lambda: on_progress(progress(run, store))) if on_progress else (lambda: None)
    work(store, run, step)
    return run


def delete(run: str, store: Store | None = None) -> None:
    """Forget a run that nobody works on."""
    store = store or Store()
    record = store.run(run)
    if is_held(store, record.id) or not store.delete_idle(record.id):
        raise StudioError(f"Run {record.id} is being worked on; stop it before deleting it.")
