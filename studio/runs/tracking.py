"""The scalars of a run where people look: its record, followed into the files of a tracker.

Knows which numbers of a record make a curve, and that the record is the truth: whoever begins to
follow a run writes it anew from its first candidate, so that nothing is there twice, however often
the run was interrupted. Refuses to know a tracker's format, and to be the end of a run: what cannot
be written is a warning.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from studio.errors import StudioError
from studio.recipe import Recipe, Stage
from studio.runs.lock import try_hold
from studio.runs.records import Candidate
from studio.runs.store import Store
from studio.workspace import subfolder

#: Where each tracker's class is; its module imports the tracker's library at its head.
TRACKERS = {"tensorboard": "studio.runs.tensorboard:TensorBoard"}
#: Seconds between two looks at the record while somebody works on it.
EVERY = 2.0

#: Gives the rows of a run's report: `studio.api.report`.
Report = Callable[[], list[dict[str, Any]]]

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """A tracker that is written to, a folder at a time; made with that empty folder."""

    def scalars(self, series: str, step: int, at: float, values: Mapping[str, float]) -> None:
        """Add a point to the curves of a series; steps of a curve come in ascending order.

        Args:
            at: seconds since the epoch.

        Raises:
            OSError: it cannot be written; so do the others.
        """
        ...

    def text(self, name: str, text: str, at: float) -> None:
        """Add a text in Markdown."""
        ...

    def flush(self) -> None:
        """Let be seen what was added."""
        ...

    def close(self) -> None: ...


def chosen(name: str | None = None) -> type[Sink] | None:
    """The tracker of a name, or else of ``STUDIO_TRACK``; None if neither names one.

    Raises:
        StudioError: there is no such tracker, or its library is not installed.
    """
    name = (name or os.environ.get("STUDIO_TRACK", "")).strip()
    if not name:
        return None
    if name not in TRACKERS:
        raise StudioError(f"There is no tracker '{name[:40]}'; choose {', '.join(TRACKERS)}.")
    module, _, wanted = TRACKERS[name].partition(":")
    try:
        return getattr(import_module(module), wanted)
    except ModuleNotFoundError as error:
        raise StudioError(
            f"Tracking with {name} needs the package {error.name}; run `pip install tensorboardX`."
        ) from None


def folder_of(store: Store, run: str) -> Path:
    """Where a run's scalars lie: ``tracking/NAME-ID`` in the workspace."""
    record = store.run(run)
    return store.folder / "tracking" / f"{plain(record.name)[:40]}-{record.id}"


def forget(store: Store, run: str) -> None:
    """Delete the scalars of a run, by its whole id; there may be none."""
    for folder in (store.folder / "tracking").glob(f"*-{run}"):
        shutil.rmtree(folder, ignore_errors=True)
    (store.folder / "locks" / f"{run}.tracking.lock").unlink(missing_ok=True)


def write(store: Store, run: str, tracker: type[Sink], report: Report) -> Path:
    """Write the scalars of what is recorded of a run; returns their folder.

    Raises:
        StudioError: they cannot be written, or another process is writing them.
    """
    following = Following(store, run, tracker, report)
    try:
        following.look(last=True)
    except OSError as error:
        raise StudioError(
            f"The scalars of run {run} cannot be written to {following.folder} ({error}); make "
            "room there."
        ) from error
    finally:
        following.lock.release()
    return following.folder


@contextmanager
def follow(
    store: Store, run: str, tracker: type[Sink] | None, report: Report
) -> Iterator[Callable[[], None]]:
    """As `write`, again and again: yields what is called whenever something was recorded.

    It does nothing unless the last time is a while ago; at the end all is written that the record
    holds by then. Without a tracker nothing happens.
    """
    following: Following | None = None
    looked = 0.0

    def look(last: bool = False) -> None:
        nonlocal following, looked
        if following is None or not (last or time.monotonic() - looked > EVERY):
            return
        try:
            following.look(last)
        except OSError as error:
            _log.warning("Run %s is no longer tracked: %s", run, error)
            following.lock.release()
            following = None
        looked = time.monotonic()

    if tracker:
        try:
            following = Following(store, run, tracker, report)
        except StudioError as error:
            _log.warning("Run %s is not tracked. %s", run, error)
    try:
        yield look
    finally:
        look(last=True)
        if following:
            following.lock.release()


def plain(name: str) -> str:
    """A name as that of a folder.

    >>> plain("../owner/model (2)")
    'owner-model-2'
    """
    return re.sub(r"[^\w.-]+|\.\.+", "-", name).strip(".-") or "unnamed"


