"""NSGA-II against random search: how much of two tasks and a length a front covers, by seed.

    python benchmarks/objectives.py [--recipe recipes/tradeoff.yaml] [--candidates 48]
        [--examples 40] [--population 12] [--seeds 0 1 2 3 4]

A recipe for both spaces with its random baseline: both get the same budget and the same start. For
each seed the hypervolume of the candidates of each stage as the search saw them, how many of the
front dominate every source on the tasks, and whether the reported one does on test. Runs that the
workspace holds already are not run again. Prints a Markdown table and writes it to
benchmarks/results/objectives.md.
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from publish import machine, publish
from seeds import finished

from studio import api
from studio.evolve.spaces import rebuild_space
from studio.recipe import PROPERTIES, Recipe
from studio.runs import Store
from studio.runs.front import hypervolume


def covered(recipe: Recipe, run: str, store: Store) -> dict[str, float]:
    """The hypervolume of all candidates of each stage, by its name."""
    return {
        stage.name: hypervolume(
            store.candidates(run, stage.name),
            stage.objectives,
            rebuild_space(store, run, stage.name).worst(),
        )
        for stage in recipe.stages()
    }


def dominates(own: Mapping[str, float], others: Iterable[Mapping[str, float]]) -> bool:
    """Whether scores are as good as each of the others in every task, and better in one."""
    return all(
        all(own[task] >= score for task, score in other.items())
        and any(own[task] > score for task, score in other.items())
        for other in others
    )


def on_dev(recipe: Recipe, run: str, store: Store) -> str:
    """How many of the front dominate every source on the examples the search saw."""
    sources: dict[str, dict[str, float]] = {}
    for evaluation in store.evaluations(run, "dev"):
        name = evaluation.subject.removeprefix("model:")
        if name in recipe.sources:
            sources.setdefault(name, {})[evaluation.task] = evaluation.score
    members = api.front(run, store)
    return f"{sum(dominates(c.scores, sources.values()) for c in members)} of {len(members)}"


def on_test(run: str, store: Store) -> str:
    """The reported model's scores on test, and whether they dominate every source's."""
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for row in api.report(run, store):
        scores.setdefault((row["role"], row["model"]), {})[row["task"]] = row["score"]
    sources = [s for (role, _), s in scores.items() if role == "source"]
    own = next(s for (role, _), s in scores.items() if role == "evolved")
    said = ", ".join(f"{task} {100 * score:.1f}" for task, score in own.items())
    return f"{said} | {'yes' if dominates(own, sources) else 'no'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=Path("recipes/tradeoff.yaml"))
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--population", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    document = Recipe.load(options.recipe).model_dump(mode="json", exclude_none=True)
    document["budget"]["candidates"] = options.candidates
    document["search"] |= {"finalists": 1, "population": options.population}
    for objective in document["objectives"]:
        if objective.get("property") not in PROPERTIES:
            objective["examples"] = options.examples
    store = api.open_store()
    pairs = (("parameter", "random parameter"), ("data_flow", "random data_flow"))
    lines = [
        "| seed | weights: NSGA-II | random | then paths: NSGA-II | random "
        "| of the front, dominate every source on dev | reported, on test | dominates there |",
        "|---|---|---|---|---|---|---|---|",
    ]
    volumes: dict[str, list[float]] = {name: [] for pair in pairs for name in pair}
    for seed in options.seeds:
        recipe = Recipe.from_dict(document | {"seed": seed})
        record = finished(recipe, store)
        for name, volume in covered(recipe, record.id, store).items():
            volumes[name].append(volume)
        cells = " | ".join(f"{values[-1]:.3f}" for values in volumes.values())
        found = f"{on_dev(recipe, record.id, store)} | {on_test(record.id, store)}"
        lines.append(f"| {seed} | {cells} | {found} |")
    means = " | ".join(f"{np.mean(values):.3f}" for values in volumes.values())
    lines.append(f"| mean | {means} | | | |")
    sources = {
        (row["model"], row["task"]): row["score"]
        for row in api.report(record.id, store)
        if row["role"] == "source"
    }
    said = ", ".join(f"{model} {task} {100 * s:.1f}" for (model, task), s in sources.items())
    lines += [
        "",
        "Hypervolume: the share of the box from the worst to the best value, of "
        f"{' and '.join(recipe.objective_names()[:-1])} for weights, with "
        f"{recipe.objective_names()[-1]} for paths. {options.candidates} candidates per search, "
        f"{options.examples} dev problems per task. Sources on test: {said}. {machine()}.",
    ]
    publish("objectives", lines)


if __name__ == "__main__":
    main()
