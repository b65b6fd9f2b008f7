"""Work beside the kernel: one thread, in which the newest wish counts.

Knows how to leave off what has become stale; refuses to know what is done. A widget's events come
in the kernel's own thread, which must stay free: a slider that moves ten times a second gives ten
wishes, of which the last is carried out.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from studio.errors import StudioError

log = logging.getLogger("studio.widgets")
#: What `Newest` hands to work, to be called between its steps: raises `LeftOff` once it is stale.
Check = Callable[[], None]
_NOTHING = object()


class LeftOff(Exception):
    """A newer wish came, or somebody pressed stop."""


class Newest:
    """Carries out the newest wish in a thread of its own, which lasts as long as there is work.

    Args:
        work: called with (wish, check).
        said: told a sentence when the work failed.
    """

    def __init__(self, work: Callable[[Any, Check], None], said: Callable[[str], None]):
        self._work, self._said = work, said
        self._changed = threading.Condition()
        self._wish: Any = _NOTHING
        self._number = 0
        self._busy = False

    def give(self, wish: Any) -> None:
        """Do this next, and leave off what is being done; returns at once."""
        with self._changed:
            self._wish = wish
            self._number += 1
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Leave off what is being done before its next step, and forget what was wished."""
        with self._changed:
            self._wish = _NOTHING
            self._number += 1

    def wait(self, seconds: float | None = None) -> bool:
        """Block until nothing is left to do; False if that takes longer than ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._wish is _NOTHING:
                    self._busy = False
                    self._changed.notify_all()
                    return
                wish, number = self._wish, self._number
                self._wish = _NOTHING
            try:
                self._work(wish, lambda number=number: self._check(number))
            except LeftOff:
                pass
            except StudioError as error:
                self._said(str(error))
            except Exception as error:
                log.exception("in a widget's work")
                self._said(f"{type(error).__name__}: {error}")

    def _check(self, number: int) -> None:
        if number != self._number:
            raise LeftOff
