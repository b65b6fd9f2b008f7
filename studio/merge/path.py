"""A path as a model: live over the sources' own layers, or as an ordinary checkpoint.

Knows the folded form of a path (DESIGN.md): each layer's additions to the residual stream are
divided by the product of all scales so far, which equals scaling the inputs of pre-norm layers and
leaves embedding, norms and head untouched. Refuses to know where genomes come from.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from studio.merge.data_flow import POST_NORMS, WRITERS, DataFlowSpace, Step, layer_suffix
from studio.merge.ingredients import STREAM_CHUNK
from studio.merge.mergekit_config import mergekit_path_yaml
from studio.merge.parameter_space import layer_of
from studio.merge.virtual import Virtual
from studio.models.model import Model
from studio.models.packed_model import load_packed
from studio.models.precision import QUANTIZED, default_device, dtype_of

if TYPE_CHECKING:
    from transformers import (
        GenerationConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
    )


class _Divided(nn.Module):
    """A residual writer whose output is divided by c. Shares the writer, whatever its precision."""

    def __init__(self, writer: nn.Module, divisor: float):
        super().__init__()
        self.writer, self.factor = writer, 1.0 / divisor

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.writer(hidden) * self.factor


class PathModel:
    """A transformers model whose layers become those of one path after another.

    Holds the main model whole and the layers of the other sources, and no copy of either: a slot is
    a shallow clone of its layer, with a KV-cache entry of its own, over the same weights.

    Args:
        space: what a genome means.
        precision: "fp32" or "bf16", of all layers; or "int8" or "nf4", of the layers' matrices.
        device: default CUDA, then Apple GPU, then CPU.

    Attributes:
        model: the transformers model, in eval mode. Before the first `apply` it is the main model.
        tokenizer, processor: the main model's.
        genome: what is applied now, or None.

    Raises:
        StudioError: unknown precision, a model that cannot be loaded, or not enough memory.
    """

    def __init__(
        self,
        space: DataFlowSpace,
        *,
        precision: str = "fp32",
        device: torch.device | str | None = None,
    ):
        self.space = space
        self.precision = precision
        self.device = torch.device(device) if device else default_device()
        self.genome: np.ndarray | None = None
        main = space.main
        self.model: PreTrainedModel = self._load(main)
        self.tokenizer: PreTrainedTokenizerBase = main.tokenizer()
        self.processor: ProcessorMixin | None = main.processor()
        self.model.generation_config = main.generation_config()
        self._language = main.language(self.model)
        self._layers: list[nn.ModuleList] = [self._language.model.layers]
        for source in space.sources[1:]:
            # a frame's layers may differ from a language model's in how they number positions
            lender = source.framed(space.frame)
            # its embedding, norm and head go at once: only layers are lent
            self._layers.append(lender.language(self._load(lender)).model.layers)

    def _load(self, source: Model) -> "PreTrainedModel":
        if self.precision in QUANTIZED:
            return load_packed(source, self.precision, self.device)
        return source.load(dtype_of(self.precision), self.device)

    def apply(self, genome: np.ndarray) -> None:
        """Lay the path of ``genome`` (float64 ``[d]``).

        Raises:
            StudioError: wrong length, NaN or outside the bounds; the model is left as it was.
        """
        path = self.space.path(genome)
        writers = WRITERS[self.space.main.architecture]
        inner, config = self._language.model, self._language.config
        inner.layers = nn.ModuleList(
            _slot(self._layers[step.source][step.layer], position, step, writers)
            for position, step in enumerate(path)
        )
        _describe(config, self.space, path)
        if hasattr(inner, "has_sliding_layers"):  # what Qwen looks up once, when it is built
            inner.has_sliding_layers = "sliding_attention" in config.layer_types
        self.genome = np.array(genome, dtype=np.float64)


class PathCheckpoint(Virtual):
    """The path that a genome of a data-flow space describes, as an ordinary checkpoint.

    Every slot has a copy of its layer, whose residual writers are divided by the slot's c: what
    `PathModel` computes, in transformers' own classes.

    Args:
        space: what the genome means.
        genome: float64 ``[d]``.
        precision: "fp32" or "bf16".
        name: what to call it.

    Raises:
        StudioError: the genome does not belong to the space, or unknown precision.
    """

    def __init__(
        self, space: DataFlowSpace, genome: np.ndarray, *, precision: str = "fp32", name: str
    ):
        super().__init__(name, space.main, space.sources, precision)
        self.space = space
        self.genome = np.array(space.check(genome))
        self._path = space.path(genome)
        _describe(self.config, space, self._path)
        self._shapes, self._origins = self._layout()

    def _layout(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[Step, str]]]:
        """Every tensor's shape, and for a layer's tensor its step and its name in the source."""
        shapes: dict[str, tuple[int, ...]] = {}
        origins: dict[str, tuple[Step, str]] = {}
        main = self.space.main
        within = [suffix for name in main.names() if (suffix := layer_suffix(name, 0))]
        for name in main.names():
            if layer_of(name) is None:
                shapes[name] = main.shape(name)
            elif layer_suffix(name, 0) == within[0]:  # here stand all layers of the path
                for position, step in enumerate(self._path):
                    for suffix in within:
                        slot = f"model.layers.{position}.{suffix}"
                        origins[slot] = step, f"model.layers.{step.layer}.{suffix}"
                        shapes[slot] = main.shape(f"model.layers.0.{suffix}")
        return shapes, origins

    def names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[self._stored(name)]

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        name = self._stored(name)
        source, stored, divisor, written = self.space.main, name, 1.0, None
        if name in self._origins:
            step, stored = self._origins[name]
            source, divisor, written = (
                self.space.sources[step.source], step.divisor, self._writer(name),
            )  # fmt: skip
        read, count = source.reader(stored), math.prod(self._shapes[name])
        for start in range(0, count, STREAM_CHUNK):
            # the live model rounds its weights first, and divides what they write
            piece = read(start, min(start + STREAM_CHUNK, count)).to(self.dtype)
            if written and divisor != 1.0:
                exact = piece.double()
                # a Gemma norm multiplies by 1 + w
                exact = (1 + exact) / divisor - 1 if written == "norm" else exact / divisor
                piece = exact.to(self.dtype)
            yield piece

    def _writer(self, name: str) -> str | None:
        """ "norm" or "projection" for a tensor of a module that writes to the residual stream."""
        for writer in WRITERS[self.architecture]:
            if f".{writer}." in name:
                return "norm" if writer in POST_NORMS else "projection"
        return None

    def fingerprint(self) -> str:
        steps = [[step.source, step.layer, step.divisor] for step in self._path]
        parts = [[model.fingerprint() for model in self.space.sources], steps, str(self.dtype)]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        return self.space.main.tokenizer()

    def generation_config(self) -> "GenerationConfig":
        return self.space.main.generation_config()

    def documents(self) -> dict[str, str]:
        """``genome.json``: the path, a step a line, and every gene; floats as they are.

        And ``mergekit.yaml``, where mergekit can express the path.
        """
        rows = [
            dict(row, source=self.space.called[step.source])
            for row, step in zip(self.space.table(self.genome), self._path, strict=True)
        ]
        genes = [
            {"gene": gene, "value": value}
            for gene, value in zip(self.space.names, self.genome.tolist(), strict=True)
        ]
        text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        more = ",\n".join(json.dumps(row, ensure_ascii=False) for row in genes)
        documents = {"genome.json": f'{{"path": [\n{text}\n],\n"genes": [\n{more}\n]}}\n'}
        dtype = str(self.dtype).removeprefix("torch.")
        mergekit = mergekit_path_yaml(self.space, self.genome, dtype)
        if mergekit is not None:
            documents["mergekit.yaml"] = mergekit
        return documents


def _slot(layer: nn.Module, position: int, step: Step, writers: tuple[str, ...]) -> nn.Module:
    """A clone of a layer that shares its weights, at a position of its own in the KV cache.

    Its ``does`` says what it computes: layers of one live model that say the same do the same.
    """
    slot, divisor = _clone(layer), step.divisor
    slot.does = step.source, step.layer, divisor
    slot.self_attn = _clone(slot.self_attn)
    slot.self_attn.layer_idx = position
    slot.mlp = _clone(slot.mlp)
    if divisor != 1.0:
        for name in writers:
            owner = slot.get_submodule(name.rpartition(".")[0])
            leaf = name.rpartition(".")[2]
            setattr(owner, leaf, _Divided(getattr(owner, leaf), divisor))
    return slot


def _clone(module: nn.Module) -> nn.Module:
    """A module with the same parameters whose submodules can be replaced."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    return clone


def _describe(config, space: DataFlowSpace, path: list[Step]) -> None:
    """Write the path's form into a transformers config: a stale count would cut it short."""
    config.num_hidden_layers = len(path)
    if getattr(config, "layer_types", None):
        config.layer_types = [
            space.sources[step.source].config.layer_types[step.layer] for step in path
        ]
