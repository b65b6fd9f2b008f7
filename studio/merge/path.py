"""A path as a model: live over the sources' own layers, or as an ordinary checkpoint.

Knows the folded form of a path (DESIGN.md): each layer's additions to the residual stream are
divided by the product of all scales so far, which equals scaling the inputs of pre-norm layers and
leaves embedding, norms and head untouched. Refuses to know where genomes come from.
"""

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from studio.merge.data_flow import DataFlowSpace, Step
from studio.merge.ingredients import dtype_of
from studio.merge.live import default_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: The modules of a layer that write to the residual stream, by architecture. Where a norm follows
#: the projections (Gemma 2 and 3), it is the norm that writes.
PROJECTIONS = ("self_attn.o_proj", "mlp.down_proj")
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
WRITERS = {
    "LlamaForCausalLM": PROJECTIONS,
    "MistralForCausalLM": PROJECTIONS,
    "Qwen2ForCausalLM": PROJECTIONS,
    "Qwen3ForCausalLM": PROJECTIONS,
    "GemmaForCausalLM": PROJECTIONS,
    "Gemma2ForCausalLM": POST_NORMS,
    "Gemma3ForCausalLM": POST_NORMS,
}


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
        precision: "fp32" or "bf16", of all layers.
        device: default CUDA, then Apple GPU, then CPU.

    Attributes:
        model: the transformers model, in eval mode. Before the first `apply` it is the main model.
        tokenizer: the main model's.
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
        dtype = dtype_of(precision)
        self.space = space
        self.precision = precision
        self.device = torch.device(device) if device else default_device()
        self.genome: np.ndarray | None = None
        main = space.main
        self.model: PreTrainedModel = main.load(dtype, self.device)
        self.tokenizer: PreTrainedTokenizerBase = main.tokenizer()
        self.model.generation_config = main.generation_config()
        self._layers: list[nn.ModuleList] = [self.model.model.layers]
        for source in space.sources[1:]:
            # its embedding, norm and head go at once: only layers are lent
            self._layers.append(source.load(dtype, self.device).model.layers)

    def apply(self, genome: np.ndarray) -> None:
        """Lay the path of ``genome`` (float64 ``[d]``).

        Raises:
            StudioError: wrong length, NaN or outside the bounds; the model is left as it was.
        """
        path = self.space.path(genome)
        writers = WRITERS[self.space.main.architecture]
        inner, config = self.model.model, self.model.config
        inner.layers = nn.ModuleList(
            _slot(self._layers[step.source][step.layer], position, step.divisor, writers)
            for position, step in enumerate(path)
        )
        _describe(config, self.space, path)
        if hasattr(inner, "has_sliding_layers"):  # what Qwen looks up once, when it is built
            inner.has_sliding_layers = "sliding_attention" in config.layer_types
        self.genome = np.array(genome, dtype=np.float64)


def _slot(layer: nn.Module, position: int, divisor: float, writers: tuple[str, ...]) -> nn.Module:
    """A clone of a layer that shares its weights, at a position of its own in the KV cache."""
    slot = _clone(layer)
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
