"""The queue: which runs wait for the workspace's worker, and for how long.

Knows the store; in public the runs of others are counted, never named.
"""

import contextlib
from collections.abc import Iterable, Iterator

import gradio as gr

from studio import api
from studio.errors import StudioError
from studio.runs import Progress
from studio.runs.records import RUNNING
from studio.ui import words
from studio.ui.markup import esc
from studio.ui.shared import store
from studio.ui.wiring import Panel, Visit


def build() -> Panel:
    """Lay the queue out; nothing shows while nobody waits."""
    shown = gr.HTML(elem_id="queue")
    return Panel(
        "queue",
        [shown],
        lambda look: (waiting(), look.progress.position, _minutes(look.progress.wait)),
        lambda look: [draw(look.visit)],
        lambda language: [""],
    )


def waiting() -> tuple[str, ...]:
    """The ids of the runs in the queue: what the list is drawn anew for."""
    return tuple(run.id for run in store().queue())


def _minutes(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds // 60)


def at_work() -> list[Progress]:
    """The runs that somebody works on."""
    running = [run.id for run in store().runs() if run.status == RUNNING]
    return [p for p in _progress(running) if p.state in ("running", "stopping")]


def _progress(runs: Iterable[str]) -> Iterator[Progress]:
    for run in runs:
        with contextlib.suppress(StudioError):  # a record that cannot be read is no place
            yield api.progress(run, store())


def draw(visit: Visit) -> str:
    """The run at work and those behind it, each with its place and how long it still waits."""
    queue = waiting()
    if not queue:
        return ""
    rows = []
    for progress in [*at_work(), *_progress(queue)]:
        run, waits = progress.run, progress.run.id in queue
        place = str(progress.position) if waits else visit.say("at_work")
        mine = visit.who.sees(run)
        called = f"{esc(run.name)} <small>{run.id}</small>" if mine else esc(visit.say("others"))
        wait = progress.wait if waits else progress.eta
        key = "wait_turn" if waits else "wait_end"
        said = (
            visit.say(key, time=words.duration(visit.language, wait)) if wait is not None else "–"
        )
        rows.append(
            f'<tr><td class="place">{esc(place)}</td><th scope="row">{called}</th>'
            f'<td class="number">{esc(said)}</td></tr>'
        )
    return (
        f'<figure class="es-figure es-queue"><figcaption>{esc(visit.say("queue"))}</figcaption>'
        f"<table><thead><tr>"
        f'<th scope="col">{esc(visit.say("place"))}</th><th scope="col">{esc(visit.say("run"))}'
        f'</th><th scope="col" class="number">{esc(visit.say("wait"))}</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></figure>"
    )
