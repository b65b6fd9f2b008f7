"""Which path a genome means, worked out by hand, and which models fit on one path."""

import itertools
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.merge.data_flow import HIDDEN, MATRIX_LAYERS, DataFlowSpace, layer_suffix
from studio.merge.export import export
from studio.models import Checkpoint
from studio.models.compatibility import check_path
from tests.conftest import make_model, make_tokenizer, save_model

TOKENS = torch.tensor([[1, 40, 41, 42, 43, 44, 45, 46]])


@pytest.fixture(scope="module")
def models(family_factory):
    """`models(3, 2)`: checkpoints of so many layers each, of one kind."""

    def make(*layers: int) -> list[Checkpoint]:
        names = ("base", "ja", "math", "abel")
        return [
            Checkpoint.open(family_factory(layers=depth, scale=0.6)[name])
            for depth, name in zip(layers, names, strict=False)
        ]

    return make


def keep(space, *slots) -> np.ndarray:
    """A genome that keeps these slots and scales nothing."""
    genome = np.zeros(len(space.names))
    genome[: len(space.slots)] = -1
    genome[list(slots)] = 1
    return genome


def places(space, genome) -> list[tuple[int, int]]:
    return [(step.source, step.layer) for step in space.path(genome)]


# ── layout ────────────────────────────────────────────────────────────────────────────────────


def test_indicators_of_all_slots_come_first_then_w(models):
    space = DataFlowSpace(models(3, 2), repeats=2)
    m, t = 5, 10
    assert space.layers == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert space.slots == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4] and len(space.slots) == t
    assert [gene.kind for gene in space.genes] == ["keep"] * t + ["scale"] * m**2
    assert space.names == [gene.name for gene in space.genes]
    assert space.names[:2] == ["repeat 1/base 0/keep", "repeat 1/base 1/keep"]
    assert space.names[8] == "repeat 2/ja 0/keep"
    assert space.names[t + 1] == "base 0 → base 1/scale" and space.names[-1] == "ja 1 → ja 1/scale"
    assert (space.lower == -1).all() and (space.upper == 1).all()
    assert space.lower.dtype == space.upper.dtype == space.initial.dtype == np.float64
    assert space.binary.tolist() == [True] * t + [False] * m**2
    assert len(space.lower) == len(space.upper) == len(space.initial) == len(space.genes)
    assert space.kind == "data_flow" and space.models == space.sources


def test_the_papers_numbers(models):
    """M = 64 layers in all, r = 3: T = 192, and a network where W would have 4096 entries."""
    thirty_two = models(2)[0]
    thirty_two.config.num_hidden_layers = 32
    other = models(2, 2)[1]
    other.config.num_hidden_layers = 32
    space = DataFlowSpace([thirty_two, other])
    assert len(space.slots) == 192 and space.scaling == "network"
    assert len(space.genes) == 192 + 3 * HIDDEN + HIDDEN + HIDDEN + 1
    assert DataFlowSpace([thirty_two, other], scaling="matrix").genes[-1].kind == "scale"
    assert len(DataFlowSpace([thirty_two, other], scaling="matrix").genes) == 192 + 4096


@pytest.mark.parametrize(("depths", "chosen"), [((8, 8), "matrix"), ((8, 9), "network")])
def test_the_network_takes_over_above_sixteen_layers(models, depths, chosen):
    opened = models(2, 2)
    for model, depth in zip(opened, depths, strict=True):
        model.config.num_hidden_layers = depth
    assert MATRIX_LAYERS == 16
    assert DataFlowSpace(opened).scaling == chosen
    for scaling in ("matrix", "network", "off"):
        assert DataFlowSpace(opened, scaling=scaling).scaling == scaling


