"""Answers by transformers' own ``generate``: to pictures, with beams, with a repetition penalty.

Our own decoding (`studio.evolve.generate`) is faster, and greedy over text alone; what it cannot do
is left to the library. Refuses to know tasks, scores and where weights came from.
"""

import copy
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING

import torch

from studio.evolve.generate import BrokenModel, Decoding, Response, stop_ids
from studio.evolve.loops import Loops

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from transformers import (
        GenerationConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
    )


@torch.inference_mode()
def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    pictures: "Sequence[Path | bytes | None]",
    *,
    processor: "ProcessorMixin | None" = None,
    max_new_tokens: int,
    batch_size: int,
    decoding: Decoding,
    on_token: Callable[[], None] = lambda: None,
    known: MutableMapping[int, Response] | None = None,
    cut_loops: bool = False,
) -> list[Response]:
    """Answer every prompt about its picture.

    Args:
        prompts: whole prompts; those with a picture have the processor's token where it belongs.
        pictures: one per prompt, or None.
        processor: needed where there is a picture.
        max_new_tokens, batch_size, on_token, known: as of `studio.evolve.generate.generate`.
        cut_loops: as there, with one beam; among several no answer is one's own until the end.

    Returns:
        One response per prompt, in the prompts' order.

    Raises:
        StudioError: a picture cannot be opened.
        BrokenModel: no next token is likelier than others, or a score is not a number.
        torch.OutOfMemoryError: the batch does not fit the accelerator.
    """
    order = sorted(range(len(prompts)), key=lambda i: (pictures[i] is not None, len(prompts[i]), i))
    config = _config(model, tokenizer, decoding, max_new_tokens)
    known = {} if known is None else known
    while order:
        seeing = pictures[order[0]] is not None
        batch = [i for i in order[:batch_size] if (pictures[i] is not None) == seeing]
        order = order[len(batch) :]
        if all(i in known for i in batch):
            continue
        shown = [[pictures[i]] if seeing else [] for i in batch]
        inputs = encode(tokenizer, [prompts[i] for i in batch], shown, processor, model)
        on_token()
        cut = _Cut(len(batch)) if cut_loops and decoding.beams == 1 else None
        rows = model.generate(
            **inputs,
            generation_config=config,
            logits_processor=[_Watch(on_token)],
            stopping_criteria=[cut] if cut else None,
        )
        rows = rows[:, inputs["input_ids"].shape[1] :].tolist()
        for place, (i, row) in enumerate(zip(batch, rows, strict=True)):
            tokens = _until_end(row, config.eos_token_id)
            # what follows a loop is padding, and what follows an end of turn may be a loop of it
            length = cut.lengths.get(place) if cut else None
            runaway = length is not None and length <= len(tokens)
            tokens = tokens[:length] if runaway else tokens
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            known[i] = Response(text, len(tokens), runaway)
    return [known[i] for i in range(len(prompts))]


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    pictures: "Sequence[Sequence[Path | bytes]]",
    processor: "ProcessorMixin | None",
    model: "PreTrainedModel | None" = None,
) -> "dict[str, torch.Tensor]":
    """A batch of inputs, padded on the left.

    Args:
        pictures: of each prompt, in the order of their tokens there; all have some, or none has.
        model: whose device and dtype they should have.

    Raises:
        StudioError: a picture cannot be opened.
    """
    bos = tokenizer.bos_token
    options = {
        "padding": True,
        "padding_side": "left",
        "return_tensors": "pt",
        # a chat template may have written it
        "add_special_tokens": not (bos and prompts[0].startswith(bos)),
    }
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if pictures[0]:
        shown = [[_opened(picture) for picture in those] for those in pictures]
        inputs = processor(text=list(prompts), images=shown, **options)
    else:
        inputs = tokenizer(list(prompts), **options)
    if model is None:
        return dict(inputs)
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    floats = {key: v.to(model.dtype) for key, v in inputs.items() if v.is_floating_point()}
    return inputs | floats


def _opened(picture: "Path | bytes") -> "Image":
    from vlm.pictures import decode

    return decode(picture)


def _config(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    decoding: Decoding,
    max_new_tokens: int,
) -> "GenerationConfig":
    """The model's generation config without chance, and with what was asked for."""
    config = copy.deepcopy(model.generation_config)
    config.max_length, config.max_new_tokens = None, max_new_tokens
    config.do_sample = False
    config.temperature = config.top_p = config.top_k = None
    config.num_beams = decoding.beams
    config.repetition_penalty = decoding.repetition_penalty
    config.eos_token_id = stop_ids(model, tokenizer) or None
    config.pad_token_id = tokenizer.pad_token_id
    return config


def _until_end(row: list[int], stops: list[int] | None) -> list[int]:
    """A row of the batch without what only pads it, its end of turn included."""
    at = next((n for n, token in enumerate(row) if token in (stops or ())), None)
    return row if at is None else row[: at + 1]


class _Cut:
    """Ends the rows that only repeat themselves, as one of transformers' stopping criteria.

    Attributes:
        lengths: by row, tokens of its answer when that was first seen.
    """

    def __init__(self, rows: int):
        self._loops, self._steps = Loops(rows), 0
        self.lengths: dict[int, int] = {}

    def __call__(self, ids: torch.Tensor, _scores: torch.Tensor, **_) -> torch.Tensor:
        self._steps += 1
        for row in self._loops.closed(ids[:, -1].cpu().numpy()).nonzero()[0].tolist():
            self.lengths.setdefault(row, self._steps)
        ended = torch.zeros(len(ids), dtype=torch.bool)
        ended[list(self.lengths)] = True
        return ended.to(ids.device)


class _Watch:
    """Looks at the scores of every step, as one of transformers' logits processors."""

    def __init__(self, on_token: Callable[[], None]):
        self._on_token = on_token

    def __call__(self, _ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not scores.amax(-1).isfinite().all():
            raise BrokenModel("the model's logits are not finite")
        self._on_token()
        return scores
