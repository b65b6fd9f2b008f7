"""mergekit's configurations merged here, beside mergekit's own merges of the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from studio import api
from studio.errors import StudioError
from studio.merge.data_flow import DataFlowSpace
from studio.merge.fixed import FixedMerge
from studio.merge.mergekit_import import METHODS, Configuration
from studio.merge.methods import METHODS as OURS
from studio.models import Checkpoint

TOKENS = torch.tensor([[1, 40, 41, 42, 43, 44, 45, 46]])


def fixed(document: dict | str) -> FixedMerge:
    text = document if isinstance(document, str) else yaml.safe_dump(document)
    return FixedMerge(Configuration.from_yaml(text), Checkpoint.open, "merge")


def mergekit(document: dict, out: Path) -> dict[str, torch.Tensor]:
    """What mergekit itself makes of it."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    run_merge(
        MergeConfiguration.model_validate(document), str(out),
        MergeOptions(quiet=True, write_model_card=False),
    )  # fmt: skip
    return {name: t for file in out.glob("*.safetensors") for name, t in load_file(file).items()}


# ── forms ────────────────────────────────────────────────────────────────────────────────────────


def source(model, first=None, stop=None, **parameters) -> dict:
    entry = {"model": str(model)}
    if first is not None:
        entry["layer_range"] = [first, stop]
    return entry | ({"parameters": parameters} if parameters else {})


def forms(f: dict[str, Path]) -> dict[str, dict]:
    """Configurations in common use, by name, over a family of three layers, without their dtype."""
    base, ja, math, abel = (str(f[name]) for name in ("base", "ja", "math", "abel"))
    by_filter = [
        {"filter": "self_attn", "value": [0, 0.5, 0.3]},
        {"filter": "mlp", "value": [1, 0.5]},
        {"value": 0.4},
    ]
    return {
        "linear": {
            "merge_method": "linear",
            "models": [source(ja, weight=0.7), source(math, weight=[0.1, 0.9, 0.2])],
        },
        "linear, not normalized": {
            "merge_method": "linear",
            "models": [source(ja, weight="1e-1"), source(math, weight=-0.4), source(abel)],
            "parameters": {"weight": 1.1, "normalize": False},
        },
        "linear, base among the models": {
            "merge_method": "linear",
            "base_model": base,
            "models": [source(ja, weight=1), source(math, weight=1)],
            "parameters": {"weight": 0.3},
        },
        "slerp, gradients and filters": {
            "merge_method": "slerp",
            "base_model": ja,
            "models": [source(ja), source(math)],
            "parameters": {"t": by_filter, "normalize": True},
        },
        "slerp, base last": {
            "merge_method": "slerp",
            "base_model": math,
            "slices": [{"sources": [source(ja, 0, 3), source(math, 0, 3)]}],
            "parameters": {"t": by_filter},
        },
        "slerp, other layers, a slice's own t": {
            "merge_method": "slerp",
            "base_model": base,
            "slices": [
                {"sources": [source(base, 0, 2), source(ja, 1, 3)], "parameters": {"t": [1, 0]}},
                {"sources": [source(math, 2, 3), source(base, 1, 2)]},
            ],
            "parameters": {"t": 0.25},
        },
        "task_arithmetic": {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "models": [source(ja, weight=0.5), source(base), source(math, weight=[1, -0.5])],
        },
        "task_arithmetic, lambda, normalized": {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "models": [source(ja, weight=0.5), source(math, weight=0.9), source(abel, weight=0.2)],
            "parameters": {"lambda": 0.7, "normalize": True, "int8_mask": True},
        },
        "task_arithmetic, slices": {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "slices": [
                {
                    "sources": [
                        source(base, 0, 1),
                        source(ja, 0, 1, weight=0.3),
                        source(math, 2, 3),
                    ],
                    "parameters": {"weight": 0.7},
                },
                {
                    "sources": [
                        source(math, 1, 3, weight=[{"filter": "mlp", "value": [0.1, 0.8]}]),
                        source(abel, 0, 2, weight=0.6),
                        source(base, 1, 3),
                    ]
                },
            ],
            "parameters": {"weight": 0.45, "lambda": [{"filter": "layers.2.", "value": 1.3}]},
        },
        "ties": {
            "merge_method": "ties",
            "base_model": base,
            "models": [
                source(ja, weight=0.5, density=[1, 0.3, 0.5]),
                source(math, weight=[{"filter": "mlp", "value": 0.5}, {"value": 0.1}], density=0.4),
            ],
            "parameters": {"int8_mask": True},
        },
        "ties, not normalized, lambda": {
            "merge_method": "ties",
            "base_model": base,
            "models": [source(ja, weight=0.5), source(math, weight=0.8), source(abel, weight=1)],
            "parameters": {"density": 0.6, "normalize": "false", "lambda": 1.5},
        },
        "ties, normalized, lambda": {
            "merge_method": "ties",
            "base_model": base,
            "models": [source(ja, weight=0.5), source(math, weight=0.8)],
            "parameters": {"density": 0.5, "lambda": 0.4, "gamma": 0.1},
        },
        "passthrough, a stack": {
            "merge_method": "passthrough",
            "slices": [
                {"sources": [source(ja, 0, 2)]},
                {"sources": [source(math, 0, 3)]},
                {"sources": [source(ja, 1, 3)]},
            ],
        },
        "passthrough, scaled": {
            "merge_method": "passthrough",
            "base_model": base,
            "slices": [
                {"sources": [source(ja, 0, 3)]},
                {
                    "sources": [
                        source(
                            math, 1, 3,
                            scale=[
                                {"filter": "o_proj", "value": 0.0},
                                {"filter": "down_proj", "value": 0.3},
                                {"value": 1.0},
                            ],
                        )
                    ]
                },
                {"sources": [source(abel, 2, 3)], "parameters": {"scale": 0.9}},
            ],
        },
    }  # fmt: skip


