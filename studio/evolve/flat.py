"""One pass of a model over a flat row of tokens, on a CPU.

Knows the layers of Llama and its like. Plain ones of float32 are passed in one go, in compiled code
(`studio.evolve.whole`). Of any others, and of a path whose beginning is known, it calls the layers'
own modules for everything but norms, turning and attention, which `studio.evolve.passes` has, and
lays plain weights out anew where that pays (`studio.evolve.products`). Refuses to know where
sequences come from and when they end.
"""

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch

from studio.evolve.generate import BrokenModel
from studio.evolve.leading import Leading, Shelf
from studio.evolve.passes import STEP, attend, remember, rms_norm
from studio.evolve.products import products
from studio.evolve.whole import Whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Whose layers are an attention and an MLP, each behind an RMS norm, and turned by places.
ARCHITECTURES = {
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
}
#: Ways to turn by places that do not depend on how long a sequence is.
ROPES = {"default", "linear", "llama3", "yarn"}
#: Keys and values of every layer, float32 ``[layers, 2, slots, heads, places, size of a head]``.
Cache = np.ndarray


def reads(model: "PreTrainedModel", longest: int) -> bool:
    """Whether sequences of at most so many tokens can be read here."""
    config = model.config
    if type(model).__name__ not in ARCHITECTURES or model.device.type != "cpu":
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    types = getattr(config, "layer_types", None) or ["sliding_attention"]
    slides = "sliding_attention" in types and getattr(config, "sliding_window", None)
    return (
        model.dtype in (torch.float32, torch.bfloat16)
        and _head_size(config) % STEP == 0
        and rope.get("rope_type", "default") in ROPES
        and not (slides and slides < longest)
    )


