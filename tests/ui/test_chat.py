"""Conversations of the Chat tab: who is told what, side by side, and when an answer is unwanted."""

from types import SimpleNamespace

import pytest

from studio import chat as models
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Store
from studio.tasks import load_task
from studio.ui import chat, pictures
from studio.ui.pictures import Chosen
from tests.vlm.families import make_family
from vlm import gallery

ENGLISH = SimpleNamespace(headers={"accept-language": "en"})
TORII = Chosen(gallery.pictures("noto")[0].path, "torii")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    made = Store(tmp_path / "runs.sqlite")
    monkeypatch.setattr(chat, "store", lambda: made)
    yield made
    made.close()


@pytest.fixture
def told(monkeypatch) -> list:
    """What each model was told; `blind…` models see nothing, `mute…` ones say nothing."""
    heard = []

    def stream(model, messages, store, max_new_tokens):
        heard.append((model, messages))
        if not model.startswith("mute"):
            yield "one"
            yield f"one {model}"

    monkeypatch.setattr(models, "stream", stream)
    monkeypatch.setattr(models, "sees", lambda model, store: not model.startswith("blind"))
    monkeypatch.setattr(chat, "engine", lambda: None)
    return heard


def answer(conversation, speaker: int, *names: str, remember: bool = False) -> list:
    return list(chat.answer(speaker, names, remember, conversation, "en"))


def said(messages: list) -> list[str]:
    return [m["content"] if m["role"] == "assistant" else m["content"][-1] for m in messages]


def test_two_models_answer_the_same_question(told):
    talk = chat.Conversation()
    shown = chat.ask(" What is it? ", talk, TORII)
    assert shown[chat.SPEAKERS :] == ["", None, ""]  # message and picture are sent
    for messages in shown[: chat.SPEAKERS]:
        picture, words = messages[0]["content"]
        assert words == "What is it?" and 'alt="torii"' in picture.value
    (first, seen) = answer(talk, 0, "bonsai-llava", "blind-one")[-1]
    (second, unseen) = answer(talk, 1, "bonsai-llava", "blind-one")[-1]
    assert said(seen) == ["What is it?", "one bonsai-llava"]
    assert said(unseen) == ["What is it?", "one blind-one"]
    assert "bonsai-llava" in first and "sees no pictures" not in first
    assert "blind-one" in second and "sees no pictures" in second
    question = {"role": "user", "content": "What is it?", "picture": TORII.picture}
    assert [messages for _, messages in told] == [[question], [question]]


def test_one_model_alone_needs_no_name(told):
    talk = chat.Conversation()
    chat.ask("Why?", talk)
    assert answer(talk, 0, "bonsai-ja", "")[-1][0] == ""
    assert answer(talk, 1, "bonsai-ja", "") == []
    with pytest.raises(StudioError, match="No model is chosen"):
        chat.ask("Why?", talk)
        answer(talk, 0, "", "")


def test_earlier_turns_are_told_where_they_were_answered(told):
    talk = chat.Conversation()
    chat.ask("First?", talk, TORII)
    answer(talk, 0, "a", "")
    chat.ask("Not answered?", talk)
    chat.ask("Last?", talk)
    answer(talk, 0, "a", "", remember=True)
    messages = told[-1][1]
    assert [m["content"] for m in messages] == ["First?", "one a", "Last?"]
    assert messages[0]["picture"] == TORII.picture and messages[2]["picture"] is None
    answer(talk, 1, "a", "b", remember=True)  # who said nothing of it is not told that it did
    assert [m["content"] for m in told[-1][1]] == ["Last?"]


def test_an_answer_ends_when_it_is_unwanted(told):
    talk = chat.Conversation()
    chat.ask("Why?", talk)
    growing = chat.answer(0, ["a", ""], False, talk, "en")
    next(growing)
    chat.halt(talk)
    assert list(growing) == [] and said(talk.shown(0)) == ["Why?", "one"]
    assert answer(talk, 1, "a", "b") == []  # nor does the other one begin
    chat.ask("And now?", talk)
    assert len(answer(talk, 0, "a", "b")) == 2
    assert answer(talk, 0, "a", "b") == []  # once is enough, whoever else asks for it


