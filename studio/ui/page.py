"""The whole page: a header with the run picker, the tabs, and one timer that polls the store.

The page remembers nothing that matters: which run is watched is in the picker (and in the address,
as ``?run=ID``), who watches it in the browser, everything else in the store. Reloading, a second
tab or another browser see the same.
"""

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from studio import api
from studio.errors import StudioError
from studio.runs.lock import is_held
from studio.runs.records import QUEUED, RUNNING
from studio.ui import chat, evolve, front, models, paper, queue, take_home
from studio.ui.first import HeadFirst
from studio.ui.pictures import MAX_UPLOAD
from studio.ui.shared import run_choices, store
from studio.ui.strings import NAMES, i18n, text
from studio.ui.wiring import Look, Panel, Visit, Wires, warn

#: Font families that hold Japanese and Chinese on Debian, macOS and Windows; none is downloaded.
FONTS = [
    "system-ui", "Noto Sans", "Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic UI", "Meiryo",
    "sans-serif",
]  # fmt: skip
MONO = [
    "ui-monospace", "DejaVu Sans Mono", "Menlo", "Consolas", "Noto Sans Mono CJK JP",
    "Hiragino Sans", "Yu Gothic", "Meiryo", "monospace",
]  # fmt: skip
POLL_SECONDS = 1.0
#: Uploads are looked through every hour, and those older than a day deleted.
UPLOADS = (3600, 86400)
#: What the browser keeps of its visitor is encrypted by Gradio under this key, which keeps it from
#: casual eyes only: what is stored on the server is a hash of the token.
KEEPER, SECRET = "evollm-studio-visitor", "evollm-studio"

#: Keeps the watched run in the address, so that a reload or a shared link opens it again.
_ADDRESS = """(run) => {
    const address = new URL(window.location);
    if (run && address.searchParams.get('run') !== run) {
        address.searchParams.set('run', run);
        window.history.replaceState(null, '', address);
    }
    return run;
}"""
#: Before Gradio begins: the language and the theme that were chosen here before, of which Gradio
#: follows the browser in the one and the address in the other; and what keys do.
_HEAD = """<script>
(() => {
    const language = localStorage.getItem('evollm-language');
    if (language) {
        const tag = {zh: 'zh-CN'}[language] ?? language;
        Object.defineProperty(navigator, 'language', {get: () => tag});
        Object.defineProperty(navigator, 'languages', {get: () => [tag]});
    }
    const first = navigator.language.split('-')[0];
    document.documentElement.lang = LANGUAGES.includes(first) ? first : LANGUAGES[0];
    const theme = localStorage.getItem('evollm-theme');
    const address = new URL(window.location);
    if (theme && address.searchParams.get('__theme') !== theme) {
        address.searchParams.set('__theme', theme);
        window.history.replaceState(null, '', address);
    }
    // Tab leaves the recipe's editor, which would indent with it: nobody is caught there.
    document.addEventListener('keydown', (event) => {
        if (event.key === 'Tab' && event.target.closest?.('.cm-content')) event.stopPropagation();
    }, true);
})();
</script>""".replace("LANGUAGES", json.dumps(list(NAMES)))
#: A drop-down also tells its value when the keyboard leaves it.
_SPEAK = """(language) => {
    if (!language || language === document.documentElement.lang) return;
    localStorage.setItem('evollm-language', language);
    window.location.reload();
}"""
_THEME = """() => {
    const theme = document.body.classList.toggle('dark') ? 'dark' : 'light';
    localStorage.setItem('evollm-theme', theme);
}"""
#: Tells Python which language was chosen here.
_ENTER = """(kept, guest) => [
    {...(kept ?? {}), language: localStorage.getItem('evollm-language')}, guest
]"""


