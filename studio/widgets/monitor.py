"""A run as it goes: the page's own pictures, drawn again whenever the record has grown.

Knows the record and two buttons. The work is done by a worker process: the kernel stays free, and
closing the notebook ends nothing.
"""

import threading
import time

import ipywidgets as widgets

from studio import api
from studio.errors import StudioError
from studio.runs.store import Store
from studio.ui.markup import esc
from studio.ui.strings import say
from studio.widgets import figures
from studio.widgets.looks import Box, wrapped

#: Seconds between two looks at the record.
_EVERY = 1.0
_AT_WORK = ("queued", "running", "stopping")


class Monitor(Box):
    """Watch a run, stop it, resume it.

    Args:
        run: its id, its beginning, or "last".
        store: where it is recorded; by default the workspace's.
        language: "en", "ja" or "zh".

    Attributes:
        run: the run's id.
        state: queued | running | stopping | interrupted | stopped | finished | failed.
        stop_button, resume_button: each can be pressed only while it can do something.

    Raises:
        StudioError: there is no such run.

    Example:
        >>> watch = Monitor(api.start("recipes/quick.yaml"))  # doctest: +SKIP
        >>> watch.wait()  # doctest: +SKIP
        'finished'
    """

    def __init__(self, run: str, *, store: Store | None = None, language: str = "en"):
        self._store, self._language = store or Store(), language
        self.run = self._store.run(run).id
        self.state = ""
        self._seen: tuple | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._status, self._curve, self._front = (widgets.HTML() for _ in range(3))
        self._inside, self._problem = widgets.HTML(), widgets.HTML()
        self.stop_button = self._button("stop", self.stop)
        self.resume_button = self._button("resume", self.resume)
        super().__init__(
            [
                self._status,
                widgets.HBox([self.stop_button, self.resume_button]),
                self._problem,
                self._curve,
                self._front,
                self._inside,
            ]
        )
        self._look()
        self._watch()

    def stop(self) -> None:
        """Ask the run to stop within a batch; what was recorded is kept, and can be resumed."""
        self._try(lambda: api.pause(self.run, self._store))

    def resume(self) -> None:
        """Go on with a run that was stopped or interrupted."""
        self._try(lambda: api.restart(self.run, self._store))

    def wait(self, seconds: float | None = None) -> str:
        """Block until nobody works on the run, and its last picture is drawn; returns its state."""
        self._idle.wait(seconds)
        return self.state

    def _button(self, key: str, act) -> widgets.Button:
        button = widgets.Button(
            description=say(self._language, key), layout=widgets.Layout(width="auto")
        )
        button.on_click(lambda _: act())
        return button

    def _try(self, act) -> None:
        try:
            act()
        except StudioError as error:
            self._say(error)
            return
        self._problem.value = ""
        self._look()
        self._watch()

    def _watch(self) -> None:
        """Look again and again, as long as there is something to see."""
        if self.state in _AT_WORK and self._idle.is_set():
            self._idle.clear()
            threading.Thread(target=self._keep_looking, daemon=True).start()

    def _keep_looking(self) -> None:
        try:
            while self.state in _AT_WORK:
                time.sleep(_EVERY)
                self._look()
        except StudioError as error:  # a model that went away while its run was watched
            self._say(error)
        finally:
            self._idle.set()

    def _say(self, error: StudioError) -> None:
        self._problem.value = wrapped(f'<p class="es-said">{esc(error)}</p>')

    def _look(self) -> None:
        """Draw what changed since the last look."""
        store, language = self._store, self._language
        progress = api.progress(self.run, store)
        now = (progress.run.version, progress.state)
        if now == self._seen:
            return
        self._seen = now
        self._status.value = wrapped(figures.status(self.run, store, language))
        self._curve.value = wrapped(figures.curve(self.run, store, language))
        self._front.value = wrapped(figures.front(self.run, store, language))
        if progress.best_id is not None:
            self._inside.value = wrapped(figures.inside(self.run, store, language))
        self.stop_button.disabled = progress.state not in ("queued", "running")
        self.resume_button.disabled = progress.state not in ("interrupted", "stopped", "failed")
        self.state = progress.state
