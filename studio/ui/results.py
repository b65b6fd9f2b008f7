"""The Results tab: what the run found, question by question, and what its best merge is made of.

Before the search has ended there are no test scores; the strip then shows the search's own
questions and says so. Knows how to read a finished or unfinished run; refuses to compute a score.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gradio as gr

from studio import api
from studio.errors import StudioError
from studio.evolve import inputs
from studio.evolve.spaces import rebuild_space
from studio.recipe import Recipe
from studio.runs import Run
from studio.tasks import Example
from studio.ui import pieces, plots
from studio.ui.shared import engine, language_of, store, toast
from studio.ui.strings import say, text

#: Clicks and arrow keys on the strip, told to Python as the question's number.
_PICK = """
const at = () => element.querySelector('.es-strip .over');
element.addEventListener('click', (event) => {
    const column = event.target.closest('[data-q]');
    if (column) trigger('click', {question: Number(column.dataset.q)});
});
element.addEventListener('keydown', (event) => {
    const over = at();
    if (event.target !== over) return;
    const now = Number(over.getAttribute('aria-valuenow'));
    const last = Number(over.getAttribute('aria-valuemax'));
    const to = {ArrowLeft: now - 1, ArrowRight: now + 1, Home: 1, End: last}[event.key];
    if (to === undefined || to < 1 || to > last) return;
    event.preventDefault();
    trigger('click', {question: to});
});
"""
#: Moves the strip's marker without drawing the strip again.
_MARK = """(question) => {
    const strip = document.querySelector('#strip .es-strip');
    if (strip && question) {
        strip.style.setProperty('--at', (question - 0.5) / Number(strip.dataset.count));
        strip.querySelector('.over').setAttribute('aria-valuenow', question);
    }
    return question;
}"""


@dataclass(frozen=True)
class Results:
    """The tab's components that other parts of the page wire up."""

    report: gr.HTML
    task: gr.Radio
    strip: gr.HTML
    question: gr.Slider
    answers: gr.HTML
    heat: gr.HTML


