"""Greedy decoding of many prompts with a resident model.

Knows token ids, batches and the KV cache. Refuses to know tasks, scores and where the model's
weights came from. Batches are laid out by prompt length alone, so the same prompts always share the
same batches: a response does not depend on which candidate was scored before.

On a CPU, models of the common kinds are decoded without padding (`studio.evolve.unpadded`); any
other, and on any other device, by transformers' own forward pass.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from studio.evolve.loops import Loops

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


#: An answer's tokens, and whether it was cut.
Answer = tuple[list[int], bool]


class BrokenModel(Exception):
    """The model's logits are not finite: it cannot say anything."""


@dataclass(frozen=True)
class Response:
    """Generated text without special tokens, and how many tokens it took (end of turn included).

    ``runaway``: it repeated itself and was cut.
    """

    text: str
    tokens: int
    runaway: bool = False


@dataclass(frozen=True)
class Decoding:
    """How answers are searched for: greedily (one beam) or among several, with a penalty or none.

    ``repetition_penalty`` divides, or multiplies, the logits of tokens that were said already
    (arXiv 1909.05858); 1 is none.
    """

    beams: int = 1
    repetition_penalty: float = 1.0

    @property
    def greedy(self) -> bool:
        return self.beams == 1 and self.repetition_penalty == 1.0


#: What is decoded by without further ado.
GREEDY = Decoding()

#: Batches of prompts that are decoded as one where whoever is done makes room for the next prompt.
WAVE = 8


def chat_prompt(
    tokenizer: "PreTrainedTokenizerBase | ProcessorMixin", messages: list[dict[str, Any]]
) -> str:
    """The conversation as the model was trained to read it, ending where the answer begins.

    Of a processor: every message is text, or a list of parts, ``{"type": "image"}`` and
    ``{"type": "text", "text": …}``.
    """
    if getattr(tokenizer, "image_token", None) and hasattr(tokenizer, "tokenizer"):
        return _picture_prompt(tokenizer, messages)
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return "\n\n".join(message["content"] for message in messages) + "\n"


def _picture_prompt(processor: "ProcessorMixin", messages: list[dict[str, Any]]) -> str:
    turns = [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message["content"], str)
        else message
        for message in messages
    ]
    if processor.chat_template:
        return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    said = [
        processor.image_token if part["type"] == "image" else part["text"]
        for turn in turns
        for part in turn["content"]
    ]
    return "\n".join(said) + "\n"


def encode(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """Token ids of a whole prompt; a model without a chat template gets its beginning of text."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and not tokenizer.chat_template and ids[:1] != [bos]:
        ids = [bos, *ids]
    return ids


def stop_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Token ids that end a turn: the generation config's, and the tokenizer's end of sequence."""
    ids = model.generation_config.eos_token_id
    ids = ids if isinstance(ids, list) else [ids]
    return sorted({i for i in [*ids, tokenizer.eos_token_id] if i is not None})


@torch.inference_mode()
def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    on_token: Callable[[], None] = lambda: None,
    known: MutableMapping[int, Response] | None = None,
    cut_loops: bool = False,
) -> list[Response]:
    """Answer every prompt greedily.

    Args:
        prompts: whole prompts, special tokens written out.
        max_new_tokens: an answer still unfinished then is cut off.
        batch_size: prompts decoded together; memory grows with it, answers do not depend on it but
            for ties of the argmax under rounding.
        on_token: called before every step of decoding; what it raises is raised.
        known: by the prompt's number, answers that are there already: a batch that has them all is
            not decoded again. Grows by every batch (of `WAVE` times as many prompts, without
            padding), so that what was said outlives an exception.
        cut_loops: whether an answer ends where it only repeats itself (`studio.evolve.loops`).

    Returns:
        One response per prompt, in the prompts' order.

    Raises:
        BrokenModel: a logit is NaN or infinite.
        torch.OutOfMemoryError: the batch does not fit the accelerator.
    """
    encoded = [encode(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
    known = {} if known is None else known
    decode, wave = _decoder(model, max(map(len, encoded), default=0) + max_new_tokens)
    for start in range(0, len(order), wave * batch_size):
        batch = order[start : start + wave * batch_size]
        if all(i in known for i in batch):
            continue
        answers = decode(
            model,
            [encoded[i] for i in batch],
            stop_ids(model, tokenizer),
            max_new_tokens=max_new_tokens,
            slots=batch_size,
            on_token=on_token,
            cut_loops=cut_loops,
        )
        for i, (tokens, runaway) in zip(batch, answers, strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            known[i] = Response(text, len(tokens), runaway)
    return [known[i] for i in range(len(encoded))]


def _decoder(model: "PreTrainedModel", longest: int) -> tuple[Callable[..., list[Answer]], int]:
    """What decodes sequences of so many tokens, and how many batches it wants to have at once."""
    from studio.evolve import unpadded  # compiled loops, which take a moment to load
    from studio.evolve.flat import reads

    return (unpadded.decode, WAVE) if reads(model, longest) else (_padded, 1)


def _padded(
    model: "PreTrainedModel",
    batch: list[list[int]],
    stops: list[int],
    *,
    max_new_tokens: int,
    slots: int,
    on_token: Callable[[], None],
    cut_loops: bool,
) -> list[Answer]:
    """Greedy continuation of a left-padded batch of at most ``slots``; who is done leaves it."""
    from transformers import DynamicCache

    width = max(map(len, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width + max_new_tokens, dtype=torch.long)
    for row, prompt in enumerate(batch):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    alive = np.arange(len(batch))  # rows of `batch` still being decoded
    answers: list[list[int]] = [[] for _ in batch]
    loops = Loops(len(batch)) if cut_loops else None
    runaway: set[int] = set()
    for step in range(max_new_tokens):
        on_token()
        logits = model(
            input_ids=ids,
            attention_mask=mask[:, : width + step],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        value, chosen = logits.max(-1)
        # a device is waited for once in a step
        finite, said = torch.stack([value.isfinite().long(), chosen]).cpu().numpy()
        if not finite.all():
            raise BrokenModel("the model's logits are not finite")
        for row, token in zip(alive.tolist(), said.tolist(), strict=True):
            answers[row].append(token)
        going = ~np.isin(said, stops)
        if loops is not None:
            closed = loops.closed(said, alive) & going
            runaway.update(alive[closed].tolist())
            going &= ~closed
        if not going.any():
            break
        ids, positions = chosen[:, None], positions[:, -1:] + 1
        if not going.all():
            alive, keep = alive[going], torch.from_numpy(going.nonzero()[0]).to(model.device)
            ids, positions, mask = ids[keep], positions[keep], mask[keep]
            cache.batch_select_indices(keep)
    return [(tokens, row in runaway) for row, tokens in enumerate(answers)]
