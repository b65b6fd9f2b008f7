"""The merge of a tensor in one pass over memory, compiled for the CPU.

Knows numbers held in memory, the keys of their masks and what a setting asks for. Refuses to know
models, genomes and files. The arithmetic is that of :mod:`studio.merge.methods`, step by step and
in its order, which is the reference that this is tested against: the same masks, the same values.

Masks are not held but made on the way, a hash or a comparison per entry, which is no slower than
reading 4 bytes for each and takes no memory. Entries are merged a block at a time that stays in the
cache of a core, in plain loops that the compiler turns into vector instructions; cores share what
there is to merge. Compiled code is kept beside this file, or where numba keeps its own.
"""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic, overload

from studio.merge import masks
from studio.merge.ingredients import Resident
from studio.merge.parameter_space import Setting

#: Entries at a time: a block of every source and what is made of it stay in a core's nearest cache.
BLOCK = 1024
#: Entries that a core merges before it looks for more to do.
PART = 1 << 20
#: How far from where it should be a hash is looked for; beyond six it is once in 10⁹ times.
DEVIATIONS = 6

_NONE, _RANDOM, _MAGNITUDE = 0, 1, 2
_MASKS = {None: _NONE, "random": _RANDOM, "magnitude": _MAGNITUDE}
_compiled = njit(nogil=True, cache=True, error_model="numpy")


def fuses(device: torch.device | str, dtype: torch.dtype) -> bool:
    """Whether numbers of a dtype on a device can be merged here."""
    return torch.device(device).type == "cpu" and dtype in (torch.float32, torch.bfloat16)


class Fused:
    """One tensor's base and sources in memory, of which `merge_into` makes candidates."""

    def __init__(self, resident: Resident):
        self._resident, self._method = resident, resident.method
        self._vectors = _numbers(resident.vectors)
        base = resident.base
        self._base = self._vectors[0, :0] if base is None else _numbers(base)
        self._keys = np.array(resident.keys, np.uint32)
        self._places = None
        if self._method.masks == "magnitude":
            self._places = [Place(*pair) for pair in zip(self._vectors, self._keys, strict=True)]

    def merge_into(self, out: torch.Tensor, setting: Setting, normalize: bool) -> None:
        """Write the merged tensor into ``out``, of the vectors' dtype, flat ``[count]``."""
        share_out([self.merging(out, setting, normalize)])

    def merging(self, out: torch.Tensor, setting: Setting, normalize: bool) -> "Work":
        """What `merge_into` does, for whoever shares it out with that of other tensors."""
        factors, weights, divided = self._resident.coefficients(setting, normalize)
        elect = self._method.elects

        def begin() -> "list[Work]":
            each = (
                _numbers(out), self._base, self._vectors, np.array(factors, np.float32),
                np.array(weights, np.float32), self._keys, self._limits(setting),
                _MASKS[self._method.masks], elect, elect and normalize,
                np.float32(divided),
            )  # fmt: skip
            count = out.numel()
            return [
                partial(_merge, *each, start, min(start + PART, count))
                for start in range(0, count, PART)
            ]

        return begin

    def _limits(self, setting: Setting) -> np.ndarray:
        """What the masks compare with, uint32 ``[sources, 2]``: bits of magnitude, and hash."""
        limits = np.zeros((len(self._vectors), 2), np.uint32)
        if self._method.masks == "random":
            limits[:, 1] = [int(density * 2**32) - 1 for density in setting.densities]
        elif self._places:
            for row, place, density in zip(limits, self._places, setting.densities, strict=True):
                row[:] = place.limit(density)
        return limits


