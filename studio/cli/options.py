"""What commands have in common: the program they belong to, and how their options are read."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.errors import StudioError

app = typer.Typer(
    help="Evolve merges of language models, evaluate them and take them home.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for scripts.")]
RunId = Annotated[str, typer.Argument(help="A run's id, the beginning of one, or 'last'.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write; must not exist yet.")]
Track = Annotated[str | None, typer.Option(help="Where its scalars are to be seen: tensorboard.")]
Public = Annotated[bool, typer.Option("--public", help="Upload it for everybody to see.")]


def pairs(items: list[str], flag: str) -> list[tuple[str, str]]:
    """'name=value' items, split."""
    pairs = []
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise StudioError(f"{flag} {item}: write it as name=value.")
        pairs.append((name, value))
    return pairs


def value(text: str) -> Any:
    """A task's option as a recipe would give it: a number, true or false, or else text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text
