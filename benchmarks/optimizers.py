"""Which optimizer finds better paths: the same budget on the bonsai models, several seeds each.

    python benchmarks/optimizers.py [--recipe recipes/paths.yaml] [--candidates 128]
        [--examples 64] [--seeds 0 1 2 3 4] [--optimizers cma cmaes random]

CMA-ES on the relaxed indicators as in the paper (cma), CMA-ES with margin (cmaes), and random steps
around the same start. Runs that the workspace holds already are not run again. Prints a Markdown
table and writes it to benchmarks/results/optimizers.md.
"""

import argparse
from pathlib import Path

import numpy as np
from publish import machine, publish
from seeds import finished

from studio import api
from studio.evolve.spaces import first_space
from studio.recipe import Recipe

NAMES = {
    "cma": "CMA-ES, relaxed indicators (cma)",
    "cmaes": "CMA-ES with margin (cmaes)",
    "random": "random around the start",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=Path("recipes/paths.yaml"))
    parser.add_argument("--candidates", type=int, default=128)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--optimizers", nargs="+", default=list(NAMES))
    options = parser.parse_args()
    document = Recipe.load(options.recipe).model_dump(mode="json", exclude_none=True)
    document["budget"]["candidates"] = options.candidates
    document["objectives"][0]["examples"] = options.examples
    document["search"] |= {"random_baseline": False, "finalists": 1}
    store = api.open_store()
    seen, test, lengths = {}, {}, {}
    for optimizer in options.optimizers:
        document["search"]["optimizer"] = optimizer
        seen[optimizer], test[optimizer], lengths[optimizer] = [], [], []
        for seed in options.seeds:
            recipe = Recipe.from_dict(document | {"seed": seed, "name": f"paths, {optimizer}"})
            record = finished(recipe, store)
            best = store.ranked(record.id)[0]
            winner = store.best(record.id)
            row = next(r for r in api.report(record.id, store) if r["role"] == "evolved")
            seen[optimizer].append(100 * best.score)
            test[optimizer].append(100 * row["score"])
            lengths[optimizer].append(len(first_space(recipe).path(winner.genome)))
    lines = [
        "| optimizer | best on the search's examples | winner on test | by seed | layers |",
        "|---|---|---|---|---|",
    ]
    for name in options.optimizers:
        spread = [f"{np.mean(v):.1f} ± {np.std(v, ddof=1):.1f} %" for v in (seen[name], test[name])]
        by_seed = ", ".join(f"{score:.1f}" for score in test[name])
        layers = ", ".join(map(str, lengths[name]))
        lines.append(f"| {NAMES[name]} | {' | '.join(spread)} | {by_seed} | {layers} |")
    lines += [
        "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, options.seeds))}; "
        f"{options.candidates} candidates each, sigma {document['search']['sigma']}, population "
        f"{document['search']['population']}, {options.examples} dev problems in the search, "
        f"{row['n']} on test; {document['sources'][0]} is the main model, "
        f"{' and '.join(document['sources'][1:])} lends layers. {machine()}.",
    ]
    publish("optimizers", lines)


if __name__ == "__main__":
    main()
