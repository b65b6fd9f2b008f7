import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.errors import StudioError
from studio.models import Checkpoint, bundled, describe
from tests.conftest import make_model, save_model

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def folder(tiny_family, tmp_path):
    """A copy of a sound model, to damage."""
    return shutil.copytree(tiny_family["ja"], tmp_path / "model")


def edit(file, **changes):
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in settings.items() if v is not ...}))


def rewrite(folder, change):
    """Replace the stored tensors by `change(tensors)`."""
    tensors = change({k: v.clone() for k, v in load_file(folder / "model.safetensors").items()})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_what_a_checkpoint_says_of_itself(tiny_family):
    checkpoint = Checkpoint.open(tiny_family["ja"])
    model = make_model()
    assert checkpoint.architecture == "MistralForCausalLM"
    assert checkpoint.layers == 3
    assert checkpoint.dtype == torch.float32
    assert checkpoint.tied is False
    assert checkpoint.licence == "apache-2.0"
    assert checkpoint.parameters == sum(p.numel() for p in model.parameters())
    assert checkpoint.size == (tiny_family["ja"] / "model.safetensors").stat().st_size
    assert checkpoint.names() == list(model.state_dict())
    assert all(checkpoint.shape(n) == tuple(p.shape) for n, p in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_those_transformers_loads(family_factory, dtype):
    folder = family_factory(dtype=str(dtype).removeprefix("torch."), layers=2)["math"]
    checkpoint = Checkpoint.open(folder)
    model = checkpoint.load()
    assert model.dtype == checkpoint.dtype == dtype and not model.training
    for name, value in model.state_dict().items():
        assert checkpoint.get(name).dtype == dtype
        assert torch.equal(checkpoint.get(name), value)
    assert checkpoint.load(torch.float64, "cpu").dtype == torch.float64


def test_tensors_are_mapped_not_copied(tiny_family):
    checkpoint = Checkpoint.open(tiny_family["ja"])
    assert checkpoint.get(EMBEDDING).device.type == "cpu"
    assert checkpoint.get(EMBEDDING).data_ptr() == checkpoint.get(EMBEDDING).data_ptr()
    with pytest.raises(KeyError):
        checkpoint.get("model.layers.99.mlp.up_proj.weight")


def test_shards_read_as_one(tmp_path):
    model = make_model(layers=4)
    whole = save_model(model, tmp_path / "whole")
    parts = save_model(model, tmp_path / "parts", max_shard_size="200KB")
    assert (parts / "model.safetensors.index.json").is_file()
    one, other = Checkpoint.open(whole), Checkpoint.open(parts)
    assert one.names() == other.names()
    assert all(torch.equal(one.get(name), other.get(name)) for name in one.names())
    assert other.parameters == one.parameters and other.size > 4 * other.parameters


def test_a_tied_head_is_the_embedding(family_factory):
    checkpoint = Checkpoint.open(family_factory(tied=True)["base"])
    assert checkpoint.tied and checkpoint.config.tie_word_embeddings
    assert HEAD not in checkpoint.names()
    assert checkpoint.shape(HEAD) == checkpoint.shape(EMBEDDING)
    assert torch.equal(checkpoint.get(HEAD), checkpoint.get(EMBEDDING))
    assert checkpoint.parameters == make_model(tied=True).num_parameters()
    loaded = checkpoint.load()
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.parametrize("kept", ["both", "head"])
def test_tied_models_stored_otherwise(family_factory, tmp_path, kept):
    folder = shutil.copytree(family_factory(tied=True)["ja"], tmp_path / "model")

    def change(tensors):
        tensors[HEAD] = tensors[EMBEDDING].clone()
        if kept == "head":
            del tensors[EMBEDDING]
        return tensors

    rewrite(folder, change)
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.tied and HEAD not in checkpoint.names() and EMBEDDING in checkpoint.names()
    assert torch.equal(checkpoint.get(EMBEDDING), checkpoint.load().state_dict()[EMBEDDING])


def test_a_config_that_says_tied_over_two_different_matrices_is_untied(folder):
    edit(folder / "config.json", tie_word_embeddings=True)
    checkpoint = Checkpoint.open(folder)
    assert not checkpoint.tied and not checkpoint.config.tie_word_embeddings
    assert HEAD in checkpoint.names()
    assert torch.equal(checkpoint.load().lm_head.weight, checkpoint.get(HEAD))


def test_names_without_the_model_prefix(family_factory, tmp_path):
    original = family_factory(tied=True)["ja"]
    folder = shutil.copytree(original, tmp_path / "model")
    rewrite(folder, lambda t: {name.removeprefix("model."): value for name, value in t.items()})
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.names() == Checkpoint.open(original).names()
    loaded = checkpoint.load().state_dict()
    assert all(torch.equal(loaded[name], checkpoint.get(name)) for name in checkpoint.names())


def test_leftover_rotary_buffers_of_old_checkpoints_are_ignored(folder):
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    rewrite(folder, lambda tensors: tensors | buffer)
    assert not set(buffer) & set(Checkpoint.open(folder).names())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {k: v for k, v in t.items() if k != HEAD}, "lacks the tensor lm_head.weight"),
        (lambda t: t | {"model.layers.3.mlp.extra": torch.ones(2)}, "mlp.extra.* does not have"),
        (lambda t: t | {HEAD: torch.ones(7, 64)}, "as 7 × 64 where its config.json says 320 × 64"),
        (lambda t: t | {HEAD: t[HEAD].to(torch.int8)}, "as I8, a quantized form"),
        (lambda t: t | {"norm.weight": torch.ones(64)}, "stores model.norm.weight twice"),
    ],
)
def test_weights_that_do_not_fit_the_config(folder, change, words):
    rewrite(folder, change)
    with pytest.raises(StudioError, match=words):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 2}, "does not have"),
        ({"num_hidden_layers": 4}, "lacks the tensor model.layers.3"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"num_hidden_layers": "three"}, "does not describe a model"),
        ({"hidden_size": -64}, "config.json"),
        ({"hidden_act": "no-such-function"}, "does not describe a model"),
        ({"model_type": ...}, "names no model_type"),
        ({"model_type": "from-the-future"}, "which transformers .* does not know"),
        ({"architectures": ["EvilForCausalLM"]}, "EvilForCausalLM, which transformers .* not know"),
        ({"model_type": "vit", "architectures": None}, "not a text-generating"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}, "auto_map .* refused"),
        ({"attn_implementation": "evil/kernel"}, "attn_implementation .* refused"),
        ({"_attn_implementation": {"text": "evil/kernel:run"}}, "_attn_implementation .* refused"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized checkpoint"),
    ],
)
def test_configs_that_are_refused(folder, changes, words):
    edit(folder / "config.json", **changes)
    with pytest.raises(StudioError, match=words) as caught:
        Checkpoint.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\x00"])
