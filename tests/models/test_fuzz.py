"""Strangers' files, damaged at random: each is opened, or refused in a sentence; never a crash."""

import json
import shutil
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.models import documents, gguf_header, headers, open_source
from studio.models.adapter import read_settings
from studio.recipe import Recipe
from tests.models.test_gguf import forged, pack, random_model, tensor, text, write

#: A few hundred examples, each in a fraction of a second: a hang fails the test.
fuzz = settings(
    max_examples=300,
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(fuzz, max_examples=60)

NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(2**31 - 2, 2**64 + 2), st.integers(0, 2**16), st.floats()
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def sound_or_one_sentence(read, *arguments):
    try:
        return read(*arguments)
    except StudioError as error:
        assert "\n" not in str(error) and 20 < len(str(error)) < 1500
        return None


def damage(data, whole):
    """Bytes with a few places overwritten, cut out or doubled, and perhaps an end."""
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        new = data.draw(st.one_of(
            st.binary(min_size=1, max_size=9),
            st.sampled_from([b"\xff" * 8, bytes(8), pack("<Q", 2**40), pack("<Q", 2**63)]),
        ))  # fmt: skip
        stop = at + data.draw(st.sampled_from([0, len(new), 40]))
        damaged[at:stop] = new
    return bytes(damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans())
                 else damaged)  # fmt: skip


# ── safetensors ───────────────────────────────────────────────────────────────────────────────

ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["F32", "BF16", "I8", "F4", "F8_E4M3"]), SCALARS),
        "shape": st.one_of(st.lists(NUMBERS, max_size=4), SCALARS),
        "data_offsets": st.one_of(st.lists(NUMBERS, max_size=3), SCALARS),
    },
)


@fuzz
@given(st.one_of(JSON, st.dictionaries(st.text(max_size=6), st.one_of(ENTRY, JSON), max_size=4)),
       st.binary(max_size=64), st.integers(-9, 9))  # fmt: skip
def test_any_safetensors_header(tmp_path, header, data, slip):
    body = json.dumps(header).encode()
    length = max(0, len(body) + slip)
    file = tmp_path / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + body + data)
    tensors = sound_or_one_sentence(headers.read_header, file)
    for tensor_ in (tensors or {}).values():
        assert tensor_.offset <= file.stat().st_size


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path, data):
    for name, read in (
        ("m.safetensors", headers.read_header),
        ("m.gguf", gguf_header.read_header),
        ("m.json", documents.read_json),
    ):
        (tmp_path / name).write_bytes(data)
        sound_or_one_sentence(read, tmp_path / name)


@fuzz
@given(st.one_of(JSON, st.fixed_dictionaries({"weight_map": st.one_of(
    JSON, st.dictionaries(st.text(max_size=6), st.text(max_size=12), max_size=4))})))  # fmt: skip
def test_any_index(tmp_path, index):
    (tmp_path / headers.INDEX).write_text(json.dumps(index))
    assert sound_or_one_sentence(headers.read_folder, tmp_path) is None


# ── settings ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def model(tiny_family, tmp_path_factory):
    return shutil.copytree(tiny_family["ja"], tmp_path_factory.mktemp("fuzz") / "model")


@few
@given(st.data())
def test_any_config(model, data):
    file = model / "config.json"
    sound = file.read_text()
    keys = st.sampled_from([*json.loads(sound), "auto_map", "rope_scaling", "quantization_config"])
    changes = data.draw(st.dictionaries(keys, JSON, min_size=1, max_size=3))
    try:
        file.write_text(json.dumps(json.loads(sound) | changes))
        sound_or_one_sentence(open_source, model)
    finally:
        file.write_text(sound)


@fuzz
@given(st.dictionaries(st.sampled_from(
    ["peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "init_lora_weights",
     "base_model_name_or_path", "use_dora", "auto_map"]), st.one_of(JSON, st.just("LORA")),
))  # fmt: skip
def test_any_adapter_config(tmp_path, document):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | document))
    sound_or_one_sentence(read_settings, tmp_path)


