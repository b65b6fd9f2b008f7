"""The Front tab: every candidate as a point and as a row, and the one that is picked looked into.

A pick, wherever it is made, is followed by all of it: recipe, questions, answers, the buttons that
take it to the chat or home, another candidate beside it. Before the search has ended there are no
test scores; what is shown then says so. Knows how to wire; what is drawn of a candidate is in
:mod:`studio.ui.front_candidate`, the picture of all in :mod:`studio.ui.front_plot`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from studio import api
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Candidate, Run, Store
from studio.ui import front_candidate, front_plot, front_scripts, front_table, pieces
from studio.ui.front_candidate import Picked
from studio.ui.front_table import Order
from studio.ui.shared import candidate_choices, engine, front_of, metrics, store
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel, Visit, Wires

#: How often a live run's picture is drawn again: as if it had that many candidates at the most.
_FRAMES = 200


@dataclass(frozen=True)
class Front:
    """What other parts of the page wire up."""

    which: gr.Dropdown
    chat: gr.Button
    export: gr.Button
    panels: list[Panel]


def build(wires: Wires, run: gr.Dropdown) -> Front:
    """Lay the tab out; ``run`` is the page's run picker."""
    order = gr.State(None)
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=7, min_width=320):
            plot = gr.HTML(js_on_load=front_scripts.POINTS, elem_id="front")
            report = gr.HTML(elem_id="report")
        with gr.Column(scale=5, min_width=320):
            table = gr.HTML(js_on_load=front_scripts.ROWS, elem_id="candidates-table")
            with gr.Row(elem_classes="es-buttons"):
                csv = gr.Button(text("candidates_csv"), size="sm", elem_id="candidates-csv")
            file = gr.DownloadButton(visible="hidden", elem_id="candidates-file")
    with gr.Row(elem_classes="es-columns es-pick"):
        with gr.Column(scale=7, min_width=320):
            head = gr.HTML(elem_id="picked")
        with gr.Column(scale=5, min_width=320):
            with gr.Row():
                which = gr.Dropdown(
                    [], label=text("look_inside"), allow_custom_value=True, elem_id="which"
                )
                other = gr.Dropdown(
                    [], label=text("beside"), allow_custom_value=True, elem_id="beside"
                )
            with gr.Row(elem_classes="es-buttons"):
                chat = gr.Button(text("chat_with"), size="sm", elem_id="chat-with")
                export = gr.Button(text("export_this"), size="sm", elem_id="export-this")
    task = gr.Radio([], label=text("task"), show_label=False, visible=False, elem_id="strip-task")
    strip = gr.HTML(js_on_load=front_scripts.COLUMNS, elem_id="strip")
    only = gr.HTML(js_on_load=front_scripts.COLUMNS, elem_id="only")
    with gr.Row(elem_classes="es-columns es-inside"):
        with gr.Column(scale=5, min_width=320):
            recipe = gr.HTML(elem_id="recipe")
        with gr.Column(scale=7, min_width=320):
            question = gr.Slider(
                1, 2, value=1, step=1, label=text("question"), visible=False, buttons=[],
                elem_id="question",
            )  # fmt: skip
            answers = gr.HTML(elem_id="answers")

    quick = [head, task, strip, only, question, answers]
    picked = [which, other, task, question]
    wires.on(
        [plot.click, table.click], pick, [run, *picked], [which, *quick, recipe],
        trigger_mode="always_last",
    )  # fmt: skip
    wires.on(
        [which.input, other.input], look_inside, [run, *picked], [*quick, recipe],
        trigger_mode="always_last",
    )  # fmt: skip
    which.change(None, which, None, js=front_scripts.MARK_CANDIDATE)
    wires.on(table.select, sort, [run, order, which], [order, table])
    wires.on(task.input, ask_another, [run, *picked], quick)
    wires.on([strip.click, only.click], pick_question, None, question)
    question.change(None, question, None, js=front_scripts.MARK_QUESTION)
    wires.on(question.change, read, [run, *picked], answers, trigger_mode="always_last")
    saved = wires.on(csv.click, save, run, file, concurrency_limit=4)
    saved.success(None, None, None, js=front_scripts.SAVE)
    panels = [
        Panel("front", [plot], _frame, draw_plot, lambda lang: [_blank(lang)], [which]),
        Panel(
            "front_sources", [plot], lambda look: look.run.id, draw_sources,
            lambda lang: [_blank(lang)], [which], slow=True,
        ),
        Panel(
            "front_table", [table, order, which, other], _frame, draw_table,
            lambda lang: ["", None, *[gr.update(choices=[], value=None)] * 2], [order, which],
        ),
        Panel("report", [report], _stage, draw_report, lambda lang: [""]),
        Panel(
            "picked", [*quick, recipe], _stage, draw_picked, lambda lang: [*_nothing(), ""], picked
        ),
        Panel("recipe", [recipe], _stage, draw_recipe, lambda lang: [""], picked, slow=True),
    ]  # fmt: skip
    return Front(which, chat, export, panels)