@pytest.mark.parametrize("max_length", [None, 2, 3, 4])
@pytest.mark.parametrize(("depths", "repeats"), [((3,), 1), ((3,), 2), ((2, 2), 1), ((3, 2), 1)])
def test_the_matrix_has_a_gene_for_every_pair_on_some_path_and_no_other(
    models, depths, repeats, max_length
):
    space = DataFlowSpace(models(*depths), repeats=repeats, scaling="matrix", max_length=max_length)
    pairs = set()
    for kept in itertools.product([-1.0, 1.0], repeat=len(space.slots)):
        genome = np.zeros(len(space.names))
        genome[: len(space.slots)] = kept
        pairs |= set(itertools.pairwise(places(space, genome)))
    called = {
        f"{space.called[i[0]]} {i[1]} → {space.called[j[0]]} {j[1]}/scale": (i, j)
        for i, j in itertools.product(space.layers, repeat=2)
    }
    with_gene = {called[gene.name] for gene in space.genes if gene.kind == "scale"}
    assert with_gene == pairs


def test_off_has_indicators_only(models):
    space = DataFlowSpace(models(3, 2), repeats=3, scaling="off")
    assert len(space.genes) == 15 and space.binary.all()
    genome = keep(space, 0, 4, 7, 14)
    assert {(step.scale, step.divisor) for step in space.path(genome)} == {(1.0, 1.0)}


def test_the_ablation_walks_the_same_path_without_scales(models):
    space = DataFlowSpace(models(3, 2), repeats=2, max_length=5)
    plain = space.unscaled()
    genome = np.random.default_rng(0).uniform(-1, 1, len(space.genes))
    assert places(plain, genome[: len(plain.genes)]) == places(space, genome)
    assert {step.scale for step in plain.path(genome[: len(plain.genes)])} == {1.0}


def test_sources_of_one_name_are_told_apart(models, tmp_path):
    """Gene names and genome.json show the last part of a name, and no folder of this machine."""
    folders = [
        shutil.copytree(model.path, tmp_path / str(number) / "model")
        for number, model in enumerate(models(2, 2, 2))
    ]
    space = DataFlowSpace([Checkpoint.open(folder) for folder in folders], repeats=1)
    assert len(set(space.names)) == len(space.names)
    text = space.checkpoint(keep(space, 3, 5), "fp32", "p").documents()["genome.json"]
    told = [row["source"] for row in json.loads(text)["path"]]
    assert len(set(told)) == 3 and told[0] == told[-1] and str(tmp_path) not in text


# ── the start ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scaling", ["matrix", "network", "off"])
@pytest.mark.parametrize("depths", [(2, 3), (3, 2), (4,)])
def test_by_default_a_search_starts_at_the_main_model(models, depths, scaling):
    space = DataFlowSpace(models(*depths), repeats=2, scaling=scaling)
    path = space.path(space.initial)
    assert places(space, space.initial) == [(0, layer) for layer in range(depths[0])]
    assert {(step.scale, step.divisor) for step in path} == {(1.0, 1.0)}
    assert (np.abs(space.initial[: len(space.slots)]) == 0.5).all()
    live = space.live("fp32", "cpu")
    live.apply(space.initial)
    with torch.no_grad():
        main = space.main.load()(TOKENS).logits
        assert torch.equal(live.model(TOKENS).logits, main)
        merged = space.checkpoint(space.initial, "fp32", "p").load()
        assert torch.equal(merged(TOKENS).logits, main)


def test_undecided_starts_at_the_threshold_of_every_indicator(models):
    space = DataFlowSpace(models(3, 2), start="undecided")
    assert (space.initial == 0).all()
    assert places(space, space.initial) == [(0, 0), (0, 2)]


# ── the path ──────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), repeats=st.integers(1, 3),
       scaling=st.sampled_from(["matrix", "network", "off"]),
       max_length=st.none() | st.integers(2, 20))  # fmt: skip
