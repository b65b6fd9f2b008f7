"""Records as text for spreadsheets: all candidates of a run, a row each."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from studio.errors import StudioError
from studio.evolve.spaces import rebuild_space
from studio.recipe import Recipe
from studio.runs import Store


def candidates_csv(run: str, store: Store | None = None) -> Iterator[str]:
    """All candidates of a run as lines of CSV, the names of the columns first.

    The columns are id, stage, generation, score (the mean of the tasks', 0 to 1; empty while
    pending), each objective by its name, tokens, seconds, broken, then the genome: by the names of
    its genes, or g0, g1, … where its models are gone. Text that a spreadsheet would take for a
    formula begins with an apostrophe.
    """
    store = store or Store()
    record = store.run(run)
    recipe = Recipe.from_yaml(record.recipe, f"The recipe of run {record.id}")
    objectives = recipe.objective_names()
    candidates = store.candidates(record.id)
    genes: dict[str, list[str]] = {}
    for stage in dict.fromkeys(candidate.stage for candidate in candidates):
        genes[stage] = _genes(store, record.id, stage)
    longest = max((len(c.genome) for c in candidates), default=0)
    raw = [f"g{number}" for number in range(longest)]
    named = list(dict.fromkeys(name for names in genes.values() for name in names or raw))
    yield _line(["id", "stage", "generation", "score", *objectives, "tokens", "seconds", "broken",
                 *named])  # fmt: skip
    for c in candidates:
        values = dict(zip(genes[c.stage] or raw, c.genome.tolist(), strict=False))
        yield _line([c.id, c.stage, c.generation, c.score, *map(c.scores.get, objectives),
                     c.tokens, round(c.seconds, 3), c.broken, *map(values.get, named)])  # fmt: skip


def _genes(store: Store, run: str, stage: str) -> list[str]:
    """What the numbers of a stage's genomes are called; nothing where its models are gone."""
    try:
        return list(rebuild_space(store, run, stage).names)
    except StudioError:
        return []


def _line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([_cell(value) for value in cells])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A number as it is; text so that no spreadsheet runs it."""
    if isinstance(value, str) and value.lstrip()[:1] in tuple("=+-@"):
        return f"'{value}"
    return value