RECIPE = {
    "name": "x",
    "base": "bonsai-base",
    "sources": ["bonsai-ja", "bonsai-math"],
    "objectives": [{"task": "jmath", "examples": 5}],
    "space": {"type": "parameter", "method": "ties", "layer_granularity": 2},
    "search": {"population": 4},
    "budget": {"candidates": 10},
    "seed": 3,
}


@fuzz
@given(st.dictionaries(st.sampled_from([*RECIPE, "precision", "batch_size", "vocabulary"]), JSON))
def test_any_recipe(changes):
    recipe = sound_or_one_sentence(Recipe.from_dict, RECIPE | changes)
    if recipe is not None:
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@fuzz
@given(st.one_of(
    st.text(max_size=200),
    st.text(alphabet="[]{}&*!|>%@:-? \n\tab'\"", max_size=120),
    st.sampled_from([
        "a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]",
        "sources: &s [*s]", "[" * 3000, "[{" * 100_000,
        "!!python/object/apply:os.system [true]", "seed: 1_0" + "0" * 4000, "- " * 3000,
        "seed: 0x" + "f" * 5000, "name: !!binary " + "A" * 999, "? " * 2000, "seed: 2020-13-45",
    ]),
))  # fmt: skip
def test_any_yaml(page):
    assert sound_or_one_sentence(Recipe.from_yaml, page) is None


# ── GGUF ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def small_gguf(tmp_path_factory):
    file = write(tmp_path_factory.mktemp("fuzz") / "model.gguf", random_model("llama"))
    return file.read_bytes()


@fuzz
@given(st.data())
def test_any_damaged_gguf(tmp_path, small_gguf, data):
    """Of the header, above all: it is what is parsed."""
    end = 9000
    file = tmp_path / "m.gguf"
    file.write_bytes(damage(data, small_gguf[:end]) + small_gguf[end:])
    header = sound_or_one_sentence(gguf_header.read_header, file)
    if header is not None:
        for entry in header.tensors.values():
            assert entry.offset + entry.bytes <= file.stat().st_size


VALUES = st.one_of(
    st.integers(0, 12).map(lambda kind: pack("<I", kind)),
    st.builds(lambda kind, count: pack("<IIQ", 9, kind, count), st.integers(0, 13),
              st.one_of(st.integers(0, 5), st.integers(2**20, 2**64 - 1))),
    st.builds(lambda length: pack("<IQ", 8, length), st.integers(0, 2**64 - 1)),
)  # fmt: skip


@fuzz
@given(
    st.integers(0, 2**64 - 1), st.integers(0, 3),
    st.lists(st.tuples(st.text(max_size=5), VALUES, st.binary(max_size=20)), max_size=3),
    st.lists(st.tuples(st.text(max_size=3), st.lists(st.integers(0, 2**64 - 1), max_size=5),
                       st.integers(0, 40), st.integers(0, 2**64 - 1)), max_size=3),
)  # fmt: skip
def test_any_forged_gguf(tmp_path, count, keys, metadata, tensors):
    body = [text(key) + value + rest for key, value, rest in metadata]
    entries = [tensor(*entry) for entry in tensors]
    for counted in (count, len(entries)):
        file = tmp_path / "m.gguf"
        file.write_bytes(forged(count=counted, keys=keys, metadata=body, tensors=entries, data=64))
        sound_or_one_sentence(gguf_header.read_header, file)


@few
@given(st.data())
def test_any_gguf_metadata(tmp_path, small_gguf, data):
    """A sound file whose numbers are others: hidden sizes, heads and layers that cannot be."""
    file = tmp_path / "m.gguf"
    damaged = bytearray(small_gguf)
    keys = ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
            "attention.key_length", "rope.freq_base", "vocab_size", "context_length")  # fmt: skip
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique=True)):
        name = f"llama.{key}".encode()
        at = damaged.index(name) + len(name) + 4
        number = data.draw(st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)))
        damaged[at : at + 4] = pack("<I", number)
    file.write_bytes(damaged)
    sound_or_one_sentence(open_source, file)
