"""The loops that merge on a CPU, compiled by numba.

Knows arrays of numbers and their places, keys and limits. Refuses to know tensors, settings and
threads, which are for :mod:`studio.merge.fused`.

A merge is one loop over the entries, in which all sources are read and the result is written. The
number of sources is part of the code: what is done for each is written out for each, so that all
numbers of an entry stay in registers and the compiler turns the loop into vector instructions. It
does so only where everything called is inlined and nothing is wider than 32 bits; numba widens
integers whenever it may, and every step is narrowed again. Compiled code is kept beside this file,
or where numba keeps its own, until this file changes: whatever is compiled is here.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

#: Entries of which the hashes share what the upper bits of their places contribute, see `_hash`.
BLOCK = 1 << 15
#: Entries that are sifted at a time: their marks stay in a core's nearest cache.
SIFTED = 1 << 12

NONE, RANDOM, MAGNITUDE = 0, 1, 2

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_INLINED = {"forceinline": True, "error_model": "numpy"}
_inlined = njit(**_INLINED)

_U32 = np.uint32
_SIGNLESS = np.uint32(0x7FFFFFFF)


@cache
def merger(sources: int, masked: int, elects: bool, normalizes: bool, onto: bool) -> Callable:
    """The merge of a number of sources.

    Args:
        masked: `NONE`, `RANDOM` or `MAGNITUDE`.
        elects: whether a sign is elected for every entry.
        normalizes: whether sums are divided: by ``divided`` or, where signs are elected, by the
            weights of those that agree.
        onto: whether sums are added to a base.

    Returns:
        A function that writes entries [start, stop) of ``out``, ``[count]``, where ``start`` is a
        multiple of `BLOCK`. ``base`` is ``[count]`` and ``vectors`` ``[sources, count]``, float32
        or the bits of bfloat16; factors and weights are float32 ``[sources]``, keys and limits
        uint32 ``[sources, 2]``.
    """
    each = tuple(range(sources))

    @_compiled
    def merge(out, base, vectors, factors, weights, keys, limits, divided, start, stop):
        zero, one, count = np.float32(0), np.float32(1), vectors.shape[1]
        for first in range(start, stop, BLOCK):
            given = _given(each, factors, weights, keys, limits, _fold(_U32(first)))
            for j in range(min(BLOCK, stop - first)):
                numbers = _numbers(given, vectors, first + j, count, _U32(j), masked)
                total = _sum(numbers[1:], numbers[0])
                if elects:
                    up = total >= zero
                    agreed = _agreed(numbers, up, zero)
                    total = agreed if up else -agreed
                    if normalizes:
                        shares = _shares(given, numbers, up, zero)
                        total = total / (shares if shares != zero else one)
                elif normalizes:
                    total = total / divided
                if onto:
                    total = _wide(base, first + j) + total
                _put(out, first + j, total)

    return merge


# ── for every source ──────────────────────────────────────────────────────────────────────────
# Functions of tuples, which call themselves with the rest of a tuple until nothing is left of it.
# numba asks them for an implementation by type, that is by the length of the tuple.


def _given(each, factors, weights, keys, limits, begin):
    """What a source's entries are masked and multiplied with, in a block that begins there."""


def _numbers(given, vectors, at, count, place, masked):
    """The sources' entries at a place, masked and weighted."""


def _sum(numbers, total):
    """One number added after the other."""


def _agreed(numbers, up, total):
    """The sum of the magnitudes of those that have this sign."""


def _shares(given, numbers, up, total):
    """The sum of the weights of those that have this sign."""


@overload(_given, jit_options=_INLINED)
def _(each, factors, weights, keys, limits, begin):
    if not len(each):
        return lambda each, factors, weights, keys, limits, begin: ()

    def rows(each, factors, weights, keys, limits, begin):
        source = each[0]
        first, second = _U32(begin ^ _fold(keys[source, 0])), _fold(keys[source, 1])
        edge, limit = limits[source, 0], limits[source, 1]
        before = _U32(_fold(_U32(limit ^ _U32(limit >> _U32(30)))) >> _U32(15))
        row = (factors[source], weights[source], first, second, edge, limit, before)
        return (row,) + _given(each[1:], factors, weights, keys, limits, begin)

    return rows


