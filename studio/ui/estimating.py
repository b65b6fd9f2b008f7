"""What a recipe takes, before it is started: time, memory and disk, from a probe that can be left.

Knows how an estimate is asked for and shown; how it is made is `studio.api.probing`'s, in a process
of its own. Refuses to start anything.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

import gradio as gr

from studio import api
from studio.recipe import Recipe
from studio.ui import words
from studio.ui.cards import size_of
from studio.ui.editor import Editor, recipe_of
from studio.ui.markup import esc
from studio.ui.shared import store
from studio.ui.strings import text
from studio.ui.wiring import Visit, Wires

#: Seconds between two looks at a probe, and so between a page's leaving and the probe's end.
GLANCE = 0.5


def build(wires: Wires, editor: Editor, button: gr.Button) -> gr.State:
    """Lay the estimate out under its button.

    Returns:
        a state with the last estimate: {"yaml": of the recipe, "seconds": …}, or None.
    """
    known = gr.State(None)
    shown = gr.HTML(elem_id="estimated")
    cancel = gr.Button(text("cancel"), size="sm", visible=False, elem_id="cancel-estimate")
    parts = [shown, button, cancel]
    asked = wires.on(button.click, estimated, editor.given, [*parts, known], concurrency_limit=1)
    wires.on(cancel.click, left, None, parts, cancels=[asked])
    # whatever changes the recipe changes its YAML, and makes the estimate another's
    wires.on(
        editor.code.change, lambda visit: ["", *_idle(), None], None, [*parts, known],
        cancels=[asked],
    )  # fmt: skip
    return known


def estimated(visit: Visit, view: str, code: str, *values: Any) -> Iterator[list[Any]]:
    """Probe the recipe that is meant, saying so meanwhile; closing this ends the probe."""
    recipe = visit.who.recipe(store(), recipe_of(view, code, *values))
    gone = threading.Event()
    waiting = f'<p class="es-estimate" role="status">{esc(visit.say("estimating"))}</p>'
    with ThreadPoolExecutor(1) as probing:
        job = probing.submit(api.estimate, recipe, store(), left=gone)
        try:
            yield [waiting, gr.update(interactive=False), gr.update(visible=True), None]
            while not wait_for([job], GLANCE).done:
                yield [gr.skip()] * 4  # where a page that left is noticed
            found = job.result()
        except Exception:
            yield ["", *_idle(), None]
            raise
        finally:
            gone.set()
    known = {"yaml": recipe.to_yaml(), "seconds": found.seconds}
    yield [show(found, visit), *_idle(), known]


def _idle() -> list[Any]:
    return [gr.update(interactive=True), gr.update(visible=False)]


def left(visit: Visit) -> list[Any]:
    """The page after a probe that nobody waits for any more."""
    return [f'<p class="es-estimate">{esc(visit.say("estimate_cancelled"))}</p>', *_idle()]


def show(found: api.Estimate, visit: Visit) -> str:
    """An estimate as the page shows it."""
    facts = {
        "estimate_time": words.duration(visit.language, found.seconds),
        "estimate_memory": size_of(found.memory),
        "estimate_disk": size_of(found.disk),
        "estimate_answers": f"{found.answers:,}",
        "at_a_time": f"{found.batch}",
    }
    cells = "".join(
        f"<div><dt>{esc(visit.say(key))}</dt><dd>{esc(value)}</dd></div>"
        for key, value in facts.items()
    )
    note = visit.say("estimate_measured" if found.measured else "estimate_guessed")
    return (
        f'<section class="es-estimate" role="status"><dl>{cells}</dl><p>{esc(note)}</p></section>'
    )


def expected(known: Any, recipe: Recipe) -> float | None:
    """Seconds that the recipe takes, if it is the one that was estimated."""
    if isinstance(known, dict) and known.get("yaml") == recipe.to_yaml():
        return known.get("seconds")
    return None
