"""What can be done with the watched run: pause, finish, resume, repeat, share, keep, delete.

A button is there while it can do something. What somebody else began asks first, and so does what
cannot be undone. Knows runs and whose they are; every handler asks the visitor for the run again.
"""

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from studio import api, zero_gpu
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Run, Store
from studio.runs.lock import is_held
from studio.runs.records import STOPPED
from studio.ui import editor as editors
from studio.ui import lent, pieces
from studio.ui.markup import esc
from studio.ui.monitor import status
from studio.ui.shared import run_choices, store
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel, Visit, Wires, note
from studio.visitors import is_public, owner_of

#: States of a run that somebody works on, or soon will; and of one that can go on.
AT_WORK, CAN_GO_ON = ("running", "queued"), ("interrupted", "stopped", "failed")
#: What may be done, by the state of the run.
ACTIONS = {
    "pause": AT_WORK,
    "finish": (*AT_WORK, *CAN_GO_ON),
    "resume": CAN_GO_ON,
    "delete": ("finished", *CAN_GO_ON),
}
#: Actions that others notice, so that a run begun in another browser asks before them.
_ASKING = ("pause", "finish", "delete")
#: Largest file of a run that a public's visitor may bring, in bytes.
MAX_ARCHIVE = 100_000_000

_ADDRESS = "(path) => path ? `${location.origin}${location.pathname}${path}` : ''"
_FETCH = "() => document.querySelector('#run-file a, a#run-file, #run-file')?.click()"


def build(wires: Wires, run: gr.Dropdown, editor: editors.Editor, driven: gr.State) -> list[Panel]:
    """Lay the watched run's head out: where it stands, and its buttons.

    Args:
        driven: see `studio.ui.lent`.
    """
    standing = gr.HTML(elem_id="status")
    with gr.Row(elem_classes="es-buttons"):
        buttons = {key: _button(key, visible=False) for key in ACTIONS if key != "delete"}
        duplicate = _button("duplicate")
    said = gr.HTML(elem_id="run-note")
    pending = gr.State(None)
    with gr.Column(visible=False, elem_id="confirm") as confirm:
        question = gr.HTML()
        with gr.Row(elem_classes="es-buttons"):
            yes = gr.Button(text("yes"), size="sm", variant="stop", elem_id="confirm-yes")
            no = gr.Button(text("no"), size="sm", elem_id="confirm-no")
    with gr.Accordion(text("more_of_run"), open=False, elem_id="more-of-run"):
        with gr.Row(elem_classes="es-buttons"):
            keep = _button("keep_run")
            bring = gr.UploadButton(
                text("bring_run"), file_types=[".sqlite"], size="sm", elem_id="bring-run"
            )
            share = _button("share")
            buttons["delete"] = _button("delete", visible=False, variant="stop")
        file = gr.DownloadButton("run", visible="hidden", elem_id="run-file")
        link = gr.Textbox(
            label=text("share_link"), info=text("share_info"), visible=False, interactive=False,
            buttons=["copy"], elem_id="share-link",
        )  # fmt: skip
        with gr.Row(elem_classes="es-repeat", visible=not is_public()):
            seeds = gr.Number(
                3, label=text("seeds"), precision=0, min_width=100,
                elem_id="seeds",
            )  # fmt: skip
            repeat = _button("repeat")
    asked = [pending, confirm, question, run, driven]
    for key, button in buttons.items():
        wires.on(button.click, _asking(key), run, asked)
    wires.on(yes.click, confirmed, [pending, run], asked)
    wires.on(no.click, lambda visit: _closed(), None, asked)
    wires.on(duplicate.click, duplicated, run, editor.all)
    wires.on(repeat.click, repeated, [run, seeds], run)
    shared = wires.on(share.click, shared_link, run, link)
    shared.success(None, link, link, js=_ADDRESS)
    kept = wires.on(keep.click, archived, run, file, shown="minimal")
    kept.success(None, None, None, js=_FETCH)
    wires.on(bring.upload, brought, bring, run, shown="minimal")
    return [
        Panel(
            "controls",
            [standing, *(buttons[key] for key in ACTIONS), duplicate, said, keep, share],
            _stands,
            draw,
            _blank,
        ),
        Panel("link", [link], lambda look: look.run.id, lambda look: [_hidden()], _blank_link),
    ]