NAMES = list(forms(dict.fromkeys(("base", "ja", "math", "abel"), Path("x"))))


@pytest.mark.parametrize("name", NAMES)
def test_float32_as_mergekit(family_factory, tmp_path, name):
    document = forms(family_factory())[name] | {"dtype": "float32"}
    theirs, ours = mergekit(document, tmp_path / "out"), fixed(document)
    assert set(theirs) == set(ours.names())
    for tensor, expected in theirs.items():
        merged = ours.get(tensor)
        assert merged.shape == ours.shape(tensor) and merged.dtype == torch.float32
        torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-6, msg=tensor)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32 in between"])
@pytest.mark.parametrize("name", NAMES)
def test_bf16_as_mergekit_within_rounding(family_factory, tmp_path, name, dtype):
    """TIES aside, where deltas of bf16 weights tie at the threshold and mergekit picks others."""
    document = forms(family_factory(dtype="bfloat16"))[name]
    if dtype == "bfloat16":
        document |= {"dtype": "bfloat16"}
    else:
        document |= {"dtype": "float32", "out_dtype": "bfloat16"}
    theirs, ours = mergekit(document, tmp_path / "out"), fixed(document)
    entries = off = 0
    for tensor, expected in theirs.items():
        merged = ours.get(tensor)
        assert merged.dtype == expected.dtype == torch.bfloat16
        difference = (merged.float() - expected.float()).abs()
        # One unit in the last place of bf16 is between 2^-8 and 2^-7 of a number: of the result
        # where it is rounded once, and of what is added up, twice, where all in between is rounded.
        size = expected.float().abs()
        if dtype == "bfloat16":
            how = ours._how[tensor]
            parts = [*how.sources, *([how.base] if how.base else [])]
            size = 2 * sum(ours._opened[model].get(name).float().abs() for model, name in parts)
        off += int((difference > 2**-7 * size + 1e-6).sum())
        entries += difference.numel()
    assert off <= (0.1 * entries if document["merge_method"] == "ties" else 0)


@pytest.mark.parametrize(
    "family", [{"tied": True}, {"architecture": "llama"}, {"architecture": "llama", "tied": True}]
)
@pytest.mark.parametrize("name", ["slerp, gradients and filters", "passthrough, a stack"])
def test_other_families(family_factory, tmp_path, family, name):
    document = forms(family_factory(**family))[name] | {"dtype": "float32"}
    theirs, ours = mergekit(document, tmp_path / "out"), fixed(document)
    assert set(theirs) == set(ours.names()) and ours.tied == family.get("tied", False)
    for tensor, expected in theirs.items():
        torch.testing.assert_close(ours.get(tensor), expected, rtol=1e-6, atol=1e-6, msg=tensor)


