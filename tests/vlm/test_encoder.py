"""Encoders: where they come from, what their vectors are, and what of open_clip's is kept shut."""

import json
import pickle
import threading

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub.errors import RemoteEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file

from studio.errors import StudioError
from studio.models import hub
from tests.vlm.encoders import ARCHITECTURE, make_encoder
from tests.vlm.test_pictures import encoded, noise
from vlm import encoder as rooms
from vlm import pictures
from vlm.encoder import Encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def encoder(folder):
    """Opened anew, so that it remembers nothing."""
    rooms._opened.pop(str(folder), None)
    return Encoder.open(folder)


def sentence(name) -> str:
    with pytest.raises(StudioError) as refused:
        Encoder.open(name)
    said = str(refused.value)
    assert said.endswith(".") and "\n" not in said
    return said


class Exploding:
    """What a pickle may do to who opens it."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


# ── vectors ───────────────────────────────────────────────────────────────────────────────────


def test_vectors_are_open_clips_own_at_unit_length(encoder, folder, tmp_path):
    data = [encoded(noise(50, 40, seed=n)) for n in range(3)]
    (tmp_path / "second.png").write_bytes(data[1])
    seen = encoder.pictures([data[0], tmp_path / "second.png", data[2]])
    said = encoder.texts(["鳥居", "a torii", ""])
    for vectors in (seen, said):
        assert vectors.dtype == np.float32 and vectors.shape == (3, 16) == (3, encoder.width)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        images = torch.stack([transform(Image.fromarray(np.asarray(noise(50, 40, seed=n))))
                              for n in range(3)])  # fmt: skip
        expected = model.eval().encode_image(images, normalize=True).numpy()
        words = model.encode_text(tokenizer(["鳥居", "a torii", ""]), normalize=True).numpy()
    assert seen == pytest.approx(expected, abs=1e-6)
    assert said == pytest.approx(words, abs=1e-6)
    assert np.abs(seen[0] - seen[1]).max() > 1e-3 and np.abs(said[0] - said[1]).max() > 1e-3


def test_no_items_give_no_vectors(encoder):
    assert encoder.pictures([]).shape == encoder.texts([]).shape == (0, 16)


def test_any_number_of_items_keeps_its_order(encoder):
    items = [encoded(noise(20, 20, seed=n % 40)) for n in range(70)]
    together = encoder.pictures(items)
    rooms._opened.clear()
    alone = [encoder.pictures([item])[0] for item in items[:50]]
    assert together[:50] == pytest.approx(np.stack(alone), abs=1e-6)
    texts = [f"番号{n}" for n in range(300)]
    assert encoder.texts(texts[::-1])[::-1] == pytest.approx(encoder.texts(texts), abs=1e-6)


def test_pictures_are_encoded_once_whatever_they_are_called(encoder, tmp_path, monkeypatch):
    decoded = []
    decode = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda item: decoded.append(item) or decode(item))
    data = encoded(noise())
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(data)
        encoder.pictures([tmp_path / name, data])
    assert len(decoded) == 1
    (tmp_path / "a.png").write_bytes(encoded(noise(seed=1)))
    changed = encoder.pictures([tmp_path / "a.png", data])
    assert len(decoded) == 2 and np.abs(changed[0] - changed[1]).max() > 1e-3


def test_the_oldest_are_forgotten(encoder, monkeypatch):
    monkeypatch.setattr(rooms, "REMEMBERED", 4)
    texts = [f"{n}" for n in range(9)]
    every = encoder.texts(texts)
    assert list(encoder._texts) == texts[-4:]
    assert encoder.texts(texts) == pytest.approx(every, abs=1e-6)


def test_texts_of_any_kind(encoder):
    vectors = encoder.texts(["鳥居" * 500, "", "half a pair \ud800", "\n"])
    assert np.isfinite(vectors).all() and vectors.shape == (4, 16)


def test_a_damaged_picture_is_its_own_sentence(encoder):
    with pytest.raises(StudioError, match="damaged"):
        encoder.pictures([encoded(noise()), encoded(noise())[:90]])
    assert encoder.pictures([encoded(noise())]).shape == (1, 16)  # and it goes on


def test_threads_share_an_encoder(folder):
    rooms._opened.pop(str(folder), None)
    texts = [f"これは{n}です" for n in range(30)]
    found = []

    def ask():
        opened = Encoder.open(folder)
        found.append((opened, opened.texts(texts), opened.pictures([encoded(noise())])))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, *others = found
    assert len(found) == 4
    for other in others:
        assert other[0] is first[0]
        assert np.array_equal(other[1], first[1]) and np.array_equal(other[2], first[2])


# ── where encoders come from ──────────────────────────────────────────────────────────────────


def test_a_folder_by_any_of_its_names(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    vectors = [Encoder.open(name).texts(["鳥居"])
               for name in (folder, str(folder), folder.name, f"local-dir:{folder}")]  # fmt: skip
    assert all(np.array_equal(vectors[0], other) for other in vectors)


def test_the_bundled_encoder_lies_among_the_assets(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "ASSETS", tmp_path)
    monkeypatch.setattr(rooms, "_opened", {})
    assert "bonsai-clip is missing" in sentence("bonsai-clip")
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "bonsai-clip").symlink_to(folder)
    assert Encoder.open("bonsai-clip").width == 16


def serve(monkeypatch, repositories):
    """Stand in for the hub: files by repository."""
    asked = []

    def download(name, revision, file=None):
        asked.append((name, file))
        path = repositories[name] / file
        if path.is_file():
            return path
        cause = RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError)
        raise StudioError(f"{name} has no file {file}; check its name on the hub.") from cause

    monkeypatch.setattr(hub, "download", download)
    return asked


def test_a_hub_id_fetches_configuration_and_safetensors_alone(folder, monkeypatch):
    asked = serve(monkeypatch, {"owner/clip": folder})
    tokenizers = []
    get = open_clip.get_tokenizer
    monkeypatch.setattr(
        open_clip,
        "get_tokenizer",
        lambda name, **options: tokenizers.append((name, options)) or get(f"local-dir:{folder}"),
    )
    opened = Encoder.open("owner/clip")
    assert np.array_equal(opened.texts(["鳥居"]), Encoder.open(folder).texts(["鳥居"]))
    assert asked == [
        ("owner/clip", "open_clip_config.json"),
        ("owner/clip", "open_clip_model.safetensors"),
    ]
    assert tokenizers[0] == ("hf-hub:owner/clip", {"trust_remote_code": False})
    assert Encoder.open("hf-hub:owner/clip").width == 16


@pytest.mark.parametrize(
    ("repository", "file"),
    [("owner/tag/", "open_clip_model.safetensors"), ("owner/tag/old.bin", "old.safetensors")],
)
def test_a_pretrained_tag_is_the_safetensors_of_its_repository(
    repository, file, tmp_path, monkeypatch
):
    text = ARCHITECTURE["text_cfg"] | {"vocab_size": 49408, "hf_tokenizer_name": None}
    architecture = ARCHITECTURE | {"text_cfg": text}  # with open_clip's own tokenizer
    weights = open_clip.CLIP(**architecture).state_dict()
    save_file(weights, tmp_path / file)
    asked = serve(monkeypatch, {"owner/tag": tmp_path})
    looks = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "quick_gelu": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-arch", architecture)
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED,
        "tiny-arch",
        {
            "some_tag": {"hf_hub": repository, "url": "", **looks},
            "pickled": {"hf_hub": "", "url": "https://example.org/model.pt"},
        },
    )
    monkeypatch.setattr(rooms, "_opened", {})
    opened = Encoder.open("tiny-arch/some-tag")
    assert asked == [("owner/tag", file)]
    model, transform = opened._model, opened._transform
    assert type(model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert transform.transforms[-1].mean == (0.5, 0.5, 0.5)
    assert torch.equal(model.text_projection, weights["text_projection"])
    assert opened.texts(["a torii", "a fish"]).shape == (2, 16)
    said = sentence("tiny-arch/no-tag")
    assert "the tag 'no-tag' is none; choose one of some_tag, pickled" in said
    assert "as pickled weights only, which are refused" in sentence("tiny-arch/pickled")
    assert "the tag '' is none" in sentence("tiny-arch")


def test_open_clips_own_tags_name_repositories():
    """The form of its table, on which fetching by tag rests."""
    table = open_clip.pretrained._PRETRAINED
    tags = [settings for tags in table.values() for settings in tags.values()]
    named = [settings["hf_hub"] for settings in tags if settings.get("hf_hub")]
    assert len(named) > 100 and len(named) / len(tags) > 0.9
    assert all(name.count("/") == 2 for name in named)
    assert "laion2b_s34b_b79k" in table["ViT-B-32"]


@pytest.mark.parametrize("name", ["llm-jp/llm-jp-clip-vit-base-patch16", "ViT-B-32/openai"])
def test_without_a_network_it_is_said(name):
    assert "hub cannot be reached" in sentence(name)


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./a/b", "", "owner/"])
def test_names_of_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "":  # the folder one is in, which holds no encoder
        assert "has no open_clip_config.json" in sentence(name)
    else:
        assert f"There is no encoder {name!r}; write bonsai-clip" in sentence(name)


# ── what stays shut ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("file", ["open_clip_pytorch_model.bin", "model.pth", "model.pt"])
def test_pickles_are_refused_even_where_open_clip_would_take_them(file, folder, tmp_path):
    made = make_encoder(tmp_path / "made")
    (made / file).write_bytes(pickle.dumps(Exploding()))
    assert Encoder.open(made).width == 16  # beside safetensors they stay shut
    weights = load_file(made / "open_clip_model.safetensors")
    (made / "open_clip_model.safetensors").unlink()
    rooms._opened.clear()
    assert "only pickled weights, which can run code when read and are refused" in sentence(made)
    save_file(weights, made / "model.safetensors")  # which open_clip passes over for a .bin
    assert "has no open_clip_model.safetensors" in sentence(made)


def test_a_repository_of_pickles_is_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "open_clip_config.json").symlink_to(folder / "open_clip_config.json")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Exploding()))
    asked = serve(monkeypatch, {"owner/pickled": tmp_path})
    said = sentence("owner/pickled")
    assert said == (
        "owner/pickled has no open_clip_model.safetensors; choose an encoder with safetensors."
    )
    assert [file for _, file in asked][-1] == "open_clip_model.safetensors"


@pytest.mark.parametrize(
    "wish",
    [{"trust_remote_code": True}, {"trust_remote_code": "yes"}, {"reduction_mask": "syntax"}],
)
def test_a_configuration_cannot_ask_for_code(wish, tmp_path):
    made = make_encoder(tmp_path / "made", tokenizer_kwargs=wish)
    assert "wants to run code that comes with it, which is refused" in sentence(made)


def test_tokenizers_and_text_towers_with_code_are_refused(tmp_path):
    made = make_encoder(tmp_path / "tokenizer")
    settings = json.loads((made / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", None]}
    settings["tokenizer_class"] = "Tokenizer"
    (made / "tokenizer_config.json").write_text(json.dumps(settings))
    code = "raise SystemExit('code was run')\nclass Tokenizer: ...\nclass Config: ...\n"
    (made / "evil.py").write_text(code)
    try:
        Encoder.open(made)  # with transformers' own class, or not at all
    except StudioError as error:
        assert "cannot be opened" in str(error)

    tower = tmp_path / "tower"
    tower.mkdir()
    (tower / "evil.py").write_text(code)
    (tower / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}})
    )
    made = make_encoder(tmp_path / "clip", hf_model_name=str(tower))
    assert "wants to run code that comes with it, which is refused" in sentence(made)
    made = make_encoder(tmp_path / "gone", hf_model_name="owner/no-such-tower")
    assert "text tower, owner/no-such-tower, could not be had" in sentence(made)


# ── folders that are damaged ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"model_cfg": {"text_cfg": 3}}', "\0"])
def test_configurations_that_are_none(config, tmp_path):
    made = make_encoder(tmp_path / "made")
    (made / "open_clip_config.json").write_text(config)
    assert "has no open_clip_config.json that says what model it is" in sentence(made)


def test_what_does_not_fit_together_is_one_sentence(tmp_path):
    made = make_encoder(tmp_path / "weights")
    (made / "open_clip_model.safetensors").write_bytes(b"not safetensors")
    assert "cannot be opened as an open_clip model" in sentence(made)
    assert "cannot be opened" in sentence(make_encoder(tmp_path / "width", width=48))
    assert "cannot be opened" in sentence(make_encoder(tmp_path / "vocabulary", vocab_size=8))
    made = make_encoder(tmp_path / "tokenizer")
    for file in made.glob("tokenizer*"):
        file.unlink()
    assert "cannot be opened" in sentence(made)
