"""The tables of benchmarks/results, as rows that tests can hold others against."""

import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
#: Merges of weights, and what they are held against; then paths, and theirs.
TABLE, PATHS = RESULTS / "bonsai_table.md", RESULTS / "table_one.md"
_ROW = re.compile(
    r"\| (?P<model>[^|]+) \| (?P<role>[^|]+) \| (?P<score>[\d.]+) % \| "
    r"(?P<low>[\d.]+) – (?P<high>[\d.]+) \|"
)


def lines(text: str) -> list[str]:
    """The rows of every table in a text, without headings."""
    return [line for line in text.splitlines() if _ROW.fullmatch(line)]


def rows(table: Path = TABLE) -> list[dict]:
    """model, role and, in percent, score, low and high of every row."""
    found = [_ROW.fullmatch(line) for line in lines(table.read_text(encoding="utf-8"))]
    return [
        {**row.groupdict(), **{key: float(row[key]) for key in ("score", "low", "high")}}
        for row in found
    ]


def score(role: str) -> float:
    """The percentage of the only row with this role."""
    (found,) = (row["score"] for row in rows() if row["role"] == role)
    return found
