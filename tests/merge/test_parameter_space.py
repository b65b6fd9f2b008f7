"""What a genome means, and that no gene is without effect."""

import numpy as np
import pytest

from studio.errors import StudioError
from studio.merge.methods import METHODS


def groups(space) -> dict[str, list[str]]:
    return {part.group: list(part.tensors) for part in space.parts}


def test_layout_of_the_default_space(make_space):
    space = make_space()
    assert list(groups(space)) == ["embedding", "layer 0", "layer 1", "layer 2", "head"]
    assert groups(space)["embedding"] == ["model.embed_tokens.weight"]
    assert groups(space)["head"] == ["model.norm.weight", "lm_head.weight"]
    assert "model.layers.1.input_layernorm.weight" in groups(space)["layer 1"]
    assert len(space.genes) == 5 * 3 * 2
    assert len(set(space.names)) == len(space.names)
    assert space.initial.dtype == space.lower.dtype == np.float64
    assert set(space.initial) == {0.5}


def test_every_tensor_has_exactly_one_setting(make_space):
    for options in ({}, {"tied": True}, {"layer_granularity": "all"}, {"filters": ["mlp", "q_"]}):
        space = make_space(**options)
        taken = [name for part in space.parts for name in part.tensors]
        assert sorted(taken) == sorted(space.tensors) == sorted(space.template.names())
        assert set(space.settings(space.initial)) == set(taken)


def test_the_last_block_may_be_short(make_space):
    space = make_space(layer_granularity=2)
    assert list(groups(space)) == ["embedding", "layers 0-1", "layer 2", "head"]
    assert list(groups(make_space(layer_granularity=99)))[1] == "layers 0-2"


def test_all_is_one_group_of_everything(make_space):
    space = make_space(layer_granularity="all", method="ties")
    assert list(groups(space)) == ["all"]
    assert [gene.kind for gene in space.genes] == ["weight", "density"] * 3
    assert len(set(space.settings(space.initial).values())) == 1


def test_a_tied_head_uses_the_embeddings_genes(make_space):
    space = make_space(tied=True)
    assert space.tied and "lm_head.weight" not in space.tensors
    assert groups(space)["embedding+head"] == ["model.embed_tokens.weight", "model.norm.weight"]


@pytest.mark.parametrize("tied", [False, True])
def test_one_untied_model_makes_the_merge_untied(make_space, tied):
    space = make_space(tied=tied, mixed=("math",))
    assert not space.tied and not space.template.tied
    assert groups(space)["head"] == ["model.norm.weight", "lm_head.weight"]


def test_filters_have_genes_of_their_own_and_never_take_norms(make_space):
    space = make_space(filters=["self_attn", "mlp"], method="task_arithmetic")
    parts = {(part.group, part.filter): part.tensors for part in space.parts}
    assert [key for key in parts if key[0] == "layer 1"] == [
        ("layer 1", None), ("layer 1", "self_attn"), ("layer 1", "mlp")
    ]  # fmt: skip
    assert all("norm" in name for name in parts["layer 1", None])
    assert len(parts["layer 1", "self_attn"]) == 4 and len(parts["layer 1", "mlp"]) == 3
    assert ("embedding", None) in parts and ("head", None) in parts
    assert len(space.genes) == (2 + 3 * 3) * 3
    assert space.names[space.parts[3].genes["weight", 0]].startswith("layer 0/mlp/")


def test_the_first_matching_filter_wins(make_space):
    parts = make_space(filters=["q_proj", "self_attn"]).parts
    by_filter = {part.filter: part.tensors for part in parts if part.group == "layer 0"}
    assert by_filter["q_proj"] == ("model.layers.0.self_attn.q_proj.weight",)
    assert len(by_filter["self_attn"]) == 3


@pytest.mark.parametrize(
    "filters",
    [["embed_tokens"], ["lm_head"], ["input_layernorm"], ["nothing"], ["self_attn", "q_proj"]],
)
def test_a_filter_that_takes_nothing_is_refused(make_space, filters):
    with pytest.raises(StudioError, match=f"filter '{filters[-1]}' takes no tensor"):
        make_space(filters=filters)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("normalize", [False, True])
def test_every_gene_changes_the_merge(make_space, random_genome, method, normalize):
    """No gene without effect: moving any single gene moves some parameter of the live model."""
    from studio.merge.live import LiveModel

    slerp = method == "slerp"
    space = make_space(
        sources=("ja", "math") if slerp else ("ja", "math", "abel"),
        method=method,
        layer_granularity=2,
        normalize=normalize and not slerp,
    )
    live = LiveModel(space, device="cpu")
    genome = random_genome(space)
    live.apply(genome)
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    for index, gene in enumerate(space.genes):
        moved = genome.copy()
        moved[index] = gene.low + (genome[index] - gene.low + 0.3 * (gene.high - gene.low)) % (
            gene.high - gene.low
        )
        live.apply(moved)
        changed = {n for n, t in live.state_dict().items() if not t.equal(before[n])}
        part = next(p for p in space.parts if index in p.genes.values())
        assert changed and changed <= set(part.tensors), gene.name


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties"])
def test_one_normalized_source_has_no_weight(make_space, method):
    space = make_space(sources=("ja",), method=method, normalize=True)
    assert {gene.kind for gene in space.genes} == {"density"}
    assert {s.weights for s in space.settings(space.initial).values()} == {(1.0,)}


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_a_merge_with_nothing_to_evolve_is_refused(make_space, method):
    with pytest.raises(StudioError, match="Nothing is left to evolve"):
        make_space(sources=("ja",), method=method, normalize=True)


