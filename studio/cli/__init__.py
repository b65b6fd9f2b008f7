"""The Studio in a terminal: ``python -m studio COMMAND``, a thin skin over :mod:`studio.api`.

Knows how to show things in a terminal, and nothing else. Commands take ``--json`` for scripts; bad
input is one sentence on standard error and exit status 2.
"""

import sys

from studio.cli import models, runs  # noqa: F401  (each adds its commands)
from studio.cli.options import app
from studio.cli.showing import err, plain
from studio.errors import StudioError


def main() -> None:
    """The entry point: like ``app()``, with bad input said in one sentence."""
    # A pipe on Windows may speak another encoding than the Japanese that models answer in.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except StudioError as error:
        err.print(f"[bold red]Error:[/] {plain(error)}")
        raise SystemExit(2) from None
