"""The masks are counted, nested, exact, and the same wherever they are made."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.merge import masks

KEY = masks.key(7, 1, "model.layers.0.mlp.up_proj.weight")
COUNT = 100_003


def python_hash(key: tuple[int, int], index: int) -> int:
    """The definition in plain integers, to check the tensors against."""
    x = index
    for word in key:
        x ^= word
        x ^= x >> 15
        x = x * 0x2C1B3C6D % 2**32
        x ^= x >> 12
        x = x * 0x297A2D39 % 2**32
        x ^= x >> 15
    return x


@pytest.mark.parametrize("index", [0, 1, 2, 4095, 2**31, 2**32 - 1])
def test_hash_is_the_documented_function(index):
    assert int(masks.hashes(KEY, torch.tensor([index]))) == python_hash(KEY, index)


def test_hash_values_never_change():
    # Recorded candidates depend on these numbers: a change here breaks every stored run.
    assert masks.key(0, 1, "lm_head.weight") == (694917696, 4152203005)
    order = masks.random_order((694917696, 4152203005), 4)
    assert (order.long() + 2**31).tolist() == [
        python_hash((694917696, 4152203005), i) for i in range(4)
    ]


def test_hashes_within_a_tensor_are_unique_and_fill_the_range():
    order = masks.random_order(KEY, COUNT)
    assert order.unique().numel() == COUNT
    assert order.dtype == torch.int32
    shares = torch.histc(order.double(), bins=16, min=-(2.0**31), max=2.0**31) / COUNT
    assert (shares - 1 / 16).abs().max() < 0.005


def test_hash_does_not_depend_on_how_it_is_cut(monkeypatch):
    whole = masks.random_order(KEY, COUNT)
    monkeypatch.setattr(masks, "HASH_CHUNK", 1000)
    assert torch.equal(whole, masks.random_order(KEY, COUNT))


@pytest.mark.parametrize("other", [(8, 1, "a"), (7, 2, "a"), (7, 1, "b")])
def test_seed_source_and_tensor_each_give_independent_masks(other):
    limit = masks.random_limit(0.5)
    one = masks.random_order(masks.key(7, 1, "a"), COUNT) <= limit
    two = masks.random_order(masks.key(*other), COUNT) <= limit
    assert abs((one == two).double().mean() - 0.5) < 0.01


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_random_masks_have_their_density_and_are_nested(one, two):
    low, high = sorted((one, two))
    order = masks.random_order(KEY, COUNT)
    small, large = order <= masks.random_limit(low), order <= masks.random_limit(high)
    assert abs(small.double().mean() - low) < 0.01
    assert not (small & ~large).any()
    hashes = order.long() + 2**31
    assert torch.equal(small, hashes < int(low * 2**32))


def test_density_one_keeps_everything():
    order = torch.tensor([-(2**31), 0, 2**31 - 1], dtype=torch.int32)
    assert (order <= masks.random_limit(1.0)).all()


def tied_delta(count: int) -> torch.Tensor:
    """Like a bf16 checkpoint's: few distinct magnitudes, many exact zeros, both signs."""
    delta = torch.randn(count, generator=torch.Generator().manual_seed(0)).mul(0.01)
    delta = delta.to(torch.float8_e4m3fn).float()
    delta[::3] = 0
    delta[1::3] *= -1
    return delta


@pytest.mark.parametrize("slab", [1 << 24, 5000])
def test_ranks_order_by_magnitude_then_hash(monkeypatch, slab):
    monkeypatch.setattr(masks, "RANK_CHUNK", slab)
    monkeypatch.setattr(masks, "HASH_CHUNK", 999)
    delta = tied_delta(COUNT)
    hashes = masks.hashes(KEY, torch.arange(COUNT)).numpy()
    expected = np.empty(COUNT, dtype=np.int64)
    expected[np.lexsort((hashes, -delta.abs().numpy()))] = np.arange(COUNT)
    ranks = masks.magnitude_order(delta, KEY)
    assert ranks.dtype == torch.int32
    assert np.array_equal(ranks.numpy(), expected)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 1.0), st.integers(1, 300))
def test_magnitude_masks_keep_exactly_the_stated_count(density, count):
    delta = tied_delta(count)
    keep = masks.magnitude_order(delta, KEY) <= masks.magnitude_limit(density, count)
    assert int(keep.sum()) == max(1, int(density * count))
    if not keep.all():
        assert delta[keep].abs().min() >= delta[~keep].abs().max()


def test_ranks_of_extreme_values():
    delta = torch.tensor([0.0, -0.0, 1e-45, -float("inf"), float("nan"), 3e38, -1.0])
    ranks = masks.magnitude_order(delta, KEY).tolist()
    assert ranks[4] == 0 and ranks[3] == 1 and ranks[5] == 2 and ranks[6] == 3 and ranks[2] == 4
    assert sorted(ranks) == list(range(7))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_masks_are_the_same_on_the_gpu():
    assert torch.equal(masks.random_order(KEY, COUNT, "cuda").cpu(), masks.random_order(KEY, COUNT))
    delta = tied_delta(COUNT)
    assert torch.equal(
        masks.magnitude_order(delta.cuda(), KEY).cpu(), masks.magnitude_order(delta, KEY)
    )


# ── masks that take no memory ─────────────────────────────────────────────────────────────────


def tied_vector(count: int, seed: int) -> torch.Tensor:
    """A delta with zeros and many equal magnitudes, as bf16 checkpoints have them."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(-4, 5, (count,), generator=generator) * 2.0**-9
    return torch.where(torch.rand(count, generator=generator) < 0.5, levels, levels * 1.37)


def kept(mask: masks.Mask, vector: torch.Tensor, density: float, chunk: int) -> torch.Tensor:
    limit = mask.limit(density)
    pieces = range(0, vector.numel(), chunk)
    return torch.cat([mask.keep(limit, at, vector[at : at + chunk]) for at in pieces])


@pytest.mark.parametrize("density", [0.0, 1e-9, 0.05, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("gather", [5, 64, 1 << 20])
def test_magnitudes_without_memory_keep_what_orders_keep(monkeypatch, density, gather):
    count, chunk, key = 5000, 768, masks.key(3, 1, "a")
    vector = tied_vector(count, seed=gather)
    held = masks.Held(masks.magnitude_order(vector, key), lambda d: masks.magnitude_limit(d, count))
    monkeypatch.setattr(masks, "HASH_CHUNK", gather)  # how many entries may be sorted out at once
    streamed = masks.Magnitudes(lambda a, b: vector[a:b], count, chunk, key)
    expected = kept(held, vector, density, count)
    assert torch.equal(kept(streamed, vector, density, chunk), expected)
    assert int(expected.sum()) == max(1, int(density * count))


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_hashes_without_memory_keep_what_orders_keep(density):
    vector, key = torch.ones(5000), masks.key(3, 1, "a")
    held = masks.Held(masks.random_order(key, 5000), masks.random_limit)
    streamed = masks.Hashes(key)
    assert torch.equal(kept(streamed, vector, density, 768), kept(held, vector, density, 5000))
