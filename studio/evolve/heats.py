"""A race as it is run: blocks of examples asked of candidates, each recorded before the next.

Knows how a candidate's evaluation grows block by block, and that a race which was interrupted goes
on where its record ends: every decision is made anew from recorded outcomes, and nobody is asked
twice. Refuses to decide who is dropped (`studio.evolve.racing`) and what a race is for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from studio.evolve import racing
from studio.evolve.executors import Job
from studio.evolve.session import Session
from studio.recipe import Stage
from studio.runs.records import Evaluation


@dataclass(frozen=True)
class Lane:
    """A task of a race: its name, and the dev examples that are asked, by their ids in order."""

    task: str
    examples: tuple[str, ...]


class Heat:
    """A race of candidates of one stage.

    Args:
        entrants: (number, genome float64 ``[d]``), in their order.
        lanes: the tasks.
        certain: per property among the objectives what it is, more is better, float64 ``[c]``.
        label: the split that evaluations are recorded under; answers recorded under "dev" count.
        seed: of the examples' order.
        keep: how many of the best are fought for, and rule: how hard.
        measure: has jobs done that record what `recorded` makes of them; may end early.
    """

    def __init__(
        self,
        session: Session,
        stage: Stage,
        entrants: Sequence[tuple[int, np.ndarray]],
        lanes: Sequence[Lane],
        certain: Sequence[np.ndarray],
        *,
        label: str,
        seed: Sequence[int],
        keep: int,
        rule: racing.Rule,
        measure: Callable[[Iterable[Job]], Iterator[object]],
    ):
        self.session, self.stage, self.entrants = session, stage, list(entrants)
        self.lanes, self.certain = lanes, certain
        self.label, self.keep, self.rule, self._measure = label, keep, rule, measure
        self._blocks = [racing.blocks(len(lane.examples), seed) for lane in lanes]
        self.alive = np.ones(len(self.entrants), bool)

    def run(self, whole: bool = False) -> Iterator[object]:
        """Race to the end, or until ``measure`` ends early; yields after everything recorded.

        Args:
            whole: whether those who are left at the end are asked all the examples.

        Returns:
            (of the generator) whether the race came to its end.
        """
        rounds = max(map(len, self._blocks))
        for number in range(rounds):
            asked = [
                [place for block in blocks[: number + 1] for place in block]
                for blocks in self._blocks
            ]
            if not (yield from self._ask(asked)):
                return False
            self._drop(asked)
            if self.alive.sum() <= self.keep or number == rounds - 1:
                break
        if whole:
            return (yield from self._ask([range(len(lane.examples)) for lane in self.lanes]))
        return True

    def _ask(self, asked: Sequence[Sequence[int]]) -> Iterator[object]:
        """Have everybody who is left asked what they were not asked yet; whether all were."""
        yield from self._measure(self._jobs(asked))
        return not any(True for _ in self._jobs(asked))

    def _jobs(self, asked: Sequence[Sequence[int]]) -> Iterator[Job]:
        for (number, genome), alive in zip(self.entrants, self.alive, strict=True):
            if not alive:
                continue
            questions = []
            for lane, places in zip(self.lanes, asked, strict=True):
                before = answered(self.session, number, lane.task, self.label)
                known = {o.example for o in before.outcomes} if before else set()
                lacking = tuple(p for p in places if lane.examples[p] not in known)
                if lacking:
                    one = self.session.asked(lane.task, "dev", lacking, self.label)
                    # whoever ended an answer once is not one who never does
                    ends = one.must_end and not known
                    questions.append(replace(one, must_end=ends, cut_loops=True))
            if questions:
                yield self.session.candidate_job(number, genome, self.stage, *questions)

    def _drop(self, asked: Sequence[Sequence[int]]) -> None:
        """Drop those who are beaten, and those who are broken."""
        racers = np.flatnonzero(self.alive)
        found = [self._found(self.entrants[racer][0]) for racer in racers]
        sound = np.array([not any(e.broken for e in row) for row in found])
        self.alive[racers[~sound]] = False
        racers, found = racers[sound], [row for row, fine in zip(found, sound, strict=True) if fine]
        if len(racers) <= self.keep:
            return
        scores = []
        for column, (lane, places) in enumerate(zip(self.lanes, asked, strict=True)):
            by_id = [{o.example: o.score for o in row[column].outcomes} for row in found]
            ids = [lane.examples[place] for place in places]
            scores.append(np.array([[row[name] for name in ids] for row in by_id]))
        wholes = [len(lane.examples) for lane in self.lanes]
        certain = [value[racers] for value in self.certain]
        self.alive[racers] = racing.survivors(scores, wholes, self.keep, certain, self.rule)

    def _found(self, number: int) -> list[Evaluation]:
        return [answered(self.session, number, lane.task, self.label) for lane in self.lanes]


def answered(session: Session, number: int, task: str, label: str) -> Evaluation | None:
    """What a candidate was asked so far, under that label or in the search; None is nothing."""
    subject = f"candidate:{number}"
    return session.evaluation(subject, task, label) or session.evaluation(subject, task, "dev")


def grown(session: Session, new: Evaluation) -> Evaluation:
    """What a candidate was asked so far and answers to a further block, in the examples' order.

    Tokens and seconds are those spent under the new one's label. Who is broken has no score,
    whatever was answered before.
    """
    before = answered(session, int(new.subject.partition(":")[2]), new.task, new.split)
    known = {o.example: o for o in (*(before.outcomes if before else ()), *new.outcomes)}
    dev = session.goals[new.task].dev
    outcomes = tuple(known[example.id] for example in dev if example.id in known)
    spent = before is not None and before.split == new.split
    return replace(
        new,
        score=0.0 if new.broken else sum(o.score for o in outcomes) / len(outcomes),
        tokens=new.tokens + (before.tokens if spent else 0),
        seconds=new.seconds + (before.seconds if spent else 0.0),
        outcomes=outcomes,
    )
