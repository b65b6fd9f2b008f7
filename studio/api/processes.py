"""Processes that outlive the one that starts them, above all the workspace's worker.

Knows how a process is detached, bounded and logged, and when the worker needs waking. Refuses to
know what it works on (`studio.api.queueing`).
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio import zero_gpu
from studio.runs import Store
from studio.runs.lock import INSTANT, WORKER, is_held
from studio.visitors import is_public
from studio.workspace import subfolder

#: Seconds within which a worker that was woken has taken its lock, unless it cannot start at all.
_WAKING = 15.0
#: Bytes of a log after which it is begun anew.
_LONG_LOG = 1 << 20


def wake(store: Store | None = None) -> bool:
    """Start a worker where runs wait and none is at work; whether one was started."""
    store = store or Store()
    if zero_gpu.available():
        return False  # a process that outlives the page would be lent no GPU
    # a glance of somebody else at the lock must not be taken for a worker
    if not store.queue() or is_held(store, WORKER, INSTANT):
        return False
    note = waking(store)
    try:
        if time.time() - note.stat().st_mtime < _WAKING:
            return False  # one is on its way
    except OSError:
        pass
    note.touch()
    detach(["worker", "--store", store.path], WORKER, store, bounded())
    return True


def waking(store: Store) -> Path:
    """The file that says since when a worker is on its way."""
    return subfolder(store.folder, "locks") / f"{WORKER}.waking"


def bounded() -> dict[str, str]:
    """Environment of a worker that leaves a core to the page; ``STUDIO_THREADS`` says otherwise.

    A public Studio's works offline and without a token: what a visitor may have of the hub was
    fetched by the page in the visitor's name.
    """
    asked = os.environ.get("STUDIO_THREADS", "").strip()
    if asked.isdigit() and int(asked) > 0:
        threads = int(asked)
    else:
        allowed = getattr(os, "sched_getaffinity", None)
        cores = len(allowed(0)) if allowed else os.cpu_count() or 1
        threads = max(1, cores - 1)
        already = os.environ.get("OMP_NUM_THREADS", "")
        threads = min(threads, int(already)) if already.isdigit() and int(already) else threads
    found = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if is_public():
        found |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_TOKEN": ""}
    return found


def python_path() -> str:
    """Where a process of the Studio finds it, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))


def detach(
    arguments: list[str], name: str, store: Store, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command of the Studio in a process that outlives this one; its log is NAME.log."""
    log = subfolder(store.folder, "logs") / f"{name}.log"
    detached: dict[str, Any] = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
        if os.name == "nt"
        else {"start_new_session": True}
    )
    long = log.is_file() and log.stat().st_size > _LONG_LOG
    with log.open("wb" if long else "ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "studio", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={
                **os.environ,
                "PYTHONPATH": python_path(),
                **(environment or {}),
            },
            **detached,
        )
    # A child that ended stays a zombie until somebody waits for it.
    threading.Thread(target=process.wait, daemon=True).start()