def test_bounds(make_space):
    def bounds(kind, **options):
        return {(g.low, g.high) for g in make_space(**options).genes if g.kind == kind}

    assert bounds("weight") == {(0, 2)} and bounds("density") == {(0.05, 1)}
    assert bounds("weight", negative_weights=True) == {(-2, 2)}
    assert bounds("t", sources=("ja", "math"), method="slerp") == {(0, 1)}


def test_which_methods_have_which_genes(make_space):
    def kinds(method):
        sources = ("ja", "math")
        return {gene.kind for gene in make_space(sources=sources, method=method).genes}

    for method in ("linear", "task_arithmetic"):
        assert kinds(method) == {"weight"}
    for method in ("ties", "dare_linear", "dare_ties"):
        assert kinds(method) == {"weight", "density"}
    assert kinds("slerp") == {"t"}
    slerp = make_space(sources=("ja", "math"), method="slerp", layer_granularity=2)
    assert len(slerp.genes) == 4  # one t per group


def test_settings_and_table_say_the_same(make_space, random_genome):
    space = make_space(filters=["mlp"])
    genome = random_genome(space)
    settings, table = space.settings(genome), space.table(genome)
    assert len(table) == len(space.parts) * 3
    for row in table:
        part = next(p for p in space.parts if (p.group, p.filter) == (row["group"], row["filter"]))
        index = [source.name for source in space.sources].index(row["source"])
        setting = settings[part.tensors[0]]
        assert row["weight"] == setting.weights[index] == genome[part.genes["weight", index]]
        assert row["density"] == setting.densities[index] and row["t"] is None
    slerp = make_space(sources=("ja", "math"), method="slerp")
    assert slerp.table(slerp.initial)[0] == {
        "group": "embedding", "filter": None, "source": None,
        "weight": None, "density": None, "t": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g[:-1], "has shape"),
        (lambda g: g.reshape(2, -1), "has shape"),
        (lambda g: np.where(np.arange(g.size) == 3, np.nan, g), "is nan; it must lie between"),
        (lambda g: np.where(np.arange(g.size) == 0, 2.01, g), "weight is 2.01"),
        (lambda g: np.where(np.arange(g.size) == 1, 0.0, g), "density is 0"),
        (lambda g: ["a"] * g.size, "not"),
    ],
)
def test_genomes_that_mean_nothing_are_refused(make_space, change, message):
    space = make_space()
    with pytest.raises(StudioError, match=message):
        space.settings(change(space.initial))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "soup"}, "no merge method 'soup'"),
        ({"base": False}, "name the base"),
        ({"sources": ()}, "at least one source"),
        ({"sources": ("ja", "ja")}, "listed twice"),
        ({"sources": ("ja", "base")}, "also listed as a source"),
        ({"method": "slerp"}, "exactly 2 sources"),
        ({"method": "slerp", "sources": ("ja", "math"), "normalize": True}, "no weights"),
        ({"layer_granularity": 0}, "layer_granularity"),
        ({"layer_granularity": True}, "layer_granularity"),
        ({"layer_granularity": "some"}, "layer_granularity"),
        ({"filters": ["mlp", "mlp"]}, "listed twice"),
        ({"filters": [""]}, "filter"),
    ],
)
def test_options_that_do_not_fit_are_refused(make_space, options, message):
    with pytest.raises(StudioError, match=message):
        make_space(**options)


def test_an_adapter_has_no_genes_where_it_changes_nothing(family_factory, tmp_path):
    import peft
    from transformers import AutoModelForCausalLM

    from studio.merge.live import LiveModel
    from studio.merge.parameter_space import ParameterSpace
    from studio.models import open_source

    base = family_factory(architecture="llama")["base"]
    settings = peft.LoraConfig(
        r=2, target_modules=["q_proj"], layers_to_transform=[1], init_lora_weights=False
    )
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(
        tmp_path / "adapter"
    )
    other = family_factory(architecture="llama")["ja"]
    models = [open_source(tmp_path / "adapter"), open_source(other)]
    space = ParameterSpace(open_source(base), models, method="dare_linear")
    adapted = [name for name in space.names if "adapter" in name]
    assert len(adapted) == 2 and all(name.startswith("layer 1/") for name in adapted)
    assert len(space.names) == 2 + 2 * len(space.parts)
    assert len(space.table(space.initial)) == len(space.parts) + 1
    live = LiveModel(space, device="cpu")
    live.apply(space.initial)
    merged = live.state_dict()
    assert merged["model.layers.1.self_attn.q_proj.weight"].isfinite().all()
    # whoever shares with others has a share: there its weight counts although it changes nothing
    shared = ParameterSpace(open_source(base), models, method="dare_linear", normalize=True)
    assert len(shared.names) == 4 * len(shared.parts)
