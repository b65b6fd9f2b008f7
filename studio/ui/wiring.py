"""How the page's events reach its handlers: with who asks, in which language, errors as toasts.

Every handler is an HTTP endpoint, so every handler is bound here and is told of its visitor first;
what it is asked to touch it asks the visitor for. Knows Gradio and requests; refuses to know any
tab.
"""

import functools
import inspect
import logging
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.models.access import Token, asking_with
from studio.runs import Progress, Run
from studio.ui import strings
from studio.ui.markup import esc
from studio.ui.sentences import translate
from studio.visitors import Visitor, is_public, owner_of

log = logging.getLogger("studio.ui")


@dataclass(frozen=True)
class Visit:
    """One request of a page.

    Attributes:
        who: whoever asks.
        language: that the page speaks.
        token: the browser's, '' before it has one.
        query: of the page's address.
        event: what the page says of the event, such as the point that was clicked.
    """

    who: Visitor = Visitor()
    language: str = "en"
    token: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    event: Mapping[str, Any] = field(default_factory=dict)

    def say(self, key: str, **values: object) -> str:
        """Words in the page's language; not escaped."""
        return strings.say(self.language, key, **values)

    def sentence(self, error: object) -> str:
        """What a room said, in the page's language; not escaped."""
        return translate(self.language, str(error))

    def of(self, token: str, guest: frozenset[str]) -> "Visit":
        """The same visit of a browser that has just been given a token, or followed a link."""
        who = replace(self.who, guest=guest)
        if who.public and not who.owner:
            who = replace(who, owner=owner_of("token", token))
        return replace(self, who=who, token=token)


@dataclass(frozen=True)
class Look:
    """The watched run, as the page looks at it now; ``fresh`` if it was another one before."""

    visit: Visit
    run: Run
    progress: Progress
    fresh: bool


@dataclass(frozen=True)
class Panel:
    """A part of the page that follows the watched run.

    Attributes:
        name: unique on the page.
        parts: the components that it draws.
        key: of a look; the panel is drawn again when this changes.
        draw: called as ``draw(look, *values of given)``; returns a value per part.
        blank: what the parts show where there is no run, by language.
        given: components whose values ``draw`` wants to know.
        slow: whether drawing may wait for torch; such panels come after the quick ones.
    """

    name: str
    parts: Sequence[Any]
    key: Callable[[Look], Hashable]
    draw: Callable[..., Sequence[Any]]
    blank: Callable[[str], Sequence[Any]]
    given: Sequence[Any] = ()
    slow: bool = False


class Wires:
    """Binds handlers to events.

    Args:
        keeper: the browser's memory of its visitor: ``{"token": …, "language": …}``.
        guest: ids of the runs that this page opened through read-only links; a server-side state,
            so that no browser can add to it.
    """

    def __init__(self, keeper: gr.BrowserState, guest: gr.State):
        self.keeper, self.guest = keeper, guest

    def on(
        self,
        triggers: Any,
        handler: Callable,
        inputs: Any = None,
        outputs: Any = None,
        *,
        shown: str | None = None,
        **options: Any,
    ) -> Any:
        """Have ``handler(visit, *values of inputs)`` called, and its result put into ``outputs``.

        Args:
            triggers: event methods of components, such as ``button.click``.
            shown: Gradio's ``show_progress``; by default nothing shows that it is waited for.
            options: more of ``gr.on``.
        """
        inputs = _listed(inputs)
        events = _listed(triggers)
        return gr.on(
            events,
            self._bound(handler),
            [self.keeper, self.guest, *inputs],
            outputs,
            show_progress=shown or "hidden",
            api_visibility="private",
            **options,
        )

    def then(self, event: Any, handler: Callable, inputs=None, outputs=None, **options: Any) -> Any:
        """As :meth:`on`, after another event: pass its ``then`` or ``success``."""
        shown = options.pop("shown", None)
        return event(
            self._bound(handler),
            [self.keeper, self.guest, *_listed(inputs)],
            outputs,
            show_progress=shown or "hidden",
            api_visibility="private",
            **options,
        )

    def _bound(self, handler: Callable) -> Callable:
        """The handler as Gradio calls it: a generator if it is one."""
        if inspect.isgeneratorfunction(handler):

            @functools.wraps(handler)
            def streamed(
                request: gr.Request,
                event: gr.EventData,
                profile: gr.OAuthProfile | None,
                access: gr.OAuthToken | None,
                *values: Any,
            ) -> Iterator[Any]:
                visit = _visit(request, event, profile, access, *values[:2])
                try:
                    yield from _asking(visit.who.hub_token, handler(visit, *values[2:]))
                except gr.Error:
                    raise
                except Exception as error:
                    raise told(error, handler, visit.language) from error

            return _plain(streamed)

        @functools.wraps(handler)
        def called(
            request: gr.Request,
            event: gr.EventData,
            profile: gr.OAuthProfile | None,
            access: gr.OAuthToken | None,
            *values: Any,
        ) -> Any:
            visit = _visit(request, event, profile, access, *values[:2])
            try:
                with asking_with(visit.who.hub_token):
                    return handler(visit, *values[2:])
            except gr.Error:
                raise
            except Exception as error:
                raise told(error, handler, visit.language) from error

        return _plain(called)


