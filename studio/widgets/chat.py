"""A chat box: questions to one model after another, answers that grow as they are spoken.

Knows turns and their looks; the models and their pool are `studio.chat`'s.
"""

import base64
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from studio import chat
from studio.errors import StudioError
from studio.runs.store import Store
from studio.ui.markup import esc
from studio.ui.strings import say
from studio.widgets.looks import Box, wrapped
from studio.widgets.worker import Check, Newest

#: Seconds between two drawings of an answer that grows: a notebook is sent the whole of it.
_EVERY = 0.1


class Chat(Box):
    """Talk to models.

    Args:
        models: names of sources, or candidates: "RUN:12", "last:best".
        questions: offered to be picked.
        pictures: image files offered to be asked about; a model that sees none reads the text.
        remember: whether a model is told the turns before; the bundled ones know single questions.
        store: where the runs are; by default the workspace's.
        language: "en", "ja" or "zh".

    Attributes:
        speaker, picture, field: who answers, about what, and the question that is being typed.
        send_button, stop_button, clear_button: what they say.
        turns: what was said: ``{"role", "content"}``, an assistant's with its "model", a user's
            with its "picture" if it had one.

    Example:
        >>> talk = Chat(["bonsai-math", "bonsai-ja"])  # doctest: +SKIP
        >>> talk.ask("Tom has 3 apples and buys 4. How many?").wait()  # doctest: +SKIP
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        questions: Sequence[str] = (),
        pictures: Sequence[str | Path] = (),
        remember: bool = False,
        store: Store | None = None,
        language: str = "en",
        max_new_tokens: int = 128,
    ):
        self.turns: list[dict[str, Any]] = []
        self._store, self._language, self._most = store, language, max_new_tokens
        self._worker = Newest(self._answer, self._say)
        self._problem = ""

        def menu(key: str, options: Sequence[Any], width: str) -> widgets.Dropdown:
            return widgets.Dropdown(
                options=options,
                description=say(language, key),
                layout=widgets.Layout(width=width, display=None if len(options) > 1 else "none"),
            )

        def button(key: str, act, **more: Any) -> widgets.Button:
            made = widgets.Button(
                description=say(language, key), layout=widgets.Layout(width="auto"), **more
            )
            made.on_click(lambda _: act())
            return made

        self.speaker = menu("speaker", list(models), "340px")
        self.speaker.layout.display = None
        self.picture = menu(
            "photo",
            [(say(language, "nobody"), "")] + [(Path(p).stem, str(p)) for p in pictures],
            "300px",
        )
        self.sample = menu("try", [("…", "")] + [(q, q) for q in questions], "100%")
        self.field = widgets.Text(
            placeholder=say(language, "message_hint"), layout=widgets.Layout(flex="1 1 auto")
        )
        self.remember = widgets.Checkbox(
            value=remember, description=say(language, "remember"), indent=False
        )
        self.send_button = button("send", self._send, button_style="primary")
        self.stop_button = button("stop", self.stop, disabled=True)
        self.clear_button = button("clear", self.clear)
        self._talk = widgets.HTML()
        # Enter, in a way that both versions of ipywidgets know and neither is about to drop
        self.field.on_msg(
            lambda _, content, __: content.get("event") == "submit" and self._send() or None
        )
        self.sample.observe(lambda change: self._pick(change["new"]), "value")
        super().__init__(
            [
                widgets.HBox([self.speaker, self.picture, self.remember]),
                self.sample,
                self._talk,
                widgets.HBox([self.field, self.send_button, self.stop_button, self.clear_button]),
            ]
        )
        self._draw()

    def ask(self, question: str, model: str | None = None, picture: str | Path | None = None):
        """Put a question, as typing and pressing Send does; returns this box, at once."""
        if model is not None:
            self.speaker.value = model
        if picture is not None:
            self.picture.value = str(picture)
        self.field.value = question
        self._send()
        return self

    def stop(self) -> None:
        """End the answer before its next word; what was said stays."""
        self._worker.stop()

    def clear(self) -> None:
        """Forget the conversation."""
        self._worker.stop()
        self._worker.wait(5)
        self.turns.clear()
        self._problem = ""
        self._draw()

    def wait(self, seconds: float | None = None) -> str:
        """Block until the answer is complete; returns it."""
        self._worker.wait(seconds)
        last = self.turns[-1] if self.turns else {"role": "user"}
        return last["content"] if last["role"] == "assistant" else ""

    def _pick(self, question: str) -> None:
        if question:
            self.field.value = question

    def _send(self) -> None:
        question = self.field.value.strip()
        if not question:
            return
        # an answer under way is left off, and has written its last before the next turn stands
        self._worker.stop()
        self._worker.wait(5)
        turn: dict[str, Any] = {"role": "user", "content": question}
        if self.picture.value:
            turn["picture"] = Path(self.picture.value)
        self._problem = ""
        self.turns.append(turn)
        self.field.value = ""
        self.stop_button.disabled = False
        self._draw()
        self._worker.give(self.speaker.value)

    def _answer(self, model: str, check: Check) -> None:
        said = self.turns if self.remember.value else self.turns[-1:]
        messages = [{k: v for k, v in turn.items() if k != "model"} for turn in said]
        turn = {"role": "assistant", "content": "", "model": model}
        if any("picture" in turn for turn in said) and not chat.sees(model, self._store):
            turn["model"] += f" · {say(self._language, 'sees_nothing')}"
        speech = chat.stream(model, messages, self._store, self._most)
        drawn = 0.0
        try:
            for text in speech:
                check()
                if not turn["content"]:
                    self.turns.append(turn)
                turn["content"] = text
                if time.monotonic() - drawn > _EVERY:
                    self._draw()
                    drawn = time.monotonic()
            if not turn["content"]:
                raise StudioError(f"{model}: {say(self._language, 'no_answer')}")
        finally:
            speech.close()
            self._draw()
            self.stop_button.disabled = True

    def _say(self, sentence: str) -> None:
        self._problem = sentence
        self._draw()

    def _draw(self) -> None:
        shown = [self._turn(turn) for turn in self.turns]
        if self._problem:
            shown.append(f'<p class="es-said">{esc(self._problem)}</p>')
        if not shown:
            shown.append(f'<p class="es-empty">{esc(say(self._language, "talk_hint"))}</p>')
        self._talk.value = wrapped("".join(shown))

    def _turn(self, turn: dict[str, Any]) -> str:
        picture = ""
        if "picture" in turn:
            name = esc(turn["picture"].stem)
            picture = f'<img alt="{name}" src="{_data(turn["picture"])}">'
        head = f"<b>{esc(turn['model'])}</b>" if "model" in turn else ""
        return f'<div class="es-turn {turn["role"]}">{head}{picture}{esc(turn["content"])}</div>'


@lru_cache(maxsize=64)
def _data(picture: Path) -> str:
    """A small copy of a picture as the address of an image, made from its pixels."""
    from vlm.pictures import thumbnail

    try:
        small = thumbnail(picture, 96)
    except StudioError:
        return ""
    return f"data:image/png;base64,{base64.b64encode(small).decode()}"
