"""What of a run's record makes a curve, handed to a tracker as it is recorded.

Knows which numbers are final, and that the points of a curve come in order. Refuses to know a
tracker's format, and when there is something new.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from studio.recipe import Recipe, Stage
from studio.runs.records import Candidate, Event, rank
from studio.runs.store import Store

#: Gives the rows of a run's report: `studio.api.report`.
Report = Callable[[], list[dict[str, Any]]]


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


class Scalars:
    """The curves and texts of a run, and what of them is written already.

    The series are the run's searches, so that a baseline is a curve of its own beside the search
    that it is compared with: steps are candidate numbers, counted from a search's first.

    Args:
        run: its whole id.
        sink: to write to, from the beginning.
    """

    def __init__(self, store: Store, run: str, sink: Sink, report: Report):
        self.store, self.run, self.sink, self._rows = store, run, sink, report
        record = store.run(run)
        recipe = Recipe.from_yaml(record.recipe)
        self.stages, self._racing = recipe.stages(), recipe.search.racing
        # by stage: how many candidates, the best of them, and the current generation
        self._written: dict[str, int] = {}
        self._best: dict[str, Candidate] = {}
        self._generations: dict[str, list[tuple[Candidate, int, float]]] = {}
        self._fronts = 0  # how many of their events
        sink.text("recipe", f"```yaml\n{record.recipe}\n```", record.created)

    def look(self, last: bool = False) -> None:
        """Write what is new; the last look leaves nothing out, and closes the sink."""
        events = self.store.events(self.run)
        over = {event.payload["stage"] for event in events if event.kind == "winner"}
        told, beyond = set(), set()
        uniform: dict[str, list[int]] = {}
        for event in events:
            if event.kind == "tell":
                told |= {number for number, _ in event.payload["told"]}
            elif event.kind in ("start", "favorite"):
                beyond |= set(event.payload["ids"])
            elif event.kind == "uniform":
                uniform[event.payload["stage"]] = event.payload["ids"]
            elif event.kind == "origin":  # they were compared, and the best is known
                beyond |= set(uniform.get(event.payload["stage"], ()))
        by_stage: dict[str, list[Candidate]] = {stage.name: [] for stage in self.stages}
        for candidate in self.store.candidates(self.run):
            by_stage[candidate.stage].append(candidate)
        times = self._times("dev")
        for stage in self.stages:
            found, done = by_stage[stage.name], last or stage.name in over
            for candidate in self._new(stage, found, told | beyond, done):
                point = candidate.id - found[0].id, times[f"candidate:{candidate.id}"]
                self._candidate(stage.name, candidate, *point)
                if candidate.id not in beyond:
                    self._of_generation(stage.name, candidate, *point)
            if done:
                self._generation(stage.name)
        fronts = [event for event in events if event.kind == "front"]
        for event in fronts[self._fronts :]:
            self._front(event, by_stage[event.payload["stage"]])
        self._fronts = len(fronts)
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

    def _new(
        self, stage: Stage, found: list[Candidate], settled: set[int], over: bool
    ) -> Iterator[Candidate]:
        """The scored candidates that are not written, in the order asked.

        One that is still out holds later ones back, and so does one in a race, which may be asked
        more until the optimizer is told. Once the search is over, what is out was abandoned.
        """
        for candidate in found[self._written.get(stage.name, 0) :]:
            scored = all(name in candidate.scores for name in stage.objectives)
            if not over and not (scored and (candidate.id in settled or not self._racing)):
                return
            self._written[stage.name] = self._written.get(stage.name, 0) + 1
            if scored:
                yield candidate

    def _candidate(self, series: str, candidate: Candidate, step: int, at: float) -> None:
        best = min(self._best.get(series, candidate), candidate, key=rank)
        self._best[series] = best
        values = {f"score/{name}": value for name, value in candidate.scores.items()}
        values |= {
            "best/score": best.score,
            "candidate/tokens": candidate.tokens,
            "candidate/seconds": candidate.seconds,
            "candidate/examples": candidate.examples,
            "candidate/broken": bool(candidate.broken),
        }
        self.sink.scalars(series, step, at, values)

    def _of_generation(self, series: str, candidate: Candidate, step: int, at: float) -> None:
        """A generation is complete when the next one begins."""
        those = self._generations.setdefault(series, [])
        if those and those[-1][0].generation != candidate.generation:
            self._generation(series)
        self._generations.setdefault(series, []).append((candidate, step, at))

    def _generation(self, series: str) -> None:
        """Its mean, at its last candidate."""
        if those := self._generations.pop(series, []):
            mean = sum(candidate.score for candidate, _, _ in those) / len(those)
            self.sink.scalars(series, *those[-1][1:], {"generation/mean": mean})

    def _front(self, event: Event, found: list[Candidate]) -> None:
        """What a generation made of the front of several objectives."""
        payload = event.payload
        last = max(c.id for c in found if c.generation <= payload["generation"])
        values = {f"front/{name}": payload[name] for name in ("hypervolume", "size")}
        self.sink.scalars(payload["stage"], last - found[0].id, event.at, values)

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