@overload(_numbers, jit_options=_INLINED)
def _(given, vectors, at, count, place, masked):
    if not len(given):
        return lambda given, vectors, at, count, place, masked: ()

    def numbers(given, vectors, at, count, place, masked):
        number = _number(given[0], vectors, at, place, masked)
        return (number,) + _numbers(given[1:], vectors, at + count, count, place, masked)

    return numbers


@overload(_sum, jit_options=_INLINED)
def _(numbers, total):
    if not len(numbers):
        return lambda numbers, total: total
    return lambda numbers, total: _sum(numbers[1:], total + numbers[0])


@overload(_agreed, jit_options=_INLINED)
def _(numbers, up, total):
    if not len(numbers):
        return lambda numbers, up, total: total

    def agreed(numbers, up, total):
        zero, number = np.float32(0), numbers[0] if up else -numbers[0]
        # What is no number stays.
        return _agreed(numbers[1:], up, total + (zero if number <= zero else number))

    return agreed


@overload(_shares, jit_options=_INLINED)
def _(given, numbers, up, total):
    if not len(given):
        return lambda given, numbers, up, total: total

    def shares(given, numbers, up, total):
        zero, number = np.float32(0), numbers[0] if up else -numbers[0]
        share = given[0][1] if number > zero else zero
        return _shares(given[1:], numbers[1:], up, total + share)

    return shares


@_inlined
def _number(row, vectors, at, place, masked):
    """A source's entry, masked and weighted."""
    factor, _, first, second, edge, limit, before = row
    number, zero = _wide(vectors, at), np.float32(0)
    if masked != NONE:
        # For any z and w is fold(z) <= fold(w) just where z ^ (w >> 15) <= fold(w): the highest
        # bit in which they differ is that in which z and w do.
        keep = _U32(_hash(place, first, second) ^ before) <= limit
        if masked == MAGNITUDE:
            magnitude = _U32(_bits(number) & _SIGNLESS)
            keep = (magnitude > edge) | ((magnitude == edge) & keep)
        number = number if keep else zero
    return number * factor


# ── hashes ────────────────────────────────────────────────────────────────────────────────────


@_inlined
def _fold(x):
    """The first and the last step of `masks._mix`. For any x, y fold(x ^ y) = fold(x) ^ fold(y)."""
    return _U32(x ^ _U32(x >> _U32(15)))


@_inlined
def _scramble(x):
    """The steps of `masks._mix` between them."""
    x = _U32(x * _U32(0x2C1B3C6D))
    x = _U32(x ^ _U32(x >> _U32(12)))
    return _U32(x * _U32(0x297A2D39))


@_inlined
def _hash(place, first, second):
    """`masks.hashes`, before its last step.

    What is folded there may be folded apart. A place within its block, below 2¹⁵, is its own fold;
    ``first`` is that of the block's beginning and of a key, ``second`` that of the other key, and
    two folds in a row leave ``x ^ (x >> 30)``.
    """
    x = _scramble(_U32(place ^ first))
    return _scramble(_U32(_U32(x ^ _U32(x >> _U32(30))) ^ second))


# ── entries ───────────────────────────────────────────────────────────────────────────────────
# Arrays without gaps are read and written unchecked.


@intrinsic
def _at(typing, entries, place):
    """An entry of an array, whatever its shape."""

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(cgutils.gep_inbounds(builder, data, arguments[1]))

    return entries.dtype(entries, types.intp), code


@intrinsic
def _set(typing, entries, place, number):
    """Write an entry of an array."""

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store(arguments[2], cgutils.gep_inbounds(builder, data, arguments[1]))
        return context.get_dummy_value()

    return types.none(entries, types.intp, entries.dtype), code


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


def _wide(entries, place):
    """An entry as float32."""


def _put(entries, place, number):
    """Write a float32 as an entry, rounded to the nearest, ties to even."""


