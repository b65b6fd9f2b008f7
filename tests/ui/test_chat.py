"""The Chat tab: who is asked what, side by side, whose talk it is, and when an answer ends."""

import json

import numpy as np
import pytest

from studio import api, talks
from studio import chat as speaking
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store
from studio.tasks import load_task
from studio.ui import chat, strings, turns
from studio.ui.pictures import Chosen
from studio.ui.wiring import Look, Visit
from studio.visitors import Visitor
from studio.voices import Waiting
from tests.vlm.families import make_family
from vlm import gallery

TORII = Chosen(gallery.pictures("noto")[0].path, "torii")
RECIPE = "base: bonsai-base\nsources: [bonsai-ja, bonsai-math]\nobjectives: [{task: jmath}]\n"
SETTINGS = (64, 0, 1, 0, 1)
HACK = "<img src=x onerror=alert(1)>"


def visit(token: str = "a", language: str = "en", who: Visitor | None = None, **more) -> Visit:
    return Visit(who or Visitor(), language, token * 43, **more)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    made = Store(tmp_path / "runs.sqlite")
    monkeypatch.setattr(chat, "store", lambda: made)
    monkeypatch.setattr(talks, "_TALKS", type(talks._TALKS)())
    monkeypatch.setattr(chat, "EVERY", 0.0)
    yield made
    made.close()


@pytest.fixture
def run(store) -> str:
    return store.create_run("tiny", RECIPE)


@pytest.fixture
def told(monkeypatch) -> list:
    """What each model was told; `blind…` ones see nothing, `mute…` ones say nothing, `bad…` ones
    fail and `full…` ones wait."""
    heard = []

    def moments(model, messages, settings, store):
        heard.append((model, messages, settings))
        if model.startswith("bad"):
            raise StudioError("It is broken & cannot speak.")
        if model.startswith("full"):
            yield Waiting(2)
        if not model.startswith("mute"):
            yield "one"
            yield f"one {model}"

    monkeypatch.setattr(speaking, "moments", moments)
    monkeypatch.setattr(speaking, "named", lambda model, store: model)
    monkeypatch.setattr(speaking, "sees", lambda model, store: not model.startswith("blind"))
    monkeypatch.setattr(chat, "_engine", lambda: None)
    return heard


def given(run: str, *models: str, watched=None, remember=False, settings=SETTINGS) -> list:
    names = [*models, "", "", ""][: chat.SPEAKERS]
    return [run, watched or chat.Watched(run), remember, *settings, *names]


def ask(run: str, words: str, *models: str, who: Visit | None = None, chosen=None, **more) -> list:
    return list(chat.ask(who or visit(), words, chosen, *given(run, *models, **more)))


# ── side by side ──────────────────────────────────────────────────────────────────────────────


def test_three_models_answer_one_question(told, run):
    steps = ask(run, " What is it? ", "one", "blind-two", "three", chosen=TORII)
    assert steps[0][2:] == ["", None, ""]  # message and picture are sent
    past, now = steps[0][:2]
    assert "What is it?" in past and 'alt="torii"' in past and "<img" not in now
    assert now.count("<li>") == 3 and 'aria-busy="true"' in now
    past, now = steps[-1][:2]
    for model in ("one", "blind-two", "three"):
        assert f"one {model}</p>" in now and f"<b>{model}</b>" in now
    assert now.count("sees no pictures") == 1 and "aria-busy" not in now
    assert [(model, messages[-1]["picture"]) for model, messages, _ in told] == [
        (model, TORII.picture) for model in ("one", "blind-two", "three")
    ]
    assert all(settings == speaking.Settings(64) for _, _, settings in told)


def test_the_same_model_twice_answers_once(told, run):
    now = ask(run, "Why?", "one", "one")[-1][1]
    assert len(told) == 1 and now.count("<li>") == 1


def test_whoever_is_chosen_later_answers_the_last_question(told, run):
    ask(run, "First?", "one")
    ask(run, "Last?", "one")
    steps = list(chat.join(visit(), *given(run, "one", "two")))
    assert [(model, m[-1]["content"]) for model, m, _ in told[2:]] == [("two", "Last?")]
    past, now = steps[-1]
    assert "one two" in now and "one one" in now and "(was not asked)" in past
    steps = list(chat.join(visit(), *given(run, "two")))  # who leaves is no more shown
    assert len(told) == 3 and "one one" not in "".join(steps[-1])
    assert "one one" in "".join(list(chat.join(visit(), *given(run, "two", "one")))[-1])
    assert len(told) == 3  # but what was said is said


def test_errors_and_silence_are_answers(told, run):
    now = ask(run, "Why?", "bad", "mute", "one")[-1][1]
    assert "It is broken &amp; cannot speak." in now and 'role="alert"' in now
    assert "(no answer)" in now and "one one" in now


def test_an_unexpected_error_is_said_and_logged(told, run, monkeypatch, caplog):
    monkeypatch.setattr(speaking, "sees", lambda model, store: 1 / 0)
    now = ask(run, "Why?", "one", chosen=TORII, who=visit(language="ja"))[-1][1]
    assert strings.say("ja", "unexpected") in now and "ZeroDivisionError" in caplog.text


