"""Talking to a model: answers that grow token by token, from a small pool of live models.

Knows how to find the model behind a name (a source, or a candidate of a run) and how to decode one
conversation. Refuses to know pages and terminals. A pool's models are its own: never those of a run
(DESIGN.md, contract 6); each speaks one turn at a time, the least recently used leaves when a new
one needs the room.
"""

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.runs.records import Candidate, Run, split_reference
from studio.runs.store import Store

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    _Speaker = tuple[PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin | None]


#: Live models kept at most, whatever memory there is.
MOST = 4
MAX_NEW_TOKENS = 4096


class _Voice:
    """A place in the pool: a model once it is loaded, and the lock of whoever makes it speak."""

    def __init__(self) -> None:
        # Not re-entrant, so that a generator closed by another thread can release it.
        self.lock = threading.Lock()
        self.let_go()

    def let_go(self) -> None:
        self.model: PreTrainedModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.processor: ProcessorMixin | None = None


class Pool:
    """Live models by name, the least recently used first."""

    def __init__(self, most: int = MOST):
        self._most = most
        self._voices: OrderedDict[object, _Voice] = OrderedDict()
        self._lock = threading.Lock()

    def voice(self, key: object) -> _Voice:
        """The place of a key, made if absent, and now the most recently used."""
        with self._lock:
            voice = self._voices.setdefault(key, _Voice())
            self._voices.move_to_end(key)
            return voice

    def make_room(self, needed: int) -> None:
        """Let silent models go until ``needed`` bytes are free and a place is."""
        with self._lock:
            loaded = [(k, v) for k, v in self._voices.items() if v.model is not None]
            count = len(loaded)
            for key, voice in loaded:
                if count < self._most and _available() >= needed:
                    return
                if voice.lock.acquire(blocking=False):
                    voice.let_go()
                    del self._voices[key]
                    voice.lock.release()
                    count -= 1
                    _collect()

    def clear(self) -> None:
        """Let every silent model go."""
        self.make_room(1 << 62)


_POOL = Pool()


