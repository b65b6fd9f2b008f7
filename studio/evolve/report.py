"""What a run's searches found: the finalists compared, and what is reported scored on test.

Knows who is a finalist and who wins, and that the test split is seen once, at the end. Refuses to
know how candidates came about and who scores them.
"""

from collections.abc import Iterator
from dataclasses import replace

from studio.evolve.executors import Asked
from studio.evolve.heats import Heat, Lane, answered, grown
from studio.evolve.racing import CHOICE
from studio.evolve.session import Session
from studio.recipe import Stage
from studio.runs.front import front
from studio.runs.records import Candidate, rank
from studio.runs.statistics import wilson


def select(session: Session, stage: Stage) -> Iterator[None]:
    """Compare the stage's finalists on the whole dev split; the winner is what it reports.

    Of several objectives the finalists are the front's, and those that are still not dominated are
    reported beside the winner, the one with the best mean over the tasks. Yields after everything
    recorded.
    """
    if session.events("winner", stage.name):
        return
    finalists = _finalists(session, stage)
    goals = {name: session.goals[name] for name in stage.objectives if name in session.goals}
    if session.recipe.search.racing:
        finalists = yield from _raced(session, stage, finalists, list(goals))
    else:
        again = {name: len(g.dev) for name, g in goals.items() if len(g.seen) < len(g.dev)}
        asked = [session.asked(name, "dev", range(n), "selection") for name, n in again.items()]
        yield from _measured(session, stage, finalists, asked)
    compared = [_on_dev(session, candidate, list(goals)) for candidate in finalists]
    winner = max(compared, key=lambda c: (c.score, not c.broken, -c.id))
    payload = {"stage": stage.name, "id": winner.id, "final": stage.final}
    if len(stage.objectives) > 1:
        payload["front"] = [c.id for c in front(compared, stage.objectives)]
    session.append("winner", payload)


def _raced(
    session: Session, stage: Stage, finalists: list[Candidate], tasks: list[str]
) -> Iterator[object]:
    """Those of the finalists, raced for the first place, that were asked all of dev.

    Of several objectives there is no first place: all of them are.
    """
    lanes = [Lane(name, tuple(e.id for e in session.goals[name].dev)) for name in tasks]
    heat = Heat(
        session,
        stage,
        [(candidate.id, candidate.genome) for candidate in finalists],
        lanes,
        [],
        label="selection",
        seed=(stage.seed,),
        keep=1 if len(stage.objectives) == 1 else len(finalists),
        rule=CHOICE,
        measure=lambda jobs: session.measure(
            jobs, lambda job, found: [grown(session, evaluation) for evaluation in found]
        ),
    )
    session.space(stage)  # the winners it builds on go to the bench
    yield from heat.run(whole=True)
    left = [c for c, alive in zip(finalists, heat.alive, strict=True) if alive]
    return left or finalists


def _on_dev(session: Session, candidate: Candidate, tasks: list[str]) -> Candidate:
    """The candidate with its scores on all of dev that it was asked."""
    found = {name: answered(session, candidate.id, name, "selection") for name in tasks}
    return replace(candidate, scores=candidate.scores | {n: e.score for n, e in found.items()})


def _finalists(session: Session, stage: Stage) -> list[Candidate]:
    ranked = session.store.ranked(session.run, stage.name)
    most = session.recipe.search.finalists
    if len(stage.objectives) > 1:
        # some may have been asked a few examples only: what counts is what they score at least
        best = front([_at_least(c) for c in ranked], stage.objectives)
        members = {c.id for c in best}
        best = [c for c in ranked if c.id in members] or ranked
        return sorted(best, key=rank)[:most]
    finalists = ranked[:most]
    # where the search began, and the optimizer's favourite, compete whatever they scored
    beyond = {
        number
        for event in session.events(stage=stage.name)
        if event.kind in ("start", "favorite")
        for number in event.payload["ids"]
    }
    return finalists + [c for c in ranked[most:] if c.id in beyond]


def report(session: Session) -> Iterator[None]:
    """Score base, sources and what the stages found once on the test split.

    Yields after everything recorded.
    """
    for task in session.tasks:
        yield from session.measure_models(task, "test", len(session.test[task.name]))
    for stage in session.recipe.stages():
        if stage.baseline and not stage.final:
            continue
        results = [session.store.candidate(session.run, n) for n in _results(session, stage)]
        yield from _measured(session, stage, results, _on_test(session))
        if session.recipe.quantized and stage.final and not stage.baseline:
            yield from report_export(session, stage)


def report_export(session: Session, stage: Stage) -> Iterator[None]:
    """Score what the stage's winner is exported as: unquantized, and so another model."""
    winner = session.store.candidate(session.run, _results(session, stage)[0])
    subject = f"export:{winner.id}"
    asked = [a for a in _on_test(session) if not session.evaluation(subject, a.task, "test")]
    if asked:
        job = session.candidate_job(winner.id, winner.genome, stage, *asked)
        session.space(stage)
        yield from session.measure([replace(job, subject=subject)])


def _on_test(session: Session) -> list[Asked]:
    return [session.asked(name, "test", range(len(found))) for name, found in session.test.items()]


def _results(session: Session, stage: Stage) -> list[int]:
    """The numbers of a stage's winner and, of several objectives, of its front."""
    for event in session.events("winner", stage.name):
        found = [event.payload["id"]]
        return found + [n for n in event.payload.get("front", []) if n not in found]
    return []


def _at_least(candidate: Candidate) -> Candidate:
    """The candidate with scores that it has at least."""
    n = candidate.examples // max(1, len(candidate.tasks))
    least = {name: wilson(score, n)[0] for name, score in candidate.tasks.items()}
    return replace(candidate, scores=candidate.scores | least)


def _measured(
    session: Session, stage: Stage, candidates: list[Candidate], asked: list[Asked]
) -> Iterator[None]:
    """Have candidates asked what is not recorded yet, each question recorded on its own."""
    jobs = [
        session.candidate_job(candidate.id, candidate.genome, stage, questions)
        for candidate in candidates
        for questions in asked
        if not session.evaluation(f"candidate:{candidate.id}", questions.task, questions.label)
    ]
    if jobs:
        session.space(stage)  # the winners it builds on go to the bench
        yield from session.measure(jobs)
