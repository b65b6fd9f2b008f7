"""One evolution from start to report, recorded as it goes, resumable from any point.

The loop knows the order of things: score the sources, search (one stage after another, a stage's
winner a source of the next), search again at random with the same budget, compare each stage's
finalists on the whole dev split, and score what is reported once on test. It refuses to remember
anything itself: every step is recorded before the next begins, and a loop over a run that was
interrupted replays the record and goes on with what is pending. It is a generator, so that whoever
has the time drives it: a worker process, or a page that somebody keeps open.
"""

import importlib.metadata
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from studio.errors import StudioError
from studio.evolve.executors import Bench, Executor, InProcess, Paused, Stopped
from studio.evolve.report import report, select
from studio.evolve.search import Search
from studio.evolve.session import Session
from studio.runs.lock import hold
from studio.runs.records import FAILED, FINISHED, RUNNING, STOPPED
from studio.runs.store import Store


def work(
    store: Store,
    run: str,
    on_step: Callable[[], None] = lambda: None,
    executor: Callable[[Bench], Executor] = InProcess,
) -> None:
    """Work on a run until it is finished, or somebody asks it to stop.

    Args:
        on_step: called after everything that was recorded.
        executor: as of :func:`steps`.

    Raises:
        StudioError: the recipe cannot be carried out, another process works on this run, or its
            record does not replay; the run is then marked failed with that sentence.
    """
    with _stop_on_terminate() as terminated:
        going = steps(store, run, executor, terminated)
        try:
            for _ in going:
                on_step()
        except KeyboardInterrupt:  # while the step was told about
            pass
        finally:
            going.close()
            on_step()


def steps(
    store: Store,
    run: str,
    executor: Callable[[Bench], Executor] = InProcess,
    terminated: threading.Event | None = None,
) -> Iterator[None]:
    """Work on a run one recorded step at a time: a generator for whoever drives it.

    Closing it leaves the run stopped, to be resumed any time. A run that cannot go on for now stops
    too, and its message says why.

    Args:
        executor: makes, of a bench, who does the jobs; by default this process does.
        terminated: set when the process is asked to end; the run stops before its next token.

    Raises:
        StudioError: as :func:`work`.
    """
    run = store.run(run).id
    lock = hold(store, run)
    try:
        if store.run(run).status == FINISHED:
            return
        store.set_status(run, RUNNING)
        with closing(_phases(Session(store, run, executor, terminated))) as going:
            for _ in going:
                yield
        store.set_status(run, FINISHED)
    except (Stopped, KeyboardInterrupt, GeneratorExit):
        store.set_status(run, STOPPED)
    except Paused as why:
        store.set_status(run, STOPPED, str(why))
    except StudioError as error:
        store.set_status(run, FAILED, str(error))
        raise
    except Exception as error:
        store.set_status(run, FAILED, f"{type(error).__name__}: {error}")
        raise
    finally:
        lock.release()


@contextmanager
def _stop_on_terminate() -> Iterator[threading.Event]:
    """An event that a polite kill sets: the run stops before its next token.

    Nothing is recorded in the handler, which may interrupt a transaction of the same store.
    """
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def _phases(session: Session) -> Iterator[object]:
    """The order of things; yields after everything recorded."""

    def begin(phase: str) -> None:
        session.append("phase", {"name": phase})

    session.append("session", _versions())
    begin("sources")
    for goal in session.goals.values():
        yield from session.measure_models(goal.task, "dev", len(goal.seen))
    for stage in session.recipe.stages():
        search = Search(session, stage)
        begin(stage.name)
        yield from search.run()
        begin("selection")
        yield from select(session, stage)
    begin("report")
    yield from report(session)


def _versions() -> dict[str, str]:
    """What this session computes with."""
    import torch

    packages = (
        "torch",
        "transformers",
        "numpy",
        "cma",
        "cmaes",
        "pymoo",
        "scipy",
        "moocore",
        "safetensors",
        "evollm-studio",
    )
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a folder, not installed
            continue
    return {
        **found,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
