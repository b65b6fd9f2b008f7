"""Runs: the recorded evolutions, and reading them."""

from studio.runs.progress import Progress
from studio.runs.records import Candidate, Evaluation, Event, Outcome, Run
from studio.runs.store import Store

__all__ = ["Candidate", "Evaluation", "Event", "Outcome", "Progress", "Run", "Store"]