def test_what_holds_for_any_genome(models, seed, repeats, scaling, max_length):
    space = DataFlowSpace(models(3, 2), repeats=repeats, scaling=scaling, max_length=max_length)
    genome = np.random.default_rng(seed).uniform(-1, 1, len(space.names))
    path = space.path(genome)
    first, *inner, last = path
    assert (first.source, first.layer, first.slot, first.scale) == (0, 0, None, 1.0)
    assert (last.source, last.layer, last.slot) == (0, 2, None)
    slots = [step.slot for step in inner]
    assert slots == sorted(set(slots)) and all(genome[slot] > 0 for slot in slots)
    assert all(space.layers[slot % 5] == (step.source, step.layer)
               for slot, step in zip(slots, inner, strict=True))  # fmt: skip
    positive = int((genome[: len(space.slots)] > 0).sum())
    assert len(path) == min(positive + 2, max_length or 99)
    assert all(0.5 <= step.scale <= 2 for step in path)
    np.testing.assert_allclose(
        [step.divisor for step in path], np.cumprod([step.scale for step in path]), rtol=1e-12
    )
    found = space.properties(genome)
    assert found["length"] == len(path)
    assert all(0 < found[name] <= most for name, most in space.worst().items())


def test_exactly_zero_is_skipped(models):
    space = DataFlowSpace(models(3, 2), repeats=1)
    genome = keep(space)
    genome[3], genome[4] = 0.0, np.nextafter(0, 1)
    assert places(space, genome) == [(0, 0), (1, 1), (0, 2)]


def test_the_enclosing_layers_stay_whatever_the_indicators_say(models):
    space = DataFlowSpace(models(3, 2), repeats=2)
    assert places(space, keep(space)) == [(0, 0), (0, 2)]
    # their own slots are slots like any other: chosen, they come on top
    twice = places(space, keep(space, 0, 2, 5, 7))
    assert twice == [(0, 0), (0, 0), (0, 2), (0, 0), (0, 2), (0, 2)]
    assert len(space.path(np.ones(len(space.names)))) == 12


def test_scales_are_looked_up_by_where_a_token_comes_from(models):
    space = DataFlowSpace(models(3, 2), repeats=2)
    genome = keep(space, 3, 1 + 5)  # base 0, ja 0, base 1, base 2
    values = {
        "base 0 → ja 0/scale": 1.0,
        "ja 0 → base 1/scale": -0.5,
        "base 1 → base 2/scale": -1.0,
        "base 0 → base 1/scale": 0.7,  # not walked
        "ja 0 → ja 0/scale": 0.9,
    }
    for name, value in values.items():
        genome[space.names.index(name)] = value
    path = space.path(genome)
    np.testing.assert_allclose([step.scale for step in path], [1, 2, 2**-0.5, 0.5])
    np.testing.assert_allclose([step.divisor for step in path], [1, 2, 2**0.5, 2**-0.5])


def test_the_network_sees_both_layers_and_the_step(models):
    space = DataFlowSpace(models(3, 2), repeats=3, scaling="network")
    genome = np.random.default_rng(4).uniform(-1, 1, len(space.names))
    genome[: len(space.slots)] = -1
    genome[[1, 3, 6, 8, 11, 13]] = 1  # base 1, ja 0, three times over
    path = space.path(genome)
    walked = [step.scale for step in path]
    assert len(set(walked)) == len(walked)  # even the repeated pair: its step is another
    weights = genome[len(space.slots) :]
    u, bias = weights[: 3 * HIDDEN].reshape(HIDDEN, 3), weights[3 * HIDDEN : 4 * HIDDEN]
    v, rest = weights[4 * HIDDEN : 5 * HIDDEN], weights[-1]
    order = [space.layers.index((step.source, step.layer)) for step in path]
    for step in range(1, len(path)):
        i, j = order[step - 1], order[step]
        place = np.array([i / 4, j / 4, step / 16]) * 2 - 1
        expected = 2 ** np.tanh(v @ np.tanh(u @ place + bias) + rest)
        assert walked[step] == pytest.approx(expected, rel=1e-12)
    genome[len(space.slots) :] = 0
    assert {step.scale for step in space.path(genome)} == {1.0}


def test_every_gene_of_the_network_matters(models):
    space = DataFlowSpace(models(3, 2), repeats=2, scaling="network")
    genome = np.random.default_rng(1).uniform(-0.9, 0.9, len(space.names))
    genome[[1, 3]] = 0.5
    before = [step.scale for step in space.path(genome)]
    for index in range(len(space.slots), len(space.names)):
        moved = genome.copy()
        moved[index] += 0.1
        assert [step.scale for step in space.path(moved)] != before, space.names[index]


