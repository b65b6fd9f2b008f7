"""A model that compiled code passes as a whole, without a word of Python in between.

Knows where a model's modules keep their weights, and the matrix product that torch itself computes
with. Refuses to know what is computed of them (`studio.evolve.passes`).
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from studio.evolve import passes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens up to which compiled code is faster than torch's products, where it has no BLAS.
FEW = 24


@cache
def sgemm() -> int:
    """The address of the matrix product in torch's own library, by BLAS's name for it; 0 where it
    exports none, or one that is no such product."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        try:
            function = ctypes.CDLL(str(folder / name)).sgemm_
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value if _is_product(function) else 0
    return 0


def _is_product(function) -> bool:
    """Whether it multiplies two small matrices as SGEMM does: out = two · oneᵀ, all transposed."""
    one, two = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([[1, 0, 2], [0, 3, 0]])
    out = np.zeros((2, 2), np.float32)
    letters = [ctypes.byref(ctypes.c_char(letter)) for letter in b"TN"]
    count, size = (ctypes.byref(ctypes.c_int64(number)) for number in out.shape[:1] + one.shape[1:])
    once, never = (ctypes.byref(ctypes.c_float(number)) for number in (1, 0))
    left, right, result = (ctypes.c_void_p(array.ctypes.data) for array in (two, one, out))
    function(*letters, count, count, size, once, left, size, right, size, never, result, count)
    return np.array_equal(out, one @ two.T)


class Whole:
    """A model of plain float32 layers, for as long as its weights lie where they do.

    Args:
        layers: in the order of the path, each as often as it is passed.
    """

    def __init__(self, model: "PreTrainedModel", layers: Sequence[nn.Module]):
        inner, first = model.model, layers[0]
        self._weights = [_weights(layer) for layer in layers]  # addresses keep nothing alive
        self._table = np.array([[_address(w) for w in each] for each in self._weights], np.int64)
        self._embedding = inner.embed_tokens.weight.detach().numpy()
        self._inner = first.mlp.gate_proj.out_features
        attention = first.self_attn
        self._group = attention.q_proj.out_features // attention.k_proj.out_features
        self._scaling = np.float32(attention.scaling)
        norms = [first.input_layernorm, getattr(attention, "q_norm", first.input_layernorm)]
        self._epsilons = np.array([norm.variance_epsilon for norm in norms], np.float32)
        self._norm = inner.norm.weight.detach().numpy(), np.float32(inner.norm.variance_epsilon)
        self._head = model.lm_head

    @classmethod
    def of(cls, model: "PreTrainedModel", layers: Sequence[nn.Module]) -> "Whole | None":
        """None of a model that has other layers, or other numbers."""
        head, embedding = model.lm_head, model.model.embed_tokens
        linear = [head, *(each for layer in layers for each in (*_attention(layer), *_mlp(layer)))]
        if (
            any(type(module) is not nn.Linear for module in linear)
            or type(embedding) is not nn.Embedding
            or model.config.hidden_act != "silu"
        ):
            return None
        each = [[w for w in _weights(layer) if w is not None] for layer in layers]
        weights = [head.weight, embedding.weight, model.model.norm.weight, *sum(each, [])]
        plain = all(w.dtype == torch.float32 and w.is_contiguous() for w in weights)
        alike = all([w.shape for w in own] == [w.shape for w in each[0]] for own in each)
        return cls(model, layers) if plain and alike else None

    def takes(self, tokens: int) -> bool:
        """Whether so many tokens are passed faster here."""
        return bool(sgemm()) or tokens <= FEW

    def next(self, tokens, turns, slots, places, last, cache) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest next token after each of ``last``, int64, and its logit, float32.

        Arguments as of `studio.evolve.flat.FlatModel.next`; ``turns`` are cosines and sines.
        """
        hidden, chosen = self._embedding[tokens], np.empty(len(last), np.int64)
        passes.layers(
            sgemm(), hidden, self._table, self._inner, self._group, self._epsilons, self._scaling,
            *turns, slots, places, cache, last,
        )  # fmt: skip
        head, bias = self._head.weight, self._head.bias
        best = passes.likeliest(
            sgemm(), hidden[: len(last)], *self._norm, _address(head), _address(bias), len(head),
            chosen,
        )  # fmt: skip
        return chosen, best


def _attention(layer: nn.Module) -> list[nn.Module]:
    attention = layer.self_attn
    return [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]


def _mlp(layer: nn.Module) -> list[nn.Module]:
    return [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]


def _weights(layer: nn.Module) -> list[Tensor | None]:
    """What `passes.PARTS` names."""
    *projections, out = ([each.weight, each.bias] for each in _attention(layer))
    norms = [getattr(layer.self_attn, name, None) for name in ("q_norm", "k_norm")]
    return [
        layer.input_layernorm.weight,
        *sum(projections, []),
        *(norm if norm is None else norm.weight for norm in norms),
        *out,
        layer.post_attention_layernorm.weight,
        *sum(([each.weight, each.bias] for each in _mlp(layer)), []),
    ]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
