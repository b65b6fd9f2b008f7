"""The compiled merge against the plain one: the same masks and the same numbers, to the bit."""

import time
from threading import Event, Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from studio.merge import fused, kernels, masks
from studio.merge.fused import PART, Fused, Place
from studio.merge.ingredients import Ingredients, Resident
from studio.merge.kernels import BLOCK
from studio.merge.methods import METHODS
from studio.merge.parameter_space import Setting

DTYPES = [torch.float32, torch.bfloat16]


def resident(method: str, dtype: torch.dtype, count: int, sources: int = 3, seed: int = 0):
    """Numbers as of a fine-tune: a wide base, narrow differences, some of them zero or tied."""
    random = torch.Generator().manual_seed(seed)
    base = torch.randn(count, generator=random).to(dtype)
    vectors = (0.02 * torch.randn(sources, count, generator=random)).to(dtype)
    vectors[0, ::7] = 0.0
    vectors[-1, ::5] = -0.01
    keys = [masks.key(seed, source, "a") for source in range(sources)]
    needs = METHODS[method].needs_base
    cosine = 0.3 if method == "slerp" else None
    return Resident(METHODS[method], base if needs else None, vectors, keys, cosine)


def setting(method: str, weights, densities) -> Setting:
    if method == "slerp":
        return Setting(t=abs(weights[0]) % 1)
    return Setting(tuple(weights), tuple(densities) if METHODS[method].masks else ())


