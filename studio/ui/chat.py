"""The Chat tab: talk to a source or to any candidate of the run, one streamed answer at a time.

Knows how a conversation is shown; :mod:`studio.chat` holds the models.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import chat
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Run
from studio.tasks import load_task
from studio.ui.shared import candidate_choices, engine, store, toast
from studio.ui.strings import say, text

EXAMPLES = 4
MAX_NEW_TOKENS = 256
MAX_CHARACTERS = 8000


@dataclass(frozen=True)
class Chat:
    """The tab's components that other parts of the page wire up."""

    model: gr.Dropdown
    talk: gr.Chatbot
    examples: gr.Dataset


def build() -> Chat:
    """Lay the tab out."""
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=3, min_width=280):
            model = gr.Dropdown(
                [],
                label=text("speaker"),
                info=text("speaker_info"),
                allow_custom_value=True,
                elem_id="chat-model",
            )
            remember = gr.Checkbox(
                False, label=text("remember"), info=text("remember_info"), elem_id="remember"
            )
            clear = gr.Button(text("clear"), size="sm", elem_id="clear")
        with gr.Column(scale=9, min_width=320):
            talk = gr.Chatbot(
                label=text("chat"),
                show_label=False,
                height=420,
                render_markdown=False,
                buttons=["copy", "copy_all"],
                feedback_options=None,
                elem_id="talk",
            )
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
            examples = gr.Dataset(
                label=text("try"),
                components=[gr.Textbox(visible=False)],
                samples=[[""]],
                type="values",
                elem_id="examples",
            )

    turn = gr.State(Turn())
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    asking = [
        trigger(toast(ask), [message, talk, turn], [message, talk], **quiet)
        for trigger in (message.submit, send.click)
    ]
    asking.append(examples.click(toast(ask_example), [examples, talk, turn], talk, **quiet))
    for asked in asking:
        asked.success(
            toast(answer),
            [model, talk, remember, turn],
            talk,
            show_progress="minimal",
            api_visibility="private",
        )
    stop.click(halt, turn, None, **quiet)
    clear.click(start_over, turn, talk, **quiet)
    # Another model has not said what stands there: it starts afresh.
    model.input(start_over, turn, talk, **quiet)
    return Chat(model, talk, examples)


class Turn:
    """Which answer a page is waiting for. One per page, shared by its handlers.

    Gradio's own ``cancels`` misses an answer that is about to begin; this does not.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.wanted = 0


def ask(message: str, talk: list[dict[str, Any]], turn: Turn) -> tuple[str, list[dict[str, Any]]]:
    """Put the user's message into the conversation."""
    words = (message or "").strip()
    if not words:
        raise StudioError("There is no question; write one, or pick one of the task's.")
    if len(words) > MAX_CHARACTERS:
        raise StudioError(f"The message is longer than {MAX_CHARACTERS} characters; shorten it.")
    turn.wanted += 1
    turn.asked = turn.wanted
    return "", [*_turns(talk), {"role": "user", "content": words}]


def ask_example(sample: list[str], talk: list[dict[str, Any]], turn: Turn) -> list[dict[str, Any]]:
    """Put one of the task's questions into the conversation."""
    return ask(sample[0], talk, turn)[1]


def halt(turn: Turn) -> None:
    """End the answer that is being given, or about to be."""
    turn.wanted += 1


def start_over(turn: Turn) -> list[dict[str, Any]]:
    """End the answer and empty the conversation."""
    halt(turn)
    return []


def answer(
    model: str | None, talk: list[dict[str, Any]], remember: bool, turn: Turn
) -> Iterator[list[dict[str, Any]]]:
    """Stream the model's answer to the last message, until it is no longer wanted."""
    mine, turns = turn.asked, _turns(talk)
    if turn.wanted != mine or not turns:
        return
    if not model:
        raise StudioError("No model is chosen; choose whom to talk to.")
    engine()
    heard = turns if remember else turns[-1:]
    with closing(chat.stream(str(model), heard, store(), max_new_tokens=MAX_NEW_TOKENS)) as growing:
        for words in growing:
            if turn.wanted != mine:
                return
            yield [*turns, {"role": "assistant", "content": words}]


def _turns(talk: list[dict[str, Any]] | None) -> list[dict[str, str]]:
    """The conversation as role and plain text; Gradio hands text over in parts."""
    turns = []
    for turn in talk or []:
        content = turn["content"]
        if not isinstance(content, str):
            content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
        turns.append({"role": turn["role"], "content": content})
    return turns


# ── what the run offers ───────────────────────────────────────────────────────────────────────


def draw(run: Run, language: str, *, first: bool) -> list[Any]:
    """Whom one can talk to, and questions to try; ``first`` begins anew with the run's best."""
    recipe = Recipe.from_yaml(run.recipe)
    names = [name for name in (*recipe.sources, recipe.base) if name]
    numbered = [
        (label, f"{run.id}:{number}") for label, number in candidate_choices(run, store(), language)
    ]
    choices = [*((name, name) for name in names), *numbered]
    if numbered:
        choices.insert(0, (f"{say(language, 'best_candidate')} ({run.name})", f"{run.id}:best"))
    if not first:
        return [gr.update(choices=choices), gr.skip(), gr.skip()]
    talk = gr.update(value=[], placeholder=say(language, "talk_hint"))
    return [gr.update(choices=choices, value=choices[0][1]), _examples(recipe), talk]


def _examples(recipe: Recipe) -> Any:
    """Some questions of each task."""
    tasks = [objective for objective in recipe.objectives if objective.task]
    questions = []
    for objective in tasks:
        try:
            examples = load_task(objective.task, **objective.options).examples("test")
        except StudioError:  # the user's file may be gone; the run is still there to talk to
            continue
        questions += [[e.question] for e in examples[: max(1, EXAMPLES // len(tasks))]]
    return gr.Dataset(samples=questions)