class Place:
    """Where in a task vector, by magnitude, the last entry lies that TIES keeps.

    As `masks.Magnitudes`, without sorting: a histogram over the upper 16 of 31 bits, made once,
    says in which bin. Of float32 a second one, over the other bits of the entries there, says at
    which magnitude; a bin of bfloat16 has one. Of those that are as large the hash decides: its
    limit lies about where that of evenly spread hashes would, and those nearby are sorted out.
    """

    def __init__(self, vector: np.ndarray, key: np.ndarray):
        self._vector, self._key = vector, key
        counts = np.zeros(1 << 16, np.int64)
        _upper(vector, counts)
        # A fine-tune's differences are in a few thousand of the bins.
        self._bins = counts.nonzero()[0].astype(np.uint16)
        self._sums = counts[self._bins].cumsum()

    def limit(self, density: float) -> tuple[int, int]:
        """Magnitude bits and hash of the last entry kept."""
        rank = masks.magnitude_limit(density, self._vector.size)  # from the largest, from 0
        bin, rank, size = _find(self._sums, rank)
        upper = int(self._bins[bin])
        descending = upper << 15 | 0x7FFF
        if self._vector.itemsize == 4:
            counts = np.zeros(1 << 15, np.int64)
            _lower(self._vector, upper, counts)
            lower, rank, size = _find(counts.cumsum(), rank)
            descending = upper << 15 | lower
        edge = 0x7FFFFFFF - descending
        return edge, 0xFFFFFFFF if rank == size - 1 else self._hash(edge, rank, size)

    def _hash(self, edge: int, rank: int, size: int) -> int:
        """The ``rank``-th smallest hash of the ``size`` entries of this magnitude."""
        middle, wide = (rank + 0.5) / size, (DEVIATIONS * math.sqrt(rank + 1) + 2) / size
        low, high = max(0, int((middle - wide) * 2**32)), min(2**32, int((middle + wide) * 2**32))
        while True:
            room = min(size, int((high - low) / 2**32 * size * 2) + 64)
            near = np.empty(room, np.uint32)
            below, found = _near(self._vector, self._key, edge, low, high, near)
            if below <= rank < below + found <= below + room:
                return int(np.partition(near[:found], rank - below)[rank - below])
            low, high = 0, 2**32  # uneven after all: look at every one


def _find(sums: np.ndarray, rank: int) -> tuple[int, int, int]:
    """The bin in which the entry of a rank lies, its rank within, and the bin's size."""
    bin = int(sums.searchsorted(rank, side="right"))
    before = int(sums[bin - 1]) if bin else 0
    return bin, rank - before, int(sums[bin]) - before


#: Something to be done on any core; it may leave more to do.
Work = Callable[[], "list[Work] | None"]


def share_out(work: Iterable[Work]) -> None:
    """Do everything, and what it leaves to do, on as many cores as torch computes on."""
    threads = torch.get_num_threads()
    if threads == 1:
        left = list(work)
        while left:
            left.extend(left.pop()() or ())
        return
    pool, going = _pool(threads), set()
    try:
        for one in work:
            going.add(pool.submit(one))
        while going:
            done, going = wait(going, return_when=FIRST_COMPLETED)
            for one in done:
                going.update(pool.submit(more) for more in one.result() or ())
    finally:  # what fails leaves nobody at work on the tensors
        for one in going:
            one.cancel()
        wait(going)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="merge")


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's memory, bfloat16 as its bits."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


# ── compiled ──────────────────────────────────────────────────────────────────────────────────
# Loops over a block have no branches but choices, so that they become vector instructions. How an
# entry is read and written is chosen by its type when a loop is compiled.


@_compiled
def _mix(x: Any) -> Any:
    """`masks._mix`, in 32 bits."""
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x2C1B3C6D))
    x = np.uint32(x ^ (x >> np.uint32(12)))
    x = np.uint32(x * np.uint32(0x297A2D39))
    return np.uint32(x ^ (x >> np.uint32(15)))


@_compiled
def _hash(index: Any, first: Any, second: Any) -> Any:
    """`masks.hashes` of one flat index."""
    return _mix(np.uint32(_mix(np.uint32(np.uint32(index) ^ first)) ^ second))


@intrinsic
def _float(typing, bits):
    """The float32 of these bits."""
    return types.float32(types.uint32), _as(types.float32)


@intrinsic
def _bits(typing, number):
    """The bits of a float32."""
    return types.uint32(types.float32), _as(types.uint32)


def _as(kind):
    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(kind))

    return code


def _wide(entries, j):
    """An entry as float32."""
    raise NotImplementedError


def _put(entries, j, number):
    """A float32 as an entry, rounded to the nearest, ties to even."""
    raise NotImplementedError


@overload(_wide)
def _(entries, j):
    if entries.dtype == types.uint16:
        return lambda entries, j: _float(np.uint32(np.uint32(entries[j]) << np.uint32(16)))
    return lambda entries, j: entries[j]


@overload(_put)
def _(entries, j, number):
    if entries.dtype == types.uint16:
        return _put_half
    return _put_whole


def _put_half(entries, j, number):
    bits = _bits(number)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    entries[j] = np.uint16((np.uint32(0x7FC00000) if nan else rounded) >> np.uint32(16))


def _put_whole(entries, j, number):
    entries[j] = number


