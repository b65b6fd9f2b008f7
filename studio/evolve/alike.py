"""Candidates that are the same model under two numbers are asked once.

Knows when two genomes are one model (`Space.phenotype`) and whether the answers of the first are
those that the second would be asked for. Refuses to know how jobs are done and recorded.
"""

from collections.abc import Hashable, Iterable
from dataclasses import replace

from studio.evolve.executors import Asked, Job
from studio.evolve.session import Session
from studio.merge.space import Space
from studio.runs.records import Candidate, Evaluation


class Alike:
    """The models of a search so far.

    Args:
        known: its candidates that have been scored.
    """

    def __init__(self, session: Session, space: Space, known: Iterable[Candidate]):
        self._session, self._space = session, space
        self._first: dict[Hashable, str] = {}
        for candidate in known:
            self._first.setdefault(space.phenotype(candidate.genome), f"candidate:{candidate.id}")

    def said(self, job: Job) -> list[Evaluation] | None:
        """The job's evaluations by what the same model said before; None if it was not asked."""
        first = self._first.setdefault(self._space.phenotype(job.genome), job.subject)
        if first == job.subject:
            return None
        found = [self._said(first, asked, job.subject) for asked in job.asked]
        return None if None in found else found

    def together(self, jobs: Iterable[Job]) -> tuple[list[Job], list[Job]]:
        """Jobs that must be done, and those that need not be once they are."""
        due: dict[Hashable, Job] = {}
        later = []
        for job in jobs:
            model = self._space.phenotype(job.genome), job.asked
            if due.setdefault(model, job) is not job:
                later.append(job)
        return list(due.values()), later

    def _said(self, first: str, asked: Asked, subject: str) -> Evaluation | None:
        """What another's answers make of these questions, None where one was not asked."""
        evaluation = self._session.evaluation(first, asked.task, asked.label)
        known = {o.example: o for o in evaluation.outcomes} if evaluation else {}
        examples = self._session.bench.examples[asked.task, asked.split]
        outcomes = [known.get(examples[place].id) for place in asked.places]
        if evaluation is None or None in outcomes:
            return None
        return replace(
            evaluation,
            subject=subject,
            score=0.0 if evaluation.broken else sum(o.score for o in outcomes) / len(outcomes),
            tokens=0,  # nothing was generated
            seconds=0.0,
            outcomes=tuple(outcomes),
        )
