import json
import re
import shutil

import pytest

from studio.errors import StudioError
from studio.models import Checkpoint, check_compatible
from tests.conftest import make_model, make_tokenizer, save_model


@pytest.fixture(scope="module")
def base(tiny_family):
    return Checkpoint.open(tiny_family["base"])


def refused(base, folder):
    """The sentence with which `folder` is refused as a source on `base`."""
    with pytest.raises(StudioError) as caught:
        check_compatible(base, [Checkpoint.open(folder)])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_family_is_compatible(base, tiny_family, family_factory):
    sources = [Checkpoint.open(tiny_family[name]) for name in ("ja", "math", "abel")]
    check_compatible(base, sources)
    check_compatible(None, sources)
    check_compatible(base, [base])


def test_dtype_and_tying_may_differ(base, family_factory):
    tied = Checkpoint.open(family_factory(tied=True)["math"])
    half = Checkpoint.open(family_factory(dtype="bfloat16")["ja"])
    check_compatible(base, [tied, half])
    check_compatible(tied, [base, half])


def test_no_sources(base):
    with pytest.raises(StudioError, match="at least one source"):
        check_compatible(base, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "llama"}, "a MistralForCausalLM, the second a LlamaForCausalLM"),
        ({"layers": 2}, "the first has 3 layers, the second 2"),
        ({"hidden_size": 128}, "the first has hidden size 64, the second 128"),
        ({"num_key_value_heads": 1}, "key-value heads .*, 2 in the first, 1 in the second"),
        ({"num_attention_heads": 2}, "attention heads"),
        ({"head_dim": 32}, "head size"),
        ({"intermediate_size": 256}, "feed-forward size .*128 in the first, 256"),
        ({"hidden_act": "gelu"}, "activation .*silu in the first, gelu in the second"),
        ({"rms_norm_eps": 1e-5}, "normalisation epsilon"),
        ({"sliding_window": 128}, "sliding window"),
        ({"sliding_window": None}, "sliding window .*None in the second"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            "rope parameters .*rope_theta=10000.0 in the first, rope_theta=1000000.0 in the second",
        ),
    ],
)
def test_the_first_difference_is_named(base, tmp_path, changes, words):
    sentence = refused(base, save_model(make_model(**changes), tmp_path / "other"))
    assert "base and" in sentence
    assert re.search(words, sentence), sentence


def test_vocabularies_that_differ(base, tiny_family, tmp_path):
    folder = shutil.copytree(tiny_family["ja"], tmp_path / "ja")
    text = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = text["model"]["vocab"]
    one, two = (next(t for t, n in vocabulary.items() if n == number) for number in (40, 41))
    vocabulary[one], vocabulary[two] = 41, 40
    (folder / "tokenizer.json").write_text(json.dumps(text))
    sentence = refused(base, folder)
    assert "different vocabularies" in sentence
    assert f"token 40 {one!r} in the first against token 40 {two!r} in the second" in sentence


def test_padding_may_differ(base, tiny_family, tmp_path):
    """How many rows follow the tokens says nothing about what they are."""
    folder = tmp_path / "ja"
    make_model(vocab_size=352).save_pretrained(folder)
    for file in tiny_family["ja"].glob("tokenizer*"):
        shutil.copy(file, folder)
    check_compatible(base, [Checkpoint.open(folder)])
    check_compatible(Checkpoint.open(folder), [base])


def test_vocabularies_may_differ_where_they_are_aligned(base, tmp_path):
    folder = save_model(make_model(vocab_size=300), tmp_path / "other")
    assert "match their tokens with 'vocabulary: union' (or base)" in refused(base, folder)
    for choice in ("base", "union", str(folder)):
        check_compatible(base, [Checkpoint.open(folder)], choice)


def test_a_longer_vocabulary(base, tiny_family, tmp_path):
    folder = shutil.copytree(tiny_family["ja"], tmp_path / "ja")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["[EXTRA]"])
    tokenizer.save_pretrained(folder)
    sentence = refused(base, folder)
    assert "no further token in the first against token 320 '[EXTRA]' in the second" in sentence


def test_a_source_without_tokenizer(base, tiny_family, tmp_path):
    folder = shutil.copytree(tiny_family["ja"], tmp_path / "ja")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer of" in refused(base, folder)
