"""One pass of a model over a flat row of tokens on a CPU, as a whole or in parts, by numba.

Knows float32 arrays: the tokens of many sequences in one flat row, each with the slot of the
key-value cache that its sequence has and its place there. No token is padding, so no mask is
needed: a token sees what stands in its slot up to its own place. Of a model it knows where the
weights lie, by their addresses, so that nothing is copied and a path may pass a layer twice.
Refuses to know modules, which are for `studio.evolve.whole`. Compiled code is kept until this file
changes: whatever is compiled is here.

NaN and infinity come through: whoever reads the logits sees them.
"""

import math

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

#: Sums may be taken in any order, and a product and a sum in one; nothing else is let go.
_LOOSE = {"reassoc", "contract", "nsz", "arcp"}
_compiled = njit(cache=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
#: Numbers of a head that are worked on at a time; its size is a multiple.
STEP = 4
_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first so short that its product with a small integer is exact
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# e to the power of less is no normal number, of more none at all
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
# 1/7! … 1/2!: the rest of the series is below 1 ulp for |r| ≤ ln 2 / 2
_SERIES = tuple(np.float32(1 / math.factorial(n)) for n in (7, 6, 5, 4, 3, 2))


@intrinsic
def _float_of(_typing, bits):
    """The float32 that has these bits."""

    def generate(context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@njit(forceinline=True, nogil=True, fastmath=_LOOSE, error_model="numpy")
def exponential(x):
    """e to the power of a float32 from -87 to 88, within 5 ulp, or of the nearer of these; NaN of
    NaN."""
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    whole = np.floor(x * _LOG2_E + np.float32(0.5))
    r = x - whole * _LN2_HIGH - whole * _LN2_LOW
    series = _SERIES[0]
    for factor in _SERIES[1:]:
        series = series * r + factor
    power = _float_of(np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)))
    return (series * r * r + r + np.float32(1)) * power


@_compiled
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


@_compiled
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


@_compiled
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
                total = _exponentials(scores[g], count)
                _sums(scores[g], values[slot, head], count, found)
                start = (head * group + g) * size
                share = np.float32(1) / total
                for d in range(size):
                    out[t, start + d] = found[d] * share


@_compiled
def _exponentials(scores, count):
    """Replace the first scores by e to the power of their distance to the largest; their sum."""
    largest = scores[0]
    for n in range(1, count):
        if scores[n] > largest:
            largest = scores[n]
    total = np.float32(0)
    for n in range(count):
        scores[n] = exponential(scores[n] - largest)
        total += scores[n]
    return total


@_compiled
def _products(queries, keys, count, scores):
    """The products of two queries with the first keys, which are read once."""
    for n in range(count):
        one = other = np.float32(0)
        for d in range(keys.shape[1]):
            one += queries[0, d] * keys[n, d]
            other += queries[1, d] * keys[n, d]
        scores[0, n], scores[1, n] = one, other


@_compiled
def _product(query, keys, count, scores):
    """A query's products with the first keys."""
    for n in range(count):
        sum = np.float32(0)
        for d in range(len(query)):
            sum += query[d] * keys[n, d]
        scores[n] = sum


@_compiled
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


# ── a pass as a whole ─────────────────────────────────────────────────────────────────────────

#: What a layer is told by: the addresses of its weights, in this order; 0 where it has none.
PARTS = (
    "enter", "q", "q_bias", "k", "k_bias", "v", "v_bias", "q_norm", "k_norm", "o", "o_bias",
    "between", "gate", "gate_bias", "up", "up_bias", "down", "down_bias",
)  # fmt: skip
(_ENTER, _Q, _Q_BIAS, _K, _K_BIAS, _V, _V_BIAS, _Q_NORM, _K_NORM, _O, _O_BIAS,
 _BETWEEN, _GATE, _GATE_BIAS, _UP, _UP_BIAS, _DOWN, _DOWN_BIAS) = range(len(PARTS))  # fmt: skip
#: Tokens from which on a BLAS, which lays weights out anew for each product, is faster.
MANY = 12