def test_tied_and_untied_models_make_an_untied_one(family_factory, tmp_path):
    folders, tied = dict(family_factory()), family_factory(tied=True)
    folders |= {"base": tied["base"], "ja": tied["ja"]}
    document = forms(folders)["linear, base among the models"] | {"dtype": "float32"}
    theirs, ours = mergekit(document, tmp_path / "out"), fixed(document)
    assert set(theirs) == set(ours.names()) and not ours.config.tie_word_embeddings
    for tensor, expected in theirs.items():
        torch.testing.assert_close(ours.get(tensor), expected, rtol=1e-6, atol=1e-6, msg=tensor)
    assert not any(parameter.isnan().any() for parameter in ours.load().parameters())


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", [True, False])
def test_dare_drops_and_rescales(family_factory, method, rescale):
    """Its masks are the Studio's own: share and values of what is kept are as they should be."""
    family = family_factory()
    document = {
        "merge_method": method,
        "base_model": str(family["base"]),
        "models": [source(family["ja"], weight=0.8, density=0.25)],
        "parameters": {"rescale": rescale, "lambda": 0.5},
    }
    merged = fixed(document)
    base, ja = (Checkpoint.open(family[name]) for name in ("base", "ja"))
    kept = total = 0
    for name in merged.names():
        difference = merged.get(name) - base.get(name)
        delta = ja.get(name) - base.get(name)
        mask = difference.abs() > 1e-4 * delta.abs().clamp(min=1e-3)
        factor = 0.5 * 0.8 / (0.25 if rescale else 1)
        torch.testing.assert_close(
            difference[mask], factor * delta[mask], rtol=1e-3, atol=1e-5, msg=name
        )
        kept, total = kept + int(mask.sum()), total + mask.numel()
    assert abs(kept / total - 0.25) < 0.005
    assert all(torch.equal(fixed(document).get(n), merged.get(n)) for n in merged.names())
    other = fixed(document | {"random_seed": 1})
    assert not torch.equal(other.get("lm_head.weight"), merged.get("lm_head.weight"))


def test_dare_normalized_and_not_rescaled(family_factory):
    """Equal densities: the average of what is kept, as it is."""
    family = family_factory()
    document = {
        "merge_method": "dare_linear",
        "base_model": str(family["base"]),
        "models": [source(family["ja"], weight=1), source(family["math"], weight=3)],
        "parameters": {"density": 0.5, "normalize": True, "rescale": False},
    }
    name = "model.layers.1.mlp.up_proj.weight"
    plain = fixed(document | {"parameters": {"density": 0.5}}).get(name)  # weights 1 and 3, × 2
    base = Checkpoint.open(family["base"]).get(name)
    merged = fixed(document).get(name)
    torch.testing.assert_close(merged - base, (plain - base) / 8, rtol=1e-3, atol=1e-5)
    document["models"][0]["parameters"] |= {"density": 0.4}
    with pytest.raises(StudioError, match="equal densities only"):
        fixed(document)


# ── ours out and in again ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize(
    "options", [{}, {"layer_granularity": 2, "filters": ["self_attn"], "seed": 5}, {"tied": True}]
)
def test_what_is_exported_comes_back_the_same(make_space, random_genome, method, options):
    """To the bit, masks too: the seed goes with it."""
    sources = ("ja", "math") if method == "slerp" else ("ja", "math", "abel")
    space = make_space(sources=sources, method=method, **options)
    merged = space.checkpoint(random_genome(space), "fp32", "winner")
    again = fixed(merged.documents()["mergekit.yaml"])
    assert again.names() == merged.names()
    for name in merged.names():
        assert torch.equal(again.get(name), merged.get(name)), name


