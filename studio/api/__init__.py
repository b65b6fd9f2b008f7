"""The steps a user takes, one function each: what the terminal, the page and notebooks all call.

    >>> from studio import api
    >>> run = api.evolve("recipes/quick.yaml")          # doctest: +SKIP
    >>> api.export(run, "my-model")                     # doctest: +SKIP

Knows how the rooms fit together. Refuses to know how anything is shown, and adds nothing a room
could do itself. ``store`` is always the workspace's own when left out.
"""

from studio.api.archives import archive, unarchive
from studio.api.catalogue import cards, describe, memory, models, plan
from studio.api.making import OnBytes, card, evaluate, export, exports, merge, push, subject
from studio.api.owners import expire, forget, share
from studio.api.probing import Estimate, estimate, probe
from studio.api.processes import detach, wake
from studio.api.queueing import finish, pause, repeat, reseeded, restart, start, work_off
from studio.api.reading import curve, front, progress, report, scores_of, strip
from studio.api.recipes import duplicate, starting
from studio.api.samples import PAPER_RUNS, SAMPLE_RUN, bundled_runs, open_store
from studio.api.sheets import candidates_csv
from studio.api.working import OnProgress, create, delete, evolve, resume, track
from studio.evolve.placing import Place
from studio.runs.snapshots import keep, restore, snapshot

__all__ = [
    "PAPER_RUNS", "SAMPLE_RUN", "Estimate", "OnBytes", "OnProgress", "Place", "archive",
    "bundled_runs", "candidates_csv", "card", "cards", "create", "curve", "delete", "describe",
    "detach", "duplicate", "estimate", "evaluate", "evolve", "expire", "export", "exports",
    "finish", "forget", "front", "keep", "memory", "merge", "models", "open_store", "pause",
    "plan", "probe", "progress", "push", "repeat", "report", "reseeded", "restart", "restore",
    "resume", "scores_of", "share", "snapshot", "start", "starting", "strip", "subject",
    "track", "unarchive", "wake", "work_off",
]  # fmt: skip
