"""LoRA adapters, each feature against PEFT's own merge."""

import json
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.errors import StudioError
from studio.models import Checkpoint, open_source
from studio.models.adapter import Adapter
from tests.conftest import make_model, make_tokenizer, save_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LINEAR = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """`bases(tied=True)` → a saved base; made once per options."""
    made = {}

    def make(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            options = {"layers": 2, "architecture": "llama"} | options
            made[key] = save_model(make_model(**options), tmp_path_factory.mktemp("base"))
        return made[key]

    return make


def train(base, folder, *, seed=1, **options):
    """A saved adapter whose every parameter is random, as if trained; returns PEFT's model."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "lora_alpha": 6} | options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator) * 0.05
                parameter.copy_(parameter + noise if "magnitude" in name else noise)
    adapted.save_pretrained(folder)
    return adapted.eval()


FEATURES = {
    "linear": {"target_modules": LINEAR},
    "all linear": {"target_modules": "all-linear"},
    "rank-stabilised": {"target_modules": LINEAR, "use_rslora": True},
    "patterns": {
        "target_modules": LINEAR,
        "rank_pattern": {"q_proj": 2, r"model\.layers\.1\.mlp\.down_proj": 8},
        "alpha_pattern": {"v_proj": 32, "^model.layers.0.mlp.down_proj": 1},
    },
    "some layers": {"target_modules": LINEAR, "layers_to_transform": [1]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "head": {"target_modules": ["v_proj", "lm_head"]},
    "dora": {"target_modules": LINEAR, "use_dora": True},
    "dora embedding": {"target_modules": ["embed_tokens", "o_proj"], "use_dora": True},
    "modules": {"target_modules": LINEAR, "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    "biases": {"target_modules": ["q_proj"], "bias": "all"},
    "own bias": {"target_modules": ["q_proj"], "lora_bias": True, "bias": "lora_only"},
}


@pytest.mark.parametrize("feature", FEATURES)
def test_tensors_are_those_of_pefts_merge(bases, tmp_path, feature):
    base = bases(attention_bias="bias" in feature)
    adapted = train(base, tmp_path / "adapter", **FEATURES[feature])
    model = open_source(tmp_path / "adapter")
    assert isinstance(model, Adapter) and not model.tied and model.dtype == torch.float32
    merged = adapted.merge_and_unload().state_dict()
    assert model.names() == [name for name in merged]
    changed = 0
    for name, value in merged.items():
        assert model.get(name).dtype == torch.float32 and model.shape(name) == tuple(value.shape)
        torch.testing.assert_close(model.get(name), value, rtol=0, atol=1e-6)
        changed += not torch.equal(value, model.base.get(name))
    assert changed >= 2


@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head"], ["q_proj"]])
def test_on_a_tied_base_one_of_the_two_changes(bases, tmp_path, targets):
    """PEFT runs embedding and head apart; only merging would mix them, in the shared matrix."""
    adapted = train(bases(tied=True), tmp_path / "adapter", target_modules=targets)
    model = open_source(tmp_path / "adapter")
    assert model.tied == (targets == ["q_proj"])
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(model.load()(ids).logits, adapted(ids).logits)


def test_tied_weights_that_are_trained_as_one_stay_one(bases, tmp_path):
    adapted = train(
        bases(tied=True), tmp_path / "adapter", target_modules=["q_proj"],
        modules_to_save=["embed_tokens"], ensure_weight_tying=True,
    )  # fmt: skip
    model = open_source(tmp_path / "adapter")
    assert model.tied and HEAD not in model.names()
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(model.load()(ids).logits, adapted(ids).logits)


def test_a_turned_weight(tmp_path):
    """GPT-2 stores its linear layers transposed (fan_in_fan_out)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=32, n_head=2, n_layer=2, vocab_size=320, n_positions=64)
    base = save_model(GPT2LMHeadModel(config), tmp_path / "base")
    adapted = train(
        base, tmp_path / "adapter", target_modules=["c_attn", "c_proj"], fan_in_fan_out=True,
        use_dora=True,
    )  # fmt: skip
    model = open_source(tmp_path / "adapter")
    merged = adapted.merge_and_unload().state_dict()
    for name in model.names():
        torch.testing.assert_close(model.get(name), merged[name], rtol=0, atol=1e-6)


