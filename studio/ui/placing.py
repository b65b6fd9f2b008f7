"""Where a run is worked on: the worker's own process, one per device, or a Ray cluster.

A run's place is no part of its recipe, so it is not in the form. Knows how a place is chosen and
shown; refuses to know what one is (`studio.evolve.placing`). On a Space, and wherever visitors are
strangers to each other, nobody chooses: what is there is all there is.
"""

import shlex
from typing import Any

import gradio as gr

from studio import zero_gpu
from studio.evolve.placing import EXECUTORS, Place
from studio.ui.strings import text
from studio.ui.wiring import Visit, Wires
from studio.visitors import is_public


def build(wires: Wires) -> list[gr.components.Component]:
    """Lay the choice out; returns what :func:`chosen` takes."""
    with gr.Accordion(text("placing"), open=False, visible=not hidden(), elem_id="placing"):
        names = [(text(f"placing_{key}"), key) for key in EXECUTORS]
        executor = gr.Radio(
            names, value="here", label=text("executor"), info=text("executor_info"),
            elem_id="place-executor",
        )  # fmt: skip
        with gr.Row():
            workers = gr.Number(
                None, label=text("workers"), info=text("workers_info"), precision=0,
                min_width=120, visible=False, elem_id="place-workers",
            )  # fmt: skip
            address = gr.Textbox(
                label=text("address"), info=text("address_info"), max_lines=1,
                placeholder="127.0.0.1:6379", min_width=200, visible=False, elem_id="place-address",
            )  # fmt: skip
        flags = gr.Code(
            language="shell", label=text("placing_flags"), interactive=False, lines=1,
            show_line_numbers=False, visible=False, elem_id="place-flags",
        )  # fmt: skip
    fields = [executor, workers, address]
    wires.on([field.input for field in fields], shown, fields, [workers, address, flags])
    return fields


def hidden() -> bool:
    """Whether nobody chooses here."""
    return is_public() or zero_gpu.available()


def shown(visit: Visit, executor: str, workers: float | None, address: str | None) -> list[Any]:
    """What applies to the executor, and what a terminal is told of it."""
    line = ""
    if executor != "here":
        line = f"--executor {executor}"
        line += f" --workers {int(workers)}" if workers else ""
        line += f" --address {shlex.quote(address)}" if address and executor == "ray" else ""
    return [
        gr.update(visible=executor != "here"),
        gr.update(visible=executor == "ray"),
        gr.update(value=line, visible=bool(line)),
    ]


def chosen(executor: str, workers: float | None, address: str | None) -> Place | None:
    """The place that is meant; None for the worker's own process.

    Raises:
        StudioError: there can be no such place.
    """
    if hidden() or executor == "here":
        return None
    count = None if not workers else int(workers)
    return Place(executor, count, (address or "").strip() if executor == "ray" else "")