def _button(key: str, **options: Any) -> gr.Button:
    options = {"size": "sm", "min_width": 96} | options
    return gr.Button(text(key), elem_id=key.replace("_", "-"), **options)


def _blank(language: str) -> list[Any]:
    hidden = [_hidden() for _ in (*ACTIONS, "duplicate")]
    return [pieces.empty(say(language, "no_run")), *hidden, "", _hidden(), _hidden()]


def _blank_link(language: str) -> list[Any]:
    return [_hidden()]


def _hidden() -> Any:
    return gr.update(visible=False)


def _stands(look: Look) -> Any:
    progress = look.progress
    return look.run.version, progress.state, progress.position, progress.wait


def draw(look: Look) -> list[Any]:
    """Where the run stands, and what this visitor can do about it."""
    may, state = look.visit.who.changes(look.run), look.progress.state
    searching = look.progress.best is not None and look.progress.done < look.progress.total
    able = {
        "finish": searching and not _finishing(look.run),
        "delete": look.run.id not in _bundled(),  # it would be back with the next start
    }
    shown = [
        gr.update(visible=may and state in states and able.get(key, True))
        for key, states in ACTIONS.items()
    ]
    said = "" if may else f'<p class="es-note">{esc(look.visit.say("only_read"))}</p>'
    there = gr.update(visible=True)
    return [status(look), *shown, there, said, there, gr.update(visible=may)]


@cache
def _bundled() -> frozenset[str]:
    return frozenset(api.bundled_runs())


def _finishing(run: Run) -> bool:
    return any(event.kind == "enough" for event in store().events(run.id))


# ── asking first ──────────────────────────────────────────────────────────────────────────────


def remember_starter(visit: Visit, run: str, base: Store) -> None:
    """Write down which browser began a run, or went on with it: hashed, as owners are."""
    base.append(run, "started", {"by": owner_of("token", visit.token)})


def is_elsewhere(visit: Visit, run: Run, base: Store) -> bool:
    """Whether a run was begun in another browser, or in a terminal."""
    by = [event.payload.get("by") for event in base.events(run.id) if event.kind == "started"]
    return not visit.token or not by or by[-1] != owner_of("token", visit.token)


def _asking(action: str):
    """The handler of a button: does it, or asks whether to."""

    def asking(visit: Visit, run: str | None) -> list[Any]:
        record = visit.who.mine(store(), run)
        elsewhere = action in _ASKING and is_elsewhere(visit, record, store())
        if action != "delete" and not elsewhere:
            return [*_closed()[:3], *act(visit, action, record)]
        key = "ask_delete" if action == "delete" else f"ask_{action}_elsewhere"
        sentence = visit.say(key, run=f"{record.name} · {record.id}")
        question = f'<p role="alert">{esc(sentence)}</p>'
        return [(action, record.id), gr.update(visible=True), question, gr.skip(), gr.skip()]

    return asking


def confirmed(visit: Visit, pending: tuple[str, str] | None, watched: str | None) -> list[Any]:
    """Yes: what was asked for is done, if the page still watches that run."""
    if pending is None or pending[1] != watched:
        return _closed()
    action, run = pending
    return [*_closed()[:3], *act(visit, action, visit.who.mine(store(), run))]


def _closed() -> list[Any]:
    return [None, gr.update(visible=False), "", gr.skip(), gr.skip()]


