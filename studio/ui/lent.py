"""Runs on ZeroGPU: no worker can have the GPU, so the page that watches drives the run.

The open page is the visitor whose quota pays, and a page that is closed pauses its run, to be
resumed. Knows how a page's event becomes the steps of a run; how those get the GPU is
`studio.evolve.blocks`'s.
"""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio import zero_gpu
from studio.runs import Run
from studio.ui.shared import engine, store
from studio.ui.wiring import Visit, Wires

if zero_gpu.available():  # what is lent the GPU must be known before the page is launched
    from studio.evolve import blocks  # noqa: F401

#: Runs that pages drive at once; each holds a thread of the server.
AT_ONCE = 10


def build(wires: Wires) -> gr.State:
    """The state that a handler puts a `ticket` into, whose run this page then drives."""
    driven = gr.State(None)
    wires.on(driven.change, drive, driven, None, concurrency_limit=AT_ONCE)
    return driven


def ticket(run: Run | str) -> Any:
    """What sets this page to driving a run; a new one every time, and nothing off ZeroGPU."""
    if not zero_gpu.available():
        return gr.skip()
    return (run if isinstance(run, str) else run.id, time.time())


def drive(visit: Visit, driven: tuple[str, float] | None) -> Iterator[None]:
    """Work on a run until it is finished, pauses, or the page is gone."""
    if driven is None:
        return
    run = visit.who.mine(store(), driven[0])
    engine()
    from studio.evolve.blocks import Blocks
    from studio.evolve.loop import steps

    yield from steps(store(), run.id, Blocks)
