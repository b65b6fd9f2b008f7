"""Working on runs: here, or in a process that outlives the one that asked."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.api.reading import progress
from studio.api.recipes import anchor_all, as_recipe
from studio.errors import StudioError
from studio.evolve.spaces import check, open_models
from studio.recipe import Recipe
from studio.runs import Progress, Store
from studio.runs.lock import is_held
from studio.runs.records import FINISHED, QUEUED, STOPPED
from studio.workspace import subfolder

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


def start(recipe: Recipe | str | Path, store: Store | None = None, owner: str = "") -> str:
    """As :func:`evolve`, but by a worker process that outlives this one; returns the run's id."""
    store = store or Store()
    subfolder(store.folder, "logs")  # before a run is recorded that could not be started
    run = create(recipe, store, owner)
    _spawn(run, store)
    return run


def restart(run: str, store: Store | None = None) -> str:
    """As :func:`resume`, by a worker process that outlives this one.

    Raises:
        StudioError: the run is finished, or a process works on it already.
    """
    store = store or Store()
    record = store.run(run)
    if record.status == FINISHED:
        raise StudioError(f"Run {record.id} is finished; there is nothing left to resume.")
    if is_held(store, record.id):
        raise StudioError(f"Run {record.id} is being worked on already; watch it or stop it first.")
    subfolder(store.folder, "logs")
    store.set_status(record.id, QUEUED)
    _spawn(record.id, store)
    return record.id


def take_up(run: str, store: Store) -> None:
    """What a worker process does: resume the run, unless it was stopped before it got there."""
    record = store.run(run)
    if record.status == QUEUED and record.stop:
        store.set_status(record.id, STOPPED)
    else:
        resume(record.id, store)


def stop(run: str, store: Store | None = None) -> None:
    """Ask a run to stop within a batch; returns at once. What was recorded is kept."""
    store = store or Store()
    store.request_stop(store.run(run).id)


def delete(run: str, store: Store | None = None) -> None:
    """Forget a run that nobody works on."""
    store = store or Store()
    record = store.run(run)
    if is_held(store, record.id) or not store.delete_idle(record.id):
        raise StudioError(f"Run {record.id} is being worked on; stop it before deleting it.")


def _spawn(run: str, store: Store) -> None:
    store.append(run, "queued", {})
    detach(["worker", run, "--store", store.path], run, store)


def detach(arguments: list[str], name: str, store: Store) -> None:
    """Run a command of the Studio in a process that outlives this one; its log is NAME.log."""
    logs = subfolder(store.folder, "logs")
    detached: dict[str, Any] = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
        if os.name == "nt"
        else {"start_new_session": True}
    )
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    with (logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "studio", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            **detached,
        )
    # A child that ended stays a zombie until somebody waits for it.
    threading.Thread(target=process.wait, daemon=True).start()
