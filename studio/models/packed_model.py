"""A transformers model whose linear layers are packed.

Knows which layers are packed and how they compute; refuses to know what is merged. Embeddings,
norms, biases and the output head stay plain: they are few, and rounding them costs most.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from studio.errors import StudioError
from studio.models.model import Model
from studio.models.packed import BITS, SMALLEST_PACKED, Packed
from studio.models.precision import half

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Part(Protocol):
    """A matrix ``[rows, columns]`` in some form, on some device."""

    nbytes: int

    def to(self, device: torch.device | str) -> "Part": ...

    def dense(self, dtype: torch.dtype) -> Tensor: ...

    def linear(self, inputs: Tensor) -> Tensor: ...


class Dense:
    """A `Part` that is not packed."""

    def __init__(self, matrix: Tensor):
        self.matrix = matrix

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes

    def to(self, device: torch.device | str) -> "Dense":
        return Dense(self.matrix.to(device, non_blocking=True))

    def dense(self, dtype: torch.dtype) -> Tensor:
        return self.matrix.to(dtype)

    def linear(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.matrix.to(inputs.dtype))


class PackedLinear(nn.Module):
    """y = (factor · base + delta) · x + bias, base and delta stored apart.

    A delta of a few percent would drown in the rounding of a base that is packed with it
    (DESIGN.md, invariants); apart, each is rounded to its own scale.

    Args:
        base: on the device of the inputs, or anywhere: then it is copied there for each use.
        bias: ``[rows]`` or None.
        delta: None for a layer that is only a base.
    """

    def __init__(self, base: Part, bias: nn.Parameter | None, delta: Packed | None = None):
        super().__init__()
        self.base, self.delta, self.bias = base, delta, bias
        self.factor = 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        base = self.base.to(inputs.device)
        if inputs.dtype == torch.float32:  # adding loses nothing here, and one product is faster
            weight = base.dense(torch.float32)
            if self.delta is not None:
                weight = self.delta.dense(torch.float32).add_(weight, alpha=self.factor)
            return functional.linear(inputs, weight, self.bias)
        outputs = base.linear(inputs)
        if self.delta is not None:
            if self.factor != 1.0:
                outputs = outputs * self.factor
            outputs = outputs + self.delta.linear(inputs)
        return outputs if self.bias is None else outputs + self.bias


def is_packed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the matrix of a layer that `linear_layers` finds."""
    return ".layers." in name and len(shape) == 2


def packed_bits(shape: tuple[int, ...], kind: str) -> float:
    """Bits an entry of a difference between models takes (see `studio.merge.ingredients`)."""
    return BITS[kind] if math.prod(shape) >= SMALLEST_PACKED else 32.0


def base_bits(form: str, kind: str) -> float:
    """Bits of the device's memory that an entry of the base takes, in a form of `LiveModel`."""
    return {"packed": BITS[kind], "int8": BITS["int8"], "bf16": 16.0, "paged": 0.0}[form]


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """What packed models compute in: float32 on a CPU, 16 bits on a GPU (see `half`)."""
    return torch.float32 if torch.device(device).type == "cpu" else half(device)


def linear_layers(model: "PreTrainedModel") -> Iterator[tuple[str, nn.Linear]]:
    """The names and modules of the linear layers to pack: all but the output head."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module is not head:
            yield name, module


def replace(model: "PreTrainedModel", name: str, module: nn.Module) -> None:
    """Put a module in the place of the one called ``name``."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


@torch.no_grad()
def load_packed(model: Model, kind: str, device: torch.device | str) -> "PreTrainedModel":
    """A model with its linear layers packed, in eval mode, made tensor by tensor.

    Args:
        kind: "int8" or "nf4".

    Raises:
        StudioError: it does not fit the device's memory.
    """
    try:
        resident = model.skeleton(compute_dtype(device))
        language = model.language(resident)
        for name, layer in list(linear_layers(language)):
            weight = Packed.of(model.get(f"{name}.weight").to(device), kind)
            replace(language, name, PackedLinear(weight, layer.bias))
        resident = resident.to(device)
        model.fill(resident)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise StudioError(
            f"{model.name} does not fit the memory of {device} even as {kind}; use a smaller "
            "model or another device."
        ) from error
    return resident
