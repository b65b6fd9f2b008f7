"""Packed tensors: how near they come, that pieces and wholes agree, and what they take."""

import logging
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.models import packed as module
from studio.models.packed import BITS, BLOCK, Packed
from studio.models.packed_model import Dense, PackedLinear

#: Relative errors on Gaussian numbers: nf4's is numerics' 0.092, int8's rounds to 127 levels.
ERRORS = {"nf4": 0.095, "int8": 0.0065}


def relative(got: torch.Tensor, true: torch.Tensor) -> float:
    return float((got - true).norm() / true.norm())


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.02


@pytest.mark.parametrize("kind", ERRORS)
def test_error_and_size_are_what_the_module_says(kind):
    true = gaussian(256, 320)
    packed = Packed.of(true, kind)
    assert 0.5 * ERRORS[kind] < relative(packed.dense(torch.float32), true) < ERRORS[kind]
    assert packed.shape == (256, 320) and packed.count == true.numel()
    assert packed.nbytes * 8 == BITS[kind] * true.numel()


@pytest.mark.parametrize("kind", ERRORS)
@given(rows=st.integers(1, 9), columns=st.integers(1, 200), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_pieces_are_those_of_the_whole(kind, rows, columns, seed):
    true = gaussian(rows, columns, seed=seed)
    whole, pieces = Packed.of(true, kind), Packed(kind, true.shape)
    flat = true.flatten()
    for start in range(0, flat.numel(), 2 * BLOCK):
        pieces.write(start, flat[start : start + 2 * BLOCK])
    assert torch.equal(whole.dense(torch.float32), pieces.dense(torch.float32))
    for start in range(0, flat.numel(), BLOCK):
        stop = min(start + 3 * BLOCK, flat.numel())
        expected = whole.dense(torch.float32).flatten()[start:stop]
        assert torch.equal(whole.read(start, stop), expected)


@pytest.mark.parametrize("kind", ERRORS)
def test_zeros_stay_zeros_and_nothing_is_not_a_number(kind):
    values = gaussian(4, BLOCK)
    values[1] = 0
    values[2] = 1e-40  # subnormal: its scale is too
    dense = Packed.of(values, kind).dense(torch.float32)
    assert dense.isfinite().all() and not dense[1].any()
    assert not Packed(kind, (3, BLOCK)).dense(torch.float32).any()


@pytest.mark.parametrize("kind", ERRORS)
def test_a_new_value_leaves_nothing_of_the_old(kind):
    packed = Packed.of(gaussian(8, BLOCK), kind)
    packed.write(0, gaussian(8, BLOCK, seed=1).flatten())
    fresh = Packed.of(gaussian(8, BLOCK, seed=1), kind)
    assert torch.equal(packed.dense(torch.float32), fresh.dense(torch.float32))


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_parts_compute_the_sum_of_their_products(kind, dtype):
    base, delta, bias = gaussian(32, 64), 0.02 * gaussian(32, 64, seed=1), gaussian(32, seed=2)
    layer = PackedLinear(Packed.of(base, kind), torch.nn.Parameter(bias.to(dtype)))
    layer.delta, layer.factor = Packed.of(delta, kind), 0.7
    inputs = gaussian(5, 3, 64, seed=3).to(dtype)
    weight = 0.7 * layer.base.dense(torch.float32) + layer.delta.dense(torch.float32)
    expected = inputs.float() @ weight.T + bias
    with torch.no_grad():
        got = layer(inputs)
    assert got.dtype == dtype and got.shape == (5, 3, 32)
    assert relative(got.float(), expected) < (1e-6 if dtype == torch.float32 else 1e-2)


def test_a_dense_base_is_not_rounded_further():
    base, delta = gaussian(32, 64).bfloat16(), gaussian(32, 64, seed=1)
    layer = PackedLinear(Dense(base), None, Packed.of(delta, "int8"))
    inputs = torch.eye(64)
    with torch.no_grad():
        got = layer(inputs).T
    assert relative(got, base.float() + layer.delta.dense(torch.float32)) < 1e-6


def test_a_device_without_nf4_is_named():
    with pytest.raises(StudioError, match="not on mps"):
        Packed("nf4", (1, BLOCK), "mps")


def test_nothing_is_fetched_to_compute_with(caplog):
    """bitsandbytes asks the package `kernels`, where it is installed, for code from the hub."""
    before = sys.modules.get("kernels")
    with caplog.at_level(logging.WARNING):
        module._bitsandbytes.cache_clear()
        Packed.of(gaussian(1, BLOCK), "nf4")
    assert sys.modules.get("kernels") is before
    assert not caplog.records


def test_what_is_made_on_demand_is_exported_as_its_base_lies_on_disk(family_factory, tmp_path):
    import peft
    from transformers import AutoModelForCausalLM

    from studio.evolve.spaces import unquantized
    from studio.models import open_source
    from studio.recipe import Recipe

    kept = {}
    for dtype in ("bfloat16", "float32"):
        base = family_factory(architecture="llama", dtype=dtype)["base"]
        adapted = peft.get_peft_model(
            AutoModelForCausalLM.from_pretrained(base), peft.LoraConfig(target_modules=["q_proj"])
        )
        adapted.save_pretrained(tmp_path / dtype)
        kept[dtype] = open_source(tmp_path / dtype)
        assert kept[dtype].dtype == torch.float32  # its tensors are sums
        assert kept[dtype].stored == getattr(torch, dtype)
    document = {"base": "b", "sources": ["s"], "objectives": [{"task": "jmath"}]}
    nf4 = Recipe.from_dict(document | {"precision": "nf4"})
    assert unquantized(nf4, [kept["bfloat16"]]) == "bf16"
    assert unquantized(nf4, list(kept.values())) == "fp32"
    assert unquantized(Recipe.from_dict(document), [kept["bfloat16"]]) == "fp32"  # as it says
