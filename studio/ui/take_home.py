"""The Take home tab: write a candidate of the run as an ordinary checkpoint folder.

Folders are made inside the workspace's ``exports``; names from the page never leave it.
"""

import re
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import api
from studio.errors import StudioError
from studio.runs import Candidate
from studio.ui import pieces
from studio.ui.markup import esc
from studio.ui.shared import candidate_choices, engine, store
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel, Visit, Wires

_NAME = re.compile(r"[\w][\w.-]{0,99}")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
CARD_CHARACTERS = 50_000


@dataclass(frozen=True)
class TakeHome:
    """What other parts of the page wire up."""

    candidate: gr.Dropdown
    panels: list[Panel]


def build(wires: Wires, run: gr.Dropdown) -> TakeHome:
    """Lay the tab out; ``run`` is the page's run picker."""
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="es-panel"):
            gr.Markdown(text("export_intro"))
            candidate = gr.Dropdown(
                [], label=text("which"), allow_custom_value=True, elem_id="export-candidate"
            )
            folder = gr.Textbox(
                label=text("folder"), info=text("folder_info"), max_lines=1, elem_id="folder"
            )
            export = gr.Button(text("export"), variant="primary", elem_id="export")
            command = gr.Code(
                "",
                language="shell",
                label=text("command"),
                interactive=False,
                lines=1,
                show_line_numbers=False,
            )
        with gr.Column(scale=7, min_width=320):
            path = gr.Textbox(
                label=text("written"),
                interactive=False,
                visible=False,
                buttons=["copy"],
                elem_id="export-path",
            )
            files = gr.HTML(elem_id="export-files")
            opened = gr.State(False)
            with gr.Accordion(text("card"), open=False, elem_id="card") as accordion:
                card = gr.Markdown()
    wires.on(
        export.click,
        write,
        [run, candidate, folder],
        [path, files],
        shown="full",
        show_progress_on=[files],
        concurrency_limit=2,
    )
    wires.on(
        [candidate.change, folder.change, run.change],
        _command,
        [run, candidate, folder],
        command,
    )
    wires.on(accordion.expand, lambda visit: True, None, opened)
    wires.on(accordion.collapse, lambda visit: False, None, opened)
    wires.on(
        [opened.change, candidate.change, run.change],
        preview,
        [run, candidate, opened],
        card,
        trigger_mode="always_last",
    )
    panel = Panel(
        name="take_home",
        parts=[candidate, path, files],
        key=lambda look: (look.run.status, look.progress.done // 8),
        draw=draw,
        blank=lambda language: [gr.skip()] * 3,
    )
    return TakeHome(candidate, [panel])


def _command(visit: Visit, run: str | None, candidate: Any, folder: str | None) -> str:
    """The equivalent command line, for names that a shell takes as they are."""
    if not run:
        return ""
    chosen = "" if candidate in (None, "", "best") else f" --candidate {candidate}"
    name = (folder or "").strip() or _folder_name(run, str(candidate or "best"))
    safe = _NAME.fullmatch(name) and _NAME.fullmatch(str(candidate or "best"))
    return f"python -m studio export {run}{chosen} --out {name}" if safe else ""


def _folder_name(run: str, candidate: str) -> str:
    return f"{run}-{candidate}"


def write(visit: Visit, run: str | None, candidate: Any, folder: str | None) -> tuple[Any, Any]:
    """Export a candidate, then show where it is and its files."""
    run = visit.who.run(store(), run).id
    number = _chosen(run, candidate).id
    name = (folder or "").strip() or _folder_name(run, str(number))
    if not _NAME.fullmatch(name):
        raise StudioError(
            f"The folder name {name[:100]!r} cannot be used; write letters, digits, dots, dashes "
            "and underscores, beginning with a letter or digit."
        )
    engine()
    out = api.export(run, visit.who.folder("exports") / name, number, store())
    return gr.update(value=str(out), visible=True), pieces.files(out, visit.language)


def preview(visit: Visit, run: str | None, candidate: Any, opened: bool) -> Any:
    """The model card that an export would write, once somebody looks."""
    if not run or not opened:
        return gr.skip()
    run = visit.who.run(store(), run).id
    engine()
    try:
        card = api.card(run, _chosen(run, candidate).id, store())
    except StudioError as error:  # a word about it is enough: nobody pressed a button
        return esc(error)
    return _FRONT_MATTER.sub("", card)[:CARD_CHARACTERS]


def _chosen(run: str, candidate: Any) -> Candidate:
    """The candidate that the menu names, or that somebody typed there."""
    given = str(candidate or "best").strip().removeprefix("#")
    return store().pick(run, given)


def draw(look: Look) -> list[Any]:
    """The candidates there are, and, for another run, an empty right side."""
    run, language = look.run, look.visit.language
    choices = [(say(language, "best_candidate"), "best")] + [
        (label, str(number)) for label, number in candidate_choices(run, store(), language)
    ]
    if not look.fresh:
        return [gr.update(choices=choices), gr.skip(), gr.skip()]
    return [
        gr.update(choices=choices, value="best"),
        gr.update(visible=False),
        pieces.empty(say(language, "nothing_exported")),
    ]
