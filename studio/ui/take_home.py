"""The Take home tab: write a candidate of the run as an ordinary checkpoint folder.

Folders are made inside the workspace's ``exports``; names from the page never leave it.
"""

import re
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import api
from studio.errors import StudioError
from studio.runs import Run
from studio.ui import pieces
from studio.ui.shared import engine, language_of, percent, store, toast
from studio.ui.strings import say, text

_NAME = re.compile(r"[\w][\w.-]{0,99}")
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
CARD_CHARACTERS = 50_000


@dataclass(frozen=True)
class TakeHome:
    """The tab's components that other parts of the page wire up."""

    candidate: gr.Dropdown
    path: gr.Textbox
    files: gr.HTML
    card: gr.Markdown


def build(run: gr.Dropdown) -> TakeHome:
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
            card = gr.Markdown(elem_id="card", container=True, visible=False)
    tab = TakeHome(candidate, path, files, card)
    export.click(
        toast(write),
        [run, candidate, folder],
        [path, files, card],
        show_progress_on=[files],
        concurrency_limit=2,
        api_visibility="private",
    )
    gr.on(
        [candidate.change, folder.change, run.change],
        _command,
        [run, candidate, folder],
        command,
        show_progress="hidden",
        api_visibility="private",
    )
    return tab


def _command(run: str | None, candidate: Any, folder: str | None) -> str:
    """The equivalent command line, for names that a shell takes as they are."""
    if not run:
        return ""
    chosen = "" if candidate in (None, "", "best") else f" --candidate {candidate}"
    name = (folder or "").strip() or _folder_name(run, str(candidate or "best"))
    safe = _NAME.fullmatch(name) and _NAME.fullmatch(str(candidate or "best"))
    return f"python -m studio export {run}{chosen} --out {name}" if safe else ""


def _folder_name(run: str, candidate: str) -> str:
    return f"{run}-{candidate}"


def write(
    run: str | None, candidate: Any, folder: str | None, request: gr.Request
) -> tuple[Any, Any, Any]:
    """Export a candidate, then show where it is, its files and its card."""
    if not run:
        raise StudioError("No run is chosen; pick one at the top of the page, or start one.")
    record = store().run(run)
    number = _number(candidate)
    if number is None:
        best = store().best(record.id)
        if best is None:
            raise StudioError(f"Run {record.id} has no scored candidate yet; wait for the first.")
        number = best.id
    name = (folder or "").strip() or _folder_name(record.id, str(number))
    if not _NAME.fullmatch(name):
        raise StudioError(
            f"The folder name {name[:100]!r} cannot be used; write letters, digits, dots, dashes "
            "and underscores, beginning with a letter or digit."
        )
    engine()
    out = api.export(record.id, api.exports() / name, number, store())
    return (
        gr.update(value=str(out), visible=True),
        pieces.files(out, language_of(request)),
        gr.update(value=_card(out), visible=True),
    )


def _number(candidate: Any) -> int | None:
    """The candidate's number; None for the best."""
    given = str(candidate or "best").strip().removeprefix("#")
    if given == "best":
        return None
    if not given.isdecimal() or len(given) > 9:
        raise StudioError(f"{given[:40]!r} is no candidate; choose 'best' or a candidate's number.")
    return int(given)


def _card(folder: Any) -> str:
    """The model card, its front matter as a block that Markdown shows as it is."""
    text_ = (folder / "README.md").read_text(encoding="utf-8")[:CARD_CHARACTERS]
    return _FRONT_MATTER.sub(lambda found: f"```yaml\n{found[1]}\n```\n", text_)


def draw(run: Run, language: str, *, first: bool) -> list[Any]:
    """The candidates there are, and, for another run, an empty right side."""
    scored = sorted(
        (c for c in store().candidates(run.id) if c.score is not None),
        key=lambda c: (-c.score, c.id),
    )
    choices = [(say(language, "best_candidate"), "best")] + [
        (f"#{c.id} · {percent(c.score)} %", str(c.id)) for c in scored
    ]
    if not first:
        return [gr.update(choices=choices), gr.skip(), gr.skip(), gr.skip()]
    return [
        gr.update(choices=choices, value="best"),
        gr.update(visible=False),
        pieces.empty(say(language, "nothing_exported")),
        gr.update(visible=False),
    ]