@overload(_wide, jit_options=_INLINED)
def _(entries, place):
    if entries.dtype == types.uint16:
        return lambda entries, place: _float(_U32(_U32(_at(entries, place)) << _U32(16)))
    return lambda entries, place: _at(entries, place)


@overload(_put, jit_options=_INLINED)
def _(entries, place, number):
    if entries.dtype == types.uint16:
        return lambda entries, place, number: _set(
            entries, place, np.uint16(_rounded(_bits(number)) >> _U32(16))
        )
    return lambda entries, place, number: _set(entries, place, number)


@_inlined
def _rounded(bits):
    up = _U32(bits + _U32(_U32(0x7FFF) + _U32(_U32(bits >> _U32(16)) & _U32(1))))
    return _U32(0x7FC00000) if _U32(bits & _SIGNLESS) > _U32(0x7F800000) else up


# ── magnitudes ────────────────────────────────────────────────────────────────────────────────


@_inlined
def _descending(entries, place):
    """The bits of an entry's magnitude, from the largest down."""
    return _U32(_SIGNLESS - _U32(_bits(_wide(entries, place)) & _SIGNLESS))


@_compiled
def count_upper(vector: Any, counts: Any) -> None:
    """Count entries by the upper 16 bits of their magnitudes, from the largest down."""
    for j in range(vector.size):
        counts[_descending(vector, j) >> _U32(15)] += 1


@_compiled
def find_lower(vector: Any, upper: Any, rank: Any) -> tuple[Any, Any, Any]:
    """Of the entries of such upper bits, that of a rank, from the largest down.

    Returns:
        Its other 15 bits, its rank among those that are as large, and how many those are.
    """
    marks, places = np.empty(SIFTED, np.uint8), np.empty(SIFTED, np.int64)
    counts, wanted = np.zeros(1 << 15, np.uint32), _U32(upper)
    for first in range(0, vector.size, SIFTED):
        size = min(SIFTED, vector.size - first)
        for j in range(size):
            marks[j] = _U32(_descending(vector, first + j) >> _U32(15)) == wanted
        for k in range(_marked(marks, size, places)):
            counts[_descending(vector, first + places[k]) & _U32(0x7FFF)] += _U32(1)
    lower = 0
    while rank >= counts[lower]:
        rank -= counts[lower]
        lower += 1
    return lower, rank, counts[lower]


@_compiled
def hashes_between(
    vector: Any, key: Any, edge: Any, low: Any, high: Any, found: Any
) -> tuple[Any, Any]:
    """Of entries of a magnitude: how many hashes are below ``low``, and those up to ``high``.

    As many as there is room for are written into ``found``; all are counted.
    """
    marks, places = np.empty(SIFTED, np.uint8), np.empty(SIFTED, np.int64)
    descending, least, width = _U32(_SIGNLESS - edge), _U32(low), _U32(high - low)
    second = _fold(key[1])
    below = written = 0
    for first in range(0, vector.size, SIFTED):
        size = min(SIFTED, vector.size - first)
        begin = _U32(_fold(_U32(first & -BLOCK)) ^ _fold(key[0]))
        within, less = _U32(first & (BLOCK - 1)), _U32(0)
        for j in range(size):
            hashed = _fold(_hash(_U32(within + _U32(j)), begin, second))
            tied = _descending(vector, first + j) == descending
            less = _U32(less + _U32(tied & (hashed < least)))
            marks[j] = tied & (_U32(hashed - least) <= width)
        below += less
        for k in range(_marked(marks, size, places)):
            if written < found.size:
                place = _U32(within + _U32(places[k]))
                found[written] = _fold(_hash(place, begin, second))
            written += 1
    return below, written


@_inlined
def _marked(marks, size, places):
    """Write down the places of the few marks that are set, and how many there are."""
    marks[size:] = 0
    eight, count = marks.view(np.uint64), 0
    for word in range((size + 7) // 8):
        if eight[word]:
            for j in range(8 * word, 8 * word + 8):
                if marks[j]:
                    places[count] = j
                    count += 1
    return count
