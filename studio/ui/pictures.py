"""A picture to ask about: uploaded, picked from the gallery or taken with the webcam.

It stands as a preview, which can be taken away, until it is sent. Knows how a picture is chosen and
shown. Refuses to open one: :mod:`vlm.pictures` does, and whatever is shown of a picture, here and
on other tabs, is a PNG of its decoded pixels, never the file itself. Without the ``vlm`` folder
there are no pictures on the page.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui.markup import esc
from studio.ui.shared import engine
from studio.ui.strings import say, text
from studio.ui.wiring import Visit, Wires

#: The largest upload, as Gradio writes sizes; `vlm.pictures` says the same of any picture.
MAX_UPLOAD = "20mb"
#: Pixels of what is shown of a picture, at most: in a talk, and beside a question.
TALK, SMALL = 240, 144
#: Rows of a sorted gallery: what is less like the word than these is not what was looked for.
FOUND = 48

#: Clicks on a picture of the gallery, told to Python; arrow keys go from one to the next, so that
#: the gallery is a single tab stop.
_PICK = """
const pictures = () => [...element.querySelectorAll('button[data-p]')];
element.addEventListener('click', (event) => {
    const picked = event.target.closest('[data-p]');
    if (picked) trigger('click', {picture: picked.dataset.p});
});
element.addEventListener('keydown', (event) => {
    const all = pictures(), at = all.indexOf(event.target);
    if (at < 0) return;
    const top = (picture) => picture.getBoundingClientRect().top;
    const width = all.filter((picture) => top(picture) === top(all[0])).length;
    const to = {ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - width, ArrowDown: at + width,
        Home: 0, End: all.length - 1}[event.key];
    if (to === undefined || !all[to]) return;
    event.preventDefault();
    all[at].tabIndex = -1;
    all[to].tabIndex = 0;
    all[to].focus();
});
"""
_REMOVE = """
element.addEventListener('click', (event) => {
    if (event.target.closest('[data-remove]')) trigger('click', {});
});
"""
#: Once a picture is there, or gone, what comes next is the question.
_TO_MESSAGE = "() => document.querySelector('#message textarea')?.focus()"


@dataclass(frozen=True)
class Chosen:
    """A picture that goes with the next message, and what it is called."""

    picture: Path | bytes
    name: str


@dataclass(frozen=True)
class Pictures:
    """The components that the chat wires up: what is chosen (a `Chosen` or None), its preview."""

    chosen: gr.State
    preview: gr.HTML


def available() -> bool:
    """Whether there is a ``vlm`` folder to open pictures with."""
    return find_spec("vlm") is not None


def preview() -> Pictures:
    """Where the chosen picture stands; nothing at first."""
    return Pictures(gr.State(None), gr.HTML(js_on_load=_REMOVE, elem_id="picture"))


def choosers(wires: Wires, pictures: Pictures) -> None:
    """Lay out the ways to choose a picture, beneath the message."""
    outputs = [pictures.chosen, pictures.preview]
    upload = gr.UploadButton(
        text("upload"), file_types=["image"], size="sm", type="filepath", elem_id="upload"
    )
    with gr.Accordion(text("gallery"), open=False, elem_id="gallery-card") as shelf:
        with gr.Row():
            word = gr.Textbox(
                label=text("search"),
                placeholder=text("search_hint"),
                max_lines=1,
                max_length=200,
                scale=3,
                min_width=180,
                elem_id="gallery-search",
            )
            style = gr.Dropdown(
                [(text("all_styles"), ""), *_styles()],
                value="",
                label=text("style"),
                scale=2,
                min_width=180,
                elem_id="gallery-style",
            )
        gallery = gr.HTML(js_on_load=_PICK, elem_id="gallery")
    with gr.Accordion(text("webcam"), open=False, elem_id="webcam-card"):
        gr.Markdown(text("webcam_info"))
        webcam = gr.Image(
            sources=["webcam"],
            type="filepath",
            label=text("webcam"),
            show_label=False,
            buttons=[],
            height=300,
            elem_id="webcam",
        )
        # Gradio would open the file before us; a browser is not the only one who can send one.
        webcam.preprocess = _unopened

    chosen = [
        wires.on(upload.upload, bring, upload, outputs, shown="minimal", show_progress_on=[upload]),
        wires.on(webcam.input, bring_photo, webcam, [*outputs, webcam]),
        wires.on(gallery.click, pick, None, outputs),
        wires.on(pictures.preview.click, lambda visit: remove(), None, outputs),
    ]
    for event in chosen:
        event.success(None, None, None, js=_TO_MESSAGE)
    wires.on(
        [shelf.expand, word.change, style.input],
        look,
        [word, style],
        gallery,
        shown="minimal",
        trigger_mode="always_last",
    )


def _unopened(payload: Any) -> str | None:
    return payload.path if payload else None


def _styles() -> list[tuple[str, str]]:
    from vlm.gallery import STYLES

    return [(label.partition(" (")[0], key) for key, label in STYLES.items()]


# ── choosing ──────────────────────────────────────────────────────────────────────────────────


def bring(visit: Visit, file: str | None) -> list[Any]:
    """The preview of an uploaded file.

    Raises:
        StudioError: it is no picture that can be opened.
    """
    if not file:
        return [gr.skip(), gr.skip()]
    path = Path(file)
    return show(Chosen(path, path.name), visit.language)


def bring_photo(visit: Visit, file: str | None) -> list[Any]:
    """The preview of what the webcam took, and the webcam free again; raises as :func:`bring`."""
    if not file:
        return [gr.skip()] * 3
    language = visit.language
    return [*show(Chosen(Path(file), say(language, "photo")), language), None]


def pick(visit: Visit) -> list[Any]:
    """The preview of the gallery's picture that was clicked."""
    from vlm import gallery

    language = visit.language
    style, _, thing = str(visit.event.get("picture")).partition("/")
    found = next((p for p in gallery.pictures(style) if p.thing == thing), None)
    if found is None:
        raise StudioError("The gallery has no such picture; pick one that is shown.")
    return show(Chosen(found.path, _name(found, language)), language)