def act(visit: Visit, action: str, run: Run) -> list[Any]:
    """Do it; returns what becomes of the run picker, and a ticket to drive the run."""
    if action == "delete":
        api.delete(run.id, store())
        left = visit.who.runs(store())
        value = left[0].id if left else None
        return [gr.update(choices=run_choices(left), value=value), gr.skip()]
    if action == "pause":
        api.pause(run.id, store())
        note(visit, "pause_asked")
        return [gr.skip(), gr.skip()]
    _check_budget(visit, run)
    remember_starter(visit, run.id, store())
    if action == "finish":
        note(visit, "finish_asked")
    if zero_gpu.available():
        return [gr.skip(), _here(action, run)]
    {"resume": api.restart, "finish": api.finish}[action](run.id, store())
    return [gr.skip(), gr.skip()]


def _here(action: str, run: Run) -> Any:
    """On ZeroGPU, where this page works on the run and no worker may take it."""
    if action == "finish" and not _finishing(run):
        store().append(run.id, "enough", {})
    return gr.skip() if is_held(store(), run.id) else lent.ticket(run)


def _check_budget(visit: Visit, run: Run) -> None:
    """Before a run goes on that nobody works on: it may have come from a stranger's file."""
    state = api.progress(run.id, store()).state
    if not visit.who.public or state not in CAN_GO_ON:
        return
    if state == "interrupted":  # its worker is gone, which the record does not know
        store().set_status(run.id, STOPPED)
    visit.who.recipe(store(), Recipe.from_yaml(run.recipe))


# ── again, elsewhere, for others ──────────────────────────────────────────────────────────────


def duplicated(visit: Visit, run: str | None) -> list[Any]:
    """The run's recipe in form and YAML, to be changed and started."""
    recipe = api.duplicate(visit.who.run(store(), run).id, store())
    note(visit, "duplicated")
    return editors.filled(recipe)


def repeated(visit: Visit, run: str | None, seeds: float | None) -> Any:
    """The run's recipe queued again with other seeds, after the run's own."""
    if visit.who.public or zero_gpu.available():  # where no worker takes what is queued
        raise StudioError(
            "A public Studio queues one run at a time; repeat it on your own machine."
        )
    record = visit.who.run(store(), run)
    recipe, place = api.duplicate(record.id, store()), api.Place.recorded(store(), record.id)
    document = recipe.model_dump(mode="json")
    document["seed"] = (recipe.seed + 1) % 2**32
    runs = api.repeat(Recipe.from_dict(document), int(seeds or 0), store(), visit.who.owner, place)
    for one in runs:
        remember_starter(visit, one, store())
    note(visit, "repeated", n=len(runs))
    return gr.update(choices=run_choices(visit.who.runs(store())))


def shared_link(visit: Visit, run: str | None) -> Any:
    """A link through which the run can be looked at and nothing more."""
    token = api.share(visit.who.mine(store(), run).id, store())
    return gr.update(value=f"?share={token}", visible=True)


def archived(visit: Visit, run: str | None) -> Iterator[Any]:
    """One file with everything recorded of the run, for the browser to fetch."""
    record = visit.who.run(store(), run)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"run-{record.id}.sqlite"
        api.archive(record.id, path, store())
        # Gradio copies it into its cache before it asks for more, and the file here can go.
        yield gr.update(value=str(path))


def brought(visit: Visit, path: str) -> Any:
    """Runs from such a file, from here or elsewhere; they become the visitor's own."""
    if visit.who.public and Path(path).stat().st_size > MAX_ARCHIVE:
        raise StudioError(
            f"This file is larger than {MAX_ARCHIVE // 1_000_000} MB; import it into a Studio on "
            "your own machine."
        )
    visit.who.folder("uploads")  # raises where the page does not know its visitor yet
    who = visit.who
    runs = api.unarchive(path, store(), who.owner, allow=lambda recipe: who.brings(store(), recipe))
    return gr.update(choices=run_choices(visit.who.runs(store())), value=runs[0])