class Following:
    """What of a run's record is written already.

    The series are the run's searches, so that a baseline is a curve of its own beside the search
    that it is compared with: steps are candidate numbers, counted from a search's first.
    """

    def __init__(self, store: Store, run: str, tracker: type[Sink], report: Report):
        self.store, self.run, self._rows = store, run, report
        record = store.run(run)
        self.stages = Recipe.from_yaml(record.recipe).stages()
        self.folder = folder_of(store, run)
        self._written: dict[str, int] = {}  # candidates of a search, in the order asked
        self._best: dict[str, float] = {}
        self._told = 0  # events about generations
        lock = try_hold(store, f"{run}.tracking")
        if lock is None:
            raise StudioError(
                f"Another process is writing the scalars of run {run}; wait until it has ended."
            )
        self.lock = lock
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.sink = tracker(subfolder(self.folder.parent, self.folder.name))
            self.sink.text("recipe", f"```yaml\n{record.recipe}\n```", record.created)
        except OSError as error:
            lock.release()
            raise StudioError(
                f"The scalars of run {run} cannot be written to {self.folder} ({error}); make room "
                "there."
            ) from error
        except StudioError:
            lock.release()
            raise

    def look(self, last: bool = False) -> None:
        """Write what is new; the last look leaves nothing out, and closes the sink."""
        events = self.store.events(self.run)
        over = {event.payload["stage"] for event in events if event.kind == "winner"}
        by_stage: dict[str, list[Candidate]] = {stage.name: [] for stage in self.stages}
        for candidate in self.store.candidates(self.run):
            by_stage[candidate.stage].append(candidate)
        times = self._times("dev")
        for stage in self.stages:
            self._search(stage, by_stage[stage.name], times, last or stage.name in over)
        told = [event for event in events if event.kind in ("tell", "front")]
        for event in told[self._told :]:
            self._generation(event.kind, event.payload, event.at, by_stage[event.payload["stage"]])
        self._told = len(told)
        if last:
            self._report(by_stage)
            self.sink.close()
        else:
            self.sink.flush()

    def _times(self, split: str) -> dict[str, float]:
        """When a subject was evaluated on a split last, seconds since the epoch."""
        rows = self.store._rows(
            "SELECT subject, max(at) AS at FROM evaluations WHERE run = ? AND split = ? "
            "GROUP BY subject",
            self.run,
            split,
        )
        return {row["subject"]: row["at"] for row in rows}

    def _search(
        self, stage: Stage, found: list[Candidate], times: Mapping[str, float], over: bool
    ) -> None:
        """The candidates that are scored, in the order asked: one still out holds later ones back.

        Unless the search is over: then it was abandoned.
        """
        for candidate in found[self._written.get(stage.name, 0) :]:
            if all(name in candidate.scores for name in stage.objectives):
                self._candidate(stage, candidate, found[0].id, times[f"candidate:{candidate.id}"])
            elif not over:
                return
            self._written[stage.name] = self._written.get(stage.name, 0) + 1

    def _candidate(self, stage: Stage, candidate: Candidate, first: int, at: float) -> None:
        best = max(candidate.score, self._best.get(stage.name, 0.0))
        self._best[stage.name] = best
        values = {f"score/{name}": value for name, value in candidate.scores.items()}
        values |= {
            "best/score": best,
            "candidate/tokens": candidate.tokens,
            "candidate/seconds": candidate.seconds,
            "candidate/examples": candidate.examples,
            "candidate/broken": bool(candidate.broken),
        }
        self.sink.scalars(stage.name, candidate.id - first, at, values)

    def _generation(
        self, kind: str, payload: dict[str, Any], at: float, found: list[Candidate]
    ) -> None:
        """A generation's mean once the optimizer was told of it; its front, of several goals."""
        first = found[0].id
        if kind == "front":
            asked = [c.id for c in found if c.generation == payload["generation"]]
            values = {"front/hypervolume": payload["hypervolume"], "front/size": payload["size"]}
        else:
            asked = [number for number, _ in payload["told"]]
            scores = [c.score for c in found if c.id in set(asked)]
            values = {"generation/mean": sum(scores) / len(scores)}
        self.sink.scalars(payload["stage"], max(asked) - first, at, values)

    def _report(self, by_stage: Mapping[str, list[Candidate]]) -> None:
        """Test scores with their intervals, as points and as a table."""
        rows = self._rows()
        if not rows:
            return
        times = self._times("test")
        places = {
            f"{kind}:{c.id}": (stage if kind == "candidate" else f"{stage} exported", step)
            for stage, found in by_stage.items()
            for step, c in ((c.id - found[0].id, c) for c in found)
            for kind in ("candidate", "export")
        }
        lines = ["| model | role | task | score | 95 % interval | n |", "|---|---|---|---|---|---|"]
        points = []
        for row in rows:
            name = f"test/{row['task']}"
            values = {name: row["score"], f"{name}/low": row["low"], f"{name}/high": row["high"]}
            series, step = places.get(row["subject"], (f"{row['role']} {row['model']}", 0))
            points.append((series, step, times[row["subject"]], values))
            lines.append(
                f"| {row['model']} | {row['role']} | {row['task']} | {100 * row['score']:.1f} % "
                f"| {100 * row['low']:.1f} – {100 * row['high']:.1f} | {row['n']} |"
            )
        for point in sorted(points, key=lambda point: point[:2]):
            self.sink.scalars(*point)
        self.sink.text("report", "\n".join(lines), max(times.values()))
