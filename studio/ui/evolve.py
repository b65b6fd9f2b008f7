"""The Evolve tab: a recipe on the left, the run that is being watched on the right.

The evolution itself runs in a worker process: this tab starts it, and otherwise only reads the
store. Knows how the tab is laid out and how a run begins; refuses to know the rest, which is in
`editor` (the recipe), `controls` (what can be done with a run), `queue` and `monitor`.
"""

import os
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import api, zero_gpu
from studio.ui import controls, editor, estimating, lent, models, monitor, placing, queue
from studio.ui.shared import engine, run_choices, store
from studio.ui.strings import text
from studio.ui.wiring import Panel, Visit, Wires, note
from studio.visitors import is_public

#: On a phone the run is far below its button.
_LOOK = "() => document.querySelector('#status')?.scrollIntoView({block: 'nearest'})"


@dataclass(frozen=True)
class Evolve:
    """What other parts of the page wire up."""

    panels: list[Panel]
    editor: editor.Editor


def build(wires: Wires, run: gr.Dropdown) -> Evolve:
    """Lay the tab out; ``run`` is the page's run picker."""
    if forgets():
        gr.Markdown(text("no_storage"), elem_classes="es-note", elem_id="no-storage")
    driven = lent.build(wires)
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="es-panel"):
            written = editor.build(wires)
            with gr.Row(elem_classes="es-start"):
                start = gr.Button(text("start"), variant="primary", scale=2, elem_id="start")
                estimate = gr.Button(
                    text("estimate"),
                    min_width=96,
                    visible=not zero_gpu.available(),  # what is lent cannot be tried beforehand
                    elem_id="estimate",
                )
            known = estimating.build(wires, written, estimate)
            place = placing.build(wires)
            written.command.render()
            models.beside(wires, written.given, editor.recipe_of)
        with gr.Column(scale=7, min_width=320):
            panels = controls.build(wires, run, written, driven)
            panels.append(queue.build())
            panels += monitor.build()
    begun = wires.on(
        start.click,
        begin,
        [known, *place, *written.given],
        [run, driven],
        shown="minimal",
        show_progress_on=[start],
    )
    begun.success(None, None, None, js=_LOOK)
    return Evolve(panels, written)


def forgets() -> bool:
    """Whether what is done here is lost when the server restarts."""
    return is_public() and "SPACE_ID" in os.environ and not os.environ.get("STUDIO_VOLUME")


def begin(
    visit: Visit,
    known: Any,
    executor: str,
    workers: float | None,
    address: str | None,
    view: str,
    code: str,
    *values: Any,
) -> list[Any]:
    """Start the recipe that is meant, or queue it behind what is at work; the page watches it."""
    place = placing.chosen(executor, workers, address)
    recipe = visit.who.recipe(store(), editor.recipe_of(view, code, *values))
    engine()
    expected = estimating.expected(known, recipe)
    if zero_gpu.available():
        run = api.create(recipe, store(), visit.who.owner)
    else:
        run = api.start(recipe, store(), visit.who.owner, expected, place)
    controls.remember_starter(visit, run, store())
    position = api.progress(run, store()).position or 0
    if position > 1 or (position and queue.at_work()):
        note(visit, "queued_at", n=position)
    picker = gr.update(choices=run_choices(visit.who.runs(store())), value=run)
    return [picker, lent.ticket(run)]