def test_the_place_in_line_is_shown(told, run):
    steps = ask(run, "Why?", "full", "one")
    assert any("waiting: 2 before you" in step[1] for step in steps)
    assert "waiting" not in steps[-1][1]


def test_nothing_said_becomes_markup(run, told, monkeypatch):
    monkeypatch.setattr(speaking, "moments", lambda model, messages, settings, store: iter([HACK]))
    page = "".join(str(part) for part in ask(run, HACK, HACK)[-1][:2])
    assert HACK not in page and page.count("&lt;img") == 3  # asked, named, answered


# ── when an answer ends ───────────────────────────────────────────────────────────────────────


def test_stop_ends_the_answer_and_those_to_come(told, run):
    growing = chat.ask(visit(), "Why?", None, *given(run, "one", "two"))
    while "one</p>" not in next(growing)[1]:
        pass
    chat.halt(visit(), run)
    now = list(growing)[-1][1]
    assert ">one</p>" in now and "(was not asked)" in now
    assert [model for model, *_ in told] == ["one"]


def test_a_closed_page_ends_the_answer_and_keeps_it(told, run):
    growing = chat.ask(visit(), "Why?", None, *given(run, "one", "two"))
    while "one</p>" not in next(growing)[1]:
        pass
    growing.close()
    (question,) = chat.talk_of(visit(), run).questions
    assert question.answers["one"].words == "one" and not question.waiting and not question.open


def test_a_newer_question_is_answered_instead(told, run):
    older = chat.ask(visit(), "Old?", None, *given(run, "one"))
    next(older)
    newer = chat.ask(visit(), "New?", None, *given(run, "one"))
    next(newer)
    list(older)
    assert "one one" in list(newer)[-1][1]
    assert [messages[-1]["content"] for _, messages, _ in told] == ["New?"]


def test_another_run_is_another_talk(store, told, run):
    other = store.create_run("other", RECIPE)
    watched = chat.Watched(run)
    growing = chat.ask(visit(), "Why?", None, *given(run, "one", watched=watched))
    next(growing)
    watched.run = other
    assert list(growing) == []  # nothing of it is drawn into the other's
    assert not chat.talk_of(visit(), other).questions


# ── whose talk it is ──────────────────────────────────────────────────────────────────────────


def test_a_talk_is_there_after_a_reload_in_any_language(told, run, store, monkeypatch):
    ask(run, "Why?", "one", "two")
    monkeypatch.setattr(talks, "_TALKS", type(talks._TALKS)())
    for language in strings.LANGUAGES:
        drawn = chat.draw(look(store, run, visit(language=language)), chat.Watched())
        assert [menu["value"] for menu in drawn[:3]] == ["one", "two", ""]
        past, now = drawn[3:5]
        assert "Why?" in past and "one two" in now
        assert strings.say(language, "you_asked") in past


def test_nobody_sees_anothers_talk(told, run, store, monkeypatch):
    ask(run, "My secret?", "one", who=visit("a"))
    for other in (visit("b"), Visit()):
        drawn = chat.draw(look(store, run, other), chat.Watched())
        assert "secret" not in "".join(map(str, drawn[3:5]))
        with pytest.raises(StudioError, match="Nothing was said"):
            chat.as_json(other, run)
    public = [Visitor(owner * 32, True, frozenset([run])) for owner in "cd"]
    ask(run, "My other?", "bonsai-ja", who=visit(who=public[0]))
    assert "other" in chat.as_markdown(visit(who=public[0]), run)
    with pytest.raises(StudioError, match="Nothing was said"):
        chat.as_markdown(visit(who=public[1]), run)
    with pytest.raises(StudioError, match="does not know you"):
        chat.halt(visit(who=Visitor("", True, frozenset([run]))), run)


def test_a_stranger_talks_to_nobody_elses_run_or_model(told, store, run):
    mine = store.create_run("mine", RECIPE, owner="e" * 32)
    guest = visit(who=Visitor("f" * 32, True))
    for refused, models in ((mine, ["bonsai-ja"]), (run, ["bonsai-ja"])):
        with pytest.raises(StudioError, match="no run"):
            ask(refused, "Why?", *models, who=guest)
    owner = visit(who=Visitor("e" * 32, True))
    for model in ("/etc", "someone/else", f"{run}:best"):
        with pytest.raises(StudioError):
            ask(mine, "Why?", model, who=owner)
    with pytest.raises(StudioError, match="at most 512"):
        ask(mine, "Why?", "bonsai-ja", who=owner, settings=(1024, 0, 1, 0, 1))
    assert not told


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ((64, "hot", 1, 0, 1), "no number"),
        ((64, 9, 1, 0, 1), "temperature"),
        ((10**9, 0, 1, 0, 1), "tokens"),
        (([], 0, 1, 0, 1), "no number"),
        ((64, 0, 1, -1, 1), "seed"),
    ],
)
def test_settings_are_checked(told, run, settings, says):
    with pytest.raises(StudioError, match=says):
        ask(run, "Why?", "one", settings=settings)
    assert not told


