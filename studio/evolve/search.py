"""The search of one stage: candidates asked of an optimizer, scored, told, all of it recorded.

Knows how a search goes on from whatever the record holds: it replays it through the seeded
optimizer, sees that the same genomes are asked bit for bit, and has scored what is pending. A
generation is told at once, after a race of its candidates or none; or every candidate is told as it
comes, where several workers should not wait for the slowest. Refuses to know how candidates are
scored (`studio.evolve.scoring`), when it is enough (`studio.evolve.enough`), and what becomes of
them afterwards.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np

from studio.evolve import optimizers, starts
from studio.evolve.enough import Enough
from studio.evolve.executors import Job
from studio.evolve.heats import Heat
from studio.evolve.optimizers import Optimizer
from studio.evolve.racing import LEADERS, RANKING, told
from studio.evolve.scoring import Scoring
from studio.evolve.session import Session, check_same
from studio.merge.space import Space
from studio.recipe import PROPERTIES, Stage
from studio.runs.front import front, gains, hypervolume
from studio.runs.records import Candidate, Event
from studio.runs.store import Told


class Search:
    """A stage's search within a session."""

    def __init__(self, session: Session, stage: Stage):
        self.session, self.stage = session, stage
        self.store, self.run_id = session.store, session.run
        self.space: Space = session.space(stage)
        self.population = session.recipe.search.population
        self.first = self._first_number()
        self.enough = Enough(session, stage)
        self.scoring = Scoring(session, stage, self.space, self.enough)

    def run(self) -> Iterator[None]:
        """Spend the budget of candidates, or end early; yields after everything recorded."""
        begun = self.first
        known = yield from self._begin()
        first, budget = self.first, self.enough.budget()
        if self._uniform_due():
            budget -= first - begun  # what that took counts
        optimizer = self._optimizer(known)
        asked, pending = self._replay(optimizer)
        generation = len(asked)
        count = sum(asked)
        if self._asynchronous():
            count = yield from self._steadily(optimizer, pending, count, budget)
            generation, pending = 1 + count // self.population, []
        while pending or (count < budget and not self.enough()):
            if not pending:
                n = min(self.population, budget - count)
                pending = [(first + number, genome) for number, genome in optimizer.ask(n)]
                self.store.record_ask(self.run_id, self.stage.name, generation, pending)
                generation, count = generation + 1, count + n
            told = yield from self._compared(generation - 1, pending)
            # before it is told: what was told is not looked at again after an interruption
            self._note_front(generation - 1)
            if told is None:
                break  # half a generation teaches nothing; those scored still compete
            self._tell(optimizer, told)
            pending = []
        if not any(c.scores for c in self._candidates()):  # a stage must have a winner
            yield from self._extra("start", first + count, generation, known[0])
        favorite = optimizer.favorite() if count > len(pending) else None
        if favorite is not None:  # under noise it often beats every sample
            yield from self._extra("favorite", first + count, generation, favorite)

    # ── where it begins ───────────────────────────────────────────────────────────────────────

    def _begin(self) -> Iterator[object]:
        """Have scored whatever precedes the optimizer's candidates.

        Returns:
            (of the generator) genomes that the optimizer begins at, the best first.
        """
        if self._uniform_due():
            yield from self._try_uniform()
        origin = self._origin()
        known = [self.space.check(genome) for genome in starts.recorded(origin)] if origin else []
        known = known or [self.space.initial]
        if self._goes_on() or self.space.kind == "data_flow":
            yield from self._extra("start", self.first, 0, known[0])
            self.first += 1
        return known

    def _uniform_due(self) -> bool:
        """Whether uniform merges come first; a baseline draws as many more at random instead."""
        wanted = self.session.recipe.search.start == "uniform"
        return wanted and self.space.kind == "parameter" and not self.stage.baseline

    def _goes_on(self) -> bool:
        """Whether it begins where another run ended, as its baseline does then."""
        return self.session.recipe.search.warm and self._origin() is not None

    def _origin(self) -> Event | None:
        stage = self.enough.beside() if self.session.recipe.search.warm else self.stage.name
        return next(iter(self.session.events(starts.ORIGIN, stage)), None)

    def _try_uniform(self) -> Iterator[object]:
        """Have uniform merges scored, half the budget at most, and record the best of them."""
        most = max(1, self.session.recipe.budget.candidates // 2)
        asked = [
            (self.first + number, genome)
            for number, genome in enumerate(starts.uniform(self.space, most))
        ]
        self._record_ask("uniform", 0, asked)
        self.first += len(asked)
        if self._origin() is None and (yield from self._compared(0, asked)) is not None:
            found = [c for c in self._candidates() if c.scores]
            self.session.append(starts.ORIGIN, starts.best_of(self.stage, found))

    # ── generations ───────────────────────────────────────────────────────────────────────────

    def _compared(
        self, generation: int, pending: Sequence[tuple[int, np.ndarray]]
    ) -> Iterator[object]:
        """Have a generation scored; what the optimizer is told of it, None if it was enough."""
        if self.session.recipe.search.racing:
            return (yield from self._raced(generation, pending))
        yield from self.scoring.until_enough(self.scoring.jobs(pending))
        if any(not self.scoring.scored(number) for number, _ in pending):
            return None
        return {number: self._told(number) for number, _ in pending}

    def _raced(
        self, generation: int, pending: Sequence[tuple[int, np.ndarray]]
    ) -> Iterator[object]:
        """The same by a race for the first places, of which a random search needs but one."""
        properties = [self.space.properties(genome) for _, genome in pending]
        small = [name for name in self.stage.objectives if name in PROPERTIES]
        heat = Heat(
            self.session,
            self.stage,
            pending,
            self.scoring.lanes(),
            [np.array([-each[name] for each in properties]) for name in small],
            label="dev",
            seed=(self.stage.seed, generation),
            keep=max(1, self.population // LEADERS) if self.stage.optimizer != "random" else 1,
            rule=RANKING,
            measure=self.scoring.until_enough,
        )
        if not (yield from heat.run()):
            return None
        numbers = [number for number, _ in pending]
        found = [self._told(number) for number in numbers]
        means = np.array(found, np.float64).reshape(len(found), -1)
        # a property is what it is, whoever was dropped
        tasks = np.array([name not in PROPERTIES for name in self.stage.objectives])
        means[:, tasks] = told(means[:, tasks], heat.alive)
        if means.shape[1] == 1:
            return dict(zip(numbers, means[:, 0].tolist(), strict=True))
        return dict(zip(numbers, map(tuple, means.tolist()), strict=True))

    def _steadily(
        self,
        optimizer: Optimizer,
        pending: list[tuple[int, np.ndarray]],
        count: int,
        budget: int,
    ) -> Iterator[object]:
        """Ask for a candidate whenever a worker is free, and tell every score as it comes.

        Returns:
            (of the generator) how many candidates were asked for.
        """
        waiting = [number for number, _ in pending]  # to be told

        def tell_scored() -> None:
            for number in [number for number in waiting if self.scoring.scored(number)]:
                self._tell(optimizer, {number: self._told(number)})
                waiting.remove(number)

        def coming() -> Iterator[Job]:
            nonlocal count
            tell_scored()  # those that were scored when the run was interrupted
            yield from self.scoring.jobs(pending)
            while count < budget and not self.enough():
                [(number, genome)] = optimizer.ask(1)
                asked = [(self.first + number, genome)]
                self.store.record_ask(self.run_id, self.stage.name, count // self.population, asked)
                count += 1
                waiting.append(asked[0][0])
                job = self.scoring.job(*asked[0])
                if self.scoring.said(job):
                    tell_scored()
                else:
                    yield job

        with closing(self.session.measure(coming(), self.scoring.recorded_as)) as going:
            while not self.enough() and next(going, None):
                tell_scored()
                yield
        return count

    def _asynchronous(self) -> bool:
        """Whether scores are told one by one; fronts and races are of whole generations."""
        search = self.session.recipe.search
        if len(self.stage.objectives) > 1 or search.racing:
            return False
        if search.asynchronous == "auto":
            return self.session.executor.workers > 1
        return search.asynchronous

    def _tell(self, optimizer: Optimizer, told: dict[int, Told]) -> None:
        self.store.record_tell(self.run_id, self.stage.name, told)
        optimizer.tell({number - self.first: score for number, score in told.items()})

    # ── candidates ────────────────────────────────────────────────────────────────────────────

    def _optimizer(self, known: Sequence[np.ndarray]) -> Optimizer:
        search, space = self.session.recipe.search, self.space
        return optimizers.make(
            self.stage.optimizer,
            lower=space.lower,
            upper=space.upper,
            initial=known[0],
            others=known[1:],
            binary=space.binary,
            population=search.population,
            sigma=search.sigma,
            seed=self.stage.seed,
            objectives=len(self.stage.objectives),
            # nearly every path far from the start is broken: random search may start there too, and
            # where another run ended
            around=space.kind == "data_flow" or self._goes_on(),
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
        asked = [(number, genome)]
        self._record_ask(kind, generation, asked)
        yield from self.scoring.each_once(self.scoring.jobs(asked))

    def _record_ask(
        self, kind: str, generation: int, asked: Sequence[tuple[int, np.ndarray]]
    ) -> None:
        """Record candidates that no optimizer proposed, or see that they are those recorded."""
        recorded = self._recorded()
        if asked[0][0] in recorded:
            for number, genome in asked:
                check_same(number, genome, recorded)
        else:
            self.store.record_ask(self.run_id, self.stage.name, generation, asked, kind=kind)

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
