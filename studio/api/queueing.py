"""The queue: a workspace has one worker, a process that takes queued runs one after another.

Whoever puts a run in the queue wakes the worker, and so does whoever looks at a run that waits: a
worker that was killed leaves no stuck queue behind. It outlives the process that woke it.
"""

import gc
from collections.abc import Callable
from pathlib import Path

from studio.api.processes import wake, waking
from studio.api.recipes import as_recipe
from studio.api.working import create, resume
from studio.errors import StudioError
from studio.evolve.placing import Place
from studio.recipe import Recipe
from studio.runs import Store, snapshots
from studio.runs.lock import GLANCE, INSTANT, WORKER, is_held, try_hold
from studio.runs.records import FINISHED, STOPPED
from studio.workspace import subfolder

#: Told of a run that could not be carried out, and why.
OnFailure = Callable[[str, Exception], None]


def start(
    recipe: Recipe | str | Path,
    store: Store | None = None,
    owner: str = "",
    expected: float | None = None,
    place: Place | None = None,
) -> str:
    """As `evolve`, but by the workspace's worker, when the run's turn comes; returns its id.

    Args:
        owner: whose run it is; '' where everybody shares the workspace.
        expected: seconds that it was estimated to take, for those who wait behind it.
        place: where candidates are scored; in the worker's process when left out.

    Raises:
        StudioError: a recipe, model or task is not usable; nothing is queued.
    """
    store = store or Store()
    subfolder(store.folder, "logs")  # before a run is recorded that could not be started
    run = create(recipe, store, owner)
    if place is not None:
        place.record(store, run)
    store.enqueue(run, expected)
    wake(store)
    return run


def repeat(
    recipe: Recipe | str | Path,
    seeds: int,
    store: Store | None = None,
    owner: str = "",
    place: Place | None = None,
) -> list[str]:
    """Queue a recipe with ``seeds`` seeds, counted up from its own; returns the runs' ids.

    ``place`` as of :func:`start`.

    Raises:
        StudioError: as :func:`start`, or ``seeds`` is below 1; nothing is queued.
    """
    store = store or Store()
    subfolder(store.folder, "logs")
    runs = [create(one, store, owner) for one in reseeded(recipe, seeds)]
    for run in runs:
        if place is not None:
            place.record(store, run)
        store.enqueue(run)
    wake(store)
    return runs


def reseeded(recipe: Recipe | str | Path, seeds: int) -> list[Recipe]:
    """A recipe with each of ``seeds`` seeds, counted up from its own, which its name tells."""
    recipe = as_recipe(recipe)
    if not 1 <= seeds <= 100:
        raise StudioError(f"A recipe is repeated with 1 to 100 seeds, not {seeds}.")
    if seeds == 1:
        return [recipe]
    document = recipe.model_dump(mode="json")
    return [
        Recipe.from_dict(document | {"seed": seed, "name": f"{recipe.name[:180]}, seed {seed}"})
        for seed in range(recipe.seed, recipe.seed + seeds)
    ]


def restart(run: str, store: Store | None = None) -> str:
    """As `resume`, by the workspace's worker, when the run's turn comes.

    Raises:
        StudioError: the run is finished, or waits already, or a process works on it.
    """
    store = store or Store()
    record = store.run(run)
    if record.status == FINISHED:
        raise StudioError(f"Run {record.id} is finished; there is nothing left to resume.")
    if is_held(store, record.id):
        raise StudioError(f"Run {record.id} is being worked on already; watch it or stop it first.")
    if record.id in [waiting.id for waiting in store.queue()]:
        raise StudioError(f"Run {record.id} is in the queue already; its turn comes.")
    subfolder(store.folder, "logs")
    store.enqueue(record.id)
    wake(store)
    return record.id


def pause(run: str, store: Store | None = None) -> None:
    """Ask a run to stop before its next token, or leave the queue; returns at once.

    What was recorded is kept, memory is freed, and `restart` or `resume` goes on.
    """
    store = store or Store()
    store.request_stop(store.run(run).id)


def finish(run: str, store: Store | None = None) -> None:
    """Let a run's searches end with what they have, then compare finalists and report.

    One that is not being worked on is put in the queue for that.

    Raises:
        StudioError: it is finished, or no candidate is scored yet that could be reported.
    """
    store = store or Store()
    record = store.run(run)
    if record.status == FINISHED:
        raise StudioError(f"Run {record.id} is finished already.")
    if store.best(record.id) is None:
        raise StudioError(
            f"Run {record.id} has no scored candidate yet to finish with; wait for the first."
        )
    last = [e for e in store.events(record.id) if e.kind in ("phase", "enough")][-1:]
    if not last or last[0].kind != "enough" or "stage" in last[0].payload:
        store.append(record.id, "enough", {})
    waits = record.id in [waiting.id for waiting in store.queue()]
    if not waits and not is_held(store, record.id, INSTANT):
        restart(record.id, store)


def work_off(store: Store, on_failure: OnFailure = lambda run, error: None) -> None:
    """Be the workspace's worker until the queue is empty; at once over if there is one already.

    Args:
        on_failure: told what became of a run that could not be carried out; the next one's turn
            comes all the same.
    """
    from studio.evolve import loop  # noqa: F401  (seconds, in which a wish to stop is heard)

    done: set[tuple[str, float | None]] = set()
    patience = GLANCE
    while lock := try_hold(store, WORKER, patience):
        waking(store).unlink(missing_ok=True)
        try:
            going = _work_off(store, on_failure, done)
        finally:
            lock.release()
        # who queued a run just now saw the lock held, and woke nobody
        if not going or not _next(store, done):
            return
        patience = 0.0


def _work_off(store: Store, on_failure: OnFailure, done: set) -> bool:
    """Work on runs until none is left; whether to look again, or False if told to terminate."""
    folder = snapshots.volume()
    keeper = snapshots.Keeper(store, folder) if folder else None
    while run := _next(store, done):
        # one whose state cannot be recorded (a full disk) must not come up again and again
        done.add((run.id, run.queued))
        try:
            resume(run.id, store)
            ended = store.run(run.id)
        except Exception as error:
            on_failure(run.id, error)
            continue
        finally:
            gc.collect()
            if keeper:
                keeper.save()
        if ended.status == STOPPED and not ended.stop:
            return False  # nobody asked the run to stop: the process was
    return True


def _next(store: Store, done: set):
    """The run whose turn it is, None if none waits."""
    return next((run for run in store.queue() if (run.id, run.queued) not in done), None)
