"""Working on runs in this process: make one, carry it out, go on with it, forget it."""

from collections.abc import Callable
from pathlib import Path

from studio.api.reading import progress, report
from studio.api.recipes import anchor_all, as_recipe
from studio.errors import StudioError
from studio.evolve.placing import Place
from studio.evolve.spaces import check, open_models
from studio.recipe import Recipe
from studio.runs import Progress, Store, tracking
from studio.runs.lock import is_held

OnProgress = Callable[[Progress], None]


def create(recipe: Recipe | str | Path, store: Store | None = None, owner: str = "") -> str:
    """Record a run of a recipe whose models and tasks were checked; returns its id."""
    from studio.evolve import starts

    store = store or Store()
    tracking.chosen()  # of a worker that cannot track the run nobody would hear
    recipe = anchor_all(as_recipe(recipe), store)
    models = open_models(recipe, store)
    check(recipe, models)
    begun = starts.taken(recipe, models, store)
    searched = sum(item.task is not None for item in recipe.objectives)
    for number, task in enumerate(recipe.build_tasks()):
        if number < searched:
            task.examples("dev")
        task.examples("test")
    run = store.create_run(recipe.name, recipe.to_yaml(), owner)
    for origin in begun.values():
        store.append(run, starts.ORIGIN, origin)
    return run


def evolve(
    recipe: Recipe | str | Path,
    store: Store | None = None,
    on_progress: OnProgress | None = None,
    track: str | None = None,
    place: Place | None = None,
) -> str:
    """Run a recipe from start to report, driven by this process; returns the run's id.

    >>> evolve("recipes/jmath.yaml", place=Place("ray", address="auto"))  # doctest: +SKIP

    Args:
        track: where its scalars are to be seen, "tensorboard"; ``$STUDIO_TRACK`` when left out.
        place: where candidates are scored; in this process when left out.

    Raises:
        StudioError: a recipe, model, task or tracker is not usable.
    """
    store = store or Store()
    tracking.chosen(track)  # before a run is recorded that could not be tracked
    return resume(create(recipe, store), store, on_progress, track, place)


def resume(
    run: str,
    store: Store | None = None,
    on_progress: OnProgress | None = None,
    track: str | None = None,
    place: Place | None = None,
) -> str:
    """Go on with a run, driven by this process, from whatever its record holds; returns its id.

    ``track`` and ``place`` as of :func:`evolve`; without a place, where it was worked on last.
    """
    from studio.evolve.loop import work

    store = store or Store()
    run, tracker = store.run(run).id, tracking.chosen(track)
    if place is not None:
        place.record(store, run)
    place = place or Place.recorded(store, run)
    follow = tracking.follow(store, run, tracker, lambda: report(run, store))
    with follow as look, place.opened() as executor:

        def step() -> None:
            look()
            if on_progress:
                on_progress(progress(run, store))

        work(store, run, step, executor)
    return run


def track(run: str, tracker: str = "tensorboard", store: Store | None = None) -> Path:
    """Write the scalars of what a run has recorded so far; returns their folder.

    Raises:
        StudioError: there is no such tracker, its library is not installed, or another process is
            writing them.
    """
    store = store or Store()
    run = store.run(run).id
    return tracking.write(store, run, tracking.chosen(tracker), lambda: report(run, store))


def delete(run: str, store: Store | None = None) -> None:
    """Forget a run that nobody works on."""
    store = store or Store()
    record = store.run(run)
    if is_held(store, record.id) or not store.delete_idle(record.id):
        raise StudioError(f"Run {record.id} is being worked on; stop it before deleting it.")
    tracking.forget(store, record.id)
