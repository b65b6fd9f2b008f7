"""How a benchmark's result is written: Markdown under benchmarks/results/, and the same printed."""

import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def publish(name: str, lines: Iterable[str]) -> None:
    """Print the lines and write them to benchmarks/results/NAME.md."""
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def cells(row: Mapping[str, Any]) -> str:
    """Score and 95 % interval of a report's row, in percent, as two cells of a table."""
    return f"{100 * row['score']:.1f} % | {100 * row['low']:.1f} – {100 * row['high']:.1f} |"


def machine() -> str:
    """What it was measured on, as the end of a sentence."""
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