def build(run: gr.Dropdown) -> Results:
    """Lay the tab out; ``run`` is the page's run picker."""
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=7, min_width=320):
            report = gr.HTML(elem_id="report")
        with gr.Column(scale=5, min_width=320):
            heat = gr.HTML(elem_id="heat")
    task = gr.Radio([], label=text("task"), show_label=False, visible=False, elem_id="strip-task")
    strip = gr.HTML(js_on_load=_PICK, elem_id="strip")
    question = gr.Slider(
        1,
        2,
        value=1,
        step=1,
        label=text("question"),
        visible=False,
        buttons=[],
        elem_id="question",
    )
    answers = gr.HTML(elem_id="answers")
    tab = Results(report, task, strip, question, answers, heat)
    strip.click(toast(picked), None, question, show_progress="hidden", api_visibility="private")
    question.change(None, question, None, js=_MARK)
    question.change(
        toast(read),
        [run, task, question],
        answers,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    task.input(
        toast(draw_strip),
        [run, task],
        [task, strip, question, answers],
        show_progress="hidden",
        api_visibility="private",
    )
    return tab


def picked(event: gr.EventData) -> int:
    """The question that was clicked in the strip."""
    return int(event._data["question"])


def draw(run: Run, request: gr.Request, question: int | None = None) -> list[Any]:
    """What the tab shows of a run, in the order of :class:`Results`, but for the heat map.

    Args:
        question: the one that stays open; by default the first that only the merge gets right.
    """
    language = language_of(request)
    rows = api.report(run.id, store())
    tasks = list(dict.fromkeys(row["task"] for row in rows)) or [_objective(run)]
    task, strip, slider, answers = draw_strip(run.id, tasks[0], request, question)
    choices = gr.update(choices=tasks, value=tasks[0], visible=len(tasks) > 1)
    return [pieces.report(rows, language), choices, strip, slider, answers]


def _objective(run: Run) -> str:
    return Recipe.from_yaml(run.recipe).objectives[0].task


def _rows(run: str, task: str) -> tuple[str, list[dict[str, Any]]]:
    """The strip's split and rows: test once it is scored, before that the search's questions.

    The base stands first, what evolved last, as in the paper's figure.
    """
    order = {"base": 0, "source": 1, "random": 2, "evolved": 3}
    for split in ("test", "dev"):
        rows = api.strip(run, task, split, store())
        evolved = any(row["role"] == "evolved" for row in rows)
        if rows and (evolved or split == "dev"):
            return split, sorted(rows, key=lambda row: order[row["role"]])
    return "dev", []


def draw_strip(
    run: str | None, task: str | None, request: gr.Request, question: int | None = None
) -> list[Any]:
    """The strip of one task, its question picker, and the answers to the question it opens at."""
    language = language_of(request)
    split, rows = _rows(run, task) if run and task else ("dev", [])
    if not rows:
        hidden = gr.update(visible=False)
        return [gr.skip(), pieces.empty(say(language, "strip_empty")), hidden, ""]
    examples = _examples(run, task, split, rows, language)
    drawn = [
        plots.Row(
            label=row["label"],
            role=row["role"],
            score=sum(o.score for o in row["outcomes"]) / len(row["outcomes"]),
            states=[pieces.state_of(o) for o in row["outcomes"]],
            best=row["role"] == "evolved",
        )
        for row in rows
    ]
    alone = _only_merge(drawn)
    selected = min(question or (alone[0] if alone else 1), len(examples))
    note = say(language, "strip_note")
    if split == "test" and alone:
        note = f"{say(language, 'only_merge', n=len(alone))} {note}"
    html = plots.strip(
        drawn,
        [example.question for example in examples],
        title=f"{say(language, 'strip')}: {task}, {say(language, f'{split}_split')}",
        note=note,
        names={
            plots.RIGHT: say(language, "right"),
            plots.HALF: say(language, "language_wrong"),
            plots.WRONG: say(language, "wrong"),
        },
        selected=selected,
    )
    slider = gr.update(maximum=max(2, len(examples)), value=selected, visible=len(examples) > 1)
    return [gr.skip(), html, slider, _answers(rows, examples, selected, language)]


def _only_merge(rows: list[plots.Row]) -> list[int]:
    """The questions, from 1, that the merge gets right and no source (nor the base) does."""
    merged = [row for row in rows if row.best]
    others = [row for row in rows if row.role in ("base", "source")]
    if not merged or not others:
        return []
    return [
        index + 1
        for index, state in enumerate(merged[0].states)
        if state == plots.RIGHT and all(row.states[index] != plots.RIGHT for row in others)
    ]


def read(run: str | None, task: str | None, question: float, request: gr.Request) -> Any:
    """All answers to one question, side by side."""
    if not run or not task or question is None:
        return gr.skip()
    split, rows = _rows(run, task)
    if not rows:
        return gr.skip()
    language = language_of(request)
    examples = _examples(run, task, split, rows, language)
    number = min(max(1, int(question)), len(examples))
    return _answers(rows, examples, number, language)


def _answers(
    rows: list[dict[str, Any]], examples: list[Example], number: int, language: str
) -> str:
    example = examples[number - 1]
    said = [(row["label"], row["outcomes"][number - 1]) for row in rows]
    return pieces.answers(number, len(examples), example.question, example.answer, said, language)


def _examples(
    run: str, task: str, split: str, rows: list[dict[str, Any]], language: str
) -> list[Example]:
    """The questions that a strip's outcomes answer, in the outcomes' order.

    A user's file may have changed or gone since: the record then still shows what was answered,
    but no question that may be another one's.
    """
    ids = [outcome.example for outcome in rows[0]["outcomes"]]
    try:
        asked = _questions(run, task, split)[: len(ids)]
    except StudioError:
        asked = []
    if [example.id for example in asked] == ids:
        return asked
    return [Example(name, say(language, "question_gone", example=name), "?") for name in ids]


@lru_cache(maxsize=8)
def _questions(run: str, task: str, split: str) -> list[Example]:
    """The examples that a run's scores of a task, recorded under its name ('csv (2)'), are of.

    Raises:
        StudioError: they are gone, or others than when the run was begun.
    """
    tasks = Recipe.from_yaml(store().run(run).recipe).build_tasks()
    examples = next((t.examples(split) for t in tasks if t.name == task), [])
    inputs.check(store(), run, inputs.of_examples({(task, split): examples}))
    return examples


def draw_heat(run: Run, language: str) -> str:
    """The heat map; the first one waits for torch."""
    best = store().best(run.id)
    if best is None:
        return ""
    try:
        rows = _table(run.id, best.id)
    except StudioError as error:  # a model of an old run may be gone; its scores are still there
        return pieces.empty(str(error))
    return pieces.heat_map(rows, best.id, language)


@lru_cache(maxsize=16)
def _table(run: str, number: int) -> list[dict[str, Any]]:
    """What a candidate's genome means; opening the models takes a moment, so it is kept."""
    engine()
    candidate = store().candidate(run, number)
    return rebuild_space(store(), run, candidate.stage).table(candidate.genome)
