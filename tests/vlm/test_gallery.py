"""The gallery of bundled pictures."""

import pytest

from studio.errors import StudioError
from tests.vlm.encoders import make_encoder
from vlm import gallery
from vlm.encoder import Encoder


def without_encoder(name):
    raise StudioError(f"There is no {name}.")


def test_every_picture_is_there_and_culture_comes_first():
    for style in gallery.STYLES:
        shown = gallery.pictures(style)
        assert {picture.style for picture in shown} == {style}
        assert all(picture.path.is_file() for picture in shown)
        assert len({picture.thing for picture in shown}) == len(shown) >= 60
        firsts = [picture.culture for picture in shown]
        assert firsts == sorted(firsts, reverse=True) and sum(firsts) >= 30


def test_without_a_style_the_artists_take_turns():
    mixed = gallery.pictures()
    assert [picture.style for picture in mixed[:4]] == list(gallery.STYLES)
    assert [p.thing for p in mixed] == [p.thing for p in gallery.pictures("noto")]


def test_an_unknown_style():
    with pytest.raises(StudioError, match="choose one of noto"):
        gallery.pictures("../..")


@pytest.mark.parametrize("word", ["torii", "鳥居", " Torii "])
def test_without_an_encoder_names_are_searched(monkeypatch, word):
    monkeypatch.setattr(Encoder, "open", without_encoder)
    found, by_likeness = gallery.search(word)
    assert not by_likeness
    assert [picture.thing for picture in found[:4]] == ["torii"] * 4
    assert {picture.style for picture in found[:4]} == set(gallery.STYLES)
    assert [p.thing for p in gallery.search(word, "fluent")[0]][0] == "torii"


def test_an_encoder_sorts_by_likeness(monkeypatch, tmp_path):
    encoder = Encoder.open(make_encoder(tmp_path / "tiny"))
    monkeypatch.setattr(Encoder, "open", lambda name: encoder)
    found, by_likeness = gallery.search("鳥居", "noto")
    assert by_likeness and len(found) == len(gallery.pictures("noto"))
    text = encoder.texts(["鳥居"])[0]
    cosines = encoder.pictures([picture.path for picture in found]) @ text
    assert all(cosines[:-1] >= cosines[1:])