def _head_size(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


class FlatModel:
    """A transformers model, for as long as its weights are what they are.

    Args:
        longest: tokens of the longest sequence.
        many: whether so many tokens are to be read that laying its weights out anew pays.
    """

    def __init__(self, model: "PreTrainedModel", longest: int, many: bool):
        inner, config = model.model, model.config
        layers = list(inner.layers)[: config.num_hidden_layers]
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._shape = heads, longest, _head_size(config)
        #: What each layer does, or None where nobody says so (`studio.merge.path`).
        self.does = [getattr(layer, "does", None) for layer in layers]
        #: Numbers that a token leaves in a layer.
        self.width = config.hidden_size + 2 * heads * _head_size(config)
        with torch.inference_mode():
            turns = inner.rotary_emb(torch.zeros(1), torch.arange(longest)[None])
        self._turns = [turn[0].contiguous().numpy() for turn in turns]
        self._whole = Whole.of(model, layers)
        enough = self._whole and self._whole.takes(sys.maxsize) and None in self.does
        self._parts = None if enough else _Parts(model, layers, heads, many, self._turns)

    def cache(self, memory: "Memory", lane: int, slots: int) -> Cache:
        """Room for keys and values of so many sequences, whatever is in it."""
        return memory.room(lane, (len(self.does), 2, slots, *self._shape))

    def next(
        self, tokens, slots, places, last, cache: Cache, leading: Leading | None = None
    ) -> np.ndarray:
        """The likeliest next token after some of the tokens, int64 ``[sequences]``.

        Args:
            tokens: int64 ``[tokens]``.
            slots, places: int32 ``[tokens]``; before a token stand all earlier ones of its slot.
            last: int64 ``[sequences]``, which of the tokens are the last of theirs.
            leading: what the first layers make of the same tokens, and room for more.

        Raises:
            BrokenModel: a logit is NaN or infinite.
        """
        if self._whole and leading is None and self._whole.takes(len(tokens)):
            found = self._whole.next(tokens, self._turns, slots, places, last, cache)
        else:
            found = self._parts.next(tokens, slots, places, last, cache, leading)
        chosen, logits = found
        if not np.isfinite(logits).all():
            raise BrokenModel("the model's logits are not finite")
        return chosen


class _Parts:
    """A model that is passed module by module."""

    def __init__(self, model: "PreTrainedModel", layers, heads: int, many: bool, turns):
        inner, size, product = model.model, _head_size(model.config), products(model, many)
        self._embed, self._norm = inner.embed_tokens, _Norm.of(inner.norm)
        self._layers = [_Layer(layer, heads, size, product) for layer in layers]
        self._head, self._turns = product(model.lm_head), turns

    def next(
        self, tokens, slots, places, last, cache: Cache, leading: Leading | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Whole.next`; other arguments as of `FlatModel.next`."""
        hidden = self._embed(torch.from_numpy(tokens))
        final = len(self._layers) - 1
        for number, (layer, (keys, values)) in enumerate(zip(self._layers, cache, strict=True)):
            if leading and number < leading.shared:
                heads = leading.heads[number]
                remember(heads, 0, *self._turns, slots, places, keys, values)
                hidden = leading.hidden[number + 1]
                continue
            projected = layer.projected(hidden)
            if leading:
                leading.keep(number, hidden, projected[:, layer.queries :])
            remember(projected, layer.queries, *self._turns, slots, places, keys, values)
            if number == final and len(last) < len(tokens):  # what comes next is asked of it alone
                hidden, projected = hidden[last], projected[last]
                slots, places = slots[last], places[last]
            found = layer.found(projected, self._turns, slots, places, keys, values)
            hidden = hidden + layer.out(torch.from_numpy(found).to(hidden.dtype))
            hidden = hidden + layer.feed(layer.between(hidden))
        logits = self._head(self._norm(hidden)).float().numpy()
        chosen = logits.argmax(axis=1)  # NaN is taken for the largest
        return chosen, logits[np.arange(len(chosen)), chosen]


@dataclass(frozen=True)
class _Norm:
    """A norm of the layers' own, ``[tokens, size]`` → the same."""

    weight: np.ndarray
    epsilon: np.float32

    @classmethod
    def of(cls, module: torch.nn.Module) -> "_Norm":
        weight = module.weight.detach().float().numpy()
        return cls(weight, np.float32(module.variance_epsilon))

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        given = hidden.float().numpy()
        out = np.empty_like(given)
        rms_norm(given, self.weight, self.epsilon, out)
        return torch.from_numpy(out).to(hidden.dtype)


class _Layer:
    """A layer's own modules, in the order in which they are called."""

    def __init__(self, layer: torch.nn.Module, heads: int, size: int, product):
        attention, mlp = layer.self_attn, layer.mlp
        self._enter = _Norm.of(layer.input_layernorm)
        self.between = _Norm.of(layer.post_attention_layernorm)
        self._project = product(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out, self._down = product(attention.o_proj), product(mlp.down_proj)
        self._gated, self._act = product(mlp.gate_proj, mlp.up_proj), mlp.act_fn
        self._size, self._group = size, attention.config.num_attention_heads // heads
        #: How many of the projected numbers are queries'; keys come next.
        self.queries = self._group * heads * size
        self._scaling = np.float32(attention.scaling)
        self._norms = [
            (_Norm.of(norm), start, start + count * size)
            for norm, start, count in [
                (getattr(attention, "q_norm", None), 0, self._group * heads),
                (getattr(attention, "k_norm", None), self.queries, heads),
            ]
            if norm is not None
        ]

    def projected(self, hidden: torch.Tensor) -> np.ndarray:
        """Queries, keys and values, float32 ``[tokens, …]``, not turned to their places."""
        projected = self._project(self._enter(hidden))
        for norm, start, end in self._norms:
            heads = projected[:, start:end].reshape(-1, self._size)
            projected[:, start:end] = norm(heads).view(len(hidden), -1)
        return projected.float().numpy()

    def found(self, projected: np.ndarray, turns, slots, places, keys, values) -> np.ndarray:
        """What the queries find, float32 ``[tokens, heads · size]``."""
        out = np.empty((len(projected), self.queries), np.float32)
        scaling = self._scaling
        attend(projected, self._group, *turns, slots, places, keys, values, scaling, out)
        return out

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self._gated(x).chunk(2, dim=1)
        return self._down(self._act(gate) * up)


class Memory:
    """What is kept from call to call: what caches are laid out in, for pages that are there are
    faster, and what layers made that other paths may begin with, too."""

    _left: "WeakKeyDictionary[PreTrainedModel, Memory]" = WeakKeyDictionary()

    def __init__(self) -> None:
        self._lanes: dict[int, np.ndarray] = {}
        self._shelves: dict[int, Shelf] = {}

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "Memory":
        """Of a model's last call; whoever calls at the same time gets other memory."""
        return cls._left.pop(model, None) or cls()

    def leave(self, model: "PreTrainedModel") -> None:
        self._left[model] = self

    def shelf(self, lane: int) -> Shelf:
        return self._shelves.setdefault(lane, Shelf())

    def room(self, lane: int, shape: tuple[int, ...]) -> np.ndarray:
        """An array of float32, whatever was there before."""
        size = math.prod(shape)
        if lane not in self._lanes or self._lanes[lane].size < size:
            self._lanes.pop(lane, None)
            self._lanes[lane] = np.empty(size, np.float32)
        return self._lanes[lane][:size].reshape(shape)
