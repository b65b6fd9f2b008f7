"""Conversations: what is kept of them, what a model is told, and what never comes back."""

import json
import os

import pytest

from studio import talks
from studio.errors import StudioError
from studio.speech import Settings
from studio.talks import Answer, Talk

PNG = b"\x89PNG small"


def said(talk: Talk, words: str, *pairs: tuple[str, str], **options) -> None:
    question = talk.ask(words, Settings(), **options)
    for model, answer in pairs:
        talk.claim(question, model, model).words = answer


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch):
    monkeypatch.setattr(talks, "_TALKS", type(talks._TALKS)())


def forgotten(monkeypatch) -> None:
    """As after a restart of the server."""
    monkeypatch.setattr(talks, "_TALKS", type(talks._TALKS)())


def test_a_talk_outlives_the_server(tmp_path, monkeypatch):
    talk = talks.talk(tmp_path, "run")
    talk.models = ["run:best", "ja"]
    settings = Settings(99, 0.5, 0.9, 7, 1.1)
    question = talk.ask(" What is it? ", settings, tmp_path / "torii.png", PNG, "torii")
    answer = talk.claim(question, "run:best", "run:12")
    answer.words, answer.seconds, answer.blind = "<b>A torii</b>", 1.5, True
    talk.claim(question, "ja", "ja").error = "It is broken."
    talk.save()
    assert talks.talk(tmp_path, "run") is talk
    forgotten(monkeypatch)
    again = talks.talk(tmp_path, "run")
    assert again is not talk and again.models == talk.models
    (found,) = again.questions
    assert (found.words, found.settings, found.picture) == ("What is it?", settings, PNG)
    assert found.answers == question.answers and abs(found.asked - question.asked) <= 1
    assert not found.open
    # it is reminded of the small picture, where the large one is gone
    assert again.told(found, "ja", True)[0]["picture"] == PNG
    assert talk.told(question, "ja", True)[0]["picture"] == tmp_path / "torii.png"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_models_are_told_what_they_answered_themselves():
    talk = Talk()
    said(talk, "First?", ("a", "one a"), ("b", "one b"))
    said(talk, "Unanswered?", ("b", ""))
    said(talk, "Last?")
    last = talk.questions[-1]
    assert [m["content"] for m in talk.told(last, "a", True)] == ["First?", "one a", "Last?"]
    assert [m["content"] for m in talk.told(last, "a", False)] == ["Last?"]
    assert [m["content"] for m in talk.told(last, "new", True)] == ["Last?"]
    # one that joins late answers the question as it was asked
    assert [m["content"] for m in talk.told(talk.questions[1], "b", True)] == [
        "First?", "one b", "Unanswered?",
    ]  # fmt: skip


def test_each_answer_has_one_writer_and_ends():
    talk = Talk()
    question = talk.ask("Why?", Settings())
    assert talk.wait(question, ["a", "b"], "soon") == ["a", "b"]
    assert talk.claim(question, "a", "a") and talk.claim(question, "a", "a") is None
    assert talk.wait(question, ["a", "b", "c"], "soon") == ["c"]
    talk.stop()
    assert not question.waiting and talk.claim(question, "b", "b") is None
    assert talk.reopen() is question and talk.claim(question, "b", "b")
    talk.wait(question, ["d"], "soon")
    talk.done(question, ["d"])
    assert not question.open
    newer = talk.ask("And now?", Settings())
    assert newer.open and talk.reopen() is newer


def test_what_is_no_question_is_not_asked():
    talk = Talk()
    for words, settings in (
        (" ", Settings()),
        ("x" * (talks.CHARACTERS + 1), Settings()),
        ("Why?", Settings(temperature=-1.0)),
    ):
        with pytest.raises(StudioError):
            talk.ask(words, settings)
    assert not talk.questions and talk.reopen() is None


def test_talks_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(talks, "QUESTIONS", 3)
    monkeypatch.setattr(talks, "PICTURES", 2 * len(PNG))
    talk = talks.talk(tmp_path, "run")
    for number in range(5):
        said(talk, f"Number {number}?", picture=PNG)
    talk.save()
    kept = json.loads((tmp_path / "run.json").read_text())["questions"]
    assert [q["words"] for q in kept] == ["Number 2?", "Number 3?", "Number 4?"]
    assert [bool(q["picture"]) for q in kept] == [False, True, True]


def test_owners_have_so_many_talks(tmp_path, monkeypatch):
    monkeypatch.setattr(talks, "TALKS", 3)
    for number in range(5):
        for owner in ("ab", "cd"):
            talk = talks.talk(tmp_path, f"{owner}.run{number}")
            said(talk, "Why?")
            talk.save()
            os.utime(talk.file, (number, number))
    names = sorted(path.stem for path in tmp_path.iterdir())
    assert names == [f"{owner}.run{number}" for owner in ("ab", "cd") for number in (2, 3, 4)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"models": 3, "questions": [1]}', "\ud800", "x" * 100, "null"]
)
def test_what_cannot_be_read_is_a_fresh_talk(tmp_path, text):
    (tmp_path / "run.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    talk = talks.talk(tmp_path, "run")
    assert talk.questions == [] and talk.models is None
    said(talk, "Why?")
    talk.save()
    assert Talk(tmp_path / "run.json").questions


@pytest.mark.parametrize("name", ["../run", "a/b", "", ".hidden", "x" * 200])
def test_names_stay_in_the_folder(tmp_path, name):
    with pytest.raises(ValueError):
        talks.talk(tmp_path, name)


def test_nothing_is_left_of_what_was_cleared_or_forgotten(tmp_path, monkeypatch):
    talk = talks.talk(tmp_path, "run")
    said(talk, "Why?")
    talk.save()
    talk.clear()
    assert not talk.questions and not list(tmp_path.iterdir())
    said(talk, "Why?")
    talk.save()
    open_one = talk.ask("And?", Settings())
    assert talks.forget(tmp_path) == 1
    assert not open_one.open
    talk.save()  # whoever was speaking in it
    assert not list(tmp_path.iterdir()) and talks.talk(tmp_path, "run").questions == []


def test_markdown_says_all_and_nothing_in_it_is_markup():
    talk = Talk()
    question = talk.ask("# What?\n<script>", Settings(), None, PNG, "a [b](c)")
    question.answers["m"] = Answer("m", "folder/*m*", "- one\n\n# two", 2.0, False, "")
    text = talk.markdown("My `run`")
    assert text.startswith("# My \\`run\\`\n")
    for line in ("    # What?", "    <script>", "    - one", "    # two", "folder/\\*m\\*"):
        assert line in text
    assert "data:image/png;base64," in text and "temperature 0" in text