def test_nothing_is_asked_without_words_models_or_with_a_bad_picture(told, run, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    for words, chosen, models in (
        (" ", TORII, ["one"]),
        ("x" * (talks.CHARACTERS + 1), None, ["one"]),
        ("What?", Chosen(tmp_path / "empty.png", "empty.png"), ["one"]),
        ("What?", None, []),
    ):
        with pytest.raises(StudioError):
            ask(run, words, *models, chosen=chosen)
    assert not told and not chat.talk_of(visit(), run).questions


def test_a_talk_is_taken_along(told, run):
    ask(run, "What is it?", "one", "two", chosen=TORII)
    document = json.loads(chat.as_json(visit(), run))
    (question,) = document["questions"]
    assert document["run"] == run and document["models"] == ["one", "two"]
    assert question["settings"]["max_new_tokens"] == 64 and question["asked"].endswith("UTC")
    assert [a["words"] for a in question["answers"]] == ["one one", "one two"]
    text = chat.as_markdown(visit(), run)
    assert "    What is it?" in text and "    one two" in text and "![torii]" in text
    assert "es-hint" in chat.start_over(visit(), run)[0]
    with pytest.raises(StudioError, match="Nothing was said"):
        chat.as_markdown(visit(), run)


# ── what a run offers ─────────────────────────────────────────────────────────────────────────


def look(store, run: str, at: Visit | None = None, fresh: bool = True) -> Look:
    return Look(at or visit(), store.run(run), api.progress(run, store), fresh)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return make_family("llava", tmp_path_factory.mktemp("llava"))


def test_a_run_with_pictures_offers_them_and_the_source_that_sees(store, family, told):
    recipe = Recipe.from_dict({
        "name": "seen", "base": str(family / "base"),
        "sources": [str(family / "ja"), str(family / "vlm")],
        "objectives": [{"task": "ja_culture_vqa"}, {"task": "jmath"}],
    })  # fmt: skip
    assert chat._beside(recipe) == str(family / "vlm")
    words = recipe.model_copy(update={"objectives": recipe.objectives[1:]})
    assert chat._beside(words) == str(family / "ja")
    gone = recipe.model_copy(update={"sources": ["no-such-model", "owner/name"]})
    assert chat._beside(gone) == ""
    run = store.create_run("seen", recipe.to_yaml())
    *_, offered = chat.draw(look(store, run), chat.Watched())
    samples = [sample for (sample,) in offered.raw_samples]
    assert len(samples) == chat.EXAMPLES
    assert ["<img" in sample for sample in samples] == [True, True, False, False]
    steps = list(chat.ask_example(visit(), 1, *given(run, "one")))
    test = load_task("ja_culture_vqa").examples("test")
    assert told[0][1][-1]["picture"] == test[len(test) // 2].picture
    assert "one one" in steps[-1][1]
    for index in (99, -1, None, "1"):
        with pytest.raises(StudioError, match="gone"):
            list(chat.ask_example(visit(), index, *given(run, "one")))


def test_a_run_at_work_changes_menus_only(store, run):
    drawn = chat.draw(look(store, run, fresh=False), chat.Watched())
    assert all("value" not in menu for menu in drawn[:3])
    assert all(part["__type__"] == "update" for part in drawn[3:])


def test_a_page_that_was_there_first_turns_to_the_best_once_there_is_one(store, run, told):
    store.record_ask(run, "cma", 0, [(0, np.zeros(2))])
    store.record_evaluation(
        run, Evaluation("candidate:0", "jmath", "dev", 1.0, 1, 1.0, "",
                        (Outcome("dev-0000", 1.0, "42", {}, 3),))
    )  # fmt: skip
    first = Recipe.from_yaml(store.run(run).recipe).sources[0]

    def values(*chosen: str, **watched) -> list:
        shown = chat.draw(look(store, run, fresh=False), chat.Watched(run, **watched), *chosen)
        return [menu.get("value") for menu in shown[:3]]

    assert values(first, "", "")[0] == f"{run}:best" != first
    assert values("another", "", "") == [None] * 3  # the visitor's own choice
    assert values(first, "another", "") == [None] * 3
    assert values(first, "", "", best=True) == [None] * 3  # it was offered before
    list(chat.ask(visit(), "1+1", None, *given(run, first)))
    assert values(first, "", "") == [None] * 3  # a talk goes on as it is


def test_whom_answers_are_said_to_be_of():
    assert turns.called("0123abcd:best", "en", "0123abcd:12") == "best of this run (#12)"
    assert turns.called("0123abcd:12", "ja") == "#12"
    assert turns.called("owner/name", "en") == "name"


def test_the_first_word_is_prepared_once(store, monkeypatch):
    warmed = []
    monkeypatch.setattr(speaking, "warm", lambda model, store: warmed.append(model))
    monkeypatch.setattr(chat, "_engine", lambda: None)
    chat._prepared.cache_clear()
    for _ in range(2):
        chat.prepare(visit())
    chat._prepared().join(10)
    assert warmed == [f"{api.bundled_runs()[0]}:best"]
    chat._prepared.cache_clear()
