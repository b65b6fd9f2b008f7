"""A tensor in blocks of 64 numbers that share a scale: 4.5 bits a number as nf4, 8.5 as int8.

Knows how numbers are packed, read and overwritten in pieces, and multiplied with. Refuses to know
what they mean: that task vectors are packed rather than weights is `studio.merge.live`'s business.
nf4 is bitsandbytes' (QLoRA, arXiv:2305.14314, section 3). For int8, bitsandbytes' block format has
a relative error of 0.0095 on Gaussian numbers; plain rounding to 127 levels has 0.0059 and is ten
times faster on a CPU, so that is what is done here.
"""

import functools
import logging
import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from studio.errors import StudioError

#: Numbers that share a scale.
BLOCK = 64
#: Bits a number takes, its share of the block's float32 scale included.
BITS = {"int8": 8 + 32 / BLOCK, "nf4": 4 + 32 / BLOCK}
#: Smaller tensors are not packed: norms and biases, which weigh nothing and matter much.
SMALLEST_PACKED = 1 << 12
#: Bytes of packed data per block.
_BYTES = {"int8": BLOCK, "nf4": BLOCK // 2}


class Packed:
    """A tensor of ``shape``, packed; made of zeros, to be written to.

    Args:
        kind: "int8" or "nf4".
        shape: of the tensor; its last block may be short.
        device: where it lies; for nf4 a CPU or a CUDA device.

    Attributes:
        count: numbers in the tensor.
        nbytes: bytes it takes.

    Raises:
        StudioError: nf4 on another device, or without bitsandbytes.

    Example:
        >>> packed = Packed.of(torch.ones(3, 64), "nf4")  # doctest: +SKIP
        >>> packed.dense(torch.float32).shape  # doctest: +SKIP
        torch.Size([3, 64])
    """

    def __init__(self, kind: str, shape: Sequence[int], device: torch.device | str = "cpu"):
        if kind == "nf4" and torch.device(device).type not in ("cpu", "cuda"):
            raise StudioError(
                f"Precision nf4 works on CPUs and CUDA devices, not on {device}; use int8, bf16 or "
                "fp32."
            )
        self.kind = kind
        self.shape = tuple(shape)
        self.count = math.prod(self.shape)
        blocks = -(-self.count // BLOCK)
        dtype = torch.int8 if kind == "int8" else torch.uint8
        self._data = torch.zeros(blocks * _BYTES[kind], dtype=dtype, device=device)
        self._scales = torch.zeros(blocks, dtype=torch.float32, device=device)

    @classmethod
    def of(cls, tensor: Tensor, kind: str) -> "Packed":
        """A float tensor packed, where it lies."""
        packed = cls(kind, tensor.shape, tensor.device)
        packed.write(0, tensor.flatten().float())
        return packed

    @property
    def device(self) -> torch.device:
        return self._data.device

    @property
    def nbytes(self) -> int:
        return self._data.nbytes + self._scales.nbytes

    def to(self, device: torch.device | str) -> "Packed":
        """The same on another device; itself where it lies there already."""
        if torch.device(device) == self.device:
            return self
        copy = Packed.__new__(Packed)
        copy.kind, copy.shape, copy.count = self.kind, self.shape, self.count
        copy._data = self._data.to(device, non_blocking=True)
        copy._scales = self._scales.to(device, non_blocking=True)
        return copy

    def pinned(self) -> "Packed":
        """The same in page-locked CPU memory, from where a GPU copies while it computes."""
        self._data, self._scales = self._data.pin_memory(), self._scales.pin_memory()
        return self

    def write(self, start: int, values: Tensor) -> None:
        """Pack float32 ``values`` ``[n]`` over the numbers from ``start``, whole blocks of them.

        Only at the end of the tensor may ``n`` be no multiple of `BLOCK`.
        """
        if values.numel() % BLOCK:  # the last, short block
            values = functional.pad(values, (0, -values.numel() % BLOCK))
        first, blocks = start // BLOCK, values.numel() // BLOCK
        data = self._data[first * _BYTES[self.kind] :][: blocks * _BYTES[self.kind]]
        scales = self._scales[first : first + blocks]
        if self.kind == "nf4":
            code, state = _bitsandbytes().functional.quantize_4bit(
                values, blocksize=BLOCK, quant_type="nf4"
            )
            data.copy_(code.view(-1))
            scales.copy_(state.absmax)
            return
        rows = values.view(-1, BLOCK)
        largest = rows.abs().amax(1)
        step = (largest / 127).clamp_(min=torch.finfo(torch.float32).tiny)
        data.copy_((rows / step[:, None]).round_().view(-1))
        scales.copy_(largest / 127)

    def read(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The numbers [start, stop), unpacked; ``start`` is a multiple of `BLOCK`."""
        first, last = start // BLOCK, -(-stop // BLOCK)
        data = self._data[first * _BYTES[self.kind] : last * _BYTES[self.kind]]
        scales = self._scales[first:last]
        if self.kind == "int8":
            values = (data.view(-1, BLOCK) * scales[:, None]).view(-1).to(dtype)
        else:
            values = _unpack_nf4(data, scales, dtype)
        return values[: stop - start]

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The whole tensor, unpacked."""
        return self.read(0, self.count, dtype).view(self.shape)

    def linear(self, inputs: Tensor) -> Tensor:
        """``inputs`` ``[…, columns]`` times this matrix ``[rows, columns]`` transposed."""
        if self.kind == "nf4" and inputs.is_cuda:  # has kernels that never unpack the whole
            return _matmul_nf4(inputs, self._data, self._scales, self.shape)
        return functional.linear(inputs, self.dense(inputs.dtype))


def _unpack_nf4(data: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    state = _state(scales, (scales.numel() * BLOCK,), dtype)
    return _bitsandbytes().functional.dequantize_4bit(data.view(-1, 1), state).view(-1)


def _matmul_nf4(inputs: Tensor, data: Tensor, scales: Tensor, shape: tuple[int, ...]) -> Tensor:
    state = _state(scales, shape, inputs.dtype)
    return _bitsandbytes().matmul_4bit(inputs, data.view(-1, 1).t(), quant_state=state)


def _state(scales: Tensor, shape: tuple[int, ...], dtype: torch.dtype):
    """What bitsandbytes keeps beside the packed data."""
    return _bitsandbytes().functional.QuantState(
        absmax=scales, shape=torch.Size(shape), code=_levels(scales.device), blocksize=BLOCK,
        quant_type="nf4", dtype=dtype,
    )  # fmt: skip


@functools.cache
def _levels(device: torch.device) -> Tensor:
    """The 16 numbers of nf4."""
    return _bitsandbytes().functional.get_4bit_type("nf4", device=device)


@functools.cache
def _bitsandbytes():
    """bitsandbytes; imported when first needed, since that takes a second.

    Where the package `kernels` is installed, bitsandbytes fetches code from the hub as it is
    imported, and without it complains. Neither is wanted: no code comes over the network here.
    """
    log = logging.getLogger("bitsandbytes")
    level, kernels = log.level, sys.modules.get("kernels")
    sys.modules["kernels"] = None  # an import of it fails
    log.setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except ImportError as error:
        raise StudioError(
            "Precision nf4 needs the package bitsandbytes, which is not installed here; install "
            "it (pip install bitsandbytes), or use precision int8, bf16 or fp32."
        ) from error
    finally:
        log.setLevel(level)
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels
    return bitsandbytes