@_compiled
def _merge(
    out, base, vectors, factors, weights, keys, limits, masked, elect, share, divided, start, stop
):
    """Entries [start, stop) of the merge."""
    kept = np.empty((vectors.shape[0], BLOCK), np.float32)
    total = np.empty(BLOCK, np.float32)
    agreed = np.empty(BLOCK, np.float32)
    shares = np.empty(BLOCK, np.float32)
    # Read rather than counted, for a counter would make 64-bit vectors of the hashes.
    places = np.arange(BLOCK).astype(np.uint32)
    zero, one = np.float32(0), np.float32(1)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        size, begin = last - first, np.uint32(first)
        for j in range(size):
            total[j] = -zero  # what is added to it stays as it is
        for source in range(vectors.shape[0]):
            entries, row, factor = vectors[source, first:last], kept[source], factors[source]
            key, other = keys[source, 0], keys[source, 1]
            edge, limit = limits[source, 0], limits[source, 1]
            if masked == _RANDOM:
                for j in range(size):
                    keep = _hash(places[j] + begin, key, other) <= limit
                    row[j] = (_wide(entries, j) if keep else zero) * factor
                    total[j] += row[j]
            elif masked == _MAGNITUDE:
                for j in range(size):
                    number = _wide(entries, j)
                    magnitude = _bits(number) & np.uint32(0x7FFFFFFF)
                    hashed = _hash(places[j] + begin, key, other)
                    tied = (magnitude == edge) & (hashed <= limit)
                    row[j] = (number if (magnitude > edge) | tied else zero) * factor
                    total[j] += row[j]
            else:
                for j in range(size):
                    total[j] += _wide(entries, j) * factor
        if elect:
            for j in range(size):
                agreed[j] = shares[j] = zero
            for source in range(vectors.shape[0]):
                row, weight = kept[source], weights[source]
                for j in range(size):
                    number = row[j] if total[j] >= zero else -row[j]
                    agreed[j] += zero if number <= zero else number  # what is no number stays
                if share:
                    for j in range(size):
                        number = row[j] if total[j] >= zero else -row[j]
                        shares[j] += weight if number > zero else zero
            for j in range(size):
                total[j] = agreed[j] if total[j] >= zero else -agreed[j]
            if share:
                for j in range(size):
                    total[j] /= shares[j] if shares[j] != zero else one
        elif divided != one:
            for j in range(size):
                total[j] /= divided
        entries = out[first:last]
        if base.size:
            below = base[first:last]
            for j in range(size):
                _put(entries, j, np.float32(_wide(below, j) + total[j]))
        else:
            for j in range(size):
                _put(entries, j, total[j])


@_compiled
def _magnitude(entries, j):
    """The bits of an entry's magnitude, from the largest down."""
    return np.uint32(0x7FFFFFFF) - (_bits(_wide(entries, j)) & np.uint32(0x7FFFFFFF))


@_compiled
def _upper(vector, counts):
    """Count entries by the upper 16 bits of their magnitudes, from the largest down."""
    for j in range(vector.size):
        counts[_magnitude(vector, j) >> np.uint32(15)] += 1


@_compiled
def _lower(vector, upper, counts):
    """Count the entries of such upper bits by the other 15."""
    for j in range(vector.size):
        magnitude = _magnitude(vector, j)
        if magnitude >> np.uint32(15) == upper:
            counts[magnitude & np.uint32(0x7FFF)] += 1


@_compiled
def _near(vector, key, edge, low, high, near):
    """Of entries of this magnitude: how many hashes are below ``low``, and those below ``high``.

    As many as there is room for are written down; all are counted.
    """
    places = np.arange(BLOCK).astype(np.uint32)
    hashed = np.empty(BLOCK, np.uint32)
    tied = np.empty(BLOCK, np.uint32)
    descending, first_key, second_key = np.uint32(0x7FFFFFFF - edge), key[0], key[1]
    below = found = 0
    for first in range(0, vector.size, BLOCK):
        entries, begin = vector[first : first + BLOCK], np.uint32(first)
        some = 0
        for j in range(entries.size):
            hashed[j] = _hash(places[j] + begin, first_key, second_key)
            tied[j] = _magnitude(entries, j) == descending
            some += tied[j]
        if not some:
            continue
        for j in range(entries.size):
            if tied[j]:
                if hashed[j] < low:
                    below += 1
                elif hashed[j] < high:
                    if found < near.size:
                        near[found] = hashed[j]
                    found += 1
    return below, found
