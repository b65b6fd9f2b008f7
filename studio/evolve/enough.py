"""When a search has seen enough: how many candidates there may be, and what ends it before that.

Knows the recipe's budget, and that the event ``enough`` in the log ends a search for good, so that
a resumed run comes to the same end. Refuses to know what becomes of what was asked by then.
"""

from studio.evolve.session import Session
from studio.recipe import Stage


class Enough:
    """Whether the search of a stage ends here; called to ask."""

    def __init__(self, session: Session, stage: Stage):
        self._session, self._stage = session, stage

    def budget(self) -> int:
        """How many candidates there may be: a baseline gets no more than what it stands beside."""
        most = self._session.recipe.budget.candidates
        if not self._stage.baseline:
            return most
        beside = self.beside()
        beyond = {
            number
            for event in self._session.events(stage=beside)
            if event.kind in ("start", "favorite")
            for number in event.payload["ids"]
        }
        found = self._session.store.candidates(self._session.run, beside)
        return min(most, sum(bool(c.scores) and c.id not in beyond for c in found))

    def beside(self) -> str:
        """The search that a baseline stands beside; of any other its own name."""
        if not self._stage.baseline:
            return self._stage.name
        stages = self._session.recipe.stages()
        return stages[self._index() - len(stages) // 2].name

    def _index(self) -> int:
        return [stage.name for stage in self._session.recipe.stages()].index(self._stage.name)

    def __call__(self) -> bool:
        """Whether the search ends here: its time is over, or somebody has seen enough.

        Once it does, the log says so: a resumed run has to come to the same end.
        """
        if self._told_enough():
            return True
        hours = self._session.recipe.budget.hours
        if hours is not None:
            part = (self._index() + 1) / len(self._session.recipe.stages())
            if self._session.store.run(self._session.run).seconds >= part * hours * 3600:
                self._session.append("enough", {"stage": self._stage.name})
                return True
        return False

    def _told_enough(self) -> bool:
        """Whether the log has an ``enough`` for this stage.

        One that names no stage is a user's. It ends the run's own searches, and a baseline if it
        came after that had begun: for as many candidates as they had, a baseline is due.
        """
        begun = not self._stage.baseline
        for event in self._session.events():
            payload = event.payload
            if event.kind == "phase" and payload["name"] == self._stage.name:
                begun = True
            elif event.kind == "enough" and payload.get("stage", "") in ("", self._stage.name):
                if begun:
                    return True
        return False