def test_a_path_comes_back_the_same(family_factory):
    family = family_factory(layers=4, sliding_window=None)
    space = DataFlowSpace([Checkpoint.open(family[name]) for name in ("ja", "math")], repeats=2)
    genome = np.random.default_rng(3).uniform(space.lower, space.upper)
    path = space.checkpoint(genome, "fp32", "path")
    again = fixed(path.documents()["mergekit.yaml"])
    assert set(again.names()) == set(path.names()) and again.layers == path.layers
    for name in path.names():
        torch.testing.assert_close(again.get(name), path.get(name), rtol=3e-7, atol=0)


# ── as a model ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["passthrough, a stack", "slerp, other layers, a slice's own t"])
def test_it_is_a_checkpoint_like_any_other(family_factory, tmp_path, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = fixed(forms(family_factory())[name])
    document = yaml.safe_dump(forms(family_factory())[name])
    (tmp_path / "config.yml").write_text(document)
    out = api.merge(tmp_path / "config.yml", tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.num_hidden_layers == merged.layers == len(model.model.layers)
    live = merged.load()
    with torch.no_grad():
        assert torch.equal(model.eval()(TOKENS).logits, live(TOKENS).logits)
    assert AutoTokenizer.from_pretrained(out).get_vocab() == merged.tokenizer().get_vocab()
    assert (out / "mergekit.yaml").read_text() == document
    assert not (out / "recipe.yaml").exists()
    card = (out / "README.md").read_text()
    assert "apache-2.0" in card and merged.configuration.method in card
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == merged.layers


def test_an_adapter_is_named_after_its_base_there_and_before_it_here(tmp_path, monkeypatch):
    asked = []

    def open_model(name):
        asked.append(name)
        raise StudioError("enough")

    monkeypatch.setattr("studio.evolve.spaces.open_model", open_model)
    for name, ours in (("base/model+me/lora@v2", "me/lora@v2+base/model"), ("a/b@v1", "a/b@v1")):
        page = {"merge_method": "linear", "models": [source(name, weight=1)]}
        (tmp_path / "config.yml").write_text(yaml.safe_dump(page))
        with pytest.raises(StudioError, match="enough"):
            api.merge(tmp_path / "config.yml", tmp_path / "out")
        assert asked.pop() == ours


def test_kinds_of_attention_move_with_their_layers(family_factory):
    folders = family_factory(architecture="mistral", layers=4)
    stack = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [source(folders["ja"], 0, 3)]},
            {"sources": [source(folders["math"], 1, 4)]},
        ],
    }
    merged = fixed(stack)
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    for model in merged._opened.values():
        model.config.layer_types = kinds
    merged.config.layer_types = kinds
    merged._set_layer_types()
    assert merged.config.layer_types == kinds[:3] + kinds[1:]
    linear = {
        "merge_method": "linear",
        "slices": [{"sources": [source(folders["ja"], 0, 3), source(folders["math"], 1, 4)]}],
        "parameters": {"weight": 1},
    }
    merged = fixed(linear)
    for model in merged._opened.values():
        model.config.layer_types = kinds
    merged.config.layer_types = kinds
    with pytest.raises(StudioError, match="different kinds of attention"):
        merged._set_layer_types()


def test_the_result_has_the_models_dtype_unless_told(family_factory):
    document = forms(family_factory(dtype="bfloat16"))["linear"]
    assert fixed(document).dtype == torch.bfloat16
    assert fixed(document | {"dtype": "float16"}).dtype == torch.float16
    assert fixed(document | {"dtype": "float16", "out_dtype": "float32"}).dtype == torch.float32
    mixed = forms(family_factory(dtype="bfloat16") | {"ja": family_factory()["ja"]})["linear"]
    assert fixed(mixed).dtype == fixed(mixed).config.dtype == torch.float32


def test_the_fingerprint_changes_with_the_merge(family_factory):
    document = forms(family_factory())["task_arithmetic"]
    prints = [
        fixed(changed).fingerprint()
        for changed in (
            document,
            document | {"dtype": "bfloat16"},
            document | {"parameters": {"lambda": 0.5}},
            document | {"random_seed": 3},
            document | {"models": document["models"][:2]},
            document | {"chat_template": "{{ messages }}"},
        )
    ]
    assert len(set(prints)) == len(prints) and all(len(p) == 32 for p in prints)
    assert fixed(document).fingerprint() == prints[0]


