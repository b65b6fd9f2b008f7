"""A conversation said by a resident model, one token at a time.

Knows prompts, windows and how the next token is chosen. Refuses to know where the model comes from
and who else is waiting for it (`studio.voices`). Nothing runs between two items, so that closing
the iterator is stopping.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.voices import Voice

if TYPE_CHECKING:
    import torch

MAX_NEW_TOKENS = 4096


@dataclass(frozen=True)
class Settings:
    """How an answer is decoded.

    Attributes:
        max_new_tokens: an answer still unfinished then is cut off.
        temperature: 0 decodes greedily, as evaluation does.
        top_p: where tokens are drawn, only from the likeliest whose probabilities add up to this.
        seed: of the draws; the same one gives the same answer on the same device.
        repetition_penalty: of tokens that were read or said before (arXiv 1909.05858); 1 is none.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0

    def check(self) -> None:
        """Raises StudioError where a value is outside its range."""
        if not 0 <= self.temperature <= 5:
            raise StudioError(f"The temperature is {self.temperature:g}; choose one from 0 to 5.")
        if not 0 < self.top_p <= 1:
            raise StudioError(f"Top-p is {self.top_p:g}; choose a share above 0, at most 1.")
        if not 1 <= self.repetition_penalty <= 2:
            raise StudioError(
                f"The repetition penalty is {self.repetition_penalty:g}; choose one from 1 to 2."
            )
        if not 1 <= self.max_new_tokens <= MAX_NEW_TOKENS:
            raise StudioError(
                f"Answers are 1 to {MAX_NEW_TOKENS} tokens long, not {self.max_new_tokens}."
            )
        if not 0 <= self.seed < 1 << 63:
            raise StudioError(f"The seed is {self.seed}; choose a whole number, 0 or more.")


def speak(voice: Voice, turns: list[dict[str, Any]], settings: Settings) -> Iterator[str]:
    """The answer to a conversation, growing: each item is the whole text so far.

    Args:
        turns: ``{"role", "content", "picture"}``, the user's last; the oldest are left out where
            the conversation is longer than the model can read.

    Raises:
        StudioError: the question alone is too long, the model is broken, or memory ran out.
    """
    import torch
    from transformers import DynamicCache

    from studio.evolve.generate import stop_ids

    model, tokenizer = voice.model, voice.tokenizer
    inputs, room = _encode(voice, turns)
    stops = set(stop_ids(model, tokenizer))
    cache = DynamicCache(config=model.config)
    draws = torch.Generator(model.device).manual_seed(settings.seed)
    heard = inputs["input_ids"][0].tolist()
    answer: list[int] = []
    shown = ""
    while len(answer) < min(settings.max_new_tokens, room):
        try:
            token = _choose(_logits(model, inputs, cache), [*heard, *answer], settings, draws)
        except torch.OutOfMemoryError as error:
            raise StudioError(
                "The memory ran out in the middle of the answer; ask for fewer tokens, clear the "
                "conversation, or talk to a smaller model."
            ) from error
        if token in stops:
            break
        answer.append(token)
        inputs = {"input_ids": torch.tensor([[token]], device=model.device)}
        # A character of several tokens is shown once it is whole.
        text = tokenizer.decode(answer, skip_special_tokens=True).rstrip("\ufffd")
        if text != shown:
            shown = text
            yield text.strip()


def _logits(model, inputs: "dict[str, torch.Tensor]", cache) -> "torch.Tensor":
    import torch

    with torch.inference_mode():
        logits = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    logits = logits[0, -1].float()
    if not logits.isfinite().all():
        raise StudioError(
            "This candidate is broken (its numbers overflow) and cannot speak; choose another."
        )
    return logits


def _choose(
    logits: "torch.Tensor", known: list[int], settings: Settings, draws: "torch.Generator"
) -> int:
    """The next token: the likeliest, or drawn."""
    import torch

    if settings.repetition_penalty != 1:
        ids = torch.tensor(sorted(set(known)), device=logits.device)
        said = logits[ids]
        penalty = settings.repetition_penalty
        logits = logits.clone()
        logits[ids] = torch.where(said > 0, said / penalty, said * penalty)
    if settings.temperature == 0:
        return int(logits.argmax())
    shares, order = (logits / settings.temperature).softmax(-1).sort(descending=True)
    # The first that reaches top_p is still among those drawn from.
    shares[shares.cumsum(-1) - shares >= settings.top_p] = 0
    return int(order[torch.multinomial(shares, 1, generator=draws)])


def _encode(voice: Voice, turns: list[dict[str, Any]]) -> "tuple[dict[str, torch.Tensor], int]":
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


def _inputs(voice: Voice, turns: list[dict[str, Any]]) -> "dict[str, torch.Tensor]":
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