def test_a_malformed_config(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(StudioError, match="config.json .* download or copy it again"):
        Checkpoint.open(folder)


def test_a_missing_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(StudioError, match="has no config.json"):
        Checkpoint.open(folder)


def test_code_beside_a_model_never_runs(folder, tmp_path):
    trap = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(trap)!r}, 'w')")
    edit(folder / "config.json", auto_map={"AutoConfig": "modeling_evil.C"})
    with pytest.raises(StudioError, match="code of its own"):
        Checkpoint.open(folder)
    edit(folder / "config.json", auto_map=...)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_evil.T", None]})
    with pytest.raises(StudioError, match="tokenizer_config.json.*refused"):
        Checkpoint.open(folder)
    assert not trap.exists()


def test_a_pickle_is_never_opened(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n.")
    with pytest.raises(StudioError, match="pickled weights"):
        Checkpoint.open(folder)


def test_a_file_that_goes_away_while_in_use(folder):
    checkpoint = Checkpoint.open(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(StudioError, match="open the model again"):
        checkpoint.get(HEAD)


def test_tokenizer(tiny_family, folder):
    tokenizer = Checkpoint.open(tiny_family["ja"]).tokenizer()
    assert tokenizer.decode(tokenizer("りんご12個").input_ids) == "りんご12個"
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(StudioError, match="tokenizer of .* is missing or cannot be read"):
        Checkpoint.open(folder).tokenizer()


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (None, None),
        ("# no front matter", None),
        ("---\nlicense: mit\nlanguage: [ja, en]\n---\n# x", "mit"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense:\n---\n", None),
        ("---\n: : [\n---\n", None),
        ("---\nlicense: !!python/object/apply:os.system ['true']\n---\n", None),
        ("---\n" + "[" * 5000 + "\n---\n", None),
    ],
)
def test_licence(folder, card, licence):
    (folder / "README.md").unlink()
    if card is not None:
        (folder / "README.md").write_text(card)
    assert Checkpoint.open(folder).licence == licence


def test_the_bundled_models_have_cards():
    cards = {name: describe(name) for name in bundled() if name.startswith("bonsai")}
    math = {"bonsai-base", "bonsai-ja", "bonsai-math", "bonsai-abel"}
    assert set(cards) == math | {"bonsai-vlm-base", "bonsai-culture", "bonsai-llava"}
    for name, card in cards.items():
        config = json.loads((Path(card["path"]) / "config.json").read_text())
        text = config.get("text_config", config)
        assert card["vocab"] == text["vocab_size"] and (name not in math or card["vocab"] == 1536)
        folder = Path(card.pop("path"))
        files = sorted(folder.glob("*.safetensors"))
        weights = {key: tensor for file in files for key, tensor in load_file(file).items()}
        assert folder.name == name
        assert card == {
            "name": name,
            "kind": "safetensors",
            "architecture": "MistralForCausalLM",
            "layers": text["num_hidden_layers"],
            "hidden": 192,
            "heads": 6,
            "vocab": card["vocab"],
            "tied": False,
            "dtype": "bfloat16",
            "stored": "bfloat16",
            "base": None,
            "vision": "LlavaForConditionalGeneration" if name == "bonsai-llava" else None,
            "parameters": sum(tensor.numel() for tensor in weights.values()),
            "size": sum(file.stat().st_size for file in files),
            "licence": "apache-2.0",
        }


def test_describe_is_json_able(tiny_family):
    card = describe(tiny_family["abel"])
    assert json.loads(json.dumps(card)) == card
    assert (card["architecture"], card["layers"], card["hidden"], card["vocab"], card["dtype"]) == (
        "MistralForCausalLM",
        3,
        64,
        320,
        "float32",
    )
