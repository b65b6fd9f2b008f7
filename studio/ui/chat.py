"""The Chat tab: one question, with or without a picture, to a model or to several side by side.

Knows how a question reaches models and their words the page. :mod:`studio.chat` holds the models,
:mod:`studio.talks` what was said: what a browser sends back of it is not read.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from studio import api, chat, talks
from studio.errors import StudioError
from studio.models.opening import sees
from studio.models.sources import bundled, resolve
from studio.recipe import Recipe
from studio.talks import CHARACTERS, Question, Talk
from studio.tasks import Example, has_pictures, load_task
from studio.ui import pictures, turns
from studio.ui.chat_scripts import COPY, COPY_ALL, FOLLOW, SAVE
from studio.ui.markup import esc
from studio.ui.pictures import Chosen
from studio.ui.shared import candidate_choices, engine, store
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel, Visit, Wires
from studio.visitors import owner_of
from studio.voices import Waiting

log = logging.getLogger("studio.ui")

#: How many models can answer side by side.
SPEAKERS = 3
EXAMPLES = 4
#: Tokens of an answer in public, at most: others are waiting.
PUBLIC_TOKENS = 512
#: Seconds between two drawings of an answer that grows.
EVERY = 0.08
_KEYS = ("speaker", "compare", "compare_too")


@dataclass(frozen=True)
class Chat:
    """What other parts of the page wire up."""

    models: list[gr.Dropdown]
    panels: list[Panel]


@dataclass
class Watched:
    """The run whose talk a page shows: answers to another's question are not drawn there.

    Attributes:
        best: whether that run has a best candidate to talk to.
    """

    run: str | None = None
    best: bool = False


def build(wires: Wires, run: gr.Dropdown) -> Chat:
    """Lay the tab out; ``run`` is the page's run picker."""
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=8, min_width=320):
            with gr.Row(elem_classes="es-speakers"):
                models = [_speaker(number) for number in range(SPEAKERS)]
            with gr.Column(elem_id="talk", elem_classes="es-talk"):
                past = gr.HTML(js_on_load=COPY, elem_id="talk-past")
                now = gr.HTML(js_on_load=FOLLOW, elem_id="talk-now")
            shown = pictures.preview() if pictures.available() else None
            with gr.Row(elem_classes="es-say"):
                message = gr.Textbox(
                    label=text("message"),
                    placeholder=text("message_hint"),
                    lines=1,
                    max_lines=5,
                    max_length=CHARACTERS,
                    scale=8,
                    elem_id="message",
                )
                with gr.Column(scale=1, min_width=96):
                    send = gr.Button(text("send"), variant="primary", size="sm", elem_id="send")
                    stop = gr.Button(text("stop"), size="sm", elem_id="chat-stop")
            with gr.Row(elem_classes="es-buttons"):
                copy = gr.Button(text("copy_talk"), size="sm", elem_id="talk-copy")
                markdown = gr.Button(text("save_markdown"), size="sm", elem_id="talk-markdown")
                document = gr.Button(text("save_json"), size="sm", elem_id="talk-json")
                clear = gr.Button(text("clear"), size="sm", elem_id="clear")
        with gr.Column(scale=4, min_width=280):
            examples = gr.Dataset(
                label=text("try"),
                components=[gr.HTML(visible=False)],
                samples=[[""]],
                type="index",
                elem_id="examples",
            )
            if shown:
                pictures.choosers(wires, shown)
            decoding = _decoding()
            remember = gr.Checkbox(
                False, label=text("remember"), info=text("remember_info"), elem_id="remember"
            )

    wires.on(gr.context.Context.root_block.load, prepare, None, None)
    watched, whole = gr.State(Watched()), gr.Textbox(visible=False)
    given = [run, watched, remember, *decoding, *models]
    chosen = [shown.chosen, shown.preview] if shown else []
    # Many may wait for an answer at once; the line they wait in is the pool's.
    open_to_all = {"concurrency_limit": None, "trigger_mode": "multiple"}
    wires.on(
        [message.submit, send.click],
        ask,
        [message, chosen[0] if shown else gr.State(None), *given],
        [past, now, message, *chosen],
        **open_to_all,
    )
    wires.on(examples.click, ask_example, [examples, *given], [past, now], **open_to_all)
    wires.on([m.input for m in models], join, given, [past, now], **open_to_all)
    wires.on([m.change for m in models], arrange, [run, *models], [past, now])
    wires.on(stop.click, halt, run, None)
    wires.on(clear.click, start_over, run, [past, now])
    for button, wanted, js in (
        (copy, as_markdown, COPY_ALL),
        (markdown, as_markdown, SAVE),
        (document, as_json, SAVE),
    ):
        wires.on(button.click, wanted, run, whole).success(None, whole, None, js=js)
    panel = Panel(
        name="chat",
        parts=[*models, past, now, examples],
        key=lambda look: (look.run.status, -(-look.progress.done // 8)),
        draw=draw,
        blank=lambda language: [gr.skip()] * (SPEAKERS + 3),
        given=[watched, *models],
    )
    return Chat(models, [panel])


def _speaker(number: int) -> gr.Dropdown:
    """The menu of the first to talk to, or of another one to compare it with."""
    return gr.Dropdown(
        [],
        label=text(_KEYS[number]),
        allow_custom_value=True,
        min_width=180,
        elem_id=f"chat-model-{number + 1}" if number else "chat-model",
    )


def _decoding() -> list[gr.components.Component]:
    """How answers are decoded, in the order of `studio.speech.Settings`."""
    with gr.Accordion(text("decoding"), open=False, elem_id="decoding"):
        tokens = gr.Slider(
            16, 1024, 256, step=16, label=text("max_new_tokens"), elem_id="max-new-tokens"
        )
        temperature = gr.Slider(
            0, 2, 0, step=0.1, label=text("temperature"), info=text("temperature_info"),
            elem_id="temperature",
        )  # fmt: skip
        top_p = gr.Slider(0.05, 1, 1, step=0.05, label=text("top_p"), elem_id="top-p")
        seed = gr.Number(0, label=text("seed"), precision=0, elem_id="chat-seed")
        penalty = gr.Slider(
            1, 2, 1, step=0.05, label=text("repetition_penalty"), elem_id="repetition-penalty"
        )
    return [tokens, temperature, top_p, seed, penalty]


# ── what the page says ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Wish:
    """What a page hands in with every question."""

    run: str | None
    watched: Watched
    remember: bool
    settings: chat.Settings
    models: list[str]


def _wish(visit: Visit, run: Any, watched: Watched, remember: Any, *given: Any) -> _Wish:
    """Raises StudioError where a setting is none, or a model is not theirs to talk to."""
    return _Wish(run, watched, bool(remember), _settings(visit, *given[:5]), _models(*given[5:]))


def _settings(visit: Visit, tokens: Any, warmth: Any, top_p: Any, seed: Any, penalty: Any):
    usual = chat.Settings()
    try:
        settings = chat.Settings(
            int(usual.max_new_tokens if tokens is None else tokens),
            float(usual.temperature if warmth is None else warmth),
            float(usual.top_p if top_p is None else top_p),
            int(usual.seed if seed is None else seed),
            float(usual.repetition_penalty if penalty is None else penalty),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise StudioError("A setting of the answers is no number; write one.") from error
    if visit.who.public and settings.max_new_tokens > PUBLIC_TOKENS:
        raise StudioError(f"Answers have at most {PUBLIC_TOKENS} tokens here; ask for fewer.")
    return settings


def _models(*given: Any) -> list[str]:
    """The models that were chosen, each once."""
    names = [str(name or "").strip() for name in given[:SPEAKERS]]
    return list(dict.fromkeys(name for name in names if name))


def talk_of(visit: Visit, run: str | None) -> Talk:
    """The visitor's talk about a run: one per owner, or locally per browser."""
    run = visit.who.run(store(), run).id
    if visit.who.public:
        return talks.talk(visit.who.folder("chats"), run)
    if not visit.token:  # nobody that could be told from anybody else
        return Talk()
    return talks.talk(visit.who.folder("chats"), f"{owner_of('token', visit.token)}.{run}")


# ── asking ────────────────────────────────────────────────────────────────────────────────────


def ask(visit: Visit, words: str, chosen: Chosen | None, *given: Any) -> Iterator[Any]:
    """Put the user's question, empty what it was written in, and stream the answers."""
    wish = _wish(visit, *given)
    emptied = ["", *pictures.remove()] if pictures.available() else [""]
    first = True
    for drawn in _asked(visit, words, chosen, wish):
        yield [*drawn, *(emptied if first else [gr.skip()] * len(emptied))]
        first = False


def ask_example(visit: Visit, index: Any, *given: Any) -> Iterator[Any]:
    """Put one of the task's questions, with its picture, and stream the answers."""
    wish = _wish(visit, *given)
    offered = _offered(Recipe.from_yaml(visit.who.run(store(), wish.run).recipe))
    if not isinstance(index, int) or not 0 <= index < len(offered):
        raise StudioError("This question is gone; its file may have changed. Pick another one.")
    example = offered[index]
    name = visit.say("question_picture")
    chosen = None if example.picture is None else Chosen(example.picture, name)
    yield from _asked(visit, example.question, chosen, wish)


def join(visit: Visit, *given: Any) -> Iterator[Any]:
    """Whoever is chosen in the middle of a conversation answers its last question, too."""
    wish = _wish(visit, *given)
    talk = talk_of(visit, wish.run)
    talk.models = wish.models
    question = talk.reopen()
    if question is None:
        talk.save()
        yield _drawn(talk, wish.models, visit.language)
    else:
        yield from _answered(visit, talk, question, wish)


def _asked(visit: Visit, words: str, chosen: Chosen | None, wish: _Wish) -> Iterator[list[Any]]:
    if not wish.models:
        raise StudioError("No model is chosen; choose whom to talk to.")
    for model in wish.models:
        visit.who.model(store(), model)
    talk = talk_of(visit, wish.run)
    small = pictures.small(chosen) if chosen else None
    original, alt = (chosen.picture, chosen.name) if chosen else (None, "")
    question = talk.ask(words, wish.settings, original, small, alt)
    talk.models = wish.models
    yield from _answered(visit, talk, question, wish)


def _answered(visit: Visit, talk: Talk, question: Question, wish: _Wish) -> Iterator[list[Any]]:
    """The answers of all models, one after the other, as the page shows them."""
    language, drawn = visit.language, 0.0
    mine = talk.wait(question, wish.models, Waiting(0))
    try:
        yield _drawn(talk, talk.models, language)
        for model in mine:
            for state in _answer(visit, talk, question, model, wish.remember):
                if state is not None:
                    question.waiting[model] = state
                if wish.watched.run not in (None, wish.run):
                    talk.stop()  # the page looks at another run by now
                elif time.monotonic() - drawn >= EVERY or state is not None:
                    drawn = time.monotonic()
                    yield [gr.skip(), turns.now(talk, talk.models, language)]
            talk.done(question, [model])
    finally:
        talk.done(question, mine)
        talk.save()
    if wish.watched.run in (None, wish.run):
        yield _drawn(talk, talk.models, language)


def _answer(
    visit: Visit, talk: Talk, question: Question, model: str, remember: bool
) -> Iterator[Waiting | None]:
    """Have one model answer; yields whenever there is something to draw. Errors are its answer."""
    started, answer = time.monotonic(), None
    try:
        visit.who.model(store(), model)
        _engine()
        answer = talk.claim(question, model, chat.named(model, store()))
        if answer is None:
            return
        answer.blind = question.picture is not None and not chat.sees(model, store())
        told = talk.told(question, model, remember)
        with closing(chat.moments(model, told, question.settings, store())) as growing:
            for moment in growing:
                if not question.open:
                    break
                if isinstance(moment, str):
                    answer.words, moment = moment, None
                    answer.seconds = time.monotonic() - started
                yield moment
        if not question.open and not answer.words:
            talk.withdraw(question, model)
    except Exception as error:
        answer = answer or talk.claim(question, model, model)
        if answer is None:
            return
        if isinstance(error, StudioError):
            answer.error = str(error)
        else:
            log.exception("answering as %s", model)
            answer.error = say("en", "unexpected")


def _drawn(talk: Talk, models: Sequence[str] | None, language: str) -> list[Any]:
    models = _models(*(models or []))
    return [turns.past(talk, models, language), turns.now(talk, models, language)]


def halt(visit: Visit, run: str | None) -> None:
    """End the answers that are being given, or about to be."""
    talk_of(visit, run).stop()


def start_over(visit: Visit, run: str | None) -> list[Any]:
    """End the answers and empty the conversation."""
    talk = talk_of(visit, run)
    talk.clear()
    return _drawn(talk, talk.models, visit.language)


def arrange(visit: Visit, run: str | None, *models: Any) -> list[Any]:
    """A column for everybody who is asked."""
    if not run:
        return [gr.skip(), gr.skip()]
    talk = talk_of(visit, run)
    if talk.questions and talk.questions[-1].open:  # whoever answers draws, too
        return [gr.skip(), gr.skip()]
    return _drawn(talk, _models(*models), visit.language)


def as_markdown(visit: Visit, run: str | None) -> str:
    """The conversation as a text to keep; the answers' buttons copy one each."""
    record = visit.who.run(store(), run)
    return _something(talk_of(visit, run)).markdown(f"{record.name} · {record.id}")


def as_json(visit: Visit, run: str | None) -> str:
    """The conversation with all there is to know of it."""
    record = visit.who.run(store(), run)
    document = _something(talk_of(visit, run)).document()
    return json.dumps(
        {"run": record.id, "name": record.name, **document}, ensure_ascii=False, indent=1
    )


def _something(talk: Talk) -> Talk:
    if not talk.questions:
        raise StudioError("Nothing was said yet; ask a question first.")
    return talk


# ── what the run offers ───────────────────────────────────────────────────────────────────────


def draw(look: Look, watched: Watched, *chosen: str | None) -> list[Any]:
    """Whom one can talk to, what was said about this run, and questions to try.

    A talk begins with the run's best beside a source: the one that sees, where there are pictures.
    A page that was there first has the first source ``chosen``, until there is a best.
    """
    visit, run, language = look.visit, look.run, look.visit.language
    recipe = Recipe.from_yaml(run.recipe)
    names = [name for name in (*recipe.sources, recipe.base) if name]
    numbered = [
        (label, f"{run.id}:{number}") for label, number in candidate_choices(run, store(), language)
    ]
    choices = [*((name, name) for name in names), *numbered]
    if numbered:
        choices.insert(0, (f"{say(language, 'best_candidate')} ({run.name})", f"{run.id}:best"))
    more = [(say(language, "nobody"), ""), *choices]
    menus = [gr.update(choices=more if number else choices) for number in range(SPEAKERS)]
    appeared = bool(numbered) and not watched.best and _models(*chosen) == names[:1]
    watched.run, watched.best = run.id, bool(numbered)
    talk = talk_of(visit, run.id)
    if not look.fresh and (talk.models or not appeared):
        return [*menus, gr.skip(), gr.skip(), gr.skip()]
    values = talk.models or [choices[0][1], _beside(recipe) if numbered else ""]
    values = [*values, *[""] * SPEAKERS][:SPEAKERS]
    menus = [menu | {"value": value} for menu, value in zip(menus, values, strict=True)]
    offered = [[_sample(example, language)] for example in _offered(recipe)]
    return [*menus, *_drawn(talk, _models(*values), language), gr.Dataset(samples=offered)]


def prepare(visit: Visit) -> None:
    """Have the first visitor's first word come soon: what takes long is loaded behind the page.

    Not before there is a page, which it would delay; and the sample run's best only: others may be
    larger than anybody wants in memory before they are asked.
    """
    _prepared()


@cache
def _prepared() -> threading.Thread:
    """Once per server."""

    def first() -> None:
        chat.leave_a_core()
        chat.warm(f"{api.bundled_runs()[0]}:best", store())

    def load() -> None:
        try:
            engine(first)
        except Exception:  # whoever asks will be told
            log.exception("loading the sample run's best")

    thread = threading.Thread(target=load, daemon=True, name="first word")
    thread.start()
    return thread


@cache
def _engine() -> None:
    """As `shared.engine`; and however many talk, the page stays quick."""
    engine()
    chat.leave_a_core()


def _beside(recipe: Recipe) -> str:
    """A source on this machine to compare with: where the task has pictures, one that sees."""
    seeing = any(has_pictures(item.task) for item in recipe.objectives if item.task)
    for name in recipe.sources:
        try:
            if name in bundled() or Path(name).is_dir():
                if not seeing or sees(resolve(name)):
                    return name
        except StudioError:  # it is gone; the run is still there to talk to
            continue
    return ""


def _offered(recipe: Recipe) -> list[Example]:
    """Some questions of each task, from all over its test split."""
    tasks = [objective for objective in recipe.objectives if objective.task]
    offered = []
    for objective in tasks:
        try:
            examples = load_task(objective.task, **objective.options).examples("test")
        except StudioError:  # the user's file may be gone; the run is still there to talk to
            continue
        many = max(1, EXAMPLES // len(tasks))
        offered += examples[:: max(1, len(examples) // many)][:many]
    return offered


def _sample(example: Example, language: str) -> str:
    """A question as it is offered: its words, after its picture."""
    picture = ""
    if example.picture is not None:
        try:
            name = say(language, "question_picture")
            picture = pictures.image(example.picture, name, pictures.SMALL)
        except StudioError:  # asked about, it says what is wrong
            pass
    return f'<span class="es-sample">{picture}<span>{esc(example.question)}</span></span>'