def both(made: Resident, asked: Setting, normalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    results = []
    for merger in (Fused(made), Ingredients.held(made)):
        out = torch.full_like(made.vectors[0], torch.nan)
        merger.merge_into(out, asked, normalize)
        results.append(out)
    return results[0], results[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_equal_to_the_bit(method, normalize, dtype):
    for count in (1, BLOCK - 1, BLOCK, 3 * BLOCK + 17):
        made = resident(method, dtype, count, sources=2 if method == "slerp" else 3)
        asked = setting(method, [0.5, 0.7, -0.3], [0.5, 0.05, 1.0])
        compiled, plain = both(made, asked, normalize)
        assert torch.equal(compiled, plain), count
        assert compiled.isfinite().all()


@given(
    method=st.sampled_from(sorted(set(METHODS) - {"slerp"})),
    half=st.booleans(),
    count=st.integers(1, 5000),
    weights=st.lists(st.floats(-2, 2), min_size=1, max_size=5),
    density=st.lists(st.floats(0.05, 1), min_size=5, max_size=5),
    normalize=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_setting(method, half, count, weights, density, normalize, seed):
    made = resident(method, DTYPES[half], count, len(weights), seed)
    compiled, plain = both(made, setting(method, weights, density[: len(weights)]), normalize)
    assert torch.equal(compiled, plain)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_a_tensor_in_parts_on_several_cores(method, threads, monkeypatch):
    count, asked = 3 * 2 * BLOCK + 5, setting(method, [0.5, 0.7, 0.3], [0.5, 0.2, 0.9])
    made = resident(method, torch.float32, count)
    whole, _ = both(made, asked, False)
    parts = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(fused, "PART", 2 * BLOCK)
    merger = kernels.merger
    monkeypatch.setattr(kernels, "merger", lambda *asked: _listening(merger(*asked), parts))
    out = torch.empty(count)
    Fused(made).merge_into(out, asked, False)
    assert torch.equal(out, whole) and PART > count
    assert sorted(parts) == [
        (start, min(start + 2 * BLOCK, count)) for start in range(0, count, 2 * BLOCK)
    ]


def _listening(merge, parts: list):
    def call(*given):
        parts.append(given[-2:])
        merge(*given)

    return call


@pytest.mark.parametrize("threads", [1, 3])
def test_work_that_leaves_more_to_do(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    done = []

    def work(depth: int):
        def do():
            done.append(depth)
            return [work(depth - 1)] * 2 if depth else None

        return do

    fused.share_out([work(3), work(1)])
    assert sorted(done) == sorted([3, *[2] * 2, *[1] * 4, *[0] * 8, 1, 0, 0])
    fused.share_out([])


@pytest.mark.parametrize("threads", [1, 3])
def test_what_fails_on_a_core_is_told(threads, monkeypatch):
    def work() -> None:
        raise MemoryError("full")

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with pytest.raises(MemoryError, match="full"):
        fused.share_out([work] * 4)


def test_nothing_more_is_begun_once_something_failed(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    failed, begun = Event(), []

    def fail() -> None:
        failed.set()
        raise MemoryError("full")

    def slow():
        failed.wait()
        time.sleep(0.1)  # until nothing is left
        return [lambda: begun.append("left by what was at work")]

    with pytest.raises(MemoryError, match="full"):
        fused.share_out([slow, fail, *[lambda: begun.append("waiting")] * 100])
    assert not begun


def test_two_merge_at_once(monkeypatch):
    """A run and a chat share the cores, and neither waits for the other's work to be over."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    ended = Event()
    first = Thread(target=fused.share_out, args=([lambda: ended.wait() and None] * 2,))
    first.start()
    done = []
    fused.share_out([lambda: done.append(1)] * 5)
    assert len(done) == 5 and first.is_alive()
    ended.set()
    first.join()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["spread", "tied", "zero", "one bin"])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("deviations", [6, 0])
def test_the_place_of_the_last_entry_kept(kind, density, deviations, dtype, monkeypatch):
    """Also where it is not near where it should be."""
    monkeypatch.setattr(fused, "DEVIATIONS", deviations)
    count, random = 20_000, torch.Generator().manual_seed(1)
    vector = {
        "spread": lambda: torch.randn(count, generator=random),
        "tied": lambda: torch.randn(count, generator=random).sign() * 0.5,
        "zero": lambda: torch.zeros(count),
        "one bin": lambda: 1 + torch.rand(count, generator=random) / 300,
    }[kind]().to(dtype)
    key = masks.key(3, 1, kind)
    numbers = vector.numpy() if dtype == torch.float32 else fused._numbers(vector)
    edge, limit = Place(numbers, np.array(key, np.uint32)).limit(density)
    magnitude = vector.float().abs().view(torch.int32)
    hashed = masks.hashes(key, torch.arange(count))
    kept = (magnitude > edge) | ((magnitude == edge) & (hashed <= limit))
    wanted = masks.magnitude_order(vector.float(), key) <= masks.magnitude_limit(density, count)
    assert torch.equal(kept, wanted) and int(kept.sum()) == max(1, int(density * count))


@given(
    index=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
    key=st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    near=st.integers(-1, 1),
)
@settings(max_examples=200, deadline=None)
def test_a_hash_in_fewer_steps(index, key, near):
    """Wherever an entry lies, and where the limit is its own hash or the next to it."""
    wanted = masks.hashes(key, torch.tensor(index)).numpy()
    limit = np.uint32(min(max(int(wanted[0]) + near, 0), 2**32 - 1))
    hashed, kept = _hashed(np.array(index, np.uint64), np.array([key], np.uint32), limit)
    assert (hashed == wanted).all() and (kept == (wanted <= limit)).all()


@njit
def _hashed(index, keys, limit):
    """Hashes as the kernels make them, and what they keep of ones."""
    hashed, kept = np.empty(len(index), np.uint32), np.empty(len(index), np.bool_)
    one, limits = np.ones(1, np.float32), np.array([[0, limit]], np.uint32)
    for j in range(len(index)):
        place = np.uint32(index[j] % np.uint64(BLOCK))
        begin = kernels._fold(np.uint32(np.uint32(index[j]) - place))
        given = kernels._given((0,), one, one, keys, limits, begin)
        hashed[j] = kernels._fold(kernels._hash(place, given[0][2], given[0][3]))
        kept[j] = kernels._numbers(given, one, 0, 1, place, kernels.RANDOM)[0] == 1
    return hashed, kept


def test_numbers_that_bf16_cannot_hold_round_as_torch_rounds():
    bits = torch.arange(0, 1 << 16, dtype=torch.int32)
    base = (bits << 16 | 0x8000).view(torch.float32)  # halfway between two bf16, of every exponent
    base = torch.cat([base, (bits << 16 | 0x8001).view(torch.float32), base.nextafter(-base)])
    narrow = torch.empty(len(base), dtype=torch.bfloat16)

    @njit
    def put(entries, numbers):
        for place, number in enumerate(numbers):
            kernels._put(entries, place, number)

    put(fused._numbers(narrow), base.numpy())
    wanted = base.bfloat16()
    assert torch.equal(narrow.isnan(), wanted.isnan())
    assert torch.equal(narrow[~wanted.isnan()], wanted[~wanted.isnan()])


def test_what_is_not_merged_here():
    assert not fused.fuses(torch.device("cuda"), torch.bfloat16)
    assert not fused.fuses(torch.device("cpu"), torch.float16)
    assert fused.fuses(torch.device("cpu"), torch.bfloat16)