def test_whose_tokenizer_it_speaks_with(family_factory, tmp_path):
    import shutil

    folders = dict(family_factory())
    shutil.copytree(folders["base"], tmp_path / "mute")
    (tmp_path / "mute" / "chat_template.jinja").unlink()
    folders["base"] = tmp_path / "mute"
    document = forms(folders)["task_arithmetic"]
    assert fixed(document).tokenizer().chat_template is None  # mergekit copies the base's
    for choice in (
        {"tokenizer_source": str(folders["ja"])},
        {"tokenizer": {"source": str(folders["ja"])}},
        {"chat_template": "auto"},
    ):
        template = fixed(document | choice).tokenizer().chat_template
        assert template == Checkpoint.open(folders["ja"]).tokenizer().chat_template
    own = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert fixed(document | {"chat_template": own}).tokenizer().chat_template == own
    vocabulary = Checkpoint.open(folders["ja"]).tokenizer().get_vocab()
    for choice in ("base", "union"):
        merged = fixed(document | {"tokenizer_source": choice})
        assert merged.tokenizer().get_vocab() == vocabulary


def test_two_vocabularies_become_one(family_factory, tmp_path):
    """Rows by token: what only one model has comes out as that model has it."""
    from tests.conftest import make_model, make_tokenizer

    base = Path(family_factory()["base"])
    other = make_tokenizer(320)
    other.add_tokens(["<extra>"])
    model = make_model(seed=7, vocab_size=321)
    model.save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    document = {
        "merge_method": "linear",
        "base_model": str(base),
        "models": [source(base, weight=1), source(tmp_path / "other", weight=1)],
    }
    with pytest.raises(StudioError, match="different vocabularies"):
        fixed(document)
    merged = fixed(document | {"tokenizer_source": "union"})
    tokenizer = merged.tokenizer()
    number = tokenizer.convert_tokens_to_ids("<extra>")
    rows = merged.get("model.embed_tokens.weight")
    assert merged.config.vocab_size == rows.shape[0] > number
    name = "model.embed_tokens.weight"
    theirs = Checkpoint.open(tmp_path / "other").get(name)[other.convert_tokens_to_ids("<extra>")]
    torch.testing.assert_close(rows[number] * 2, theirs + theirs)
    assert merged.load()(TOKENS).logits.shape[-1] == rows.shape[0]
    assert fixed(document | {"tokenizer_source": "base"}).get(name).shape[0] == 320


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def changed(document: dict, changes: dict) -> dict:
    return {k: v for k, v in (document | changes).items() if v is not None}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("linear", {"merge_method": "model_stock"}, "'model_stock' is not one of linear, slerp"),
        ("linear", {"merge_method": None}, "'merge_method' must be a text"),
        ("linear", {"models": None}, "either 'models' or 'slices'"),
        ("linear", {"slices": []}, "either 'models' or 'slices'"),
        ("linear", {"modules": {}}, "'modules' is not supported"),
        ("linear", {"model": []}, "has no field 'model'"),
        ("linear", {"models": []}, "'models' must be a list"),
        ("linear", {"models": ["x"]}, r"models\[0\] must be a mapping"),
        ("linear", {"models": [{"model": 3}]}, r"'models\[0\].model' must be a text"),
        ("linear", {"models": [{"model": "x", "weight": 1}]}, "has no field 'weight'"),
        ("linear", {"models": [source("x"), source("x")]}, "lists the same model twice"),
        ("linear", {"parameters": {"wieght": 1}}, "has no field 'wieght'"),
        ("linear", {"parameters": {"weight": None}}, "'parameters.weight' must be a number"),
        ("linear", {"parameters": {"weight": "much"}}, "must be a number"),
        ("linear", {"parameters": {"weight": ".nan"}}, "must be a number"),
        ("linear", {"parameters": {"weight": float("inf")}}, "must be a number"),
        ("linear", {"parameters": {"weight": []}}, "is empty"),
        ("linear", {"parameters": {"weight": [1, {"value": 2}]}}, "must be a mapping"),
        ("linear", {"parameters": {"weight": [{"filter": "mlp"}]}}, "has no 'value'"),
        ("linear", {"parameters": {"weight": {"value": 1, "fliter": "x"}}}, "no field 'fliter'"),
        ("linear", {"parameters": {"normalize": "perhaps"}}, "must be true or false"),
        ("linear", {"parameters": []}, "must be a mapping"),
        ("linear", {"dtype": "int8"}, "'dtype' is 'int8'; use one of float32"),
        ("linear", {"random_seed": -1}, "'random_seed' must be"),
        ("linear", {"tokenizer_source": "union", "tokenizer": {}}, "either 'tokenizer_source' or"),
        ("linear", {"tokenizer": {"pad_to_multiple_of": 64}}, "pad_to_multiple_of' is not supp"),
        ("linear", {"tokenizer": {"tokens": {"<a>": {}}}}, "tokens' is not supported"),
        ("linear", {"chat_template": "chatml"}, "write 'auto' or the template itself"),
        ("ties", {"base_model": None}, "ties needs a 'base_model'"),
        ("ties", {"parameters": {"density": 0}}, "must lie above 0"),
        ("ties", {"parameters": {"density": 1.5}}, "must lie above 0"),
        ("ties", {"parameters": {"rescale": True}}, "'rescale' is not supported for ties"),
        ("slerp, base last", {"base_model": "elsewhere"}, "lacks the base_model 'elsewhere'"),
        ("slerp, base last", {"parameters": None}, "slerp needs a parameter 't'"),
        ("task_arithmetic, slices", {"parameters": {"t": 1}}, "needs a 'weight' of .*/math"),
        ("passthrough, a stack", {"slices": [{"sources": []}]}, "must be a list with at least"),
        ("passthrough, a stack", {"merge_method": "linear"}, "linear needs a 'weight' of"),
    ],
)  # fmt: skip
def test_one_sentence_on_what_is_wrong(family_factory, name, changes, message):
    with pytest.raises(StudioError, match=message) as raised:
        fixed(changed(forms(family_factory())[name], changes))
    assert "\n" not in str(raised.value)


