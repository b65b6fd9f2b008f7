"""NSGA-II against random search: how much of two tasks and a length a front covers, by seed.

    python benchmarks/objectives.py [--recipe recipes/tradeoff.yaml] [--candidates 96]
        [--examples 40] [--population 12] [--seeds 0 1 2 3 4]

Both get the same budget and the same start. For each seed: the hypervolume of the candidates as the
search saw them, and the candidate of NSGA-II's front, if there is one, that beats or equals every
source on both tasks on the whole test split. Runs that the workspace holds already are not run
again. Prints a Markdown table and writes it to benchmarks/results/objectives.md.
"""

import argparse
from pathlib import Path

import numpy as np
from publish import machine, publish
from seeds import finished

from studio import api
from studio.evolve.spaces import first_space
from studio.recipe import PROPERTIES, Recipe
from studio.runs import Store
from studio.runs.front import front, hypervolume


def covered(recipe: Recipe, run: str, store: Store) -> float:
    """The hypervolume of all candidates of a run's own search."""
    stage = recipe.stages()[0]
    found = store.candidates(run, stage.name)
    return hypervolume(found, stage.objectives, first_space(recipe).worst())


def dominating(run: str, store: Store) -> str:
    """The evolved model on test that no source beats in any task, with its scores."""
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for row in api.report(run, store):
        scores.setdefault((row["role"], row["model"]), {})[row["task"]] = row["score"]
    sources = [s for (role, _), s in scores.items() if role == "source"]
    for (role, model), own in scores.items():
        beats = all(
            all(own[t] >= s[t] for t in s) and any(own[t] > s[t] for t in s) for s in sources
        )
        if role == "evolved" and beats:
            said = ", ".join(f"{task} {100 * score:.1f}" for task, score in own.items())
            return f"{model}: {said}"
    return "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=Path("recipes/tradeoff.yaml"))
    parser.add_argument("--candidates", type=int, default=96)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--population", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    document = Recipe.load(options.recipe).model_dump(mode="json", exclude_none=True)
    document["budget"]["candidates"] = options.candidates
    document["search"] |= {"random_baseline": False, "population": options.population}
    for objective in document["objectives"]:
        if objective.get("property") not in PROPERTIES:
            objective["examples"] = options.examples
    store = api.open_store()
    lines = [
        "| seed | NSGA-II | random | front | on test, not beaten by any source |",
        "|---|---|---|---|---|",
    ]
    volumes: dict[str, list[float]] = {"nsga2": [], "random": []}
    for seed in options.seeds:
        for optimizer in volumes:
            # only NSGA-II's front meets all of dev and the test split
            finalists = 4 if optimizer == "nsga2" else 1
            document["search"] |= {"optimizer": optimizer, "finalists": finalists}
            recipe = Recipe.from_dict(document | {"seed": seed, "name": f"front, {optimizer}"})
            record = finished(recipe, store)
            volumes[optimizer].append(covered(recipe, record.id, store))
            if optimizer == "nsga2":
                stage = recipe.stages()[0]
                size = len(front(store.candidates(record.id, stage.name), stage.objectives))
                best = dominating(record.id, store)
        cells = " | ".join(f"{volumes[name][-1]:.3f}" for name in volumes)
        lines.append(f"| {seed} | {cells} | {size} | {best} |")
    sources = {
        (row["model"], row["task"]): row["score"]
        for row in api.report(record.id, store)
        if row["role"] == "source"
    }
    said = ", ".join(f"{model} {task} {100 * s:.1f}" for (model, task), s in sources.items())
    names = recipe.objective_names()
    lines += [
        "",
        f"Hypervolume (share of the box from the worst to the best value of {', '.join(names)}): "
        f"NSGA-II {np.mean(volumes['nsga2']):.3f}, random {np.mean(volumes['random']):.3f} on "
        f"average. {options.candidates} candidates each, {options.examples} dev problems per task. "
        f"Sources on test: {said}. {machine()}.",
    ]
    publish("objectives", lines)


if __name__ == "__main__":
    main()
