"""The merge of a tensor in one pass over memory, compiled for a CUDA device by Triton.

As :mod:`studio.merge.fused`, which knows and refuses the same. Every program of the kernel merges a
block: it reads the sources twice, once to elect signs and once to sum what agrees with them, the
second time from the device's cache. Where an entry lies that TIES keeps last is told by
`masks.Magnitudes`, in torch.
"""

import logging
from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from studio.merge import masks
from studio.merge.ingredients import GPU_CHUNK, Ingredients, Resident
from studio.merge.methods import METHODS
from studio.merge.parameter_space import Setting

log = logging.getLogger("studio.merge")

#: Entries of one program.
BLOCK = 1024
#: Products and sums are separate steps, as in the reference.
OPTIONS = {"enable_fp_fusion": False}
_MASKS = {None: 0, "random": 1, "magnitude": 2}


class FusedOnGpu:
    """One tensor of base and sources on a device, of which `merge_into` makes candidates."""

    def __init__(self, resident: Resident):
        self._resident = resident
        device, vectors = resident.vectors.device, resident.vectors
        self._keys = _words([word for key in resident.keys for word in key], device)
        self._places: Sequence[masks.Mask] = ()
        if resident.method.masks == "magnitude":
            self._places = [
                masks.Magnitudes(
                    lambda start, stop, vector=vector: vector[start:stop].float(),
                    vector.numel(),
                    GPU_CHUNK,
                    key,
                )
                for vector, key in zip(vectors, resident.keys, strict=True)
            ]

    def merge_into(self, out: Tensor, setting: Setting, normalize: bool) -> None:
        """Write the merged tensor into ``out``, flat ``[count]``."""
        # A kernel is launched on the current device, which need not be that of the numbers.
        with torch.cuda.device_of(out):
            self._launch(out, setting, normalize)

    def _launch(self, out: Tensor, setting: Setting, normalize: bool) -> None:
        made, method = self._resident, self._resident.method
        factors, weights, divided = made.coefficients(setting, normalize)
        count, device = out.numel(), out.device
        _merge[(triton.cdiv(count, BLOCK),)](
            out,
            made.vectors[0] if made.base is None else made.base,
            made.vectors,
            torch.tensor([*factors, *weights], dtype=torch.float32, device=device),
            self._keys,
            self._limits(setting, device),
            count,
            divided,
            sources=len(made.vectors),
            masked=_MASKS[method.masks],
            elect=method.elects,
            share=method.elects and normalize,
            onto=made.base is not None,
            block=BLOCK,
            **OPTIONS,
        )

    def _limits(self, setting: Setting, device: torch.device) -> Tensor:
        """What the masks compare with, int32 ``[sources, 2]``: bits of magnitude, and hash."""
        if self._resident.method.masks == "random":
            limits = [(0, int(density * 2**32) - 1) for density in setting.densities]
        else:
            orders = [p.limit(d) for p, d in zip(self._places, setting.densities, strict=False)]
            limits = [(0x7FFFFFFF - (order >> 32), order & 0xFFFFFFFF) for order in orders]
        limits = limits or [(0, 0)] * len(self._resident.vectors)
        return _words([word for pair in limits for word in pair], device)


@cache
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel runs on a device, and merges a few numbers there as plain torch does.

    A driver, a card or a compiler that it does not suit is found out here, once, and not by a run.
    """
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 3 * BLOCK + 1, generator=random).to(device, dtype)
    for method in ("dare_ties", "ties"):
        made = Resident(METHODS[method], vectors[0], vectors, [(1, 2), (3, 4)], None)
        asked, found = Setting((0.5, 0.75), (0.5, 0.25)), []
        try:
            for merger in (FusedOnGpu(made), Ingredients.held(made)):
                out = torch.empty_like(vectors[0])
                merger.merge_into(out, asked, True)
                found.append(out.float())
        except Exception as error:  # whatever a compiler or a driver may say
            log.warning("the merge kernel does not run on %s: %s", device, error)
            return False
        unit = torch.finfo(dtype).eps * found[1].abs()
        if not bool(((found[0] - found[1]).abs() <= unit).all()):
            log.warning("the merge kernel is wrong on %s; plain torch merges instead", device)
            return False
    return True


def _words(words: Sequence[int], device: torch.device) -> Tensor:
    """uint32 words as the int32 that have their bits."""
    signed = [word - (word >> 31 << 32) for word in words]
    return torch.tensor(signed, dtype=torch.int32, device=device)


@triton.jit
def _mix(x):
    """`masks._mix`, in 32 bits."""
    x = x ^ (x >> 15)
    x = x * 0x2C1B3C6D
    x = x ^ (x >> 12)
    x = x * 0x297A2D39
    return x ^ (x >> 15)


@triton.jit
def _kept(vectors, factors, keys, limits, source, places, inside, count, masked: tl.constexpr):
    """A source's entries, masked and weighted."""
    start = tl.cast(source, tl.int64) * count
    number = tl.load(vectors + start + places, mask=inside, other=0.0).to(tl.float32)
    if masked > 0:
        first = tl.load(keys + 2 * source).to(tl.uint32, bitcast=True)
        second = tl.load(keys + 2 * source + 1).to(tl.uint32, bitcast=True)
        limit = tl.load(limits + 2 * source + 1).to(tl.uint32, bitcast=True)
        keep = _mix(_mix(places.to(tl.uint32) ^ first) ^ second) <= limit
        if masked == 2:
            edge = tl.load(limits + 2 * source)
            magnitude = number.to(tl.int32, bitcast=True) & 0x7FFFFFFF
            keep = (magnitude > edge) | ((magnitude == edge) & keep)
        number = tl.where(keep, number, 0.0)
    return number * tl.load(factors + source)


@triton.jit
def _merge(
    out,
    base,
    vectors,
    factors,
    keys,
    limits,
    count,
    divided,
    sources: tl.constexpr,
    masked: tl.constexpr,
    elect: tl.constexpr,
    share: tl.constexpr,
    onto: tl.constexpr,
    block: tl.constexpr,
):
    places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = places < count
    total = _kept(vectors, factors, keys, limits, 0, places, inside, count, masked)
    for source in tl.static_range(1, sources):
        total += _kept(vectors, factors, keys, limits, source, places, inside, count, masked)
    if elect:
        sign = tl.where(total >= 0, 1.0, -1.0)
        agreed = tl.zeros([block], tl.float32)
        shares = tl.zeros([block], tl.float32)
        for source in tl.static_range(sources):
            number = _kept(vectors, factors, keys, limits, source, places, inside, count, masked)
            number = number * sign
            agreed += tl.where(number <= 0, 0.0, number)
            if share:
                shares += tl.where(number > 0, tl.load(factors + sources + source), 0.0)
        total = agreed * sign
        if share:
            total = tl.div_rn(total, tl.where(shares == 0, 1.0, shares))
    else:
        total = tl.div_rn(total, tl.full([block], divided, tl.float32))
    if onto:
        total = tl.load(base + places, mask=inside, other=0.0).to(tl.float32) + total
    tl.store(out + places, total.to(out.dtype.element_ty), mask=inside)