def stack(*entries, method="passthrough", **more) -> dict:
    return {"merge_method": method, "slices": [{"sources": list(e)} for e in entries], **more}


def test_layers_that_do_not_fit(family_factory):
    folders, deep = family_factory(), family_factory(layers=4)
    ja, base, longer = folders["ja"], folders["base"], deep["math"]
    weight = {"parameters": {"weight": 1}}
    for document, message in (
        (stack([source(ja, 0, 9)]), "takes layers 0 to 8 of .*/ja, which has 3"),
        (stack([source(ja, 2, 2)]), "must be .first, one past the last."),
        (stack([source(ja, -1, 2)]), "must be .first, one past the last."),
        (stack([source(ja, 0.0, 2.0)]), "must be .first, one past the last."),
        (stack([source(ja, 0, 2), source(base, 0, 2)]), "has 2 models, and passthrough copies one"),
        (stack([source(ja, 0, 2), source(base, 0, 3)], method="linear", **weight),
         "different numbers of layers"),
        (stack(*[[source(ja, 0, 2000)]] * 3), "more than 2000 layers"),
        ({"merge_method": "linear", "models": [source(ja), source(longer)], **weight},
         "have different numbers of layers"),
    ):  # fmt: skip
        with pytest.raises(StudioError, match=message):
            fixed(document)


def test_models_that_do_not_fit(family_factory):
    small = family_factory(hidden_size=32, head_dim=8)["ja"]
    with pytest.raises(StudioError, match="hidden size"):
        fixed(stack([source(family_factory()["ja"], 0, 3)], [source(small, 0, 2)]))


def test_weights_that_cancel_each_other_out(family_factory):
    folders = family_factory()
    models = [source(folders["ja"], weight=1), source(folders["math"], weight=-1)]
    with pytest.raises(StudioError, match="sum to zero"):
        fixed({"merge_method": "linear", "models": models})