def looks() -> dict[str, Any]:
    """What ``launch`` is to be told: looks, languages, and how large an upload may be."""
    theme = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONO, radius_size="sm"
    ).set(
        # Gradio's own are too pale to be read by everybody (WCAG asks for a contrast of 4.5)
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )
    return {
        "theme": theme,
        "css_paths": [Path(__file__).with_name("style.css")],
        "app_kwargs": {"middleware": [Middleware(HeadFirst, _HEAD)]},
        "i18n": i18n(),
        "footer_links": [],
        "max_file_size": MAX_UPLOAD,
    }


def signs_in() -> bool:
    """Whether visitors can sign in with their Hugging Face account: on a Space that has OAuth."""
    return "SPACE_ID" in os.environ and "OAUTH_CLIENT_ID" in os.environ


def build() -> gr.Blocks:
    """The page. Imports neither torch nor a model: those come with the first use."""
    with gr.Blocks(
        title="EvoLLM Studio", analytics_enabled=False, fill_width=True, delete_cache=UPLOADS
    ) as page:
        keeper = gr.BrowserState({}, storage_key=KEEPER, secret=SECRET)
        wires = Wires(keeper, gr.State(frozenset()))
        with gr.Row(elem_classes="es-header"):
            with gr.Column(scale=6, min_width=320):
                gr.Markdown("# EvoLLM Studio")
                gr.Markdown(text("tagline"))
            with gr.Column(scale=6, min_width=320):
                with gr.Row(elem_classes="es-controls"):
                    run = gr.Dropdown(
                        [],
                        label=text("run"),
                        filterable=True,
                        scale=6,
                        min_width=150,
                        elem_id="run",
                    )
                    language = gr.Dropdown(
                        [(name, key) for key, name in NAMES.items()],
                        value=None,
                        label=text("language"),
                        filterable=False,
                        scale=2,
                        min_width=100,
                        elem_id="language",
                    )
                    if signs_in():
                        gr.LoginButton(size="sm", scale=0, min_width=140, elem_id="login")
                    theme = gr.Button("◐", size="sm", scale=0, min_width=44, elem_id="theme")
        with gr.Tabs(selected="evolve", elem_id="tabs") as tabs:
            with gr.Tab(text("models_tab"), id="models", render_children=True) as models_tab:
                choosing = models.build(wires, models_tab)
            with gr.Tab(text("evolve"), id="evolve"):
                evolving = evolve.build(wires, run)
            with gr.Tab(text("front_tab"), id="front", render_children=True):
                found = front.build(wires, run)
            with gr.Tab(text("chat"), id="chat", render_children=True):
                chatting = chat.build(wires, run)
            with gr.Tab(text("take_home"), id="take-home", render_children=True):
                taking = take_home.build(wires, run)
            with gr.Tab(text("paper"), id="paper", render_children=True) as paper_tab:
                paper.build(wires, paper_tab)
        models.hand_over(wires, choosing, evolving.editor, tabs)
        front.hand_over(wires, found, run, chatting.models[0], taking.candidate, tabs)
        panels = [*evolving.panels, *chatting.panels, *taking.panels, *found.panels]
        seen, timer = gr.State({}), gr.Timer(POLL_SECONDS)

        wires.on(
            page.load, enter, None, [keeper, wires.guest, language, run, seen], js=_ENTER,
            concurrency_limit=20,
        )  # fmt: skip
        language.input(None, language, None, js=_SPEAK)
        theme.click(None, None, None, js=_THEME)
        run.change(None, run, None, js=_ADDRESS)

        def watch(visit: Visit, chosen: str | None, known: dict, *given: Any) -> Iterator[Any]:
            yield from look(visit, chosen, known, panels, given, run, seen)

        # One event for both, so that a page never looks twice at the same time.
        wires.on(
            [timer.tick, run.change],
            watch,
            [run, seen, *(part for panel in panels for part in panel.given)],
            [run, seen, *(part for panel in panels for part in panel.parts)],
            trigger_mode="always_last",
            concurrency_limit=20,
        )
    return page.queue(default_concurrency_limit=8)


# ── entering ──────────────────────────────────────────────────────────────────────────────────


