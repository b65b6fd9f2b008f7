"""The exported configuration, run by mergekit itself, gives the same merge."""

import os

import pytest
import torch
import yaml

from studio.errors import StudioError
from studio.merge import masks
from studio.merge.live import LiveModel
from studio.merge.mergekit_config import mergekit_obstacle, mergekit_yaml

PLAIN = ("linear", "task_arithmetic", "slerp")


def run_mergekit(text: str, out) -> dict[str, torch.Tensor]:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge
    from safetensors.torch import load_file

    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    options = {"quiet": True, "write_model_card": False, "lora_merge_cache": f"{out}-adapters"}
    run_merge(config, str(out), MergeOptions(**options))
    merged = {}
    for file in out.glob("*.safetensors"):
        merged |= load_file(file)
    return merged


def ours(space, genome) -> dict[str, torch.Tensor]:
    live = LiveModel(space, device="cpu")
    live.apply(genome)
    return live.state_dict()


def sources_of(method: str) -> tuple[str, ...]:
    return ("ja", "math") if method == "slerp" else ("ja", "math", "abel")


def compare(space, genome, tmp_path) -> None:
    theirs = run_mergekit(mergekit_yaml(space, genome, "float32"), tmp_path / "mergekit")
    merged = ours(space, genome)
    assert set(theirs) == set(merged)
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer_granularity": 2, "filters": ["self_attn", "mlp"]},
        {"layer_granularity": "all", "filters": ["mlp"]},
        {"tied": True},
        {"normalize": True, "negative_weights": True},
    ],
)
def test_mergekit_merges_the_same(make_space, random_genome, tmp_path, method, options):
    if method == "slerp" and "normalize" in options:
        options = {"dtype": "bfloat16"}
    space = make_space(
        sources=sources_of(method), base=method == "task_arithmetic", method=method, **options
    )
    compare(space, random_genome(space), tmp_path)


def test_a_tied_source_among_untied_ones(make_space, random_genome, tmp_path):
    space = make_space(mixed=("math",), method="task_arithmetic")
    compare(space, random_genome(space), tmp_path)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("normalize", [False, True])
def test_ties_equals_mergekit_off_the_tied_entries(
    make_space, random_genome, tmp_path, stored, normalize
):
    """mergekit's argsort is unstable: among equal magnitudes at the threshold it keeps others."""
    space = make_space(method="ties", dtype=stored, normalize=normalize, filters=["mlp"])
    genome = random_genome(space)
    theirs = run_mergekit(mergekit_yaml(space, genome, "float32"), tmp_path / "mergekit")
    merged, settings = ours(space, genome), space.settings(genome)
    assert set(theirs) == set(merged)
    off = 0
    for name, tensor in merged.items():
        base = space.base.get(name).float()
        tied = torch.zeros(base.shape, dtype=torch.bool)
        for source, density in zip(space.sources, settings[name].densities, strict=True):
            size = (source.get(name).float() - base).abs()
            limit = masks.magnitude_limit(density, size.numel())
            tied |= size == size.flatten().sort(descending=True).values[limit]
        # A threshold held by a single entry is no tie: both keep it.
        torch.testing.assert_close(
            tensor[~tied], theirs[name][~tied], rtol=1e-5, atol=1e-6, msg=name
        )
        off += int((tensor - theirs[name]).abs().gt(1e-6).sum())
    assert stored == "bfloat16" or off < 100  # continuous deltas hardly tie


@pytest.mark.parametrize("density", [0.05, 0.3, 0.777, 1.0])
def test_ties_keeps_as_many_as_mergekit(density):
    from mergekit.sparsify import magnitude

    delta = torch.randn(50, 37, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    delta = delta.float()
    ranks = masks.magnitude_order(delta.flatten(), masks.key(0, 0, "t"))
    kept = ranks <= masks.magnitude_limit(density, delta.numel())
    assert int(kept.sum()) == int(magnitude(delta, density).ne(0).sum())


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_runs_in_mergekit_and_says_that_it_differs(make_space, tmp_path, method):
    space = make_space(method=method)
    text = mergekit_yaml(space, space.initial, "bfloat16")
    assert "mergekit draws other masks" in text
    theirs = run_mergekit(text, tmp_path / "mergekit")
    merged = ours(space, space.initial)
    for name, tensor in merged.items():
        assert theirs[name].dtype == torch.bfloat16
        if tensor.dim() == 2:  # other masks of the same deltas: related, not equal
            base = space.base.get(name)
            pair = (tensor - base).flatten(), (theirs[name].float() - base).flatten()
            assert 0.2 < torch.cosine_similarity(*pair, dim=0) < 0.99, name


def test_density_one_makes_dare_exact(make_space, random_genome, tmp_path):
    space = make_space(method="dare_ties")
    genome = random_genome(space)
    for index, gene in enumerate(space.genes):
        if gene.kind == "density":
            genome[index] = 1.0
    compare(space, genome, tmp_path)


def test_what_mergekit_cannot_express(make_space):
    space = make_space(tied=True, mixed=("math",), method="task_arithmetic")
    assert mergekit_yaml(space, space.initial, "float32") is None
    assert "tied" in mergekit_obstacle(space)
    assert mergekit_obstacle(make_space()) is None


def test_unknown_dtype(make_space):
    with pytest.raises(StudioError, match="dtype 'int8'"):
        mergekit_yaml(make_space(), make_space().initial, "int8")


def test_bundled_models_are_named_by_their_folder(make_space, monkeypatch):
    import dataclasses

    from studio.merge import mergekit_config

    space = make_space()
    space.sources[0] = dataclasses.replace(space.sources[0], name="bonsai-ja")
    monkeypatch.setattr(mergekit_config, "bundled", lambda: ["bonsai-ja"])
    text = mergekit_yaml(space, space.initial, "float32")
    assert "&id" not in text
    models = [s["model"] for s in yaml.safe_load(text)["slices"][0]["sources"]]
    assert models[0] == "assets/models/bonsai-ja" and os.path.isabs(models[1])
    assert "relative to the folder of EvoLLM Studio" in text


# ── adapters and other formats ────────────────────────────────────────────────────────────────


def test_mergekit_merges_adapters_the_same(family_factory, tmp_path, random_genome):
    import peft
    from transformers import AutoModelForCausalLM

    from studio.merge.parameter_space import ParameterSpace
    from studio.models import open_source

    base = family_factory(architecture="llama")["base"]
    folders = []
    for seed in (1, 2):
        model = AutoModelForCausalLM.from_pretrained(base)
        settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"])
        adapted = peft.get_peft_model(model, settings)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        folders.append(tmp_path / f"adapter-{seed}")
        adapted.save_pretrained(folders[-1])
    sources = [open_source(folder) for folder in folders]
    space = ParameterSpace(open_source(base), sources, method="task_arithmetic")
    text = mergekit_yaml(space, random_genome(space), "float32")
    assert f"{base}+{folders[0]}" in text and "--lora-merge-cache" in text
    compare(space, random_genome(space), tmp_path)


def test_mergekit_reads_no_gguf(make_space, monkeypatch):
    from studio.models.gguf import Gguf

    space = make_space()
    monkeypatch.setattr(space.base, "__class__", Gguf)
    assert "does not read GGUF files" in mergekit_obstacle(space)
    assert mergekit_yaml(space, space.initial, "float32") is None