def test_all_methods_are_mergekits_by_the_same_defaults():
    """What is taken for granted about mergekit, asked of the installed one."""
    from mergekit.merge_methods import registry

    for name in METHODS:
        theirs = {p.name: p.default for p in registry.get(name).spec.parameters if not p.required}
        page = f"merge_method: {name}\nbase_model: a\nmodels: [{{model: a}}, {{model: b}}]"
        if name == "passthrough":
            page = "merge_method: passthrough\nmodels: [{model: a}]"
        ours = Configuration.from_yaml(page)
        where = ("model.norm.weight", 0.0, ours.slices[0])
        if "normalize" in theirs:
            assert ours.normalize(*where) == theirs["normalize"], name
        if "rescale" in theirs:
            assert ours.rescale(*where) == theirs["rescale"], name
        assert theirs.get("lambda", 1.0) == theirs.get("density", 1.0) == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "a: [", "- 1", "merge_method: linear\n---\na: 1", "\x00", "merge_method: !!python/name:x",
     "x: &a [*a]", "? [1]\n: 2", "a: 2000-13-45", "1: 2", "merge_method: linear\nmodels: &m [*m]"],
)  # fmt: skip
def test_no_configuration_at_all(text):
    with pytest.raises(StudioError) as raised:
        Configuration.from_yaml(text)
    assert "\n" not in str(raised.value)


def test_a_page_that_means_gigabytes():
    laughs = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for text in (laughs + "merge_method: linear", "merge_method: linear\n#" + "x" * 300_000):
        with pytest.raises(StudioError):
            Configuration.from_yaml(text)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=6),
    st.sampled_from(["a", "b", "base", "union", "auto", "mlp", "*", "float16", "1e-3", *METHODS]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["merge_method", "base_model", "models", "slices", "sources", "model", "layer_range", "weight",
     "parameters", "filter", "value", "t", "density", "scale", "lambda", "normalize", "rescale",
     "dtype", "out_dtype", "tokenizer", "tokenizer_source", "chat_template", "random_seed"]
)  # fmt: skip
PAGES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)
VALUE = st.one_of(
    st.floats(-3, 3), st.lists(st.floats(-1, 1), max_size=3), SCALARS,
    st.lists(st.fixed_dictionaries({"value": st.floats(0, 1) | SCALARS}, optional={
        "filter": st.sampled_from(["mlp", "self_attn", "", "*"])}), max_size=3),
)  # fmt: skip
PARAMETERS = st.dictionaries(
    st.sampled_from(["weight", "density", "t", "scale", "lambda", "normalize", "rescale"]),
    VALUE, max_size=3,
)  # fmt: skip
INPUTS = st.lists(
    st.fixed_dictionaries(
        {"model": st.sampled_from(["a", "b", "c"]),
         "layer_range": st.lists(st.integers(0, 4), min_size=2, max_size=2)},
        optional={"parameters": PARAMETERS},
    ),
    min_size=1, max_size=3,
)  # fmt: skip
NEARLY = st.fixed_dictionaries(
    {"merge_method": st.sampled_from(METHODS), "base_model": st.sampled_from(["a", "b"]),
     "parameters": PARAMETERS,
     "slices": st.lists(st.fixed_dictionaries({"sources": INPUTS}, optional={
         "parameters": PARAMETERS}), min_size=1, max_size=3)},
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), PAGES.map(yaml.safe_dump), NEARLY.map(yaml.safe_dump)))
@settings(max_examples=400, deadline=None)
def test_whatever_is_written_is_read_or_refused(text):
    try:
        configuration = Configuration.from_yaml(text)
    except StudioError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return
    assert configuration.models
    for piece in configuration.slices:
        for entry in piece.sources:
            for name in ("weight", "scale", "density", "lambda"):
                number = configuration.number(name, "model.layers.0.mlp.x", 0.5, piece, entry)
                assert number is None or abs(number) < 1e31


@given(NEARLY)
@settings(max_examples=60, deadline=None)
def test_what_is_read_can_be_merged_or_is_refused(family_factory, document):
    folders = family_factory()
    opened = {
        letter: Checkpoint.open(folders[name])
        for letter, name in zip("abc", ("base", "ja", "math"), strict=True)
    }
    try:
        configuration = Configuration.from_yaml(yaml.safe_dump(document))
        merged = FixedMerge(configuration, opened.__getitem__, "merge")
    except StudioError as error:
        assert "\n" not in str(error)
        return
    for name in merged.names()[:3] + merged.names()[-2:]:
        assert merged.get(name).shape == merged.shape(name)
