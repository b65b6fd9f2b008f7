"""What a Studio that serves a page does by itself: saves runs to a volume, deletes what expired.

Knows when, not how: snapshots are `studio.runs.snapshots`, owners' things `studio.api.owners`.
Queued runs need no looking after here: whoever looks at one wakes a worker.
"""

import logging
import threading

from studio import api
from studio.runs import Store, snapshots
from studio.visitors import EXPIRY_DAYS, is_public

#: Seconds between two looks at what has expired.
EVERY = 3600.0

_log = logging.getLogger(__name__)


def begin(store: Store) -> threading.Event:
    """Keep house from now on, in threads that end with the process; returns what stops expiry."""
    stopped = threading.Event()
    snapshots.keep(store)
    if is_public():
        threading.Thread(target=_expire, args=(store, stopped), daemon=True).start()
    return stopped


def _expire(store: Store, stopped: threading.Event) -> None:
    while True:
        try:
            api.expire(EXPIRY_DAYS, store)
        except Exception:  # a full disk today is no reason not to look tomorrow
            _log.exception("what expired could not be deleted")
        if stopped.wait(EVERY):
            return
