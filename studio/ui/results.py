"""The Results tab: what the run found, question by question, and what its merges are made of.

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
from studio.evolve.spaces import open_models, rebuild_space
from studio.recipe import PROPERTIES, Recipe
from studio.runs import Candidate, Run
from studio.tasks import Example
from studio.ui import pictures, pieces, plots, words
from studio.ui.markup import esc
from studio.ui.shared import (
    candidate_choices,
    engine,
    front_of,
    metric_of,
    metrics,
    store,
)
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel, Visit, Wires

#: Clicks on a candidate of the front (Enter on its button is one), told to Python as its number.
_PICK_CANDIDATE = """
element.addEventListener('click', (event) => {
    const chosen = event.target.closest('[data-c]');
    if (chosen) trigger('click', {candidate: Number(chosen.dataset.c)});
});
"""
#: Marks the candidate that is looked into, without drawing the front again.
_MARK_CANDIDATE = """(which) => {
    for (const button of document.querySelectorAll('#front button[data-c]')) {
        const best = button.closest('[data-best]').dataset.best;
        const number = which === 'best' ? best : String(which);
        button.setAttribute('aria-pressed', String(button.dataset.c === number));
    }
    return which;
}"""
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
    """What other parts of the page wire up."""

    which: gr.Dropdown
    panels: list[Panel]


def build(wires: Wires, run: gr.Dropdown) -> Results:
    """Lay the tab out; ``run`` is the page's run picker."""
    front = gr.HTML(js_on_load=_PICK_CANDIDATE, elem_id="front")
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=7, min_width=320):
            report = gr.HTML(elem_id="report")
        with gr.Column(scale=5, min_width=320):
            which = gr.Dropdown(
                [], label=text("which_recipe"), allow_custom_value=True, elem_id="which"
            )
            recipe = gr.HTML(elem_id="recipe")
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
    wires.on(front.click, picked_candidate, run, [which, recipe])
    which.change(None, which, None, js=_MARK_CANDIDATE)
    wires.on(which.input, look_inside, [run, which], recipe, trigger_mode="always_last")
    wires.on(strip.click, picked, None, question)
    question.change(None, question, None, js=_MARK)
    wires.on(question.change, read, [run, task, question], answers, trigger_mode="always_last")
    wires.on(task.input, draw_strip, [run, task], [task, strip, question, answers])
    results = Panel(
        name="results",
        parts=[report, task, strip, question, answers],
        key=lambda look: (look.run.status, look.progress.best_id, look.progress.stage),
        draw=draw,
        blank=_blank,
        given=[question],
        slow=True,
    )
    drawn = Panel(
        name="pictures",
        parts=[front, which, recipe],
        key=lambda look: (look.run.status, look.progress.done // 8, look.progress.stage),
        draw=draw_pictures,
        blank=lambda language: ["", gr.update(choices=[], value=None), ""],
        given=[which],
        slow=True,
    )
    return Results(which, [results, drawn])


def _blank(language: str) -> list[Any]:
    hidden = gr.update(visible=False)
    return [pieces.empty(say(language, "no_run")), hidden, "", hidden, ""]


def picked(visit: Visit) -> int:
    """The question that was clicked in the strip."""
    return int(visit.event["question"])


def picked_candidate(visit: Visit, run: str | None) -> tuple[str, str]:
    """The candidate that was clicked in the front, and what it is made of."""
    number = str(int(visit.event["candidate"]))
    return number, look_inside(visit, run, number)


def draw(look: Look, question: int | None = None) -> list[Any]:
    """What the tab shows of a run, in the order of :class:`Results`, but for front and recipe.

    Args:
        question: the one that stays open; by default the first that only the merge gets right.
    """
    run, language = look.run, look.visit.language
    question = None if look.fresh else question
    rows = api.report(run.id, store())
    tasks = list(dict.fromkeys(row["task"] for row in rows)) or _tasks(run)
    task, strip, slider, answers = draw_strip(look.visit, run.id, tasks[0], question)
    choices = gr.update(choices=tasks, value=tasks[0], visible=len(tasks) > 1)
    return [pieces.report(rows, language, metrics(run.recipe)), choices, strip, slider, answers]


def _tasks(run: Run) -> list[str]:
    names = Recipe.from_yaml(run.recipe).objective_names()
    return [name for name in names if name not in PROPERTIES]


def _rows(run: str, task: str) -> tuple[str, list[dict[str, Any]]]:
    """The strip's split and rows: test once it is scored, before that the search's questions.

    The base stands first, what evolved last, as in the paper's figure; of a front, the winner.
    """
    order = {"base": 0, "source": 1, "random": 2, "stage": 3, "exported": 4, "evolved": 5}
    best = _best(run)
    for split in ("test", "dev"):
        rows = api.strip(run, task, split, store())
        evolved = any(row["role"] == "evolved" for row in rows)
        if rows and (evolved or split == "dev"):
            return split, sorted(rows, key=lambda row: (order[row["role"]], row["subject"] == best))
    return "dev", []


def _best(run: str) -> str:
    """The subject of the candidate that the run reports."""
    best = store().best(run)
    return f"candidate:{best.id}" if best else ""


def draw_strip(
    visit: Visit, run: str | None, task: str | None, question: int | None = None
) -> list[Any]:
    """The strip of one task, its question picker, and the answers to the question it opens at."""
    language = visit.language
    run = visit.who.run(store(), run).id
    split, rows = _rows(run, task) if task else ("dev", [])
    if not rows:
        hidden = gr.update(visible=False)
        return [gr.skip(), pieces.empty(say(language, "strip_empty")), hidden, ""]
    examples = _examples(run, task, split, rows, language)
    best, graded = _best(run), _is_graded(rows)
    drawn = [
        plots.Row(
            label=row["label"],
            role=row["role"],
            score=sum(o.score for o in row["outcomes"]) / len(row["outcomes"]),
            states=[pieces.state_of(o, graded) for o in row["outcomes"]],
            best=row["subject"] == best,
            values=[o.score for o in row["outcomes"]] if graded else (),
        )
        for row in rows
    ]
    ahead = _ahead(drawn)
    selected = min(question or max(ahead, key=ahead.get, default=1), len(examples))
    note = say(language, "strip_note")
    if split == "test" and ahead:
        key = "merge_leads" if graded else "only_merge"
        note = f"{say(language, key, n=len(ahead))} {note}"
    metric = words.metric(language, metric_of(store().run(run).recipe, task))
    html = plots.strip(
        drawn,
        [example.question for example in examples],
        title=f"{say(language, 'strip')}: {task} ({metric}), {say(language, f'{split}_split')}",
        note=note,
        names=pieces.state_names(language, graded),
        selected=selected,
    )
    slider = gr.update(maximum=max(2, len(examples)), value=selected, visible=len(examples) > 1)
    return [gr.skip(), html, slider, _answers(run, task, rows, examples, selected, language)]


def _is_graded(rows: list[dict[str, Any]]) -> bool:
    return pieces.is_graded(outcome for row in rows for outcome in row["outcomes"])


def _ahead(rows: list[plots.Row]) -> dict[int, float]:
    """By how much the merge beats all sources and the base, at the questions where it does."""

    def worth(row: plots.Row) -> list[float]:
        return list(row.values) or [float(state == plots.RIGHT) for state in row.states]

    merged = next((worth(row) for row in rows if row.best), None)
    others = [worth(row) for row in rows if row.role in ("base", "source")]
    if merged is None or not others:
        return {}
    leads = [mine - max(theirs) for mine, *theirs in zip(merged, *others, strict=True)]
    return {number: lead for number, lead in enumerate(leads, start=1) if lead > 0}


def read(visit: Visit, run: str | None, task: str | None, question: float) -> Any:
    """All answers to one question, side by side."""
    if not run or not task or question is None:
        return gr.skip()
    run = visit.who.run(store(), run).id
    split, rows = _rows(run, task)
    if not rows:
        return gr.skip()
    language = visit.language
    examples = _examples(run, task, split, rows, language)
    number = min(max(1, int(question)), len(examples))
    return _answers(run, task, rows, examples, number, language)


def _answers(
    run: str,
    task: str,
    rows: list[dict[str, Any]],
    examples: list[Example],
    number: int,
    language: str,
) -> str:
    example = examples[number - 1]
    said = [(row["label"], row["outcomes"][number - 1]) for row in rows]
    return pieces.answers(
        number,
        len(examples),
        example.question,
        example.answer,
        said,
        language,
        metric=metric_of(store().run(run).recipe, task),
        graded=_is_graded(rows),
        picture=_picture(example, language),
    )


def _picture(example: Example, language: str) -> str:
    """What a question is about, or why it cannot be shown; nothing of a question in words."""
    if example.picture is None:
        return ""
    try:
        return pictures.image(example.picture, say(language, "question_picture"), pictures.TALK)
    except StudioError as error:
        return f"<p>{esc(error)}</p>"


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


# ── the front, and what a candidate is made of ────────────────────────────────────────────────


def draw_pictures(look: Look, which: str | None) -> list[Any]:
    """Front, menu of candidates and recipe; the first of a run wait for torch.

    Args:
        which: the candidate that is looked into; None for a run that was not open yet.
    """
    run, language = look.run, look.visit.language
    which = None if look.fresh else which
    choices = [(say(language, "best_candidate"), "best")] + [
        (label, str(number)) for label, number in candidate_choices(run, store(), language)
    ]
    menu = gr.update(choices=choices, **({} if which else {"value": "best"}))
    return [
        draw_front(run, which or "best", language),
        menu,
        draw_recipe(run, which or "best", language),
    ]


def draw_front(run: Run, which: str, language: str) -> str:
    """The scatter of a run's last search by its first two objectives; nothing of one objective."""
    recipe = Recipe.from_yaml(run.recipe)
    objectives = recipe.objective_names()
    if len(objectives) < 2:
        return ""
    found, members = front_of(recipe, store().ranked(run.id))
    if not members:
        return pieces.empty(say(language, "front_empty"))
    best = store().best(run.id)
    selected = best.id if which == "best" else int(which) if which.isdecimal() else None
    plot = plots.scatter(
        _points(run, objectives, found, members, language),
        *(_axis(name, metric_of(run.recipe, name), language) for name in objectives[:2]),
        title=say(language, "front"),
        note=_front_note(run.recipe, objectives, len(members), len(found), language),
        names={
            "front": say(language, "on_front"),
            "beaten": say(language, "beaten"),
            "source": say(language, "role_source_point"),
        },
        selected=selected,
        joined=len(objectives) == 2,
    )
    table = [(c.id, c.scores) for c in members]
    return pieces.front(plot, table, objectives, selected, best.id, language, metrics(run.recipe))


def _front_note(recipe: str, objectives: list[str], members: int, total: int, language: str) -> str:
    note = say(language, "front_note", n=members, total=total)
    if len(objectives) == 2:
        return note
    third = words.objective(language, objectives[2], metric_of(recipe, objectives[2]))
    return f"{note} {say(language, 'front_size', name=third)}"


def _axis(objective: str, metric: str, language: str) -> plots.Axis:
    minimised = objective in PROPERTIES
    label = words.objective(language, objective, metric)
    if minimised:
        label += f" ({say(language, 'less_is_better')})"
        return plots.Axis(label, words.compact, minimised)
    return plots.Axis(label, lambda value: f"{100 * value:.3g}")


def _points(
    run: Run,
    objectives: list[str],
    found: list[Candidate],
    members: list[Candidate],
    language: str,
) -> list[plots.Point]:
    """The candidates, and the sources as far as their values are known."""
    x, y, *more = objectives
    sources = _source_values(run.id, tuple(objectives))
    third = [v[more[0]] for v in (*sources.values(), *(c.scores for c in found)) if more]
    low, high = (min(third), max(third)) if third else (0.0, 0.0)

    def point(label: str, values: dict[str, float], **more_of_it: Any) -> plots.Point:
        said = [label, *(words.measure(language, name, values[name]) for name in objectives)]
        size = (values[more[0]] - low) / (high - low) if high > low else 0.3
        return plots.Point(label, " · ".join(said), values[x], values[y], size=size, **more_of_it)

    chosen = {c.id for c in members}
    # of equal candidates the front has the earliest: it is drawn over the others
    drawn = [
        point(
            f"★ #{c.id}" if c.id in chosen else f"#{c.id}",
            c.scores,
            number=c.id,
            front=c.id in chosen,
        )
        for c in sorted(found, key=lambda c: -c.id)
    ]
    return drawn + [point(name, values) for name, values in sources.items()]


def _source_values(run: str, objectives: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Each source's value of every objective, of those that have all of them by now."""
    known: dict[str, dict[str, float]] = {}
    for evaluation in store().evaluations(run, "dev"):
        kind, _, name = evaluation.subject.partition(":")
        if kind == "model":
            known.setdefault(name, {})[evaluation.task] = evaluation.score
    if set(objectives) & set(PROPERTIES):
        for name, values in _source_properties(run).items():
            known.setdefault(name, {}).update(values)
    return {k: v for k, v in known.items() if all(name in v for name in objectives)}


@lru_cache(maxsize=16)
def _source_properties(run: str) -> dict[str, dict[str, float]]:
    """How long and how large the models of a run are; nothing of those that are gone."""
    engine()
    try:
        models = open_models(Recipe.from_yaml(store().run(run).recipe), store())
    except StudioError:
        return {}
    return {
        model.name: {"length": float(model.layers), "parameters": float(model.parameters)}
        for model in models
    }


def look_inside(visit: Visit, run: str | None, which: str | None) -> str:
    """What another candidate is made of."""
    return draw_recipe(visit.who.run(store(), run), which, visit.language)


def draw_recipe(run: Run, which: str | None, language: str) -> str:
    """A candidate's heat map or path; the first one waits for torch."""
    if store().best(run.id) is None:
        return ""
    try:
        number = store().pick(run.id, str(which or "best").strip().removeprefix("#")).id
        kind, sources, rows = _table(run.id, number)
    except StudioError as error:  # a model of an old run may be gone; its scores are still there
        return pieces.empty(str(error))
    if kind == "data_flow":
        return pieces.path(rows, sources, number, language)
    return pieces.heat_map(rows, number, language)


@lru_cache(maxsize=64)
def _table(run: str, number: int) -> tuple[str, list[str], list[dict[str, Any]]]:
    """The kind of space, its sources, and what a candidate's genome means.

    Opening the models takes a moment, so it is kept.
    """
    engine()
    candidate = store().candidate(run, number)
    space = rebuild_space(store(), run, candidate.stage)
    return space.kind, [source.name for source in space.sources], space.table(candidate.genome)