def hand_over(
    wires: Wires,
    found: Front,
    run: gr.Dropdown,
    talk: gr.Dropdown,
    home: gr.Dropdown,
    tabs: gr.Tabs,
) -> None:
    """Have the buttons take the candidate that is looked into to the chat, or home.

    Args:
        talk: the menu of the chat's first model; home: that of the candidate to export.
    """

    def chosen(visit: Visit, run: str | None, which: str | None) -> tuple[str, str]:
        record = visit.who.run(store(), run)
        return record.id, str(store().pick(record.id, front_candidate.name(which) or "best").id)

    def to_chat(visit: Visit, *given: str | None) -> list[Any]:
        return [":".join(chosen(visit, *given)), gr.update(selected="chat")]

    def to_export(visit: Visit, *given: str | None) -> list[Any]:
        return [chosen(visit, *given)[1], gr.update(selected="take-home")]

    wires.on(found.chat.click, to_chat, [run, found.which], [talk, tabs])
    wires.on(found.export.click, to_export, [run, found.which], [home, tabs])


def _frame(look: Look) -> tuple:
    every = max(1, look.progress.total // _FRAMES)
    return look.run.status, look.progress.done // every, look.progress.stage


def _stage(look: Look) -> tuple:
    return look.run.status, look.progress.best_id, look.progress.stage


def _blank(language: str) -> str:
    return pieces.empty(say(language, "no_run"))


def _nothing() -> list[Any]:
    hidden = gr.update(visible=False)
    return ["", hidden, "", "", hidden, ""]


def _picked(run: Run, given: tuple[Any, ...]) -> Picked:
    """What the page's menus say of the candidate that is looked into."""
    which, other, task, question = given
    return front_candidate.picked(run, which, other, task, question, store())


# ── handlers ──────────────────────────────────────────────────────────────────────────────────


def pick(visit: Visit, run: str | None, *given: Any) -> Iterator[list[Any]]:
    """A point or a row was picked: the menu, and all that follows it; what may wait comes last."""
    number = str(int(visit.event["candidate"]))
    for drawn in look_inside(visit, run, number, *given[1:]):
        yield [number, *drawn]


def look_inside(visit: Visit, run: str | None, *given: Any) -> Iterator[list[Any]]:
    """The candidate that the menus name: what is read at once, then what it is made of."""
    found = visit.who.run(store(), run)
    picked = _picked(found, given)
    quick = _quick(visit, picked)
    yield [*quick, gr.skip()]
    yield [*(gr.skip() for _ in quick), front_candidate.recipe(picked, store(), visit.language)]


def ask_another(visit: Visit, run: str | None, *given: Any) -> list[Any]:
    """The same candidate, by another task."""
    return _quick(visit, _picked(visit.who.run(store(), run), (*given[:-1], None)))


def _quick(visit: Visit, picked: Picked) -> list[Any]:
    """Head, task, strip, what one of two solves, question and answers of a pick."""
    language, base = visit.language, store()
    tasks = front_candidate.tasks(picked)
    seen = front_candidate.asked(picked, base, language)
    choices = gr.update(choices=tasks, value=picked.task, visible=len(tasks) > 1)
    head = front_candidate.head(picked, seen, base, language)
    if seen is None:
        return [head, choices, front_candidate.unasked(picked, language), "", *_nothing()[-2:]]
    count = len(seen.examples)
    slider = gr.update(maximum=max(2, count), value=seen.question, visible=count > 1)
    return [
        head,
        choices,
        front_candidate.strip(picked, seen, language),
        front_candidate.only(picked, seen, language),
        slider,
        front_candidate.answers(picked, seen, language),
    ]


def pick_question(visit: Visit) -> int:
    """The question that was clicked."""
    return int(visit.event["question"])


def read(visit: Visit, run: str | None, *given: Any) -> Any:
    """All answers to one question, side by side."""
    if not run or given[-1] is None:
        return gr.skip()
    picked = _picked(visit.who.run(store(), run), given)
    seen = front_candidate.asked(picked, store(), visit.language)
    return front_candidate.answers(picked, seen, visit.language) if seen else gr.skip()


def sort(visit: Visit, run: str | None, order: Any, which: str | None) -> list[Any]:
    """The table by the column whose heading was clicked, or the other way round."""
    found = visit.who.run(store(), run)
    columns = _columns(found, visit.language)
    order = front_table.turned(order, str(visit.event["column"]), columns)
    return [order, _table(found, order, which, visit.language)]


def save(visit: Visit, run: str | None) -> str:
    """All candidates as a file to download; it is nowhere but in Gradio's own cache."""
    found = visit.who.run(store(), run)
    engine()  # the names of genes are those of models' layers
    written = "".join(api.candidates_csv(found.id, store())).encode("utf-8-sig")
    return save_bytes_to_cache(written, f"{found.id}-candidates.csv", get_upload_folder())


# ── panels ────────────────────────────────────────────────────────────────────────────────────


def draw_plot(look: Look, which: str | None) -> list[Any]:
    """Every candidate as a point, without what would have to wait for torch."""
    selected = _selected(look.run, None if look.fresh else which)
    scored = _scored(store(), look.run.id, look.run.version)
    return [front_plot.draw(look.run, scored, selected, store(), look.visit.language)]


def draw_sources(look: Look, which: str | None) -> list[Any]:
    """The same, once the sources' own lengths and sizes are known, where those are objectives."""
    if not front_plot.know_models(look.run, store()):
        return [gr.skip()]
    return draw_plot(look, which)


def _selected(run: Run, which: str | None) -> int | None:
    """The number that a menu names, None if it names the best or nothing that there is."""
    name = front_candidate.name(which)
    try:
        return None if name in ("", "best") else store().pick(run.id, name).id
    except StudioError:
        return None


def draw_table(look: Look, order: Order | None, which: str | None) -> list[Any]:
    """Every candidate as a row, and as an entry of the menus."""
    run, language = look.run, look.visit.language
    order, which = (None, None) if look.fresh else (order, which)
    # any other number can be typed there
    listed = candidate_choices(run, store(), language)[: front_table.SHOWN]
    listed = [(label, str(number)) for label, number in listed]
    chosen = {"value": "best"} if look.fresh or not which else {}
    none = {"value": ""} if look.fresh else {}
    return [
        _table(run, order, which, language),
        order,
        gr.update(choices=[(say(language, "best_candidate"), "best"), *listed], **chosen),
        gr.update(choices=[(say(language, "no_other"), ""), *listed], **none),
    ]


@lru_cache(maxsize=4)
def _scored(base: Store, run: str, version: int) -> list[Candidate]:
    """A run's scored candidates, best first; read once per version, there may be thousands."""
    return base.ranked(run)


def _columns(run: Run, language: str) -> list[front_table.Column]:
    recipe = Recipe.from_yaml(run.recipe)
    scored = _scored(store(), run.id, run.version)
    members = [c.id for c in front_of(recipe, scored)[1]]
    there = {candidate.stage for candidate in scored}
    stages = [stage.name for stage in recipe.stages() if stage.name in there]
    return front_table.columns(
        recipe.objective_names(), stages, members, language, metrics(run.recipe)
    )


def _table(run: Run, order: Order | None, which: str | None, language: str) -> str:
    scored = _scored(store(), run.id, run.version)
    if not scored:
        return ""
    best = store().best(run.id)
    selected = _selected(run, which)
    return front_table.table(
        scored,
        _columns(run, language),
        order,
        selected=best.id if selected is None else selected,
        best=best.id,
        language=language,
    )


def draw_report(look: Look) -> list[Any]:
    """Test scores, once there are any."""
    run, language = look.run, look.visit.language
    return [pieces.report(api.report(run.id, store()), language, metrics(run.recipe))]


def draw_picked(look: Look, *given: Any) -> list[Any]:
    """What the candidate that is looked into answered; of another run, that its recipe comes."""
    waits = pieces.empty(look.visit.say("opening")) if look.fresh else gr.skip()
    return [*_quick(look.visit, _picked(look.run, _kept(look, given))), waits]


def draw_recipe(look: Look, *given: Any) -> list[Any]:
    """What it is made of; the first one waits for torch."""
    picked = _picked(look.run, _kept(look, given))
    return [front_candidate.recipe(picked, store(), look.visit.language)]


def _kept(look: Look, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the menus say, but not of another run."""
    return (None,) * len(given) if look.fresh else given