@cache
def _bundled() -> list[str]:
    return api.bundled_runs()


def enter(visit: Visit) -> list[Any]:
    """A fresh page: a token for a browser that has none, and the run that it opens.

    Returns:
        what the browser keeps, the runs opened through a link, the language, the run picker, and
        what the page has seen so far.
    """
    kept = {"token": visit.token or secrets.token_urlsafe(32), "language": visit.language}
    guest = frozenset[str]()
    if key := visit.query.get("share"):
        shared = store().shared(key)
        if shared is None:
            warn(visit, StudioError("This link opens no run any more; ask for a new one."))
        else:
            guest = frozenset([shared.id])
    visit = visit.of(kept["token"], guest)
    return [kept, guest, visit.language, choose(visit), {"entered": True}]


def choose(visit: Visit) -> Any:
    """The run a fresh page opens.

    The link's or the address's, else the newest at work, else the newest of one's own, else the
    sample run.
    """
    runs = visit.who.runs(store())
    bundled = _bundled()
    own = [run.id for run in runs if run.id not in bundled]
    there = {run.id for run in runs}
    value = next((run for run in [*own, *bundled] if run in there), None)
    value = next((run.id for run in runs if run.status == RUNNING), value)
    if wanted := visit.query.get("run"):
        try:
            value = visit.who.run(store(), wanted).id
        except StudioError as error:
            warn(visit, error)
    value = next(iter(visit.who.guest), value)
    return gr.update(choices=run_choices(runs), value=value)


# ── watching ──────────────────────────────────────────────────────────────────────────────────


def look(
    visit: Visit,
    chosen: str | None,
    known: dict[str, Any],
    panels: Sequence[Panel],
    given: Sequence[Any],
    run: gr.Dropdown,
    seen: gr.State,
) -> Iterator[Any]:
    """What changed since this page last looked; nothing at all, most of the time.

    What is quick to draw comes first; slow panels, which may wait for torch, one by one after it.
    """
    if not known:  # the page does not know yet whose it is, and which run it opens
        yield gr.skip()
        return
    base = store()
    runs = visit.who.runs(base)
    record = next((r for r in runs if r.id == chosen), None)
    now = {"entered": True, "run": record and record.id, "runs": run_choices(runs)}
    changes: dict[Any, Any] = {}
    if known.get("runs") != now["runs"]:
        changes[run] = gr.update(choices=now["runs"])
    fresh = known.get("run", "") != now["run"]
    if record is None:
        if fresh:
            for panel in panels:
                changes |= _put(panel, panel.blank(visit.language))
        yield {**changes, seen: now} if changes else gr.skip()
        return
    now["version"] = (record.version, _silence(visit, record), queue.waiting())
    if not fresh and known.get("version") == now["version"]:
        yield {**changes, seen: {**known, **now}} if changes else gr.skip()
        return
    at = Look(visit, record, api.progress(record.id, base), fresh)
    now |= {panel.name: panel.key(at) for panel in panels}
    due = [p for p in panels if fresh or known.get(p.name) != now[p.name]]
    values = iter(given)
    handed = {panel.name: [next(values) for _ in panel.given] for panel in panels}
    for panel in due:
        if not panel.slow:
            changes |= _put(panel, panel.draw(at, *handed[panel.name]))
    # Seen before it is drawn: what fails to be drawn is said once, not at every tick.
    yield {**changes, seen: now}
    for panel in due:
        if panel.slow:
            yield _put(panel, panel.draw(at, *handed[panel.name]))


def _put(panel: Panel, drawn: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(panel.parts, drawn, strict=True))


def _silence(visit: Visit, record: Any) -> Any:
    """What becomes of a run although nobody writes it down.

    A worker that was killed leaves only its lock, and a queued run moves on when others end.
    """
    if record.status == QUEUED:
        progress = api.progress(record.id, store())
        return progress.state, getattr(progress, "position", None)
    return record.status != RUNNING or is_held(store(), record.id)
