"""A search's candidates scored, each recorded as it is, until it is enough.

Knows which examples a search asks, that nobody is asked twice and no model under two numbers, and
what is recorded of a job. Refuses to know who proposes candidates and what they are scored for.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing

import numpy as np

from studio.evolve.alike import Alike
from studio.evolve.enough import Enough
from studio.evolve.executors import Job
from studio.evolve.heats import Lane, grown
from studio.evolve.session import Session
from studio.merge.space import Space
from studio.recipe import PROPERTIES, Stage
from studio.runs.records import Evaluation


class Scoring:
    """How the candidates of a stage are scored."""

    def __init__(self, session: Session, stage: Stage, space: Space, enough: Enough):
        self._session, self._stage, self._space = session, stage, space
        self._enough = enough
        known = session.store.candidates(session.run, stage.name)
        self._alike = Alike(session, space, [c for c in known if c.scores])

    def until_enough(self, jobs: Iterable[Job]) -> Iterator[None]:
        """Have jobs done until it is enough; the rest is abandoned."""
        with closing(self.each_once(jobs)) as going:
            while not self._enough():
                try:
                    yield next(going)
                except StopIteration:
                    return

    def each_once(self, jobs: Iterable[Job]) -> Iterator[None]:
        """Have jobs done, each of which is recorded; what is one model is asked once."""
        new = []
        for job in jobs:
            if self.said(job):
                yield
            else:
                new.append(job)
        due, later = self._alike.together(new)
        for _ in self._session.measure(due, self.recorded_as):
            yield
        for job in later:
            self.said(job)
            yield

    def job(self, number: int, genome: np.ndarray) -> Job:
        """All of the search's examples."""
        questions = [
            self._session.asked(lane.task, "dev", range(len(lane.examples)))
            for lane in self.lanes()
        ]
        return self._session.candidate_job(number, genome, self._stage, *questions)

    def scored(self, number: int) -> bool:
        """Whether a candidate has been scored, on some examples at least."""
        return bool(self._session.store.candidate(self._session.run, number).scores)

    def jobs(self, asked: Iterable[tuple[int, np.ndarray]]) -> Iterator[Job]:
        """Those that are not scored: nobody is asked twice."""
        return (self.job(*one) for one in asked if not self.scored(one[0]))

    def lanes(self) -> list[Lane]:
        """The tasks among the objectives, with the examples that the search sees."""
        goals = self._session.goals
        return [
            Lane(name, tuple(example.id for example in goals[name].seen))
            for name in self._stage.objectives
            if name in goals
        ]

    def recorded_as(self, job: Job, found: list[Evaluation]) -> list[Evaluation]:
        """A candidate's evaluations, grown by what was found now, and its properties.

        In the order of the objectives.
        """
        by_name = {evaluation.task: grown(self._session, evaluation) for evaluation in found}
        for name in self._stage.objectives:
            if name in PROPERTIES:
                value = self._space.properties(job.genome)[name]
                by_name[name] = Evaluation.of_property(job.subject, name, value)
            elif name not in by_name:  # of a race that has come to the end of a shorter task
                by_name[name] = self._session.evaluation(job.subject, name, "dev")
        return [by_name[name] for name in self._stage.objectives]

    def said(self, job: Job) -> bool:
        """Record what the same model said before, if it was asked the same; whether it was."""
        found = self._alike.said(job)
        if found is None:
            return False
        self._session.store.record_evaluation(self._session.run, *self.recorded_as(job, found))
        return True
