"""Runs: the recorded evolutions, and reading them."""

from studio.runs.progress import Progress
from studio.runs.store import Candidate, Evaluation, Event, Outcome, Run, Store

__all__ = ["Candidate", "Evaluation", "Event", "Outcome", "Progress", "Run", "Store"]