def _asking(token: Token, steps: Iterator[Any]) -> Iterator[Any]:
    """The same steps, the hub asked with a visitor's token in each: they may change threads."""
    with closing(steps):
        while True:
            with asking_with(token):
                try:
                    step = next(steps)
                except StopIteration:
                    return
            yield step


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _plain(function: Callable) -> Callable:
    """Without the wrapped handler's signature: Gradio is to see the wrapper's."""
    del function.__wrapped__
    function.__annotations__ = {
        "request": gr.Request,
        "event": gr.EventData,
        "profile": gr.OAuthProfile | None,
        "access": gr.OAuthToken | None,
    }
    return function


def _visit(
    request: gr.Request,
    event: gr.EventData,
    profile: gr.OAuthProfile | None,
    access: gr.OAuthToken | None,
    kept: Any,
    guest: Any,
) -> Visit:
    """Who asks, from what Gradio knows of a request. Nothing of it is believed but as it is meant:
    a token names nobody but its bearer."""
    kept = kept if isinstance(kept, dict) else {}
    chosen, token = kept.get("language"), kept.get("token")
    data = getattr(event, "_data", None)
    return Visit(
        visitor(profile, access, token, guest),
        chosen if chosen in strings.LANGUAGES else accepted(request),
        token if isinstance(token, str) else "",
        dict(getattr(request, "query_params", None) or {}),
        data if isinstance(data, dict) else {"value": data},
    )


def visitor(profile: Any, access: Any, token: Any, guest: Any = None) -> Visitor:
    """The visitor behind an account or a browser's token."""
    seen = frozenset(guest or ())
    name = profile.username if profile else ""
    secret = access.token if access else None
    if not is_public():
        return Visitor(guest=seen, token=secret)
    host = bool(name) and name == os.environ.get("SPACE_AUTHOR_NAME")
    owner = ""
    if name:
        owner = owner_of("account", name)
    elif isinstance(token, str) and len(token) >= 32:
        owner = owner_of("token", token)
    return Visitor(owner, True, seen, host, secret)


def accepted(request: gr.Request | None) -> str:
    """The language that the reader's browser asks for."""
    headers = getattr(request, "headers", None) or {}
    return strings.language(headers.get("accept-language"))


def told(error: Exception, handler: Callable, language: str) -> gr.Error:
    """An error as a toast: a StudioError's sentence; of anything else, the log has it all."""
    if isinstance(error, StudioError):
        return gr.Error(
            esc(translate(language, str(error))),
            duration=15,
            print_exception=False,
            title=strings.say(language, "error"),
        )
    log.exception("in %s", handler.__name__)
    return gr.Error(
        strings.say(language, "unexpected"),
        print_exception=False,
        title=strings.say(language, "error"),
    )


def warn(visit: Visit, sentence: object) -> None:
    """A warning as a toast, in the page's language."""
    gr.Warning(esc(visit.sentence(sentence)), title=visit.say("warning"))


def note(visit: Visit, key: str, **values: object) -> None:
    """A few words as a toast."""
    gr.Info(esc(visit.say(key, **values)), title=visit.say("warning"))
