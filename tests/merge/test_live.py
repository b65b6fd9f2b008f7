"""The resident model holds, to the bit, what the plain functions of the whole tensors give."""

import time

import numpy as np
import pytest
import torch

from studio.errors import StudioError
from studio.merge import ingredients, masks
from studio.merge.ingredients import Resident
from studio.merge.live import LiveModel
from studio.merge.methods import METHODS


def reference(space, genome, name: str, dtype=torch.float32) -> torch.Tensor:
    """One merged tensor from the checkpoints, whole, without anything prepared."""
    setting = space.settings(genome)[name]
    sources = [source.get(name).float() for source in space.sources]
    base, deltas, keep = None, None, None
    if space.base:
        base = space.base.get(name).float()
        deltas = [(source - base).to(dtype).float() for source in sources]
        base = base.to(dtype).float()
    if space.method.masks:
        keep = []
        for index, (delta, density) in enumerate(zip(deltas, setting.densities, strict=True)):
            hashes = masks.hashes(masks.key(space.seed, index, name), torch.arange(delta.numel()))
            if space.method.masks == "random":
                mask = hashes < int(density * 2**32)
            else:
                order = np.lexsort((hashes.numpy(), -delta.flatten().abs().numpy()))
                mask = torch.zeros(delta.numel(), dtype=torch.bool)
                mask[order[: max(1, int(density * delta.numel()))]] = True
            keep.append(mask.view(delta.shape).float())
    return space.method(
        base=base, sources=[s.to(dtype).float() for s in sources], deltas=deltas, keep=keep,
        weights=setting.weights, densities=setting.densities, t=setting.t,
        normalize=space.normalize,
    ).to(dtype)  # fmt: skip


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_live_equals_reference(make_space, random_genome, monkeypatch, method, normalize, stored):
    monkeypatch.setattr(ingredients, "CPU_CHUNK", 1000)  # many pieces, with a remainder
    slerp = method == "slerp"
    space = make_space(
        sources=("ja", "math") if slerp else ("ja", "math", "abel"), dtype=stored, method=method,
        normalize=normalize and not slerp, negative_weights=not slerp, filters=["mlp"], seed=3,
    )  # fmt: skip
    live = LiveModel(space, device="cpu")
    genome = random_genome(space)
    live.apply(genome)
    for name, tensor in live.state_dict().items():
        assert torch.equal(tensor, reference(space, genome, name)), name


def test_bf16_rounds_deltas_and_base_apart_not_whole_sources(make_space, random_genome):
    space = make_space(method="ties")
    genome = random_genome(space)
    live = LiveModel(space, precision="bf16", device="cpu")
    live.apply(genome)
    for name, tensor in live.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, reference(space, genome, name, torch.bfloat16)), name


def test_the_model_computes_with_what_was_applied(make_space, random_genome):
    space = make_space()
    live = LiveModel(space, device="cpu")
    parameters = dict(live.model.named_parameters())
    addresses = {name: p.data_ptr() for name, p in parameters.items()}
    tokens = torch.arange(12)[None]
    outputs = []
    for seed in (0, 1, 0):
        live.apply(random_genome(space, seed))
        outputs.append(live.model(tokens).logits)
    assert torch.equal(outputs[0], outputs[2]) and not torch.equal(outputs[0], outputs[1])
    assert addresses == {name: p.data_ptr() for name, p in parameters.items()}
    assert np.array_equal(live.genome, random_genome(space, 0))