def test_of_too_many_layers_the_surest_are_kept_in_their_order(models):
    space = DataFlowSpace(models(3, 2), repeats=2, max_length=5)
    genome = keep(space)
    genome[[0, 1, 3, 6, 9]] = [0.2, 0.9, 0.3, 0.8, 0.4]
    assert [step.slot for step in space.path(genome)] == [None, 1, 6, 9, None]
    # switches say yes or no: the earliest are kept
    assert [step.slot for step in space.path(keep(space, 9, 0, 3, 1, 6))] == [None, 0, 1, 3, None]
    # no more than asked for: all of them
    assert [step.slot for step in space.path(keep(space, 9, 0, 3))] == [None, 0, 3, 9, None]
    ends = DataFlowSpace(models(3, 2), repeats=2, max_length=2)
    assert places(ends, keep(ends, 1, 2, 3)) == [(0, 0), (0, 2)]


def test_a_cut_path_is_scaled_as_what_is_left_of_it(models):
    space = DataFlowSpace(models(3, 2), repeats=1, max_length=4)
    genome = keep(space)
    genome[[1, 3, 4]] = [0.9, 0.1, 0.8]
    genome[space.names.index("base 1 → ja 1/scale")] = 1.0  # ja 0 in between is cut
    path = space.path(genome)
    assert [step.slot for step in path] == [None, 1, 4, None]
    assert [step.scale for step in path] == [1, 1, 2, 1]


def test_the_table_says_what_the_path_is(models):
    space = DataFlowSpace(models(3, 2), repeats=2)
    genome = keep(space, 3, 6)
    genome[space.names.index("base 0 → ja 0/scale")] = 1.0
    main, other = (source.name for source in space.sources)
    assert space.table(genome) == [
        {"step": 0, "slot": None, "source": main, "layer": 0, "scale": 1.0},
        {"step": 1, "slot": 3, "source": other, "layer": 0, "scale": 2.0},
        {"step": 2, "slot": 6, "source": main, "layer": 1, "scale": 1.0},
        {"step": 3, "slot": None, "source": main, "layer": 2, "scale": 1.0},
    ]


# ── properties ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tied", [False, True])
def test_properties_are_those_of_the_exported_checkpoint(family_factory, tied, tmp_path):
    family = family_factory(tied=tied)
    space = DataFlowSpace([Checkpoint.open(family[name]) for name in ("ja", "math")], repeats=2)
    for number, slots in enumerate([(), (1,), (1, 3, 4, 5, 9, 11)]):
        genome = keep(space, *slots)
        virtual = space.checkpoint(genome, "fp32", "p")
        written = export(virtual, tmp_path / f"{tied}{number}", card="", recipe_yaml="")
        opened = Checkpoint.open(written)
        assert space.properties(genome) == {
            "length": float(opened.layers),
            "parameters": float(opened.parameters),
        }
        assert opened.parameters == opened.load().num_parameters() == virtual.parameters


@pytest.mark.parametrize("max_length", [None, 4, 500])
def test_the_worst_is_reached_by_the_longest_path(models, max_length):
    space = DataFlowSpace(models(3, 2), repeats=2, max_length=max_length)
    assert space.worst() == space.properties(np.ones(len(space.names)))


def test_memory_is_that_of_the_main_model_and_of_the_layers_that_others_lend(models):
    space = DataFlowSpace(models(3, 2), repeats=3)
    main, *others = space.sources
    lent = [math.prod(m.shape(name)) for m in others for name in m.names() if ".layers." in name]
    parameters = main.parameters + sum(lent)
    assert space.memory("fp32") == 4 * parameters and space.memory("bf16") == 2 * parameters
    assert DataFlowSpace(models(3, 2), repeats=1).memory("fp32") == space.memory("fp32")


# ── what is refused ───────────────────────────────────────────────────────────────────────────


