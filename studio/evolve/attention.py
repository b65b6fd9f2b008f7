"""The loops of decoding on a CPU that a matrix product is no help with, compiled by numba.

Knows float32 arrays: the tokens of many sequences in one flat row, each with the slot of the
key-value cache that its sequence has and its place there. No token is padding, so no mask is
needed: a token sees what stands in its slot up to its own place. Refuses to know models.

NaN and infinity come through: whoever reads the logits sees them.
"""

import math

import numpy as np
from numba import njit

#: Sums may be taken in any order, and a product and a sum in one; nothing else is let go.
_LOOSE = {"reassoc", "contract", "nsz", "arcp"}
#: Numbers of a head that are worked on at a time; its size is a multiple.
STEP = 4
_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first so short that its product with a small integer is exact
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOWEST = np.float32(-87.0)  # e to the power of less is no normal number
# 1/7! … 1/2!: the rest of the series is below 1 ulp for |r| ≤ ln 2 / 2
_SERIES = tuple(np.float32(1 / math.factorial(n)) for n in (7, 6, 5, 4, 3, 2))


@njit(cache=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
def rms_norm(hidden, weight, epsilon, out):
    """Write ``weight · hidden / rms(hidden)`` (arXiv:1910.07467), all ``[tokens, size]``."""
    tokens, size = hidden.shape
    for t in range(tokens):
        squares = np.float32(0)
        for d in range(size):
            squares += hidden[t, d] * hidden[t, d]
        factor = np.float32(1) / np.sqrt(squares / np.float32(size) + epsilon)
        for d in range(size):
            out[t, d] = weight[d] * (hidden[t, d] * factor)


@njit(cache=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
def remember(projected, start, cos, sin, slots, places, keys, values):
    """Turn keys to their places (arXiv:2104.09864) and put them into the cache with their values.

    Args:
        projected: ``[tokens, …]``; keys begin at ``start``, ``heads · size`` of them, then values.
        cos, sin: ``[places, size]``.
        slots, places: int32 ``[tokens]``.
        keys, values: ``[slots, heads, places, size]``.
    """
    heads, size = keys.shape[1], keys.shape[3]
    half = size // 2
    for t in range(len(slots)):
        slot, place = slots[t], places[t]
        for head in range(heads):
            key = start + head * size
            value = key + heads * size
            for d in range(half):
                low, high = projected[t, key + d], projected[t, key + half + d]
                keys[slot, head, place, d] = low * cos[place, d] - high * sin[place, d]
                keys[slot, head, place, half + d] = (
                    high * cos[place, half + d] + low * sin[place, half + d]
                )
            for d in range(size):
                values[slot, head, place, d] = projected[t, value + d]


@njit(cache=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
def attend(projected, group, cos, sin, slots, places, keys, values, scaling, out):
    """What queries find among the keys of their slots, up to their own places.

    Args:
        projected: ``[tokens, …]``; queries come first.
        group: how many queries share a head of the cache.
        cos, sin, keys, values: as of `remember`, which comes first.
        slots, places: int32 ``[tokens]``, of the queries.
        scaling: of the products of queries and keys.
        out: ``[tokens, heads · group · size]``.
    """
    heads, size = keys.shape[1], keys.shape[3]
    half = size // 2
    turned = np.empty((group, size), np.float32)
    scores = np.empty((group, keys.shape[2]), np.float32)
    bits = np.empty(keys.shape[2], np.int32)
    powers = bits.view(np.float32)
    found = np.empty(size, np.float32)
    for t in range(len(slots)):
        slot, place = slots[t], places[t]
        count = place + 1
        for head in range(heads):
            for g in range(group):
                start = (head * group + g) * size
                for d in range(half):
                    low, high = projected[t, start + d], projected[t, start + half + d]
                    turned[g, d] = (low * cos[place, d] - high * sin[place, d]) * scaling
                    turned[g, half + d] = (
                        high * cos[place, half + d] + low * sin[place, half + d]
                    ) * scaling
            for g in range(0, group - 1, 2):
                _products(turned[g : g + 2], keys[slot, head], count, scores[g : g + 2])
            if group % 2:
                _product(turned[group - 1], keys[slot, head], count, scores[group - 1])
            for g in range(group):
                total = _exponentials(scores[g], count, bits, powers)
                _sums(scores[g], values[slot, head], count, found)
                start = (head * group + g) * size
                share = np.float32(1) / total
                for d in range(size):
                    out[t, start + d] = found[d] * share


@njit(cache=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
def _exponentials(scores, count, bits, powers):
    """Replace the first scores by e to the power of their distance to the largest; their sum."""
    largest = scores[0]
    for n in range(1, count):
        if scores[n] > largest:
            largest = scores[n]
    for n in range(count):
        x = scores[n] - largest
        x = _LOWEST if x < _LOWEST else x
        whole = np.floor(x * _LOG2_E + np.float32(0.5))
        bits[n] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        r = x - whole * _LN2_HIGH - whole * _LN2_LOW
        series = _SERIES[0]
        for factor in _SERIES[1:]:
            series = series * r + factor
        scores[n] = series * r * r + r + np.float32(1)
    total = np.float32(0)
    for n in range(count):
        scores[n] *= powers[n]
        total += scores[n]
    return total


@njit(cache=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
def _products(queries, keys, count, scores):
    """The products of two queries with the first keys, which are read once."""
    for n in range(count):
        one = other = np.float32(0)
        for d in range(keys.shape[1]):
            one += queries[0, d] * keys[n, d]
            other += queries[1, d] * keys[n, d]
        scores[0, n], scores[1, n] = one, other


@njit(cache=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
def _product(query, keys, count, scores):
    """A query's products with the first keys."""
    for n in range(count):
        sum = np.float32(0)
        for d in range(len(query)):
            sum += query[d] * keys[n, d]
        scores[n] = sum


@njit(cache=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
def _sums(scores, values, count, found):
    """The first values, each times its score, `STEP` of them at a time."""
    size, whole = len(found), count - count % STEP
    for d in range(size):
        found[d] = np.float32(0)
    for n in range(0, whole, STEP):
        a, b, c, e = scores[n], scores[n + 1], scores[n + 2], scores[n + 3]
        for d in range(size):
            found[d] += (a * values[n, d] + b * values[n + 1, d]) + (
                c * values[n + 2, d] + e * values[n + 3, d]
            )
    for n in range(whole, count):
        for d in range(size):
            found[d] += scores[n] * values[n, d]
