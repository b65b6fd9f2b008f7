"""Talking to a model: answers that grow token by token, from a small pool of live models.

Knows how to find the model behind a name (a source, or a candidate of a run) and whose turn it is
to be answered. Refuses to know pages and terminals, how a token is chosen (`studio.speech`) and
which models are held (`studio.voices`).
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio import zero_gpu
from studio.errors import StudioError
from studio.runs.lock import is_held
from studio.runs.records import RUNNING, split_reference
from studio.runs.store import Store
from studio.speech import MAX_NEW_TOKENS, Settings, speak
from studio.voices import Pool, Turn, Waiting

if zero_gpu.available():  # what is lent the GPU must be known before the page is launched
    from studio import borrowed  # noqa: F401

if TYPE_CHECKING:
    from studio.speakers import Loading
    from studio.voices import Speaker

__all__ = [
    "MAX_NEW_TOKENS", "Settings", "Waiting", "close", "leave_a_core", "moments", "named", "sees",
    "stream", "warm",
]  # fmt: skip

#: Seconds between two looks at who comes before.
PATIENCE = 0.5

_POOL = Pool()


@dataclass(frozen=True)
class _Found:
    """What identifies a model in the pool, and how to load it: ``prepare`` says how many bytes that
    takes, and what does it."""

    key: object
    prepare: "Callable[[], Loading]"


def stream(
    model: str,
    messages: list[dict[str, Any]],
    store: Store | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    repetition_penalty: float = 1.0,
) -> Iterator[str]:
    """The answer to a conversation, growing: each item is the whole text so far.

    Closing the iterator stops the model before its next token. When the conversation is longer than
    the model can read, its oldest turns are left out.

    Args:
        model: a source (bundled name, folder, hub id), or a candidate: "RUN:12", "RUN:best".
        messages: ``{"role": "user" | "assistant" | "system", "content": text}``, the user's last;
            with a ``"picture"``, an encoded image file or the path of one, where there is one to
            look at. A model that sees none (`sees`) reads the text alone.
        store: where the runs are; by default the workspace's.
        max_new_tokens, temperature, top_p, seed, repetition_penalty: as in `Settings`.

    Raises:
        StudioError: unknown model or candidate, an empty or too long question, a broken candidate,
            a picture that cannot be opened, a setting outside its range.

    Example:
        >>> question = [{"role": "user", "content": "Tom has 3 apples and buys 4. How many?"}]
        >>> for text in stream("bonsai-math", question):  # doctest: +SKIP
        ...     print(text)
    """
    settings = Settings(max_new_tokens, temperature, top_p, seed, repetition_penalty)
    for moment in moments(model, messages, settings, store):
        if isinstance(moment, str):
            yield moment


def moments(
    model: str,
    messages: list[dict[str, Any]],
    settings: Settings | None = None,
    store: Store | None = None,
) -> Iterator[Waiting | str]:
    """As `stream`, and why there are no words yet while others speak or memory is not free."""
    turns, settings = _checked(messages), settings or Settings()
    settings.check()
    if zero_gpu.available():
        yield Waiting(0)
        yield from _borrowed(model, turns, settings, store)
        return
    found = _find(model, store)
    with _POOL.turn(found.key) as turn:
        before = _POOL.before(turn)
        while before:
            yield Waiting(before)
            before = _POOL.before(turn, PATIENCE)
        yield from _ready(turn, found, store)
        yield from speak(turn.voice, turns, settings)


def warm(model: str, store: Store | None = None) -> None:
    """Load a model before anybody asks; raises as `stream`, of the model."""
    if zero_gpu.available():  # it would be loaded where nobody hears it
        return
    found = _find(model, store)
    with _POOL.turn(found.key) as turn:
        while _POOL.before(turn, PATIENCE):
            pass
        for _ in _ready(turn, found, store):
            return  # no memory just now: whoever asks will wait for it


def sees(model: str, store: Store | None = None) -> bool:
    """Whether a model looks at pictures; reads no weights. Raises as `stream`, of the model."""
    from studio.evolve.spaces import rebuild_space
    from studio.models import open_source

    reference = split_reference(model)
    if reference is None:
        return open_source(model).frame is not None
    store = store or Store()
    run = store.run(reference[0]).id
    return rebuild_space(store, run, store.pick(run, reference[1]).stage).frame is not None


def named(model: str, store: Store | None = None) -> str:
    """Who it is that speaks: of "RUN:best" the candidate that is best just now, as "RUN:12"."""
    reference = split_reference(model)
    if reference is None:
        return model
    store = store or Store()
    run = store.run(reference[0]).id
    return f"{run}:{store.pick(run, reference[1]).id}"


def leave_a_core() -> None:
    """From now on this process computes on all cores but one, which whoever serves a page needs.

    Where threads outnumber free cores, they spin while they wait for each other.
    """
    import torch

    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    torch.set_num_threads(min(torch.get_num_threads(), max(1, cores - 1)))


def close() -> None:
    """Free the memory of all live models that are not speaking just now."""
    _POOL.clear()


def _checked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("role", "content", "picture")
    turns = [{key: message.get(key) for key in keys} for message in messages]
    for turn in turns:
        if turn["role"] not in ("system", "user", "assistant") or not isinstance(
            turn["content"], str
        ):
            raise StudioError("Every message needs a role (user or assistant) and a text.")
    if not turns or turns[-1]["role"] != "user" or not turns[-1]["content"].strip():
        raise StudioError("There is no question; write one.")
    return turns


def _ready(turn: Turn, found: _Found, store: Store | None) -> Iterator[Waiting]:
    """Load the model unless it is there; waits for memory only where a run will free some."""
    if turn.voice.model is not None:
        return
    while not _POOL.loading.acquire(timeout=PATIENCE):
        yield Waiting(1)
    try:
        needed, load = found.prepare()
        while not _POOL.make_room(needed) and (run := _at_work(store)):
            yield Waiting(0, run)
            time.sleep(PATIENCE)
        turn.voice.take(_loaded(load))
    finally:
        _POOL.loading.release()


def _loaded(load: "Callable[[], Speaker]") -> "Speaker":
    import torch

    try:
        return load()
    except torch.OutOfMemoryError as error:
        raise StudioError(
            "This model does not fit into the memory that is free; stop what else uses it, or talk "
            "to a smaller one."
        ) from error


def _at_work(store: Store | None) -> str:
    """The name of a run that is being worked on, '' if none is."""
    store = store or Store()
    for run in store.runs():
        if run.status == RUNNING and is_held(store, run.id):
            return run.name
    return ""


def _find(model: str, store: Store | None) -> _Found:
    from studio import speakers

    reference = split_reference(model)
    if reference is None:
        return _Found(("source", model), lambda: speakers.source(model))
    store = store or Store()
    run = store.run(reference[0])
    candidate = store.pick(run.id, reference[1])

    def prepare() -> "Loading":
        from studio.evolve.spaces import rebuild_space
        from studio.recipe import Recipe

        recipe = Recipe.from_yaml(run.recipe, f"The recipe of run {run.id}")
        space = rebuild_space(store, run.id, candidate.stage)
        return speakers.candidate(space, recipe, candidate.genome, f"{run.id}:{candidate.id}")

    return _Found(("candidate", store.path, run.id, candidate.id), prepare)


def _borrowed(
    model: str, turns: list[dict[str, Any]], settings: Settings, store: Store | None
) -> Iterator[str]:
    """A turn where the GPU is lent by the call; the models of this process stay unused."""
    from studio import borrowed

    reference, made = split_reference(model), None
    if reference is not None:
        store = store or Store()
        run = store.run(reference[0])
        candidate = store.pick(run.id, reference[1])
        made, model = borrowed.recorded(store, run, candidate), f"{run.id}:{candidate.id}"
    return borrowed.words(borrowed.Order(model, made, turns, settings))