def test_a_genome_of_another_space_is_told(models):
    space = DataFlowSpace(models(3, 2), repeats=1)
    good = keep(space, 1)
    uses = (space.check, space.path, space.table, space.properties,
            lambda genome: space.checkpoint(genome, "fp32", "p"))  # fmt: skip
    for use in uses:
        with pytest.raises(StudioError, match="data-flow space has 19 genes") as caught:
            use(good[:-1])
        assert "shape (18,)" in str(caught.value)
        for value in (np.nan, np.inf, 1.5, -1.0000001):
            wrong = good.copy()
            wrong[1] = value
            with pytest.raises(StudioError, match="base 1/keep is .* between -1 and 1"):
                use(wrong)
        with pytest.raises(StudioError, match="a list of numbers"):
            use("not a genome")
    assert space.check(list(good)).dtype == np.float64


def test_a_path_has_two_layers_at_least(models):
    for length in (1, 0, -3):
        with pytest.raises(StudioError, match="first and the last layer .* make it 2"):
            DataFlowSpace(models(3), max_length=length)


def test_unknown_precision(models):
    space = DataFlowSpace(models(3))
    for use in (lambda: space.live("fp8", "cpu"),
                lambda: space.checkpoint(space.initial, "fp8", "p")):  # fmt: skip
        with pytest.raises(StudioError, match="fp8"):
            use()


def refusal(*sources: Checkpoint) -> str:
    """The sentence with which these models are refused, by the check and by the space."""
    with pytest.raises(StudioError) as caught:
        check_path(sources)
    with pytest.raises(StudioError, match=re.escape(str(caught.value))):
        DataFlowSpace(sources)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 500
    return sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "llama"}, "a MistralForCausalLM, the second a LlamaForCausalLM"),
        ({"hidden_size": 128}, "the first has hidden size 64, the second 128"),
        ({"num_key_value_heads": 1}, "key-value heads .*, 2 in the first, 1 in the second"),
        ({"num_attention_heads": 2}, "attention heads"),
        ({"head_dim": 32}, "head size"),
        ({"intermediate_size": 256}, "feed-forward size .*128 in the first, 256"),
        ({"hidden_act": "gelu"}, "activation .*silu in the first, gelu in the second"),
        ({"rms_norm_eps": 1e-5}, "normalisation epsilon"),
        ({"sliding_window": 128}, "sliding window .*4096 in the first, 128 in the second"),
        ({"sliding_window": None}, "sliding window .*None in the second"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            "rope parameters .*rope_theta=10000.0 in the first, rope_theta=1000000.0 in the second",
        ),
    ],
)
def test_layers_of_another_form_are_refused(tiny_family, tmp_path, changes, words):
    main = Checkpoint.open(tiny_family["base"])
    other = Checkpoint.open(save_model(make_model(**changes), tmp_path / "other"))
    sentence = refusal(main, other)
    assert re.search(words, sentence), sentence
    assert "base and" in sentence and "cannot stand on one path" in sentence
    assert "pick models" in sentence
    same = Checkpoint.open(tiny_family["ja"])
    assert "cannot stand on one path" in refusal(main, same, other)  # wherever it is listed


def of_config(folder, config) -> Checkpoint:
    import transformers

    model = transformers.AutoModelForCausalLM.from_config(config)
    return Checkpoint.open(save_model(model, folder))


SIZES = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def test_biases_that_only_one_has_are_refused(tmp_path):
    from transformers import LlamaConfig

    plain = of_config(tmp_path / "plain", LlamaConfig(**SIZES))
    for option, tensor in (("attention_bias", "self_attn.q_proj"), ("mlp_bias", "mlp.gate_proj")):
        other = of_config(tmp_path / option, LlamaConfig(**SIZES, **{option: True}))
        for pair in ((plain, other), (other, plain)):
            assert f"only one of them has the tensor {tensor}.bias" in refusal(*pair)


