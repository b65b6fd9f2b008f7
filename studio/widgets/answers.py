"""Answers side by side: the paper's strip of questions, and one question opened below it.

Knows evaluations, which is to say who answered what. Refuses to know where they come from.
"""

import base64
from collections.abc import Mapping, Sequence

import ipywidgets as widgets

from studio.errors import StudioError
from studio.runs.records import Evaluation, Outcome
from studio.tasks.base import Example
from studio.ui import pieces, plots, words
from studio.ui.markup import esc
from studio.ui.strings import say
from studio.widgets.looks import Box, wrapped


class Answers(Box):
    """What several models answered to the same questions; a slider goes from one to the next.

    Args:
        said: label → evaluation, all of the same examples; the last is drawn taller.
        examples: those examples.
        metric: of the task.
        language: "en", "ja" or "zh".

    Attributes:
        said: what was given.
        number: the slider: which question is open, from 1.
        text: HTML of the open question and its answers.
    """

    def __init__(
        self,
        said: Mapping[str, Evaluation],
        examples: Sequence[Example],
        *,
        metric: str = words.ACCURACY,
        language: str = "en",
    ):
        self._examples, self._metric, self._language = list(examples), metric, language
        self.said: dict[str, Evaluation] = {}
        self._strip, self._open = widgets.HTML(), widgets.HTML()
        self.number = widgets.IntSlider(
            1,
            1,
            max(2, len(self._examples)),
            description=say(language, "question"),
            layout=widgets.Layout(width="100%", max_width="960px"),
        )
        self.number.observe(lambda _: self._draw(), "value")
        super().__init__([self._strip, self.number, self._open])
        self.show(said)

    @property
    def text(self) -> str:
        return self._open.value

    def show(self, said: Mapping[str, Evaluation]) -> None:
        """Show other answers to the same questions."""
        self.said = dict(said)
        self._draw()

    def peek(self, number: int, label: str, outcome: Outcome) -> None:
        """Show one model's answer to one question, before all of its answers are known."""
        said = {name: e.outcomes[number - 1] for name, e in self.said.items()}
        self._open_at(number, {**said, label: outcome})

    def _draw(self) -> None:
        number = min(self.number.value, len(self._examples))
        html = strip(self.said, self._examples, self._metric, self._language, number)
        self._strip.value = wrapped(html)
        if self.said:
            self._open_at(number, {name: e.outcomes[number - 1] for name, e in self.said.items()})

    def _open_at(self, number: int, said: Mapping[str, Outcome]) -> None:
        example = self._examples[number - 1]
        self._open.value = wrapped(
            pieces.answers(
                number,
                len(self._examples),
                example.question,
                example.answer,
                list(said.items()),
                self._language,
                metric=self._metric,
                graded=_graded(self.said),
                picture=picture(example, self._language),
            )
        )


def strip(
    said: Mapping[str, Evaluation],
    examples: Sequence[Example],
    metric: str = words.ACCURACY,
    language: str = "en",
    number: int | None = None,
) -> str:
    """The strip of questions as HTML, one row per model, the last one taller; arguments as above.

    Args:
        number: the question that is marked.
    """
    if not said:
        return pieces.empty(say(language, "strip_empty"))
    graded, last = _graded(said), list(said)[-1]
    rows = [
        plots.Row(
            label=label,
            role="",
            score=evaluation.score,
            states=[pieces.state_of(outcome, graded) for outcome in evaluation.outcomes],
            best=label == last,
            values=[outcome.score for outcome in evaluation.outcomes] if graded else (),
        )
        for label, evaluation in said.items()
    ]
    first = next(iter(said.values()))
    html = plots.strip(
        rows,
        [example.question for example in examples],
        title=f"{say(language, 'strip')}: {first.task} ({words.metric(language, metric)})",
        note=say(language, "strip_note_plain", n=len(examples)),
        names=pieces.state_names(language, graded),
        selected=number,
    )
    # a notebook hears neither clicks nor keys of HTML: the slider is what moves the marker
    return html.replace('tabindex="0" role="slider"', 'role="img"')


def picture(example: Example, language: str) -> str:
    """What a question is about, as HTML; nothing of a question in words."""
    if example.picture is None:
        return ""
    from vlm.pictures import thumbnail

    try:
        data = base64.b64encode(thumbnail(example.picture, 144)).decode()
    except StudioError as error:
        return f"<p>{esc(error)}</p>"
    called = esc(say(language, "question_picture"))
    return f'<img alt="{called}" src="data:image/png;base64,{data}">'


def _graded(said: Mapping[str, Evaluation]) -> bool:
    return pieces.is_graded(outcome for e in said.values() for outcome in e.outcomes)
