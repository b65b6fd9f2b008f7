"""A chat turn on ZeroGPU: one call, plain data in, words out.

The function that is lent the GPU runs in a fork that may be of long ago, with no database: it opens
the model itself, by name or from what was recorded of a candidate, and keeps the one it opened last
for as long as it lives. Refuses to know who waits: the scheduler of the Space does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from studio.errors import StudioError
from studio.evolve import spaces
from studio.evolve.spaces import Ancestor
from studio.recipe import Recipe
from studio.runs.records import Candidate, Run
from studio.runs.store import Store
from studio.speech import Settings, speak
from studio.voices import Voice
from studio.zero_gpu import gpu

#: Seconds for a worker to start and to open a model; seconds for a token; and the most to ask for.
OPENING, PER_TOKEN, LONGEST = 20.0, 0.1, 110.0


@dataclass(frozen=True, eq=False)
class Order:
    """A turn, and all it takes to answer elsewhere; plain data.

    Attributes:
        name: of a source; of a candidate what it is kept under, "RUN:12".
        candidate: None for a source.
        turns, settings: of `studio.speech.speak`.
    """

    name: str
    candidate: Ancestor | None
    turns: list[dict[str, Any]]
    settings: Settings


def recorded(store: Store, run: Run, candidate: Candidate) -> Ancestor:
    """A candidate in plain data: all it takes to make it again without the store."""
    recipe = Recipe.from_yaml(run.recipe, f"The recipe of run {run.id}")
    return Ancestor(
        run.recipe,
        spaces.ancestors(recipe, store),
        candidate.stage,
        spaces.recorded_winners(store, run.id, recipe, candidate.stage),
        candidate.genome,
    )


def words(order: Order) -> Iterator[str]:
    """The answer, growing; closing the iterator gives the GPU back.

    Raises:
        StudioError: of the model, as `studio.speech.speak`; or no GPU is to be had now.
    """
    going = answer(order)
    try:
        while True:
            try:
                kind, said = next(going)
            except StopIteration:
                return
            except Exception as error:  # of the scheduler: ours are messages
                why = " ".join(str(getattr(error, "message", "") or error).split())[:300]
                raise StudioError(
                    f"ZeroGPU lends no GPU now ({why.rstrip('.') or type(error).__name__}); ask "
                    "again later."
                ) from error
            if kind == "failed":
                raise StudioError(said)
            if kind == "broken":
                raise RuntimeError(said)
            yield said
    finally:
        going.close()


def lease(order: Order) -> float:
    """Seconds to ask the GPU for; the fewer, the sooner its turn comes."""
    return min(LONGEST, OPENING + PER_TOKEN * order.settings.max_new_tokens)


#: What this worker opened last.
_kept: tuple[str, Voice] | None = None


@gpu(duration=lease)
def answer(order: Order) -> Iterator[tuple[str, str]]:
    """Messages (kind, text): "words" so far; "failed", a sentence; "broken", an error's name.

    Whatever goes wrong is a message, for an exception would lose its words on the way.
    """
    try:
        for said in speak(_opened(order), order.turns, order.settings):
            yield "words", said
    except StudioError as error:
        yield "failed", str(error)
    except Exception as error:
        yield "broken", f"{type(error).__name__}: {error}"


def _opened(order: Order) -> Voice:
    from studio import speakers

    global _kept
    if _kept is None or _kept[0] != order.name:
        _kept = None  # the memory first
        if order.candidate is None:
            _, load = speakers.source(order.name)
        else:
            made = order.candidate
            recipe = Recipe.from_yaml(made.recipe)
            models = spaces.reopen_models(recipe, made.ancestors)
            space = spaces.won_space(recipe, models, made.stage, made.winners)
            _, load = speakers.candidate(space, recipe, made.genome, order.name)
        voice = Voice()
        voice.take(load())
        _kept = order.name, voice
    return _kept[1]
