"""Talking about pictures."""

import pytest

from studio import chat
from studio.errors import StudioError
from tests.vlm.families import KINDS
from tests.vlm.test_merging import QUESTION, by_transformers


@pytest.fixture(autouse=True)
def _free():
    yield
    chat.close()


def last(model, messages, **options) -> str:
    return [*chat.stream(str(model), messages, **options)][-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_answered_about_as_transformers_does(vlm_factory, pictures, kind):
    folder = vlm_factory(kind) / "vlm"
    expected = by_transformers(folder, pictures, tokens=8)
    for picture, words in zip(pictures, expected, strict=True):
        asked = [{"role": "user", "content": QUESTION, "picture": picture}]
        assert last(folder, asked, max_new_tokens=8) == words.rstrip("\ufffd").strip()


def test_several_pictures_in_one_conversation(vlm_factory, pictures):
    folder = vlm_factory("llava") / "vlm"

    def talk(first, second):
        return last(folder, [
            {"role": "user", "content": QUESTION, "picture": first},
            {"role": "assistant", "content": "はい"},
            {"role": "user", "content": QUESTION, "picture": second.read_bytes()},
        ], max_new_tokens=12)  # fmt: skip

    told = {talk(a, b) for a in pictures for b in pictures}
    assert len(told) > 1


def test_who_sees_and_who_is_only_told(vlm_factory, pictures):
    folder = vlm_factory("llava")
    assert chat.sees(str(folder / "vlm")) and not chat.sees(str(folder / "ja"))
    asked = {"role": "user", "content": QUESTION}
    blind = [last(folder / "ja", [asked | {"picture": p}], max_new_tokens=4) for p in pictures]
    assert blind == [last(folder / "ja", [asked], max_new_tokens=4)] * len(pictures)


def test_a_bad_picture_is_a_sentence(vlm_factory, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    asked = [{"role": "user", "content": QUESTION, "picture": bad}]
    with pytest.raises(StudioError):
        last(vlm_factory("llava") / "vlm", asked)
