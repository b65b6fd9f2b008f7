"""The Chat tab: one question, with or without a picture, to a model or to several side by side.

Knows how conversations are shown; :mod:`studio.chat` holds the models. What was said is kept here,
per page: what a browser sends back of it is not read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from studio import chat
from studio.errors import StudioError
from studio.models.opening import sees
from studio.models.sources import bundled, resolve
from studio.recipe import Recipe
from studio.runs.records import split_reference
from studio.tasks import Example, has_pictures, load_task
from studio.ui import pictures
from studio.ui.markup import esc
from studio.ui.pictures import Chosen
from studio.ui.shared import candidate_choices, engine, store
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel, Visit, Wires

#: How many models can answer side by side.
SPEAKERS = 2
EXAMPLES = 4
MAX_NEW_TOKENS = 256
MAX_CHARACTERS = 8000


@dataclass(frozen=True)
class Chat:
    """What other parts of the page wire up."""

    models: list[gr.Dropdown]
    panels: list[Panel]


@dataclass(frozen=True)
class _Place:
    """Where one speaker answers."""

    column: gr.Column
    head: gr.HTML
    talk: gr.Chatbot


def build(wires: Wires, run: gr.Dropdown) -> Chat:
    """Lay the tab out; ``run`` is the page's run picker."""
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=3, min_width=280):
            models = [_speaker(n) for n in range(SPEAKERS)]
            remember = gr.Checkbox(
                False, label=text("remember"), info=text("remember_info"), elem_id="remember"
            )
            clear = gr.Button(text("clear"), size="sm", elem_id="clear")
        with gr.Column(scale=9, min_width=320):
            with gr.Row(elem_classes="es-talks"):
                places = [_place(n) for n in range(SPEAKERS)]
            shown = pictures.preview() if pictures.available() else None
            with gr.Row(elem_classes="es-say"):
                message = gr.Textbox(
                    label=text("message"),
                    placeholder=text("message_hint"),
                    lines=1,
                    max_lines=5,
                    max_length=MAX_CHARACTERS,
                    scale=8,
                    elem_id="message",
                )
                with gr.Column(scale=1, min_width=96):
                    send = gr.Button(text("send"), variant="primary", size="sm", elem_id="send")
                    stop = gr.Button(text("stop"), size="sm", elem_id="chat-stop")
            if shown:
                pictures.choosers(wires, shown)
            examples = gr.Dataset(
                label=text("try"),
                components=[gr.HTML(visible=False)],
                samples=[[""]],
                type="index",
                elem_id="examples",
            )

    conversation = gr.State(Conversation())
    talks = [place.talk for place in places]
    chosen = [shown.chosen, shown.preview] if shown else []
    asking = [
        wires.on(trigger, ask, [message, conversation, *chosen[:1]], [*talks, message, *chosen])
        for trigger in (message.submit, send.click)
    ]
    asking.append(wires.on(examples.click, ask_example, [examples, run, conversation], talks))
    for asked in asking:
        then = asked.success  # nobody answers where nothing was asked
        for number, place in enumerate(places):
            answered = wires.then(
                then,
                _answers(number),
                [remember, conversation, *models],
                [place.head, place.talk],
                shown="minimal",
            )
            then = answered.then  # one after the other, and even if one cannot answer
    wires.on(stop.click, lambda visit, said: halt(said), conversation, None)
    wires.on(run.change, follow, [run, conversation], talks)
    for anew in (clear.click, *(talk.clear for talk in talks)):
        wires.on(anew, start_over, conversation, talks)
    shape = [part for place in places for part in (place.column, place.head)]
    for model in models:
        # Another model has not said what stands there: it starts afresh.
        wires.on(model.input, start_over, conversation, talks)
        wires.on(model.change, arrange, models, shape)
    panel = Panel(
        name="chat",
        parts=[*models, *talks, examples],
        key=lambda look: (look.run.status, look.progress.done // 8),
        draw=draw,
        blank=lambda language: [gr.skip()] * (2 * SPEAKERS + 1),
    )
    return Chat(models, [panel])


def _speaker(number: int) -> gr.Dropdown:
    """The menu of the first to talk to, or of another one to compare it with."""
    key = "compare" if number else "speaker"
    return gr.Dropdown(
        [],
        label=text(key),
        info=text(f"{key}_info"),
        allow_custom_value=True,
        elem_id=f"chat-model{_suffix(number)}",
    )


def _place(number: int) -> _Place:
    with gr.Column(visible=number == 0, min_width=300) as column:
        head = gr.HTML(elem_id=f"talk-head{_suffix(number)}")
        talk = gr.Chatbot(
            label=text("chat"),
            show_label=False,
            height=420,
            render_markdown=False,
            buttons=["copy", "copy_all"],
            feedback_options=None,
            elem_id=f"talk{_suffix(number)}",
            elem_classes="es-talk",
        )
    return _Place(column, head, talk)


def _suffix(number: int) -> str:
    return f"-{number + 1}" if number else ""


# ── what was said ─────────────────────────────────────────────────────────────────────────────


@dataclass
class Question:
    """A question with its picture, if it has one, and what each speaker has answered so far.

    ``turn`` is what the conversation waits for as long as this is to be answered; ``shown`` is the
    picture as a Chatbot shows it; ``answers`` has an entry of every speaker that has begun.
    """

    words: str
    turn: int
    picture: Path | bytes | None = None
    shown: gr.HTML | None = None
    answers: dict[int, str] = field(default_factory=dict)


class Conversation:
    """What was said on a page, and which answers it waits for; shared by its handlers.

    Gradio's own ``cancels`` misses an answer that is about to begin; ``wanted`` does not: it moves
    on with every question, and with every wish to stop.
    """

    def __init__(self) -> None:
        self.run: str | None = None
        self.questions: list[Question] = []
        self.wanted = 0

    def shown(self, speaker: int) -> list[dict[str, Any]]:
        """One speaker's conversation as Gradio's Chatbot takes it."""
        messages = []
        for question in self.questions:
            content = [question.shown] if question.shown else []
            messages.append({"role": "user", "content": [*content, question.words]})
            if said := question.answers.get(speaker):
                messages.append({"role": "assistant", "content": said})
        return messages

    def heard(self, speaker: int, remember: bool) -> list[dict[str, Any]]:
        """What a speaker is told: the last question, after those that it answered."""
        *before, last = self.questions
        messages = []
        for question in before if remember else []:
            if said := question.answers.get(speaker):
                messages += [_asked(question), {"role": "assistant", "content": said}]
        return [*messages, _asked(last)]


def _asked(question: Question) -> dict[str, Any]:
    return {"role": "user", "content": question.words, "picture": question.picture}


# ── asking ────────────────────────────────────────────────────────────────────────────────────


def ask(
    visit: Visit, words: str, conversation: Conversation, chosen: Chosen | None = None
) -> list[Any]:
    """Put the user's question into the conversations, and empty what it was written in."""
    emptied = ["", *pictures.remove()] if pictures.available() else [""]
    return [*_put(words, conversation, chosen), *emptied]


def ask_example(visit: Visit, index: int, run: str | None, conversation: Conversation) -> list[Any]:
    """Put one of the task's questions into the conversations, with its picture."""
    offered = _offered(Recipe.from_yaml(visit.who.run(store(), run).recipe))
    if not 0 <= index < len(offered):
        raise StudioError("This question is gone; its file may have changed. Pick another one.")
    example = offered[index]
    name = visit.say("question_picture")
    chosen = None if example.picture is None else Chosen(example.picture, name)
    return _put(example.question, conversation, chosen)


def _put(words: str, conversation: Conversation, chosen: Chosen | None) -> list[Any]:
    words = (words or "").strip()
    if not words:
        raise StudioError("There is no question; write one, or pick one of the task's.")
    if len(words) > MAX_CHARACTERS:
        raise StudioError(f"The message is longer than {MAX_CHARACTERS} characters; shorten it.")
    shown = pictures.message(chosen) if chosen else None
    conversation.wanted += 1
    picture = chosen.picture if chosen else None
    conversation.questions.append(Question(words, conversation.wanted, picture, shown))
    return [conversation.shown(speaker) for speaker in range(SPEAKERS)]


def halt(conversation: Conversation) -> None:
    """End the answers that are being given, or about to be."""
    conversation.wanted += 1


def start_over(visit: Visit, conversation: Conversation) -> list[Any]:
    """End the answers and empty the conversations."""
    halt(conversation)
    conversation.questions = []
    return [[]] * SPEAKERS


def follow(visit: Visit, run: str | None, conversation: Conversation) -> list[Any]:
    """Another run, another conversation; the picker tells of changes in its menu, too."""
    if run == conversation.run:
        return [gr.skip()] * SPEAKERS
    conversation.run = run
    return start_over(visit, conversation)


def _answers(speaker: int) -> Callable[..., Iterator[Any]]:
    """The handler that has one speaker answer."""

    def answered(visit: Visit, remember: bool, conversation: Conversation, *models: Any):
        yield from answer(visit, speaker, models, remember, conversation)

    return answered


def answer(
    visit: Visit,
    speaker: int,
    models: Sequence[str | None],
    remember: bool,
    conversation: Conversation,
) -> Iterator[tuple[Any, Any]]:
    """Stream a model's answer to the last question, until it is no longer wanted."""
    question = conversation.questions[-1] if conversation.questions else None
    # The question may be a newer one than what brought us here, and be answered from there.
    if question is None or conversation.wanted != question.turn or speaker in question.answers:
        return
    model = str(models[speaker] or "").strip()
    if not model:
        if speaker:
            return
        raise StudioError("No model is chosen; choose whom to talk to.")
    model = visit.who.model(store(), model)
    language = visit.language
    question.answers[speaker] = ""
    engine()
    blind = question.picture is not None and not chat.sees(model, store())
    head = _head(model, models, language, blind=blind)
    told = conversation.heard(speaker, remember)
    with closing(chat.stream(model, told, store(), max_new_tokens=MAX_NEW_TOKENS)) as growing:
        for words in growing:
            if conversation.wanted != question.turn:
                return
            question.answers[speaker] = words
            yield head, conversation.shown(speaker)
    if not question.answers[speaker]:
        silent = {"role": "assistant", "content": say(language, "no_answer")}
        yield head, [*conversation.shown(speaker), silent]


def arrange(visit: Visit, *models: str | None) -> list[Any]:
    """A column for everybody who is to answer, named where there are several."""
    language = visit.language
    drawn = []
    for number, model in enumerate(models):
        head = _head(str(model or ""), models, language)
        drawn += [gr.update(visible=bool(model) or number == 0), head]
    return drawn


def _head(model: str, models: Sequence[str | None], language: str, *, blind: bool = False) -> str:
    """What stands over an answer: whose it is, of several, and that it is given unseeing."""
    name = f"<b>{esc(_called(model, language))}</b>" if sum(map(bool, models)) > 1 else ""
    note = f"<span>{esc(say(language, 'sees_nothing'))}</span>" if blind else ""
    return f'<p class="es-speaker">{name} {note}</p>' if name or note else ""


def _called(model: str, language: str) -> str:
    """A model's name over its answers: a candidate's number, the last part of a path."""
    if reference := split_reference(model):
        best = reference[1] == "best"
        return say(language, "best_candidate") if best else f"#{reference[1]}"
    return Path(model).name


# ── what the run offers ───────────────────────────────────────────────────────────────────────


def draw(look: Look) -> list[Any]:
    """Whom one can talk to, the talks, and questions to try.

    Another run begins anew with its best, beside the source that sees where there are pictures.
    """
    run, language = look.run, look.visit.language
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
    if not look.fresh:
        return [*menus, *[gr.skip()] * SPEAKERS, gr.skip()]
    values = [choices[0][1], _seeing(recipe) if numbered else ""]
    values += [""] * (SPEAKERS - len(values))
    menus = [menu | {"value": value} for menu, value in zip(menus, values, strict=True)]
    talk = gr.update(value=[], placeholder=say(language, "talk_hint"))
    offered = [[_sample(example, language)] for example in _offered(recipe)]
    return [*menus, *[talk] * SPEAKERS, gr.Dataset(samples=offered)]


def _seeing(recipe: Recipe) -> str:
    """The first source on this machine that sees, of a recipe with pictures; else nothing."""
    if any(has_pictures(objective.task) for objective in recipe.objectives if objective.task):
        for name in recipe.sources:
            try:
                if (name in bundled() or Path(name).is_dir()) and sees(resolve(name)):
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