def test_another_seed_gives_other_masks(make_space, random_genome):
    merged = []
    for seed in (0, 1, 0):
        space = make_space(seed=seed)
        live = LiveModel(space, device="cpu")
        live.apply(random_genome(space))
        merged.append(live.state_dict()["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(merged[0], merged[2]) and not torch.equal(merged[0], merged[1])


def test_a_merge_of_one_source_at_weight_one_is_that_source(make_space):
    space = make_space(sources=("ja",), method="task_arithmetic")
    live = LiveModel(space, device="cpu")
    live.apply(np.ones(len(space.genes)))
    for name, tensor in live.state_dict().items():
        torch.testing.assert_close(tensor, space.sources[0].get(name))
    live.apply(np.zeros(len(space.genes)))
    for name, tensor in live.state_dict().items():
        assert torch.equal(tensor, space.base.get(name))


def test_tied_models_stay_tied(make_space, random_genome):
    space = make_space(tied=True)
    live = LiveModel(space, device="cpu")
    live.apply(random_genome(space))
    assert live.model.lm_head.weight is live.model.model.embed_tokens.weight
    assert torch.equal(
        live.model.lm_head.weight,
        reference(space, random_genome(space), "model.embed_tokens.weight"),
    )


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_model_contributes_its_embedding_as_head(make_space, tied):
    space = make_space(tied=tied, mixed=("math",), method="task_arithmetic")
    live = LiveModel(space, device="cpu")
    live.apply(space.initial)
    name = "lm_head.weight"
    base = space.base.get("model.embed_tokens.weight" if tied else name)
    expected = base.clone()
    for source in space.sources:
        expected += 0.5 * (source.get(name) - base)
    torch.testing.assert_close(live.state_dict()[name], expected)
    assert live.model.lm_head.weight is not live.model.model.embed_tokens.weight


def test_a_refused_genome_leaves_the_model_as_it_was(make_space, random_genome):
    space = make_space()
    live = LiveModel(space, device="cpu")
    live.apply(random_genome(space))
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    with pytest.raises(StudioError):
        live.apply(np.full(len(space.genes), np.nan))
    assert all(t.equal(before[n]) for n, t in live.state_dict().items())
    assert np.array_equal(live.genome, random_genome(space))


def test_applying_touches_no_file(make_space, random_genome, monkeypatch):
    import builtins

    space = make_space()
    live = LiveModel(space, device="cpu")

    def refuse(*arguments, **options):
        raise AssertionError(f"opened {arguments}")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(type(space.base), "get", refuse)
    live.apply(random_genome(space))


def test_unknown_precision_is_refused(make_space):
    with pytest.raises(StudioError, match="no precision 'fp8'"):
        LiveModel(make_space(), precision="fp8")


def test_the_first_source_with_a_chat_template_speaks(make_space, family_factory, tmp_path):
    import shutil

    from studio.merge.live import speaker
    from studio.merge.parameter_space import ParameterSpace
    from studio.models import Checkpoint

    space = make_space()
    mute = tmp_path / "mute"
    shutil.copytree(space.sources[0].path, mute)
    (mute / "chat_template.jinja").unlink()
    mixed = ParameterSpace(space.base, [Checkpoint.open(mute), *space.sources[1:]])
    assert speaker(space) is space.sources[0]
    assert speaker(mixed) is space.sources[1]


def test_applying_bonsai_sized_dare_ties_takes_under_50_ms(make_space):
    """3.8 M parameters and three sources, as the bundled models have; the best of ten counts.

    Processor time, which is the time on the clock of an idle machine: tensors of this size are
    merged on one thread. So a busy machine does not fail the test.
    """
    space = make_space(
        layers=8, hidden_size=192, intermediate_size=512, num_attention_heads=6,
        num_key_value_heads=3, head_dim=32, vocab_size=1536,
    )  # fmt: skip
    assert space.template.parameters > 3_800_000
    live = LiveModel(space, device="cpu")
    generator = np.random.default_rng(0)
    seconds = []
    for _ in range(10):
        genome = generator.uniform(space.lower, space.upper)
        start = time.process_time()
        live.apply(genome)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.050, seconds


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_the_gpu_gives_the_same_merge_within_one_ulp(make_space, random_genome, method):
    space = make_space(sources=("ja", "math"), method=method)
    merged = []
    for device in ("cpu", "cuda"):
        live = LiveModel(space, device=device)
        live.apply(random_genome(space))
        merged.append({name: tensor.cpu() for name, tensor in live.state_dict().items()})
    for name, tensor in merged[0].items():
        ulp = torch.nextafter(tensor.abs(), torch.tensor(torch.inf)) - tensor.abs()
        assert ((tensor - merged[1][name]).abs() <= ulp).all(), name


def test_tensors_lie_side_by_side(make_space):
    """In one allocation, each beginning with a line of the cache, and read as they are apart."""
    space = make_space(method="ties")
    made = dict(Resident.all(space, torch.bfloat16, "cpu"))
    assert list(made) == list(space.tensors)
    held = [numbers for each in made.values() for numbers in (each.vectors, each.base)]
    assert len({numbers.untyped_storage().data_ptr() for numbers in held}) == 1
    wasted = held[0].untyped_storage().nbytes() - sum(2 * numbers.numel() for numbers in held)
    assert 0 <= wasted < 64 * 4 * len(made)
    assert all(each.vectors.data_ptr() % 64 == 0 for each in made.values())
    few = list(made)[3:5]
    for name, alone in Resident.all(space, torch.bfloat16, "cpu", few):
        assert name in few
        assert torch.equal(alone.vectors, made[name].vectors)
        assert torch.equal(alone.base, made[name].base)


def test_too_little_memory_for_the_sources_is_told(make_space, monkeypatch):
    monkeypatch.setattr(ingredients, "ALIGNED", 1 << 48)  # entries for every tensor
    with pytest.raises(StudioError, match="base and 3 task vectors do not fit the memory of cpu"):
        LiveModel(make_space(), device="cpu")
