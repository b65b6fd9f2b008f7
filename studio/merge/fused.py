"""The merge of a tensor in one pass over memory, compiled for the CPU.

Knows numbers held in memory, the keys of their masks and what a setting asks for. Refuses to know
models, genomes and files. The arithmetic is that of :mod:`studio.merge.methods`, step by step and
in its order, which is the reference that this is tested against: the same masks, the same values.

Masks are not held but made on the way, a hash or a comparison per entry, which is no slower than
reading 4 bytes for each and takes no memory. Entries are merged a block at a time that stays in the
cache of a core, in plain loops that the compiler turns into vector instructions; cores share a
tensor where it is large. Compiled code is kept beside this file, or where numba keeps its own.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic, overload

from studio.merge import masks
from studio.merge.ingredients import Resident
from studio.merge.methods import divisor, slerp_weights
from studio.merge.parameter_space import Setting

#: Entries at a time: a block of every source and what is made of it stay in a core's nearest cache.
BLOCK = 1024
#: Entries from which a tensor is worth a second core.
SHARED = 1 << 17
#: What numpy calls the numbers of a dtype that it has no name for.
_VIEWS = {torch.float32: np.float32, torch.bfloat16: np.uint16}

_NONE, _RANDOM, _MAGNITUDE = 0, 1, 2
_MASKS = {None: _NONE, "random": _RANDOM, "magnitude": _MAGNITUDE}
_compiled = njit(nogil=True, cache=True, error_model="numpy")


def fuses(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether numbers of a dtype on a device can be merged here."""
    return device.type == "cpu" and dtype in _VIEWS


class Fused:
    """One tensor's base and sources in memory, of which `merge_into` makes candidates."""

    def __init__(self, resident: Resident):
        self._method, self._cosine = resident.method, resident.cosine
        self._vectors = _numbers(resident.vectors)
        base = resident.base
        self._base = self._vectors[0, :0] if base is None else _numbers(base)
        self._keys = np.array(resident.keys, np.uint32)
        self._places = None
        if self._method.masks == "magnitude":
            self._places = [Place(*pair) for pair in zip(self._vectors, self._keys, strict=True)]

    def merge_into(self, out: torch.Tensor, setting: Setting, normalize: bool) -> None:
        """Write the merged tensor into ``out``, of the vectors' dtype, flat ``[count]``."""
        weights = setting.weights
        if setting.t is not None:
            weights, normalize = slerp_weights(setting.t, self._cosine), False
        factors = weights
        if self._method.masks == "random":
            factors = [w / p for w, p in zip(weights, setting.densities, strict=True)]
        elect = self._method.elects
        each = (
            _numbers(out), self._base, self._vectors, np.array(factors, np.float32),
            np.array(weights, np.float32), self._keys, self._limits(setting),
            _MASKS[self._method.masks], elect, elect and normalize,
            np.float32(divisor(weights) if normalize and not elect else 1.0),
        )  # fmt: skip
        in_parts(lambda start, stop: _merge(*each, start, stop), out.numel())

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

    As `masks.Magnitudes`: a histogram over the upper 16 of 31 bits, made once, says in which bin;
    the entries there are looked at again, 16 bits of (magnitude, hash) at a time, until few enough
    are left to sort out. No candidate sorts a vector.
    """

    def __init__(self, vector: np.ndarray, key: np.ndarray):
        self._vector, self._key = vector, key
        self._histogram = torch.from_numpy(self._count(-1, 0, 47))

    def limit(self, density: float) -> tuple[int, int]:
        """Magnitude bits and hash of the last entry kept."""
        rank = masks.magnitude_limit(density, self._vector.size)
        prefix, rank, size = masks.place(self._histogram, rank)
        shift = 47
        while size > masks.HASH_CHUNK and shift > 15:
            found = torch.from_numpy(self._count(prefix, shift, shift - 16))
            digit, rank, size = masks.place(found, rank)
            prefix, shift = prefix << 16 | digit, shift - 16
        orders = self._collect(prefix, shift, size)
        order = int(np.partition(orders, rank)[rank])
        return 0x7FFFFFFF - (order >> 32), order & 0xFFFFFFFF

    def _count(self, prefix: int, above: int, below: int) -> np.ndarray:
        """How many orders that begin with ``prefix`` have each of the next 16 bits."""
        found: list[np.ndarray] = []

        def part(start: int, stop: int) -> None:
            histogram = np.zeros(1 << 16, np.int64)
            _digits(self._vector, self._key, prefix, above, below, histogram, start, stop)
            found.append(histogram)

        in_parts(part, self._vector.size)
        return sum(found[1:], found[0])

    def _collect(self, prefix: int, above: int, size: int) -> np.ndarray:
        """The ``size`` orders that begin with ``prefix``, all but ``above`` bits, in any order."""
        found: list[np.ndarray] = []

        def part(start: int, stop: int) -> None:
            orders = np.empty(min(size, stop - start), np.int64)
            count = _collect(self._vector, self._key, prefix, above, orders, start, stop)
            found.append(orders[:count])

        in_parts(part, self._vector.size)
        return np.concatenate(found)


def in_parts(work: Callable[[int, int], None], count: int) -> None:
    """``work(start, stop)`` over all of ``count``, on as many cores as torch computes on."""
    threads = torch.get_num_threads() if count >= SHARED else 1
    if threads == 1:
        work(0, count)
        return
    share = BLOCK * math.ceil(count / threads / BLOCK)
    parts = [(start, min(start + share, count)) for start in range(0, count, share)]
    for done in [_pool(threads).submit(work, *part) for part in parts]:
        done.result()


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
# Every loop does one thing to a block, so that it becomes vector instructions. A branch on the size
# of entries stands outside of the loops; both sides are valid for either dtype, one is taken.


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
def _descending(entries, bits):
    """Magnitude bits from the largest down."""
    for j in range(entries.size):
        bits[j] = np.uint32(0x7FFFFFFF) - (_bits(_wide(entries, j)) & np.uint32(0x7FFFFFFF))


@_compiled
def _digits(vector, key, prefix, above, below, histogram, start, stop):
    """Count the orders that begin with ``prefix``, all but ``above`` bits, by 16 bits of them."""
    bits = np.empty(BLOCK, np.uint32)
    for first in range(start, stop, BLOCK):
        size = min(BLOCK, stop - first)
        _descending(vector[first : first + size], bits)
        for j in range(size):
            order = np.int64(bits[j]) << 32
            if prefix < 0:
                histogram[order >> below] += 1
            elif order >> max(above, 32) == prefix >> max(32 - above, 0):
                order |= np.int64(_hash(first + j, key[0], key[1]))
                if order >> above == prefix:
                    histogram[(order >> below) & 0xFFFF] += 1


@_compiled
def _collect(vector, key, prefix, above, orders, start, stop):
    """Write down the orders that begin with ``prefix``, all but ``above`` bits; how many."""
    bits = np.empty(BLOCK, np.uint32)
    found = 0
    for first in range(start, stop, BLOCK):
        size = min(BLOCK, stop - first)
        _descending(vector[first : first + size], bits)
        for j in range(size):
            order = np.int64(bits[j]) << 32
            if order >> max(above, 32) == prefix >> max(32 - above, 0):
                order |= np.int64(_hash(first + j, key[0], key[1]))
                if order >> above == prefix:
                    orders[found] = order
                    found += 1
    return found