def test_attention_that_the_main_model_cannot_prepare_is_refused(tmp_path):
    from transformers import Gemma2Config, Qwen2Config

    windows = {"use_sliding_window": True, "sliding_window": 8}
    types = {
        "full": ["full_attention", "full_attention"],
        "mixed": ["full_attention", "sliding_attention"],
    }
    full, mixed = (
        of_config(tmp_path / name, Qwen2Config(**SIZES, **windows, layer_types=found))
        for name, found in types.items()
    )
    assert "only the second has layers of sliding_attention" in refusal(full, mixed)
    check_path([mixed, full])  # the other way round there is nothing missing
    narrow, wide = (
        of_config(tmp_path / f"gemma {window}", Gemma2Config(**SIZES, sliding_window=window))
        for window in (8, 16)
    )
    assert "sliding window" in refusal(narrow, wide)
    soft = of_config(
        tmp_path / "soft", Gemma2Config(**SIZES, sliding_window=8, attn_logit_softcapping=30.0)
    )
    assert "attention softcap" in refusal(narrow, soft)
    scale = of_config(
        tmp_path / "scale", Gemma2Config(**SIZES, sliding_window=8, query_pre_attn_scalar=64)
    )
    assert "attention scale" in refusal(narrow, scale)


@pytest.mark.parametrize("kind", ["GPT2", "Phi", "Cohere", "Olmo2", "Granite", "StableLm"])
def test_layers_that_are_no_plain_pre_norm_blocks_are_refused(kind, tmp_path, models):
    import transformers

    options = {key: value for key, value in SIZES.items() if key != "head_dim"}
    if kind == "GPT2":
        options = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "eos_token_id": 2,
                   "bos_token_id": 1}  # fmt: skip
    other = of_config(tmp_path / kind, getattr(transformers, f"{kind}Config")(**options))
    for sources in ([other], [*models(3), other]):
        sentence = refusal(*sources)
        assert f"The layers of {other.name} cannot be rearranged" in sentence
        assert "Llama, Mistral, Qwen2, Qwen3, Gemma" in sentence


def test_a_source_twice_none_or_of_one_layer(models, tmp_path):
    main, other = models(3, 2)
    assert "listed twice" in refusal(main, other, Checkpoint.open(main.path))
    assert "layers can be repeated anyway" in refusal(main, main)
    assert "at least one source" in refusal()
    flat = Checkpoint.open(save_model(make_model(layers=1), tmp_path / "flat"))
    for sources in ([flat], [main, flat]):
        assert f"{flat.name} has a single layer" in refusal(*sources)
    merge = DataFlowSpace([main, other]).checkpoint
    space = DataFlowSpace([main, other])
    again = [space.checkpoint(keep(space, 1, 3), "fp32", name) for name in ("one", "two")]
    assert "two is listed twice" in refusal(*again)
    check_path([merge(keep(space, 1), "fp32", "one"), again[0]])


def test_depths_vocabularies_dtypes_and_tying_may_differ(models, family_factory, tmp_path):
    main = models(3)[0]
    deeper = Checkpoint.open(save_model(make_model(layers=5), tmp_path / "deeper"))
    words = Checkpoint.open(save_model(make_model(vocab_size=352), tmp_path / "words"))
    half = Checkpoint.open(family_factory(dtype="bfloat16")["ja"])
    tied = Checkpoint.open(family_factory(tied=True)["math"])
    pieces = shutil.copytree(models(3, 3)[1].path, tmp_path / "pieces")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["[EXTRA]"])
    tokenizer.save_pretrained(pieces)
    everything = [main, deeper, words, half, tied, Checkpoint.open(pieces)]
    check_path(everything)
    check_path(everything[::-1])
    space = DataFlowSpace(everything, repeats=1)
    assert len(space.layers) == 3 + 5 + 3 * 4 and space.scaling == "network"
    live = space.live("fp32", "cpu")
    live.apply(keep(space, *range(len(space.slots))))
    with torch.no_grad():
        found = live.model(TOKENS).logits
    assert found.isfinite().all() and found.shape[-1] == 320 and found.dtype == torch.float32


def test_layer_suffix():
    assert layer_suffix("model.layers.1.mlp.up_proj.weight", 1) == "mlp.up_proj.weight"
    for other in ("model.layers.11.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"):
        assert layer_suffix(other, 1) is None
