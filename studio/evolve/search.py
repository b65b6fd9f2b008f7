"""The search of one stage: candidates asked of an optimizer, scored, told, all of it recorded.

Knows how a search goes on from whatever the record holds: it replays it through the seeded
optimizer, sees that the same genomes are asked bit for bit, and scores what is pending. Knows, too,
when it is enough: the event ``enough`` in the log ends a search for good, and what it asked and did
not score stays unscored. Refuses to know who scores, and what becomes of the candidates afterwards.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np

from studio.evolve import optimizers
from studio.evolve.executors import Job
from studio.evolve.optimizers import Optimizer
from studio.evolve.session import Session, check_same
from studio.merge.space import Space
from studio.recipe import PROPERTIES, Stage
from studio.runs.front import front, gains, hypervolume
from studio.runs.records import Candidate, Evaluation
from studio.runs.store import Told


class Search:
    """A stage's search within a session."""

    def __init__(self, session: Session, stage: Stage):
        self.session, self.stage = session, stage
        self.store, self.run_id = session.store, session.run
        self.space: Space = session.space(stage)
        self.first = self._first_number()

    def run(self) -> Iterator[None]:
        """Spend the budget of candidates, or end early; yields after everything recorded."""
        if self.space.kind == "data_flow":
            yield from self._extra("start", self.first, 0, self.space.initial)
            self.first += 1
        first, budget = self.first, self._budget()
        optimizer = self._optimizer()
        asked, pending = self._replay(optimizer)
        generation = len(asked)
        count = sum(asked)
        while pending or (count < budget and not self._enough()):
            if not pending:
                n = min(self.session.recipe.search.population, budget - count)
                pending = [(first + number, genome) for number, genome in optimizer.ask(n)]
                self.store.record_ask(self.run_id, self.stage.name, generation, pending)
                generation, count = generation + 1, count + n
            yield from self._until_enough(pending)
            # before it is told: what was told is not looked at again after an interruption
            self._note_front(generation - 1)
            if any(not self._scored(number) for number, _ in pending):
                break  # half a generation teaches nothing; those scored still compete
            told = {number: self._told(number) for number, _ in pending}
            self.store.record_tell(self.run_id, self.stage.name, told)
            optimizer.tell({number - first: score for number, score in told.items()})
            pending = []
        if not any(c.scores for c in self._candidates()):  # a stage must have a winner
            yield from self._extra("start", first + count, generation, self.space.initial)
        favorite = optimizer.favorite() if count > len(pending) else None
        if favorite is not None:  # under noise it often beats every sample
            yield from self._extra("favorite", first + count, generation, favorite)

    # ── when it is enough ─────────────────────────────────────────────────────────────────────

    def _budget(self) -> int:
        """How many candidates there may be: a baseline gets no more than what it stands beside."""
        most = self.session.recipe.budget.candidates
        if not self.stage.baseline:
            return most
        stages = self.session.recipe.stages()
        beside = stages[self._index() - len(stages) // 2].name
        beyond = {
            number
            for event in self.session.events(stage=beside)
            if event.kind in ("start", "favorite")
            for number in event.payload["ids"]
        }
        found = self.store.candidates(self.run_id, beside)
        return min(most, sum(bool(c.scores) and c.id not in beyond for c in found))

    def _index(self) -> int:
        return [stage.name for stage in self.session.recipe.stages()].index(self.stage.name)

    def _enough(self) -> bool:
        """Whether the search ends here: its time is over, or somebody has seen enough.

        Once it does, the log says so: a resumed run has to come to the same end.
        """
        if self._told_enough():
            return True
        hours = self.session.recipe.budget.hours
        if hours is not None:
            part = (self._index() + 1) / len(self.session.recipe.stages())
            if self.store.run(self.run_id).seconds >= part * hours * 3600:
                self.session.append("enough", {"stage": self.stage.name})
                return True
        return False

    def _told_enough(self) -> bool:
        """Whether the log has an ``enough`` for this stage.

        One that names no stage is a user's. It ends the run's own searches, and a baseline if it
        came after that had begun: for as many candidates as they had, a baseline is due.
        """
        begun = not self.stage.baseline
        for event in self.session.events():
            payload = event.payload
            if event.kind == "phase" and payload["name"] == self.stage.name:
                begun = True
            elif event.kind == "enough" and payload.get("stage", "") in ("", self.stage.name):
                if begun:
                    return True
        return False

    # ── candidates ────────────────────────────────────────────────────────────────────────────

    def _optimizer(self) -> Optimizer:
        search, space = self.session.recipe.search, self.space
        return optimizers.make(
            self.stage.optimizer,
            lower=space.lower,
            upper=space.upper,
            initial=space.initial,
            binary=space.binary,
            population=search.population,
            sigma=search.sigma,
            seed=self.stage.seed,
            objectives=len(self.stage.objectives),
            # nearly every path far from the start is broken: random search may start there too
            around=space.kind == "data_flow",
        )

    def _first_number(self) -> int:
        """The number of the stage's first candidate: they are counted through the whole run."""
        earlier = set()
        for other in self.session.recipe.stages():
            if other.name == self.stage.name:
                break
            earlier.add(other.name)
        return sum(c.stage in earlier for c in self.store.candidates(self.run_id))

    def _candidates(self) -> list[Candidate]:
        return self.store.candidates(self.run_id, self.stage.name)

    def _recorded(self) -> dict[int, np.ndarray]:
        return {c.id: c.genome for c in self._candidates()}

    def _scored(self, number: int) -> bool:
        return bool(self.store.candidate(self.run_id, number).scores)

    def _replay(self, optimizer: Optimizer) -> tuple[list[int], list[tuple[int, np.ndarray]]]:
        """Bring a fresh optimizer to where the record ends.

        Returns:
            how many candidates each generation asked, and those asked but not yet told.
        """
        recorded = self._recorded()
        asked: list[int] = []
        pending: dict[int, np.ndarray] = {}
        for event in self.session.events(stage=self.stage.name):
            if event.kind == "ask":
                proposed = optimizer.ask(len(event.payload["ids"]))
                for number, genome in proposed:
                    check_same(self.first + number, genome, recorded)
                    pending[self.first + number] = genome
                asked.append(len(proposed))
            elif event.kind == "tell":
                told = self.store.told(event)
                optimizer.tell({number - self.first: value for number, value in told.items()})
                for number in told:
                    del pending[number]
        return asked, list(pending.items())

    def _extra(self, kind: str, number: int, generation: int, genome: np.ndarray) -> Iterator[None]:
        """Score a candidate beyond the budget: where a search starts, or what it believes in."""
        recorded = self._recorded()
        asked = [(number, genome)]
        if number in recorded:
            check_same(number, genome, recorded)
        else:
            self.store.record_ask(self.run_id, self.stage.name, generation, asked, kind=kind)
        yield from self._measure(asked)

    def _until_enough(self, asked: Sequence[tuple[int, np.ndarray]]) -> Iterator[None]:
        """Have candidates scored until it is enough; the rest is abandoned."""
        if self._enough():
            return
        with closing(self._measure(asked)) as going:
            for _ in going:
                yield
                if self._enough():
                    return

    def _measure(self, asked: Sequence[tuple[int, np.ndarray]]) -> Iterator[None]:
        """Have those scored that are not: nobody is evaluated twice."""
        session, goals = self.session, self.session.goals
        questions = [
            session.asked(name, "dev", range(len(goals[name].seen)))
            for name in self.stage.objectives
            if name in goals
        ]
        jobs = [
            session.candidate_job(number, genome, self.stage, *questions)
            for number, genome in asked
            if not self._scored(number)
        ]
        yield from session.measure(jobs, self._with_properties)

    def _with_properties(self, job: Job, found: list[Evaluation]) -> list[Evaluation]:
        """A candidate's evaluations and properties, in the order of the objectives."""
        by_name = {evaluation.task: evaluation for evaluation in found}
        for name in self.stage.objectives:
            if name in PROPERTIES:
                value = self.space.properties(job.genome)[name]
                by_name[name] = Evaluation.of_property(job.subject, name, value)
        return [by_name[name] for name in self.stage.objectives]

    def _told(self, number: int) -> Told:
        """What the optimizer is told of a scored candidate."""
        candidate, objectives = self.store.candidate(self.run_id, number), self.stage.objectives
        if len(objectives) == 1:
            return candidate.scores[objectives[0]]
        scores = candidate.scores
        if candidate.broken:  # a short path that says nothing is not worth its shortness
            scores = dict.fromkeys(objectives, 0.0) | self.space.worst()
        return gains(scores, objectives)

    def _note_front(self, generation: int) -> None:
        objectives = self.stage.objectives
        which = {"stage": self.stage.name, "generation": generation}
        if len(objectives) == 1 or any(
            which.items() <= event.payload.items() for event in self.session.events("front")
        ):
            return
        found = self._candidates()
        payload = {
            **which,
            "size": len(front(found, objectives)),
            "hypervolume": hypervolume(found, objectives, self.space.worst()),
        }
        self.session.append("front", payload)