def test_more_tokens_than_the_base(bases, tmp_path):
    folder = tmp_path / "adapter"
    train(bases(), folder, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in tensors:
        if "embed_tokens" in name or "lm_head" in name:
            tensors[name] = torch.cat([tensors[name], tensors[name][:10]])
    save_file(tensors, folder / "adapter_model.safetensors")
    make_tokenizer(330).save_pretrained(folder)
    model = open_source(folder)
    assert model.config.vocab_size == model.shape(HEAD)[0] == model.load().vocab_size == 330
    assert len(model.tokenizer()) == len(make_tokenizer(330))
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(StudioError, match="330 tokens in its embedding and 320 in its head"):
        open_source(folder)


def test_what_an_adapter_says_of_itself(bases, tmp_path):
    folder = tmp_path / "adapter"
    train(bases(), folder, target_modules=["q_proj"])
    base = open_source(bases())
    model = open_source(folder)
    assert (model.architecture, model.layers, model.licence) == ("LlamaForCausalLM", 2, None)
    assert model.size == (folder / "adapter_model.safetensors").stat().st_size
    assert model.parameters == base.parameters
    assert model.tokenizer().get_vocab() == base.tokenizer().get_vocab()
    assert model.generation_config().eos_token_id == 2
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert open_source(folder).licence == "apache-2.0"
    with pytest.raises(KeyError):
        model.get("model.layers.9.mlp.up_proj.weight")
    print_before = model.fingerprint()
    assert print_before == open_source(folder).fingerprint() != base.fingerprint()
    file = folder / "adapter_model.safetensors"
    save_file({k: v + 1 for k, v in load_file(file).items()}, file)
    assert open_source(folder).fingerprint() != print_before


def edit(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_finding_the_base(bases, tmp_path):
    folder = tmp_path / "adapter"
    train(bases(), folder, target_modules=["q_proj"])
    shutil.copytree(bases(), tmp_path / "beside")
    edit(folder, base_model_name_or_path="../beside")
    assert open_source(folder).base.path.resolve() == (tmp_path / "beside").resolve()
    edit(folder, base_model_name_or_path="/home/somebody/model")
    with pytest.raises(StudioError, match=r"adapter for /home/somebody/model.*\+BASE"):
        open_source(folder)
    named = open_source(f"{folder}+{bases()}")
    assert named.base.path == bases() and isinstance(named.base, Checkpoint)
    edit(folder, base_model_name_or_path=None)
    with pytest.raises(StudioError, match="does not say which base"):
        open_source(folder)
    edit(folder, base_model_name_or_path=str(folder))
    with pytest.raises(StudioError, match="itself an adapter"):
        open_source(folder)
    with pytest.raises(StudioError, match="is no adapter"):
        open_source(f"{bases()}+{bases()}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "type IA3; only LoRA"),
        ({"peft_type": None}, "only LoRA"),
        ({"peft_type": ["LORA"]}, "only LoRA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"r": 0}, "no sound rank"),
        ({"r": "8"}, "no sound rank"),
        ({"lora_alpha": float("nan")}, "no sound rank"),
        ({"r": 5}, "incomplete change of model.layers.0.self_attn.q_proj"),
        ({"use_dora": True}, "incomplete change"),
        ({"rank_pattern": [3]}, "no sound rank"),
        ({"rank_pattern": {"(a+)+b": 3}}, "too complicated"),
        ({"alpha_pattern": {"(": 3}}, "no regular expression"),
    ],
)
def test_settings_that_are_refused(bases, tmp_path, changes, words):
    folder = tmp_path / "adapter"
    train(bases(), folder, target_modules=["q_proj"])
    edit(folder, **changes)
    with pytest.raises(StudioError, match=words) as caught:
        open_source(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n, t: (n.replace("layers.1", "layers.7"), t), "layers.7.* another base"),
        (lambda n, t: (n, torch.cat([t, t], 1) if "lora_A" in n else t), "64 × 128.* is 64 × 64"),
        (lambda n, t: (n.replace("lora_A", "lora_C"), t), "lora_C.*cannot be used"),
        (lambda n, t: (n.replace("q_proj.lora_A", "x.lora_A"), t), "does not have"),
        (lambda n, t: (n, t.to(torch.int8)), "as I8, a quantized form"),
        (lambda n, t: (n, t[0]), "incomplete change"),
    ],
)
def test_weights_that_are_refused(bases, tmp_path, change, words):
    folder = tmp_path / "adapter"
    train(bases(), folder, target_modules=["q_proj"])
    file = folder / "adapter_model.safetensors"
    save_file(dict(change(name, tensor) for name, tensor in load_file(file).items()), file)
    with pytest.raises(StudioError, match=words) as caught:
        open_source(folder)
    assert "\n" not in str(caught.value)


def test_a_norm_of_another_size_is_another_base(bases, tmp_path):
    folder = tmp_path / "adapter"
    train(bases(), folder, target_modules=["q_proj"], modules_to_save=["norm"])
    other = save_model(
        make_model(layers=2, architecture="llama", hidden_size=32), tmp_path / "other"
    )
    with pytest.raises(StudioError, match="another base: it changes .* of 64, .* is 32"):
        open_source(f"{folder}+{other}")


def test_pickled_and_missing_weights(bases, tmp_path):
    folder = tmp_path / "adapter"
    train(bases(), folder, target_modules=["q_proj"])
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(StudioError, match="lacks adapter_model.safetensors"):
        open_source(folder)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n.")
    with pytest.raises(StudioError, match="only pickled weights"):
        open_source(folder)
