"""The chat box: questions, answers that grow, stop, several turns, pictures, errors."""

import threading

import pytest

from studio import chat
from studio.widgets import Chat

PATIENCE = 60


@pytest.fixture
def script(monkeypatch):
    """`script(*texts)`: what every model says next; returns the messages it was given, by turn."""

    def write(*texts, holding: threading.Event | None = None) -> list:
        asked = []

        def stream(model, messages, store, max_new_tokens):
            asked.append((model, messages))
            for text in texts:
                yield text
                if holding:
                    holding.wait(PATIENCE)

        monkeypatch.setattr(chat, "stream", stream)
        return asked

    return write


def enter(box: Chat) -> None:
    """What a browser tells when Enter is pressed in the field."""
    box.field._handle_custom_msg({"event": "submit"}, [])


@pytest.mark.parametrize("press", [lambda box: box.send_button.click(), enter])
def test_a_question_is_answered_by_a_real_model(tiny_family, press):
    box = Chat([str(tiny_family["base"])], max_new_tokens=4)
    box.field.value = "Tom has 12 apples."
    press(box)
    answer = box.wait(PATIENCE)
    assert box.field.value == ""
    assert [turn["role"] for turn in box.turns] == ["user", "assistant"]
    said = [{"role": "user", "content": "Tom has 12 apples."}]
    *_, expected = chat.stream(str(tiny_family["base"]), said, max_new_tokens=4)
    assert answer == expected
    assert "Tom has 12 apples." in box._talk.value


def test_stop_ends_the_answer_and_the_next_question_is_answered(script):
    holding = threading.Event()
    script("one", "one two", holding=holding)
    box = Chat(["a model"])
    box.ask("How many?")
    while "one" not in box._talk.value:
        assert not box.stop_button.disabled
    box.stop_button.click()
    holding.set()
    assert box.wait(PATIENCE) == "one"
    assert box.stop_button.disabled
    script("three")
    assert box.ask("And now?").wait(PATIENCE) == "three"
    assert [turn["content"] for turn in box.turns] == ["How many?", "one", "And now?", "three"]


def test_a_model_is_told_the_turns_before_where_it_should_remember(script):
    asked = script("yes")
    box = Chat(["one", "other"])
    box.ask("First?").wait(PATIENCE)
    box.ask("Second?", model="other").wait(PATIENCE)
    box.remember.value = True
    box.ask("Third?").wait(PATIENCE)
    assert [(model, len(messages)) for model, messages in asked] == [
        ("one", 1),
        ("other", 1),
        ("other", 5),
    ]
    assert asked[2][1][1] == {"role": "assistant", "content": "yes"}
    box.clear_button.click()
    assert box.turns == []


def test_what_is_said_is_never_markup(script):
    script("<img src=x onerror=alert(1)>")
    box = Chat(["<b>model</b>"])
    box.ask("<script>alert(2)</script>").wait(PATIENCE)
    assert not {"<img", "<script", "<b>model"} & set(box._talk.value.split())
    assert "&lt;script&gt;" in box._talk.value and "&lt;img" in box._talk.value


def test_a_model_that_is_not_there_is_a_sentence_in_the_box(script):
    box = Chat(["no-such-model"])
    box.ask("Are you there?").wait(PATIENCE)
    assert "es-said" in box._talk.value and "no-such-model" in box._talk.value
    script("here")
    box.ask("Is anybody?").wait(PATIENCE)
    assert "es-said" not in box._talk.value


def test_a_picture_goes_with_the_question_and_is_shown_as_decoded_pixels(script, monkeypatch):
    from vlm.gallery import pictures

    path = pictures("noto")[0].path
    asked = script("りんご")
    monkeypatch.setattr(chat, "sees", lambda model, store: model == "eyes")
    box = Chat(["eyes", "blind"], pictures=[path])
    box.ask("これは何ですか。", picture=path).wait(PATIENCE)
    assert asked[0][1][0]["picture"] == path
    assert "data:image/png;base64," in box._talk.value and str(path) not in box._talk.value
    assert "sees no pictures" not in box._talk.value
    box.ask("これは何ですか。", model="blind").wait(PATIENCE)
    assert "sees no pictures" in box._talk.value


def test_a_sample_question_fills_the_field_and_words_follow_the_language(script):
    box = Chat(["a model"], questions=["何個ですか。"], language="ja")
    box.sample.value = "何個ですか。"
    assert box.field.value == "何個ですか。"
    assert (box.send_button.description, box.stop_button.description) == ("送信", "停止")
