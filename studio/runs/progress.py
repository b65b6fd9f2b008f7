"""How far a run is, read from its record: what the terminal and the page show while it works."""

import time
from dataclasses import dataclass

from studio.recipe import Recipe
from studio.runs.lock import is_held
from studio.runs.records import FINISHED, QUEUED, RUNNING, Candidate, Event, Run, rank
from studio.runs.store import Store

#: How many of the latest candidates the speeds are averaged over.
_RECENT = 16
#: Seconds after which whoever made a run to work on it at once has not begun, and will not.
_STARTING = 60


@dataclass(frozen=True)
class Progress:
    """A run at a glance.

    Attributes:
        state: queued | running | stopping | interrupted | stopped | finished | failed.
        stage: sources | a stage's name | selection | report, or '' when not running.
        done, total: candidates scored, of all stages' budgets.
        best, best_id: the search's best candidate so far (score on the search's examples, 0 to 1).
        tokens_per_second, candidates_per_minute: over the latest candidates.
        eta: seconds until the report is complete, None while unknown.
        elapsed: seconds worked, over all sessions.
        position: 0 at work, 1 next in the queue, 2 after that; None for any other run.
        wait: seconds until its turn in the queue, None while unknown and for a run not queued.
    """

    run: Run
    state: str
    stage: str
    done: int
    total: int
    best: float | None
    best_id: int | None
    tokens_per_second: float
    candidates_per_minute: float
    eta: float | None
    elapsed: float
    position: int | None = None
    wait: float | None = None


def progress(store: Store, run: str) -> Progress:
    """Where a run stands now."""
    record = store.run(run)
    recipe = Recipe.from_yaml(record.recipe)
    stages = recipe.stages()
    everything = store.candidates(record.id)
    scored = [c for c in everything if c.score is not None]
    total = recipe.budget.candidates * len(stages)
    # a search's start and its optimizer's favourite are candidates beyond the budget
    events = store.events(record.id)
    beyond = sum(event.kind in ("start", "favorite") for event in events)
    phases = [event.payload["name"] for event in events if event.kind == "phase"]
    done = min(max(0, len(scored) - beyond), total)
    best = store.best(record.id)
    recent = scored[-_RECENT:]
    seconds = sum(c.seconds for c in recent)
    state = _state(store, record)
    position, wait = _place(store, record, state)
    return Progress(
        run=record,
        state=state,
        stage=phases[-1] if phases and record.status == RUNNING else "",
        done=done,
        total=total,
        best=best.score if best else None,
        best_id=best.id if best else None,
        tokens_per_second=sum(c.tokens for c in recent) / seconds if seconds else 0.0,
        candidates_per_minute=60 * len(recent) / seconds if seconds else 0.0,
        eta=_eta(store, record, events, scored),
        elapsed=record.seconds,
        position=position,
        wait=wait,
    )


def curve(store: Store, run: str) -> dict[str, list[tuple[int, float]]]:
    """The best's score after each scored candidate, per stage: [(count, score), …].

    Where some were asked more than others the best is the one whose score is the most at least:
    its score may be lower than that of the best before it.
    """
    lines: dict[str, list[tuple[int, float]]] = {}
    best: dict[str, Candidate] = {}
    for candidate in store.candidates(run):
        if candidate.score is not None:
            leader = min(best.get(candidate.stage, candidate), candidate, key=rank)
            best[candidate.stage] = leader
            line = lines.setdefault(candidate.stage, [])
            line.append((len(line) + 1, leader.score))
    return lines


def _eta(store: Store, record: Run, events: list[Event], scored: list[Candidate]) -> float | None:
    """Seconds left at the pace of recent candidates: search, finalists and report.

    Before the first candidate, what the run was estimated to take.
    """
    if record.status == FINISHED:
        return 0.0
    work = next((e.payload["answers"] for e in events if e.kind == "inputs"), None)
    recent = scored[-_RECENT:]
    answers = sum(c.examples for c in recent)
    if work is None or not answers:
        return None if record.expected is None else max(0.0, record.expected - record.seconds)
    pace, apiece = sum(c.seconds for c in recent) / answers, answers / len(recent)
    recipe = Recipe.from_yaml(record.recipe)
    spared = _spared(recipe, events, scored)
    left = work - store.answers(record.id) - spared * apiece
    if recipe.search.racing:  # how many answers a race takes was a guess: so many at the least
        coming = len(recipe.stages()) * recipe.budget.candidates - len(scored) - spared
        left = max(left, coming * apiece)
    eta = max(0.0, left * pace)
    if recipe.budget.hours is not None:
        searched = len(recipe.stages()) * recipe.budget.candidates * apiece
        searching = max(0.0, 3600 * recipe.budget.hours - record.seconds)
        eta = min(eta, searching + max(0.0, work - searched) * pace)
    return eta


def _spared(recipe: Recipe, events: list[Event], scored: list[Candidate]) -> int:
    """Candidates of the budget that nobody asks for: of searches that somebody had enough of.

    A baseline gets no more of them than the search it stands beside.
    """
    ended = {event.payload.get("stage", "") for event in events if event.kind == "enough"}
    if not ended:
        return 0
    stages = recipe.stages()
    own = [stage.name for stage in stages if not stage.baseline]
    unasked = (
        max(0, recipe.budget.candidates - sum(c.stage == name for c in scored))
        for name in own
        if name in ended or "" in ended
    )
    return sum(unasked) * (len(stages) // len(own))


def _place(store: Store, record: Run, state: str) -> tuple[int | None, float | None]:
    """A run's position in the queue, and the seconds until its turn."""
    if state in ("running", "stopping"):
        return 0, 0.0
    queue = store.queue() if state == QUEUED else []
    ids = [run.id for run in queue]
    if record.id not in ids:
        return None, None
    ahead = ids.index(record.id)
    at_work = [
        run
        for run in store.runs()
        if run.status == RUNNING and run.queued is not None and is_held(store, run.id)
    ]
    times = [_remaining(store, run) for run in [*at_work, *queue[:ahead]]]
    return ahead + 1, None if None in times else float(sum(times))


def _remaining(store: Store, record: Run) -> float | None:
    """Seconds that a run will still take, None while unknown."""
    scored = [c for c in store.candidates(record.id) if c.score is not None]
    return _eta(store, record, store.events(record.id), scored)


def _state(store: Store, record: Run) -> str:
    if record.status == RUNNING:
        if is_held(store, record.id):
            return "stopping" if record.stop else "running"
        record = store.run(record.id)  # its worker may have come to its end since it was read
        if record.status == RUNNING:
            return "interrupted"
    if record.status == QUEUED:
        if record.stop:
            return "stopped"
        # one in the queue waits however long it takes; any other was made to be begun at once
        late = record.queued is None and time.time() - record.created > _STARTING
        if late and not is_held(store, record.id):
            return "interrupted"
    return record.status
