"""Merging in 4 and 8 bits: near the full-precision merge, and nothing but the delta changes."""

import numpy as np
import pytest
import torch

from studio.errors import StudioError
from studio.merge.data_flow import DataFlowSpace
from studio.merge.live import LiveModel, _Apart, _Compiled
from studio.merge.methods import METHODS
from studio.models import packed
from studio.models.packed import Packed

#: Relative error of the merged delta, as stored, against the unquantized merge (the issue's).
BOUNDS = {
    "linear": 0.15, "task_arithmetic": 0.15, "dare_linear": 0.15, "slerp": 0.15,
    "dare_ties": 0.25, "ties": 0.35,
}  # fmt: skip


def space_of(make_space, method: str, **options):
    sources = ("ja", "math") if method == "slerp" else ("ja", "math", "abel")
    return make_space(sources=sources, method=method, **options)


def deltas(live: LiveModel) -> dict[str, torch.Tensor]:
    return {
        name: target._delta.dense(torch.float32)
        for name, target in live._targets.items()
        if isinstance(target, _Apart)
    }


def delta_error(space, genome, live: LiveModel) -> float:
    """Of all packed layers together, against the merge that is not quantized."""
    whole = LiveModel(space, device="cpu")
    whole.apply(genome)
    full = whole.state_dict()
    below = space.base or space.sources[0]
    wrong = right = 0.0
    for name, delta in deltas(live).items():
        share = live.model.get_submodule(name.removesuffix(".weight")).factor
        true = full[name] - share * below.get(name).float()
        wrong += float((delta - true).square().sum())
        right += float(true.square().sum())
    return (wrong / right) ** 0.5


@pytest.mark.parametrize("method", METHODS)
def test_the_merged_delta_is_near_the_unquantized_one(make_space, method):
    space = space_of(make_space, method)
    genome = space.initial
    live = LiveModel(space, precision="nf4", device="cpu")
    live.apply(genome)
    assert 0.01 < delta_error(space, genome, live) < BOUNDS[method]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "slerp"])
def test_int8_computes_what_the_unquantized_model_does(make_space, method, tied, normalize):
    options = {} if method == "slerp" else {"normalize": normalize}
    space = space_of(make_space, method, tied=tied, **options)
    genome = space.initial  # large weights make large logits, and large errors of them
    whole = LiveModel(space, device="cpu")
    live = LiveModel(space, precision="int8", device="cpu")
    whole.apply(genome)
    live.apply(genome)
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        one, other = whole.model(ids).logits, live.model(ids).logits
    loud = method == "linear" and not normalize  # its weights add up to more than one
    assert float((one - other).norm() / one.norm()) < (0.1 if loud else 0.03)
    for name, tensor in live.state_dict().items():
        full = whole.state_dict()[name]
        assert tensor.shape == full.shape
        assert float((tensor - full).norm()) < 0.012 * float(full.norm()) + 1e-6, name


def test_only_the_delta_changes_and_a_genome_always_gives_the_same(make_space, random_genome):
    space = space_of(make_space, "dare_ties")
    live = LiveModel(space, precision="nf4", device="cpu")
    layer = live.model.model.layers[1].mlp.up_proj
    base = layer.base.dense(torch.float32)
    first, second = random_genome(space, 1), random_genome(space, 2)
    live.apply(first)
    one = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    live.apply(second)
    assert any(not torch.equal(one[name], t) for name, t in live.state_dict().items())
    live.apply(first)
    for name, tensor in live.state_dict().items():
        assert torch.equal(one[name], tensor), name
    assert torch.equal(layer.base.dense(torch.float32), base)


def test_weights_of_zero_leave_the_base_as_it_is_held(make_space):
    space = space_of(make_space, "task_arithmetic")
    live = LiveModel(space, precision="nf4", device="cpu")
    live.apply(np.zeros(len(space.names)))
    for name, tensor in live.state_dict().items():
        if name in deltas(live):
            held = Packed.of(space.base.get(name), "nf4").dense(torch.float32)
            assert torch.equal(tensor, held), name
        else:
            assert torch.equal(tensor, space.base.get(name)), name


@pytest.mark.parametrize(("form", "error"), [("packed", 0.1), ("paged", 0.1), ("int8", 0.008),
                                             ("bf16", 0.003)])  # fmt: skip
def test_forms_of_the_base(make_space, random_genome, form, error):
    space = space_of(make_space, "ties")
    live = LiveModel(space, precision="nf4", device="cpu", base=form)
    live.apply(random_genome(space))
    name = "model.layers.0.self_attn.q_proj.weight"
    held = live.model.model.layers[0].self_attn.q_proj.base.dense(torch.float32)
    base = space.base.get(name)
    assert 1e-4 < float((held - base).norm() / base.norm()) < error


def taken(live: LiveModel) -> int:
    """Bytes of everything a live model holds on its device."""
    total = sum(p.numel() * p.element_size() for p in live.model.parameters())
    for target in live._targets.values():
        if isinstance(target, _Apart):
            total += target._layer.base.nbytes + target._delta.nbytes
        if isinstance(target, _Compiled):
            total += target._fused._vectors.nbytes + target._fused._base.nbytes
            continue
        ingredients = target._ingredients
        vectors = [*ingredients.vectors, *([ingredients.base] if ingredients.base else [])]
        for vector in vectors:
            total += getattr(vector, "nbytes", 0) or (
                vector.numbers.nbytes if hasattr(vector, "numbers") else 0
            )
        for mask in ingredients.masks or ():
            total += (
                mask._order.nbytes
                if hasattr(mask, "_order") and isinstance(mask._order, torch.Tensor)
                else 0
            )
    return total


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "dare_ties", "slerp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4"])
def test_memory_is_foreseen(make_space, method, precision):
    space = space_of(make_space, method)
    live = LiveModel(space, precision=precision, device="cpu")
    assert space.memory(precision, device="cpu") == pytest.approx(taken(live), rel=0.01)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_path_quantizes_each_source_once(make_space, monkeypatch, precision):
    sources = make_space().sources
    space = DataFlowSpace(sources[:2], repeats=2)
    written = []
    write = Packed.write
    monkeypatch.setattr(Packed, "write", lambda *a: (written.append(1), write(*a))[1])
    live = space.live(precision, device="cpu")
    assert len(written) == 2 * 3 * 7  # sources, layers, matrices
    ids = torch.arange(20).view(1, 20)
    outputs = []
    for seed in (1, 2, 1):
        live.apply(np.random.default_rng(seed).uniform(-1, 1, len(space.names)))
        with torch.no_grad():
            outputs.append(live.model(ids).logits)
    assert len(written) == 2 * 3 * 7
    assert torch.equal(outputs[0], outputs[2]) and not torch.equal(outputs[0], outputs[1])
    plain = space.live("fp32", device="cpu")
    plain.apply(live.genome)
    with torch.no_grad():
        expected = plain.model(ids).logits
    error = float((outputs[2] - expected).norm() / expected.norm())
    assert error < {"int8": 0.05, "nf4": 0.5}[precision]
    assert space.memory(precision, device="cpu") < 0.8 * space.memory("fp32")


def test_without_bitsandbytes_one_sentence(make_space, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    packed._bitsandbytes.cache_clear()
    with pytest.raises(StudioError, match="pip install bitsandbytes"):
        LiveModel(space_of(make_space, "linear"), precision="nf4", device="cpu")
    packed._bitsandbytes.cache_clear()
