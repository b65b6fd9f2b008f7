"""How much the seed decides: the same recipe evolved again with other seeds, each scored on test.

    python benchmarks/seeds.py [--recipe recipes/jmath.yaml] [--seeds 1 2 3 4]

Runs without the random baseline; one that the workspace holds already is not run again. Prints a
Markdown table and writes it to benchmarks/results/seeds.md.
"""

import argparse
from pathlib import Path

import numpy as np
from publish import cells, machine, publish

from studio import api
from studio.recipe import Recipe
from studio.runs import Run, Store
from studio.runs.records import FINISHED


def finished(recipe: Recipe, store: Store) -> Run:
    """A finished run of this recipe, with or without a baseline; evolved now if there is none."""
    for record in store.runs():
        known = Recipe.from_yaml(record.recipe)
        known.search.random_baseline = recipe.search.random_baseline
        if record.status == FINISHED and known == recipe:
            return record
    record = store.run(api.evolve(recipe, store))
    if record.status != FINISHED:
        raise SystemExit(f"{record.name}, seed {recipe.seed}, was stopped.")
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=Path("recipes/jmath.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    options = parser.parse_args()
    document = Recipe.load(options.recipe).model_dump(mode="json")
    document["search"]["random_baseline"] = False
    store = api.open_store()
    lines = ["| seed | evolved | 95 % interval | seconds |", "|---|---|---|---|"]
    scores = []
    for seed in options.seeds:
        record = finished(Recipe.from_dict(document | {"seed": seed}), store)
        row = next(r for r in api.report(record.id, store) if r["role"] == "evolved")
        scores.append(100 * row["score"])
        lines.append(f"| {seed} | {cells(row)} {record.seconds:.0f} |")
    lines += [
        "",
        f"{row['task']}, {row['n']} test problems, {document['space']['method']}, "
        f"{document['budget']['candidates']} candidates, no random baseline. Mean "
        f"{np.mean(scores):.1f} %, standard deviation {np.std(scores, ddof=1):.1f}. "
        f"{machine()}.",
    ]
    publish("seeds", lines)


if __name__ == "__main__":
    main()