def test_silence_is_shown(told):
    talk = chat.Conversation()
    chat.ask("Why?", talk)
    assert said(answer(talk, 0, "mute", "")[-1][1]) == ["Why?", "(no answer)"]


def test_another_run_is_another_conversation():
    talk = chat.Conversation()
    assert chat.follow("run", talk) == [[], []]
    chat.ask("Why?", talk)
    assert all(update["__type__"] == "update" for update in chat.follow("run", talk))
    assert len(talk.questions) == 1
    assert chat.follow("other", talk) == [[], []] and not talk.questions


def test_nothing_is_asked_without_words_or_with_a_bad_picture(tmp_path):
    talk = chat.Conversation()
    (tmp_path / "empty.png").write_bytes(b"")
    for words, chosen in (
        (" ", TORII),
        ("x" * (chat.MAX_CHARACTERS + 1), None),
        ("What?", Chosen(tmp_path / "empty.png", "empty.png")),
    ):
        with pytest.raises(StudioError):
            chat.ask(words, talk, chosen)
    assert not talk.questions


def test_columns_are_named_where_there_are_two():
    alone = chat.arrange(ENGLISH, "bonsai-ja", "")
    assert [alone[0]["visible"], alone[2]["visible"]] == [True, False] and alone[1] == ""
    both = chat.arrange(ENGLISH, "0123abcd:best", "folder/<b>")
    assert both[2]["visible"] and "best of this run" in both[1] and "&lt;b&gt;" in both[3]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return make_family("llava", tmp_path_factory.mktemp("llava"))


def test_a_run_with_pictures_offers_them_and_the_source_that_sees(store, family):
    recipe = Recipe.from_dict({
        "name": "seen", "base": str(family / "base"),
        "sources": [str(family / "ja"), str(family / "vlm")],
        "objectives": [{"task": "ja_culture_vqa"}, {"task": "jmath"}],
    })  # fmt: skip
    assert chat._seeing(recipe) == str(family / "vlm")
    words = recipe.model_copy(update={"objectives": recipe.objectives[1:]})
    assert chat._seeing(words) == ""
    run = store.create_run("seen", recipe.to_yaml())
    *_, offered = chat.draw(store.run(run), "en", first=True)
    samples = [sample for (sample,) in offered.raw_samples]
    assert len(samples) == chat.EXAMPLES
    assert ["<img" in sample for sample in samples] == [True, True, False, False]
    talk = chat.Conversation()
    chat.ask_example(1, run, talk, ENGLISH)
    test = load_task("ja_culture_vqa").examples("test")
    assert talk.questions[0].picture == test[len(test) // 2].picture
    with pytest.raises(StudioError, match="gone"):
        chat.ask_example(99, run, talk, ENGLISH)


def test_a_vlm_says_what_it_sees_with(family):
    from studio import api
    from studio.ui import sources

    see = sources.card({"role": "source", **api.describe(str(family / "vlm"))}, "en")
    assert "Sees with" in see and "<dd>Llava</dd>" in see
    assert "Sees with" not in sources.card(
        {"role": "base", **api.describe(str(family / "ja"))}, "en"
    )


def test_the_page_offers_the_recipes_with_pictures():
    from studio.ui import evolve

    presets = evolve.presets()
    assert presets["vlm"].objectives[0].task == "ja_culture_vqa"
    *fields, code = evolve.fill("vlm")
    shown = dict(zip(evolve.FIELDS, fields, strict=True))["objectives"]
    assert shown["value"] == ["ja_culture_vqa"]
    assert {"ja_vqa", "ja_culture_vqa"} <= {value for _, value in shown["choices"]}
    assert "bonsai-llava" in code and pictures.available()
