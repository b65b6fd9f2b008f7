"""The queue: which runs wait for the workspace's worker, and for how long.

Knows the store; in public the runs of others are counted, never named.
"""

import gradio as gr

from studio import api
from studio.errors import StudioError
from studio.runs.records import RUNNING
from studio.ui import pieces
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


def draw(visit: Visit) -> str:
    """The run at work and those behind it, each with its place and how long it still waits."""
    queue = store().queue()
    if not queue:
        return ""
    at_work = [run for run in store().runs() if run.status == RUNNING]
    rows = []
    for run in [*at_work, *queue]:
        try:
            progress = api.progress(run.id, store())
        except StudioError:  # a record that cannot be read is the worker's to report
            continue
        if run.status == RUNNING and progress.state not in ("running", "stopping"):
            continue
        position = progress.position
        place = visit.say("at_work") if run.status == RUNNING else f"{position or '–'}"
        mine = visit.who.sees(run)
        called = f"{esc(run.name)} <small>{run.id}</small>" if mine else esc(visit.say("others"))
        wait = progress.eta if run.status == RUNNING else progress.wait
        key = "wait_end" if run.status == RUNNING else "wait_turn"
        said = visit.say(key, time=pieces.duration(wait)) if wait is not None else "–"
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
