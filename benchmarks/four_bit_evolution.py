"""Whether an evolution in four bits finds what one in full precision finds.

    python benchmarks/four_bit_evolution.py [--recipe recipes/jmath.yaml] [--seeds 0 1]

Evolves the recipe in nf4 and in fp32 with the same seeds, without the random baseline; a run that
the workspace holds already is not run again. The winner of nf4 is scored on test as it was evolved
and again as it is exported, unquantized. Prints a Markdown table and writes it to
benchmarks/results/four_bit_evolution.md.
"""

import argparse
from pathlib import Path

import numpy as np
from publish import cells, machine, publish
from seeds import finished

from studio import api
from studio.recipe import Recipe

ROLES = {"evolved": "as evolved", "exported": "as exported, fp32"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=Path("recipes/jmath.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    document = Recipe.load(options.recipe).model_dump(mode="json")
    document["search"]["random_baseline"] = False
    store = api.open_store()
    lines = [
        "| precision | seed | model | test | 95 % interval | search, seconds |",
        "|---|---|---|---|---|---|",
    ]
    scores: dict[tuple[str, str], list[float]] = {}
    for seed in options.seeds:
        for precision in ("nf4", "fp32"):
            recipe = Recipe.from_dict(document | {"seed": seed, "precision": precision})
            record = finished(recipe, store)
            for row in api.report(record.id, store):
                if row["role"] in ROLES:
                    scores.setdefault((precision, row["role"]), []).append(100 * row["score"])
                    lines.append(
                        f"| {precision} | {seed} | {ROLES[row['role']]} | {cells(row)} "
                        f"{record.seconds:.0f} |"
                    )
    means = {key: float(np.mean(values)) for key, values in scores.items()}
    full = means["fp32", "evolved"]
    lines += [
        "",
        f"{row['task']}, {row['n']} test problems, {document['space']['method']}, "
        f"{document['budget']['candidates']} candidates, no random baseline. Of the mean score of "
        f"fp32, {full:.1f} %, the merge evolved in nf4 reaches "
        f"{means['nf4', 'evolved'] / full:.0%} as evolved and "
        f"{means['nf4', 'exported'] / full:.0%} as exported. {machine()}.",
    ]
    publish("four_bit_evolution", lines)


if __name__ == "__main__":
    main()
