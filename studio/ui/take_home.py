"""The Take home tab: a candidate of the run as an ordinary checkpoint: a folder, a zip, on the hub.

Knows forms, names and what is shown of an export; what is written is the rooms'. Names from the
page never leave the visitor's own folder, and in public no path of the server is shown.
"""

import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import gradio as gr

from studio import api, talks
from studio.api.parcel import Parcel, parcel
from studio.errors import StudioError
from studio.runs import Candidate
from studio.ui import pieces
from studio.ui.markup import esc
from studio.ui.shared import candidate_choices, engine, store
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel, Visit, Wires
from studio.visitors import is_public

#: No words of the table: Gradio would translate them.
FOLDER, ZIP, HUB = "as-folder", "as-zip", "as-hub"
#: Bytes of a zip that a browser is handed, at most; above it, the path instead.
MAX_ZIP = 2_000_000_000
#: Exports at a time: more of them would only make each slower.
AT_ONCE = 2
CARD_CHARACTERS = 50_000
_NAME = re.compile(r"[\w][\w.-]{0,99}", re.ASCII)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_EXPORTING = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True)
class TakeHome:
    """What other parts of the page wire up."""

    candidate: gr.Dropdown
    panels: list[Panel]


def build(wires: Wires, run: gr.Dropdown) -> TakeHome:
    """Lay the tab out; ``run`` is the page's run picker."""
    public = is_public()
    forms = [(text("as_zip"), ZIP), (text("on_hub"), HUB)]
    if not public:
        forms.insert(0, (text("as_folder"), FOLDER))
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="es-panel"):
            gr.Markdown(text("export_intro"))
            candidate = gr.Dropdown(
                [], label=text("which"), allow_custom_value=True, elem_id="export-candidate"
            )
            form = gr.Radio(
                forms, value=forms[0][1], label=text("export_as"), elem_id="export-form"
            )
            folder = gr.Textbox(
                label=text("folder"), info=text("folder_info"), max_lines=1, elem_id="folder"
            )
            with gr.Group(visible=False) as hub:
                repository = gr.Textbox(
                    label=text("repository"),
                    info=text("repository_info_public" if public else "repository_info"),
                    max_lines=1,
                    elem_id="repository",
                )
                shared = gr.Checkbox(
                    False, label=text("for_everybody"), info=text("for_everybody_info"),
                    elem_id="hub-public",
                )  # fmt: skip
            with gr.Row(elem_classes="es-buttons"):
                export = gr.Button(text("export"), variant="primary", elem_id="export")
                cancel = gr.Button(text("cancel"), elem_id="export-cancel", interactive=False)
            command = gr.Code(
                "",
                language="shell",
                label=text("command"),
                interactive=False,
                lines=1,
                show_line_numbers=False,
                visible=not public,
            )
            if public:
                _forgetting(wires)
        with gr.Column(scale=7, min_width=320):
            licence = gr.HTML(elem_id="licence")
            progress = gr.HTML(elem_id="export-files")
            path = gr.Textbox(
                label=text("written"),
                interactive=False,
                visible=False,
                buttons=["copy"],
                elem_id="export-path",
            )
            download = gr.DownloadButton(
                text("download"), visible=False, variant="primary", elem_id="export-zip"
            )
            with gr.Accordion(text("card"), open=False, elem_id="card"):
                card = gr.Markdown()
            with gr.Accordion(text("mergekit"), open=False, elem_id="mergekit-card"):
                obstacle = gr.HTML()
                mergekit = gr.Code(
                    "", language="yaml", label="mergekit.yaml", interactive=False, visible=False,
                    show_line_numbers=False, max_lines=24, elem_id="mergekit",
                )  # fmt: skip
    exporting = wires.on(
        export.click,
        write,
        [run, candidate, form, folder, repository, shared],
        [progress, path, download, export, cancel],
        concurrency_limit=None,
    )
    # The buttons are ready again however it ended.
    cancelled = cancel.click(None, None, None, cancels=[exporting], api_visibility="private")
    for event in (exporting.then, cancelled.then):
        wires.then(event, lambda visit: _buttons(idle=True), None, [export, cancel])
    wires.then(
        cancelled.then, lambda visit: pieces.empty(visit.say("export_cancelled")), None, progress
    )
    wires.on(form.change, lambda visit, form: gr.update(visible=form == HUB), form, hub)
    wires.on(
        [
            candidate.change,
            folder.change,
            run.change,
            form.change,
            repository.change,
            shared.change,
        ],
        _command,
        [run, candidate, form, folder, repository, shared],
        command,
    )
    shown = [licence, card, obstacle, mergekit]
    wires.on(candidate.change, preview, [run, candidate], shown, trigger_mode="always_last")
    menu = Panel(
        name="take_home",
        parts=[candidate, progress, path, download],
        key=lambda look: (look.run.status, look.progress.done // 8),
        draw=draw,
        blank=lambda language: [gr.skip()] * 4,
    )
    contents = Panel(
        name="parcel",
        parts=shown,
        key=lambda look: look.progress.best_id,
        draw=lambda look, chosen: preview(
            look.visit, look.run.id, "best" if look.fresh else chosen
        ),
        blank=lambda language: [gr.skip()] * len(shown),
        given=[candidate],
        slow=True,
    )
    return TakeHome(candidate, [menu, contents])


# ── what it would be ──────────────────────────────────────────────────────────────────────────


def _command(
    visit: Visit, run: Any, candidate: Any, form: Any, folder: Any, repository: Any, public: Any
) -> str:
    """The equivalent command line, for names that a shell takes as they are."""
    if not run:
        return ""
    wanted = str(candidate or "best")
    chosen = "" if wanted == "best" else f" --candidate {wanted}"
    name = str(folder or "").strip() or _folder_name(run, wanted)
    upload, repository = "", str(repository or "").strip()
    if form == HUB and repository:
        upload = f" --push {repository}{' --public' if public else ''}"
    words = (run, wanted, name, *repository.split("/")) if upload else (run, wanted, name)
    if not all(_NAME.fullmatch(word) for word in words):
        return ""
    return f"python -m studio export {run}{chosen} --out {name}{upload}"


def _folder_name(run: str, candidate: str) -> str:
    return f"{run}-{candidate}"


def preview(visit: Visit, run: str | None, candidate: Any) -> list[Any]:
    """Licence, model card and mergekit configuration that an export would come with."""
    if not run:
        return [gr.skip()] * 4
    run = visit.who.run(store(), run).id
    engine()
    try:
        made = parcel(run, _chosen(run, candidate).id, store())
    except StudioError as error:  # a word about it is enough: nobody pressed a button
        return [pieces.empty(visit.sentence(error)), "", "", gr.update(visible=False)]
    obstacle = visit.sentence(made.obstacle) if made.obstacle else visit.say("no_mergekit")
    there = made.mergekit is not None
    return [
        _licence(made, visit),
        _FRONT_MATTER.sub("", made.card)[:CARD_CHARACTERS],
        "" if there else f'<p class="es-aside">{esc(obstacle)}</p>',
        gr.update(value=made.mergekit or "", visible=there),
    ]


def _licence(made: Parcel, visit: Visit) -> str:
    """What may be done with the merge, and why."""
    verdict = made.verdict
    names = ", ".join(verdict.because)
    silent = ", ".join(verdict.silent)
    lines = [visit.say(f"licence_{verdict.kind}", names=names or silent)]
    if verdict.silent and verdict.kind != "unknown":
        lines.append(visit.say("licence_unknown", names=silent))
    if verdict.llama:
        lines.append(visit.say("licence_llama"))
    shown = verdict.front.get("license_name") or verdict.front["license"]
    said = "".join(f"<p>{esc(line)}</p>" for line in lines)
    size = visit.say("weights_size", size=_size(made.size), n=made.candidate)
    return (
        f'<section class="es-licence" data-kind="{verdict.kind}">'
        f"<h3>{esc(visit.say('licence_of_merge'))} <span>{esc(shown)}</span></h3>{said}"
        f'<p class="es-aside">{esc(size)}</p></section>'
    )


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _chosen(run: str, candidate: Any) -> Candidate:
    """The candidate that the menu names, or that somebody typed there."""
    given = str(candidate or "best").strip().removeprefix("#")
    return store().pick(run, given)


# ── exporting ─────────────────────────────────────────────────────────────────────────────────


def write(
    visit: Visit, run: Any, candidate: Any, form: Any, folder: Any, repository: Any, public: Any
) -> Iterator[list[Any]]:
    """Export a candidate, saying how far it is, then show where it is and its files."""
    run = visit.who.run(store(), run).id
    number = _chosen(run, candidate).id
    name = str(folder or "").strip() or _folder_name(run, str(number))
    repository = str(repository or "").strip()
    if form not in ((ZIP, HUB) if visit.who.public else (FOLDER, ZIP, HUB)):
        raise StudioError("An export is a folder, a zip file or on the hub; choose one of these.")
    if not _NAME.fullmatch(name):
        raise StudioError(
            f"The folder name {name[:100]!r} cannot be used; write letters, digits, dots, dashes "
            "and underscores, beginning with a letter or digit."
        )
    if form == HUB:
        from studio.merge.push import check

        check(repository, visit.who.hub_token)
    hidden = [gr.update(visible=False)] * 2
    yield [_bar(visit, "export_waits", None), *hidden, *_buttons(idle=False)]
    engine()
    size = parcel(run, number, store()).size
    if size > MAX_ZIP and (visit.who.public or form == ZIP):
        if visit.who.public:
            raise StudioError(
                f"This model is {_size(size)} large, and {_size(MAX_ZIP)} can be taken from here; "
                "run the Studio on your own machine to export it."
            )
        form = FOLDER

    # What is only made to be sent away lies beside what was asked for, out of its way.
    place = visit.who.folder("exports")
    kept = form == FOLDER
    out = place / (name if kept else f"sending-{secrets.token_hex(8)}") / ("" if kept else name)
    done: dict[str, Any] = {}

    def work(told: Callable[[str, int, int], None]) -> None:
        with _EXPORTING:
            try:
                api.export(
                    run, out, number, store(), on_bytes=lambda *at: told("export_writes", *at)
                )
                done["files"] = pieces.files(out, visit.language)
                if form == ZIP:
                    from studio.merge.zipped import zip_folder

                    file = _shelf(visit) / f"{name}.zip"
                    done["zip"] = zip_folder(out, file, lambda *at: told("export_zips", *at))
                elif form == HUB:
                    told("export_uploads", 0, 0)
                    done["address"] = api.push(out, repository, bool(public), visit.who.hub_token)
            except StudioError as error:
                if not visit.who.public:
                    raise
                # Where it lay is nobody else's business.
                raise StudioError(str(error).replace(str(place), "exports")) from error
            finally:
                if not kept:
                    shutil.rmtree(out.parent, ignore_errors=True)

    for key, at, total in _alongside(work):
        yield [_bar(visit, key, at / total if total else None), *[gr.skip()] * 4]
    shown = done["files"]
    if address := done.get("address"):
        link = f'<a href="{esc(address)}" target="_blank" rel="noopener">{esc(address)}</a>'
        shown = f"<p>{esc(visit.say('uploaded'))} {link}</p>{shown}"
    if kept and size > MAX_ZIP:
        shown = f'<p class="es-aside">{esc(visit.say("too_large_to_zip"))}</p>{shown}'
    yield [
        shown,
        gr.update(value=str(out), visible=True) if kept else gr.skip(),
        gr.update(value=str(done["zip"]), visible=True) if "zip" in done else gr.skip(),
        *_buttons(idle=True),
    ]


class _GivenUp(Exception):
    """Nobody waits for it any more."""


def _alongside(
    work: Callable[[Callable[[str, int, int], None]], None],
) -> Iterator[tuple[str, int, int]]:
    """Do work in a thread of its own; yields what it tells, now and then, until it is done.

    Closing the iterator gives the work up at its next word. What it raises is raised here.
    """
    told: SimpleQueue = SimpleQueue()
    given_up = threading.Event()

    def tell(*said: Any) -> None:
        if given_up.is_set():
            raise _GivenUp
        told.put(said)

    def run() -> None:
        try:
            work(tell)
            told.put(None)
        except BaseException as error:  # raised where somebody listens
            told.put(error)

    # In whose name the hub is asked is known to this thread's context.
    thread = threading.Thread(target=copy_context().run, args=[run], daemon=True)
    thread.start()
    try:
        while True:
            said = told.get()
            while not told.empty() and isinstance(said, tuple):  # only the latest matters
                said = told.get()
            if said is None:
                return
            if isinstance(said, BaseException):
                raise said
            yield said
            given_up.wait(0.2)
    finally:
        given_up.set()


def _bar(visit: Visit, key: str, share: float | None) -> str:
    """How far an export is; without a number where nobody knows."""
    label = esc(visit.say(key))
    value = "" if share is None else f' value="{share:.4f}"'
    number = "" if share is None else f" {share:.0%}"
    return (
        f'<div class="es-progress" role="status"><p>{label}{number}</p>'
        f'<progress max="1"{value} aria-label="{label}"></progress></div>'
    )


def _buttons(idle: bool) -> list[Any]:
    return [gr.update(interactive=idle), gr.update(interactive=not idle)]


def _shelf(visit: Visit) -> Path:
    """A place for one zip of the visitor's that the page may hand out; earlier ones leave.

    Below Gradio's own folder, whose files it serves without copying them, under a name that nobody
    guesses; Gradio tidies it up after a day.
    """
    mine = visit.who.owner or "local"
    if visit.who.public:
        _clear_shelf(visit.who.owner)
    shelf = _served() / f"{mine}-{secrets.token_hex(16)}"
    shelf.mkdir(parents=True)
    return shelf


def _served() -> Path:
    from gradio.utils import get_upload_folder

    return Path(get_upload_folder()).absolute() / "exports"


def _clear_shelf(owner: str) -> None:
    for shelf in _served().glob(f"{owner}-*") if owner else ():
        shutil.rmtree(shelf, ignore_errors=True)


# ── the menu ──────────────────────────────────────────────────────────────────────────────────


def draw(look: Look) -> list[Any]:
    """The candidates there are, and, for another run, an empty right side."""
    run, language = look.run, look.visit.language
    choices = [(say(language, "best_candidate"), "best")] + [
        (label, str(number)) for label, number in candidate_choices(run, store(), language)
    ]
    if not look.fresh:
        return [gr.update(choices=choices), *[gr.skip()] * 3]
    return [
        gr.update(choices=choices, value="best"),
        pieces.empty(say(language, "nothing_exported")),
        *[gr.update(visible=False)] * 2,
    ]


# ── deleting what is one's own ────────────────────────────────────────────────────────────────


def _forgetting(wires: Wires) -> None:
    """In public: a visitor's own data, deleted after a second word."""
    with gr.Accordion(text("my_data"), open=False, elem_id="my-data"):
        gr.Markdown(text("my_data_info"))
        ask = gr.Button(text("delete_data"), size="sm", elem_id="delete-data")
        with gr.Row(visible=False, elem_classes="es-buttons") as sure:
            yes = gr.Button(text("delete_sure"), variant="stop", size="sm", elem_id="delete-sure")
            no = gr.Button(text("cancel"), size="sm", elem_id="delete-not")
        told = gr.HTML(elem_id="deleted")
    rows = [ask, sure]
    wires.on(ask.click, lambda visit: _asked_twice(True), None, rows)
    wires.on(no.click, lambda visit: _asked_twice(False), None, rows)
    wires.on(yes.click, forget, None, [told, *rows])


def _asked_twice(asking: bool) -> list[Any]:
    return [gr.update(visible=not asking), gr.update(visible=asking)]


def forget(visit: Visit) -> list[Any]:
    """Delete all that is the visitor's, and say what it was."""
    who = visit.who
    if not who.public or not who.owner:
        raise StudioError("Only what is a visitor's own can be deleted here, in a public Studio.")
    mine = [run.id for run in store().runs() if run.owner == who.owner]
    files = {
        kind: sum(not path.is_dir() for path in who.folder(kind).rglob("*"))
        for kind in ("uploads", "exports")
    }
    files["exports"] += sum(1 for _ in _served().glob(f"{who.owner}-*/*"))
    said = talks.forget(who.folder("chats"))
    _clear_shelf(who.owner)
    left = api.forget(who.owner, store())
    gone = len(mine) - len(left)
    sentence = visit.say("deleted", runs=gone, chats=said, **files)
    if left:
        sentence += " " + visit.say("not_deleted_yet", runs=", ".join(left))
    return [f'<p role="status">{esc(sentence)}</p>', *_asked_twice(False)]