def stream(
    model: str,
    messages: list[dict[str, Any]],
    store: Store | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
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
        max_new_tokens: an answer still unfinished then is cut off.
        temperature: 0 decodes greedily, as evaluation does.

    Raises:
        StudioError: unknown model or candidate, an empty or too long question, a broken candidate,
            a picture that cannot be opened.

    Example:
        >>> question = [{"role": "user", "content": "Tom has 3 apples and buys 4. How many?"}]
        >>> for text in stream("bonsai-math", question):  # doctest: +SKIP
        ...     print(text)
    """
    turns = _checked(messages)
    if not 0 <= temperature <= 5:
        raise StudioError(f"The temperature is {temperature:g}; choose one between 0 and 5.")
    if not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
        raise StudioError(f"Answers are 1 to {MAX_NEW_TOKENS} tokens long, not {max_new_tokens}.")
    key, load = _find(model, store)
    voice = _POOL.voice(key)
    with voice.lock:
        if voice.model is None:
            voice.model, voice.tokenizer, voice.processor = load()
        inputs, room = _encode(voice, turns)
        yield from _speak(voice, inputs, min(max_new_tokens, room), temperature)


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


def _find(model: str, store: Store | None) -> tuple[object, Callable[[], tuple]]:
    """What identifies a model in the pool, and how to load it."""
    reference = split_reference(model)
    if reference is None:
        return ("source", model), lambda: _load_source(model)
    store = store or Store()
    run = store.run(reference[0])
    candidate = store.pick(run.id, reference[1])
    return (
        ("candidate", store.path, run.id, candidate.id),
        lambda: _load_candidate(store, run, candidate),
    )


def _load_source(name: str) -> "_Speaker":
    # Imported here and below: torch comes along, and a page must open before torch is there.
    import torch

    from studio.models import open_source
    from studio.models.precision import default_device

    source, device = open_source(name), default_device()
    # A CPU computes in float32 anyway, slower from bf16; runs score their sources so by default.
    dtype = torch.float32 if device.type == "cpu" else source.stored
    _POOL.make_room(source.parameters * dtype.itemsize)
    return source.load(dtype, device), source.tokenizer(), source.processor()


def _load_candidate(store: Store, run: Run, candidate: Candidate) -> "_Speaker":
    from studio.evolve.spaces import rebuild_space
    from studio.recipe import Recipe

    recipe = Recipe.from_yaml(run.recipe, f"The recipe of run {run.id}")
    space = rebuild_space(store, run.id, candidate.stage)
    _POOL.make_room(space.memory(recipe.precision, recipe.base_storage))
    live = space.live(recipe.precision, recipe.base_storage)
    live.apply(candidate.genome)
    # Only the model stays: task vectors, or layers that are not on the path, go with `live`.
    return live.model, live.tokenizer, live.processor


def _encode(voice: _Voice, turns: list[dict[str, Any]]) -> "tuple[dict[str, torch.Tensor], int]":
    """Inputs of the newest turns that fit the model, and how many tokens are left to answer."""
    text = voice.model.config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or 1 << 30
    while True:
        inputs = _inputs(voice, turns)
        length = inputs["input_ids"].shape[1]
        # At least an eighth of the window is kept for the answer.
        if length <= longest - max(1, longest // 8):
            return inputs, longest - length
        if len(turns) == 1:
            raise StudioError(
                f"The question is {length} tokens long and this model reads {longest} in all; "
                "shorten it."
            )
        # A question leaves together with its answer: templates want the roles to alternate.
        first = next(i for i, turn in enumerate(turns) if turn["role"] != "system" or i)
        until = next(
            (i for i in range(first + 1, len(turns)) if turns[i]["role"] == "user"), len(turns) - 1
        )
        turns = turns[:first] + turns[until:] if until > first else turns[-1:]


def _inputs(voice: _Voice, turns: list[dict[str, Any]]) -> "dict[str, torch.Tensor]":
    """What a forward pass takes of a conversation, its pictures before the words they came with."""
    import torch

    from studio.evolve import library
    from studio.evolve.generate import chat_prompt, encode

    model, tokenizer, processor = voice.model, voice.tokenizer, voice.processor
    said = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    pictures = [turn["picture"] for turn in turns if turn["picture"] is not None]
    if processor is None or not pictures:
        ids = encode(tokenizer, chat_prompt(tokenizer, said))
        return {"input_ids": torch.tensor([ids], device=model.device)}
    for message, turn in zip(said, turns, strict=True):
        parts = [{"type": "text", "text": turn["content"]}]
        message["content"] = parts if turn["picture"] is None else [{"type": "image"}, *parts]
    prompt = chat_prompt(processor, said)
    return library.encode(tokenizer, [prompt], [pictures], processor, model)


def _speak(
    voice: _Voice, inputs: "dict[str, torch.Tensor]", most: int, temperature: float
) -> Iterator[str]:
    """Decode one token at a time: nothing runs between two items, so closing is stopping."""
    import torch
    from transformers import DynamicCache

    from studio.evolve.generate import stop_ids

    model, tokenizer = voice.model, voice.tokenizer
    stops = set(stop_ids(model, tokenizer))
    cache = DynamicCache(config=model.config)
    answer: list[int] = []
    shown = ""
    while len(answer) < most:
        token = _next(model, inputs, cache, temperature)
        if token in stops:
            break
        answer.append(token)
        inputs = {"input_ids": torch.tensor([[token]], device=model.device)}
        # A character of several tokens is shown once it is whole.
        text = tokenizer.decode(answer, skip_special_tokens=True).rstrip("\ufffd")
        if text != shown:
            shown = text
            yield text.strip()


def _next(model, inputs: "dict[str, torch.Tensor]", cache, temperature: float) -> int:
    import torch

    with torch.inference_mode():
        logits = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[
            0, -1
        ]
        if not logits.isfinite().all():
            raise StudioError(
                "This candidate is broken (its numbers overflow) and cannot speak; choose another."
            )
        if temperature == 0:
            return int(logits.argmax())
        return int(torch.multinomial((logits.float() / temperature).softmax(-1), 1))


def _available() -> int:
    """Bytes free on the device that models are loaded to."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


def _collect() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