@intrinsic
def _pointer(_typing, address):
    """An address as a pointer."""

    def generate(_context, builder, _signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@_compiled
def _at(address, rows, columns):
    """float32 ``[rows, columns]`` at an address."""
    return carray(_pointer(address), (rows, columns), np.float32)


@_compiled
def layers(
    blas, hidden, table, inner, group, epsilons, scaling, cos, sin, slots, places, caches, last
):
    """Pass all layers.

    Args:
        blas: address of the Fortran function SGEMM, or 0.
        hidden: ``[tokens, size]``; what leaves the last layer is written into its first rows.
        table: int64 ``[layers, PARTS]``.
        inner: how many numbers are gated.
        group, scaling, cos, sin, slots, places: as of `attend`.
        epsilons: float32, of the layers' norms, and of those of queries and keys.
        caches: ``[layers, 2, slots, heads, places, size of a head]``.
        last: int64, the tokens that the last layer is asked for.
    """
    tokens, size = hidden.shape
    heads, head = caches.shape[3], caches.shape[5]
    queries, kept = heads * group * head, heads * head
    normed = np.empty((tokens, size), np.float32)
    projected = np.empty((tokens, queries + 2 * kept), np.float32)
    found = np.empty((tokens, queries), np.float32)
    gated, fed = np.empty((tokens, 2 * inner), np.float32), np.empty((tokens, inner), np.float32)
    for number in range(len(table)):
        at, keys, values = table[number], caches[number, 0], caches[number, 1]
        rms_norm(hidden, _at(at[_ENTER], 1, size)[0], epsilons[0], normed)
        _multiply(blas, normed, at[_Q], at[_Q_BIAS], projected, 0, queries, False)
        _multiply(blas, normed, at[_K], at[_K_BIAS], projected, queries, kept, False)
        _multiply(blas, normed, at[_V], at[_V_BIAS], projected, queries + kept, kept, False)
        if at[_Q_NORM]:
            _norm_heads(projected, 0, queries, _at(at[_Q_NORM], 1, head)[0], epsilons[1])
            _norm_heads(projected, queries, kept, _at(at[_K_NORM], 1, head)[0], epsilons[1])
        remember(projected, queries, cos, sin, slots, places, keys, values)
        if number == len(table) - 1 and len(last) < tokens:  # what comes next is asked of it alone
            tokens = len(last)
            for row in range(tokens):
                hidden[row], projected[row] = hidden[last[row]], projected[last[row]]
            slots, places = slots[last], places[last]
            hidden, normed, projected = hidden[:tokens], normed[:tokens], projected[:tokens]
            found, gated, fed = found[:tokens], gated[:tokens], fed[:tokens]
        attend(projected, group, cos, sin, slots, places, keys, values, scaling, found)
        _multiply(blas, found, at[_O], at[_O_BIAS], hidden, 0, size, True)
        rms_norm(hidden, _at(at[_BETWEEN], 1, size)[0], epsilons[0], normed)
        _multiply(blas, normed, at[_GATE], at[_GATE_BIAS], gated, 0, inner, False)
        _multiply(blas, normed, at[_UP], at[_UP_BIAS], gated, inner, inner, False)
        _gate(gated, fed)
        _multiply(blas, fed, at[_DOWN], at[_DOWN_BIAS], hidden, 0, size, True)


@_compiled
def likeliest(blas, hidden, weight, epsilon, head, bias, words, chosen):
    """Write into ``chosen``, int64 ``[tokens]``, which word comes next.

    Args:
        hidden: ``[tokens, size]``, as it leaves the last layer.
        weight, epsilon: of the norm behind that.
        head, bias: addresses.

    Returns:
        the largest logit of each token, float32 ``[tokens]``; NaN where any of them is.
    """
    tokens, size = hidden.shape
    normed, logits = np.empty((tokens, size), np.float32), np.empty((tokens, words), np.float32)
    rms_norm(hidden, weight, epsilon, normed)
    _multiply(blas, normed, head, bias, logits, 0, words, False)
    best = np.empty(tokens, np.float32)
    for t in range(tokens):
        largest, wrong = logits[t, 0], 0
        for word in range(words):
            x = logits[t, word]
            largest = x if x > largest else largest
            wrong += x != x
        chosen[t], best[t] = 0, np.float32(np.nan) if wrong else largest
        for word in range(words):
            if logits[t, word] == largest:
                chosen[t] = word
                break
    return best


@_compiled
def _norm_heads(projected, start, count, weight, epsilon):
    """Norm each head among some of the columns."""
    size = len(weight)
    one = np.empty((1, size), np.float32)
    for t in range(len(projected)):
        for head in range(start, start + count, size):
            rms_norm(projected[t : t + 1, head : head + size], weight, epsilon, one)
            projected[t, head : head + size] = one[0]


@_compiled
def _gate(gated, fed):
    """Write silu(x) · y into ``fed``, where x and y stand side by side."""
    tokens, size = fed.shape
    for t in range(tokens):
        for d in range(size):
            x = gated[t, d]
            fed[t, d] = x / (np.float32(1) + exponential(-x)) * gated[t, size + d]


@_compiled
def _multiply(blas, x, address, bias, out, start, count, adds):
    """Write ``x · weightᵀ + bias`` into, or add it to, the columns of ``out`` from ``start`` on."""
    weight = _at(address, count, x.shape[1])
    if blas and len(x) >= MANY:
        _sgemm(blas, x, weight, out, start, adds)
    else:
        _few(x, weight, out, start, adds)
    if bias:
        given = _at(bias, 1, count)[0]
        for t in range(len(x)):
            for n in range(count):
                out[t, start + n] += given[n]


@intrinsic
def _call(_typing, function, words):
    """Call the function at an address with 13 words; it has no result."""

    def generate(context, builder, _signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 13).as_pointer()
        each = [builder.extract_value(arguments[1], number) for number in range(13)]
        builder.call(builder.inttoptr(arguments[0], kind), each)
        return context.get_dummy_value()

    return types.void(types.int64, words), generate


@_compiled
def _sgemm(blas, x, weight, out, start, adds):
    """The product by a BLAS, to which every array is transposed: it reads column by column."""
    letters = np.array([84, 78], np.uint8)  # T for the weight, N for x
    # of 64 bits: read as 32, they are the same on a machine whose small ends come first
    sizes = np.array([len(weight), len(x), x.shape[1], out.shape[1]], np.int64)
    factors = np.array([1.0, 1.0 if adds else 0.0], np.float32)
    transposed, number, factor = letters.ctypes.data, sizes.ctypes.data, factors.ctypes.data
    target = out.ctypes.data + start * out.itemsize
    words = (
        transposed, transposed + 1, number, number + 8, number + 16,
        factor, weight.ctypes.data, number + 16, x.ctypes.data, number + 16,
        factor + 4, target, number + 24,
    )  # fmt: skip
    _call(np.int64(blas), words)


@_compiled
def _few(x, weight, out, start, adds):
    """The product for a few tokens: every weight is read once, or out of the nearest cache."""
    tokens, size = x.shape
    count = len(weight)
    fours = tokens - tokens % 4
    for n in range(0, count - count % 2, 2):
        for t in range(0, fours, 4):
            a = b = c = d = e = f = g = h = np.float32(0)
            for k in range(size):
                u, v = weight[n, k], weight[n + 1, k]
                a += x[t, k] * u
                b += x[t + 1, k] * u
                c += x[t + 2, k] * u
                d += x[t + 3, k] * u
                e += x[t, k] * v
                f += x[t + 1, k] * v
                g += x[t + 2, k] * v
                h += x[t + 3, k] * v
            for row, left, right in ((0, a, e), (1, b, f), (2, c, g), (3, d, h)):
                _put(out, t + row, start + n, left, adds)
                _put(out, t + row, start + n + 1, right, adds)
        for t in range(fours, tokens):
            a = b = np.float32(0)
            for k in range(size):
                a += x[t, k] * weight[n, k]
                b += x[t, k] * weight[n + 1, k]
            _put(out, t, start + n, a, adds)
            _put(out, t, start + n + 1, b, adds)
    if count % 2:
        for t in range(tokens):
            a = np.float32(0)
            for k in range(size):
                a += x[t, k] * weight[count - 1, k]
            _put(out, t, start + count - 1, a, adds)


@_compiled
def _put(out, row, column, value, adds):
    if adds:
        out[row, column] += value
    else:
        out[row, column] = value
