"""The whole page: a header with the run picker, four tabs, and one timer that polls the store.

The page remembers nothing that matters: which run is watched is in the picker (and in the address,
as ``?run=ID``), everything else is in the store. Reloading, a second tab or another browser see the
same.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from studio import api
from studio.errors import StudioError
from studio.runs.lock import is_held
from studio.runs.records import QUEUED, RUNNING, Run
from studio.runs.store import Store
from studio.ui import chat, evolve, paper, results, take_home
from studio.ui.markup import esc
from studio.ui.pictures import MAX_UPLOAD
from studio.ui.pieces import empty
from studio.ui.shared import language_of, run_choices, store, toast
from studio.ui.strings import i18n, say, text

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

#: Keeps the watched run in the address, so that a reload or a shared link opens it again.
_ADDRESS = """(run) => {
    const address = new URL(window.location);
    if (run && address.searchParams.get('run') !== run) {
        address.searchParams.set('run', run);
        window.history.replaceState(null, '', address);
    }
    return run;
}"""


def looks() -> dict[str, Any]:
    """What ``launch`` is to be told: looks, languages, and how large an upload may be."""
    theme = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONO, radius_size="sm"
    )
    return {
        "theme": theme,
        "css_paths": [Path(__file__).with_name("style.css")],
        "i18n": i18n(),
        "footer_links": ["settings"],
        "max_file_size": MAX_UPLOAD,
    }


def build() -> gr.Blocks:
    """The page. Imports neither torch nor a model: those come with the first use."""
    with gr.Blocks(
        title="EvoLLM Studio", analytics_enabled=False, fill_width=True, delete_cache=UPLOADS
    ) as page:
        with gr.Row(elem_classes="es-header"):
            with gr.Column(scale=7, min_width=320):
                gr.Markdown("# EvoLLM Studio")
                gr.Markdown(text("tagline"))
            with gr.Column(scale=5, min_width=280):
                run = gr.Dropdown([], label=text("run"), filterable=True, elem_id="run")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(text("evolve"), id="evolve"):
                evolving = evolve.build()
            with gr.Tab(text("results"), id="results", render_children=True):
                found = results.build(run)
            with gr.Tab(text("chat"), id="chat", render_children=True):
                chatting = chat.build(run)
            with gr.Tab(text("take_home"), id="take-home", render_children=True):
                taking = take_home.build(run)
            with gr.Tab(text("paper"), id="paper", render_children=True) as paper_tab:
                printed = paper.build()
        seen = gr.State({})
        timer = gr.Timer(POLL_SECONDS)

        monitor = [evolving.status, evolving.curve, evolving.table, evolving.stop, evolving.resume]
        result = [found.report, found.task, found.strip, found.question, found.answers]
        talk = chatting.parts
        home = [taking.candidate, taking.path, taking.files]
        pictures = [found.front, found.which, found.recipe]
        outputs = [run, seen, *monitor, *result, *talk, *home, *pictures]
        groups = {"monitor": monitor, "results": result, "talk": talk, "home": home}
        groups["pictures"] = pictures

        def look(chosen: str | None, known: dict, question: int, which: str, request: gr.Request):
            yield from _look(chosen, known, question, which, request, run, seen, groups)

        quiet = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 20}
        page.load(toast(choose), None, run, **quiet)
        paper_tab.select(toast(paper.draw), None, [printed.shown, printed.reproduce], **quiet)
        # One event for both, so that a page never looks twice at the same time.
        gr.on(
            [timer.tick, run.change],
            toast(look),
            [run, seen, found.question, found.which],
            outputs,
            trigger_mode="always_last",
            **quiet,
        )
        run.change(None, run, None, js=_ADDRESS)

        evolving.start.click(
            toast(evolve.start),
            [evolving.view, evolving.yaml, *evolving.form],
            run,
            show_progress_on=[evolving.start],
            api_visibility="private",
        )
        evolving.stop.click(toast(evolve.stop), run, None, **quiet)
        evolving.resume.click(toast(evolve.resume), run, None, **quiet)
    return page.queue(default_concurrency_limit=8)


@cache
def _bundled() -> list[str]:
    return api.bundled_runs()


def choose(request: gr.Request) -> Any:
    """The run a fresh page opens.

    The address's, else the newest at work, else the newest of one's own, else the sample run.
    """
    runs = store().runs()
    wanted = request.query_params.get("run")
    bundled = _bundled()
    own = [run.id for run in runs if run.id not in bundled]
    there = {run.id for run in runs}
    value = next((run for run in [*own, *bundled] if run in there), None)
    value = next((run.id for run in runs if run.status == RUNNING), value)
    if wanted:
        try:
            value = store().run(wanted).id
        except StudioError as error:
            gr.Warning(esc(error))
    return gr.update(choices=run_choices(runs), value=value)


def _look(
    chosen: str | None,
    known: dict[str, Any],
    question: int | None,
    which: str | None,
    request: gr.Request,
    run: gr.Dropdown,
    seen: gr.State,
    groups: dict[str, list],
) -> Iterator[Any]:
    """What changed since this page last looked; nothing at all, most of the time.

    What is quick to draw comes first: front and recipe, at last, may have to wait for torch.
    """
    language = language_of(request)
    base = store()
    runs = base.runs()
    record = next((r for r in runs if r.id == chosen), None)
    now = dict(known) | {"run": record and record.id, "runs": run_choices(runs)}
    changes: dict[Any, Any] = {}
    if known.get("runs") != now["runs"]:
        changes[run] = gr.update(choices=now["runs"])
    fresh = known.get("run", "") != now["run"]
    if record is None:
        changes |= _nothing(groups, language) if fresh else {}
        yield {**changes, seen: now} if changes else gr.skip()
        return

    def put(group: str, drawn: list[Any]) -> None:
        changes.update(zip(groups[group], drawn, strict=True))

    now["monitor"] = (record.version, _silence(record, base))
    if not fresh and known.get("monitor") == now["monitor"]:
        yield {**changes, seen: now} if changes else gr.skip()
        return
    progress = api.progress(record.id, base)
    put("monitor", [*evolve.draw(progress, language), *evolve.buttons(progress.state)])
    now["menus"] = (record.status, progress.done // 8)
    if fresh or known.get("menus") != now["menus"]:
        put("talk", chat.draw(record, language, first=fresh))
        put("home", take_home.draw(record, language, first=fresh))
    now["results"] = (record.status, progress.best_id, progress.stage)
    # Seen before it is drawn: what fails to be drawn is said once, not at every tick.
    yield {**changes, seen: now}
    changes = {}
    if fresh or known.get("results") != now["results"]:
        put("results", results.draw(record, request, None if fresh else question))
        yield changes
    elif known.get("menus") == now["menus"]:
        return
    changes = {}
    put("pictures", results.draw_pictures(record, None if fresh else which, request))
    yield changes


def _silence(record: Run, base: Store) -> str | bool:
    """What becomes of a run although nobody writes it down.

    A worker that was killed leaves only its lock, and one that never came not even that: its run
    is interrupted once it has waited too long, which the clock alone tells.
    """
    if record.status == QUEUED:
        return api.progress(record.id, base).state
    return record.status != RUNNING or is_held(base, record.id)


def _nothing(groups: dict[str, list], language: str) -> dict[Any, Any]:
    """A page without a run: one sentence where the monitor and the results will be."""
    status, curve, table, stop, resume = groups["monitor"]
    report, task, strip, question, answers = groups["results"]
    front, which, inside = groups["pictures"]
    words = empty(say(language, "no_run"))
    off = gr.update(interactive=False)
    blank = dict.fromkeys([curve, strip, answers, front, inside], "")
    return {
        **blank,
        status: words,
        report: words,
        table: gr.update(value=[]),
        stop: off,
        resume: off,
        which: gr.update(choices=[], value=None),
        task: gr.update(visible=False),
        question: gr.update(visible=False),
    }
