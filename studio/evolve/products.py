"""Products with the weights of linear layers, laid out anew where a CPU then multiplies faster.

Knows torch modules and how oneDNN wants a matrix to lie. Refuses to know models. What is no plain
linear layer, a weight in four bits for one, is called as it is. Layouts are copies: made to read
many tokens with, from weights that the next candidate changes.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

#: Bytes of a model's weights up to which they are copied: what a search of a large one is short of
#: is memory.
MOST = 2 << 30
#: Entries of a weight from which on its product gains by a layout of its own.
LARGE = 1 << 17

#: ``[tokens, in]`` → ``[tokens, out]``.
Product = Callable[[torch.Tensor], torch.Tensor]


def products(model: nn.Module, many: bool) -> Callable[..., Product]:
    """What makes a `product` of a model's modules.

    Args:
        many: whether so many tokens are to be read that copying its weights pays.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    made: dict[tuple[nn.Module, ...], Product] = {}  # a path may pass a layer more than once

    def once(*modules: nn.Module) -> Product:
        if modules not in made:
            made[modules] = product(*modules, copies=many and size <= MOST)
        return made[modules]

    return once


def product(*modules: nn.Module, copies: bool = True) -> Product:
    """What modules that read the same come to, one beside the other.

    Args:
        copies: whether weights may be copied, to lie beside one another and as oneDNN wants them.
    """
    if not copies or any(type(module) is not nn.Linear for module in modules):
        return modules[0] if len(modules) == 1 else partial(_beside, modules)
    weight = modules[0].weight.detach()
    bias = _bias(modules)
    if len(modules) > 1:
        weight = torch.cat([module.weight.detach() for module in modules])
    if weight.numel() < LARGE or not _reorders(weight.dtype):
        return partial(nn.functional.linear, weight=weight, bias=bias)
    lies = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, lies, bias, "none", [], "")


def _beside(modules: Sequence[nn.Module], x: torch.Tensor) -> torch.Tensor:
    return torch.cat([module(x) for module in modules], dim=1)


def _bias(modules: Sequence[nn.Linear]) -> torch.Tensor | None:
    if all(module.bias is None for module in modules):
        return None
    return torch.cat(
        [
            module.weight.new_zeros(module.out_features) if module.bias is None else module.bias
            for module in modules
        ]
    ).detach()


def _reorders(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