def show(chosen: Chosen, language: str) -> list[Any]:
    """What is chosen, and its preview; nothing changes where it cannot be opened."""
    picture = image(chosen.picture, chosen.name, SMALL)
    label = esc(say(language, "remove_picture"))
    return [
        chosen,
        f'<figure class="es-picture">{picture}<figcaption role="status">{esc(chosen.name)}'
        f'</figcaption><button type="button" data-remove aria-label="{label}" title="{label}">✕'
        f"</button></figure>",
    ]


def remove() -> list[Any]:
    """No picture, after all."""
    return [None, ""]


# ── the gallery ───────────────────────────────────────────────────────────────────────────────


def look(visit: Visit, word: str | None, style: str | None) -> str:
    """The gallery: all of it, or what is likest to a word."""
    from vlm import gallery

    language = visit.language
    if not (word or "").strip():
        return _gallery(gallery.pictures(style or None), say(language, "gallery_note"), language)
    engine()
    found, by_likeness = gallery.search(word, style or None)
    note = say(language, "by_likeness" if by_likeness else "by_name", word=word.strip())
    return _gallery(found[:FOUND], note, language)


def _gallery(shown: Sequence[Any], note: str, language: str) -> str:
    from vlm.gallery import STYLES

    # the bundled files are ours: they need not be decoded to be shown
    buttons = "".join(
        f'<li><button type="button" data-p="{esc(p.style)}/{esc(p.thing)}" '
        f'tabindex="{-1 if n else 0}" title="{esc(_name(p, language))}">'
        f"{_img(p.path.read_bytes(), _name(p, language))}</button></li>"
        for n, p in enumerate(shown)
    )
    used = [label for style, label in STYLES.items() if any(p.style == style for p in shown)]
    return (
        f'<p class="note" role="status">{esc(note)}</p>'
        f'<ul class="es-gallery" aria-label="{esc(say(language, "gallery"))}">{buttons}</ul>'
        f'<p class="note">{esc(" · ".join(used))}</p>'
    )


def _name(picture: Any, language: str) -> str:
    return picture.ja if language == "ja" else picture.en


# ── what is shown of a picture ────────────────────────────────────────────────────────────────


def image(picture: Path | bytes, name: str, size: int) -> str:
    """An ``<img>`` of the decoded pixels, at most ``size`` wide and high.

    Raises:
        StudioError: the picture cannot be opened.
    """
    from vlm.pictures import thumbnail

    return _img(thumbnail(picture, size), name)


def _img(png: bytes, name: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{esc(name)}">'


def small(chosen: Chosen) -> bytes:
    """The picture as a talk shows and keeps it: a PNG.

    Raises:
        StudioError: it cannot be opened.
    """
    from vlm.pictures import thumbnail

    return thumbnail(chosen.picture, TALK)
