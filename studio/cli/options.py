"""What commands have in common: the program they belong to, and how their options are read."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.api import Place

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
Executor = Annotated[
    str | None,
    typer.Option(help="Who scores: here (this process), devices (a process each) or ray."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="How many, of devices or ray.")]
Address = Annotated[
    str | None, typer.Option(help="A Ray cluster: HOST:PORT, ray://HOST:PORT or auto.")
]
Timeout = Annotated[
    float | None, typer.Option(help="Replace a worker that got nothing done in so many seconds.")
]
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


def place(
    executor: str | None, workers: int | None, address: str | None, timeout: float | None
) -> "Place | None":
    """Where a run is to be worked on; None where nothing is said of that."""
    from studio.api import Place

    given = {"executor": executor, "workers": workers, "address": address, "timeout": timeout}
    given = {name: value for name, value in given.items() if value is not None}
    return Place(**given) if given else None
