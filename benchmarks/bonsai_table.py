"""The README's table: the bonsai sources, their best uniform merge, and the evolved merge on test.

    python benchmarks/bonsai_table.py [--run RUN] [--recipe recipes/jmath.yaml] [--weights 0 0.5 1]

Evolves the recipe (or takes a finished run of it), then searches what needs no evolution with the
protocol the evolution has: the same dev examples, the best five compared on the whole dev split,
the winner scored once on test. First one source alone, its difference from the base scaled down;
then uniform merges, one weight per source and one density for all layers, on a grid over every
merge method. Prints a Markdown table and writes it to benchmarks/results/bonsai_table.md.
"""

import argparse
import itertools
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from publish import cells, machine, publish

from studio import api
from studio.evolve.evaluate import evaluate
from studio.evolve.spaces import first_space
from studio.merge.live import LiveModel
from studio.merge.parameter_space import ParameterSpace
from studio.recipe import Recipe
from studio.runs import Evaluation, Store
from studio.tasks import Task, load_task

WEIGHTS = (0.0, 0.33, 0.67, 1.0)
SCALES = tuple(step / 10 for step in range(1, 11))
DENSITIES = (0.5,)
TS = (0.1, 0.3, 0.5, 0.7, 0.9)

#: A description, a space, and its genomes to try.
Trials = tuple[str, ParameterSpace, Iterable[np.ndarray]]


def uniform_merges(recipe: Recipe, weights: Sequence[float]) -> Iterator[Trials]:
    """The grid over every method (slerp: over every pair of sources)."""
    for method in ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"):
        space = uniform_space(recipe, method, recipe.sources)
        yield method, space, grid(space, weights)
    for pair in itertools.combinations(recipe.sources, 2):
        space = uniform_space(recipe, "slerp", pair)
        yield f"slerp {pair[0]} → {pair[1]}", space, grid(space, weights)


def rescaled_sources(recipe: Recipe) -> Iterator[Trials]:
    """Each source alone at a fraction of its difference from the base: no merge at all."""
    for source in recipe.sources:
        space = uniform_space(recipe, "task_arithmetic", [source])
        yield "task_arithmetic", space, [np.array([scale]) for scale in SCALES]


def uniform_space(recipe: Recipe, method: str, sources: Sequence[str]) -> ParameterSpace:
    """The recipe's space with one layer group."""
    document = recipe.model_dump(mode="json")
    document["sources"] = list(sources)
    document["space"] |= {
        "method": method, "layer_granularity": "all", "filters": [], "negative_weights": False,
    }  # fmt: skip
    return first_space(Recipe.from_dict(document))


def grid(space: ParameterSpace, levels: Sequence[float]) -> Iterator[np.ndarray]:
    """Every combination of a weight per source and one density, as genomes of the space."""
    kinds = [gene.kind for gene in space.genes]
    if "t" in kinds:
        yield from (np.full(len(kinds), t) for t in TS)
        return
    for weights in itertools.product(levels, repeat=kinds.count("weight")):
        if not any(weights):
            continue  # the base alone, or nothing at all
        for density in DENSITIES if "density" in kinds else (1.0,):
            values = iter(weights)
            yield np.array([next(values) if kind == "weight" else density for kind in kinds])


def best_of(
    recipe: Recipe, trials: Iterable[Trials], task: Task | None = None
) -> tuple[str, Evaluation, int]:
    """The winner by the search's protocol: its description, its evaluation on test, and how many
    were tried. Of the recipe's first objective, or another task."""
    objective = recipe.objectives[0]
    task = task or load_task(objective.task, **objective.options)
    dev = task.examples("dev")

    def score(live: LiveModel, genome: np.ndarray, examples: list, split: str) -> Evaluation:
        live.apply(genome)
        return evaluate(
            live.model, live.tokenizer, task, examples,
            subject="grid", split=split, batch_size=recipe.batch_size, processor=live.processor,
        )  # fmt: skip

    tried = []
    for label, space, genomes in trials:
        live = LiveModel(space, precision=recipe.precision)
        for genome in genomes:
            found = score(live, genome, dev[: objective.examples], "dev").score
            tried.append((found, f"{label}, {describe(space, genome)}", genome, space))
            print(f"{found:.3f} on the search's examples: {tried[-1][1]}")
    tried.sort(key=lambda item: -item[0])
    finalists = []
    for _, label, genome, space in tried[: recipe.search.finalists]:
        live = LiveModel(space, precision=recipe.precision)
        finalists.append((score(live, genome, dev, "selection").score, label, genome, space))
        print(f"{finalists[-1][0]:.3f} on all of dev: {label}")
    _, label, genome, space = max(finalists, key=lambda item: item[0])
    live = LiveModel(space, precision=recipe.precision)
    return label, score(live, genome, task.examples("test"), "test"), len(tried)


def describe(space: ParameterSpace, genome: np.ndarray) -> str:
    """The genome of a uniform space in words."""
    chosen = list(zip(space.genes, genome, strict=True))
    parts = [f"{gene.source or gene.kind} {v:g}" for gene, v in chosen if gene.kind != "density"]
    densities = [f"density {v:g}" for gene, v in chosen if gene.kind == "density"]
    return ", ".join(parts + densities[:1])


def table(rows: Iterable[dict]) -> list[str]:
    lines = ["| model | role | right | 95 % interval |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['model']} | {row['role']} | {cells(row)}")
    return lines


def rescaled_row(recipe: Recipe) -> dict:
    label, evaluation, _ = best_of(recipe, rescaled_sources(recipe))
    model = f"best single source, rescaled ({label})"
    return api.scores_of(evaluation, model, "rescaled source")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a finished run; a new one is evolved if left out")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/jmath.yaml"))
    parser.add_argument(
        "--weights", type=float, nargs="+", default=WEIGHTS, help="of the uniform grid"
    )
    options = parser.parse_args()
    store: Store = api.open_store()
    run = options.run or api.evolve(options.recipe, store, lambda p: print(p.stage, p.done, p.best))
    record = store.run(run)
    recipe = Recipe.from_yaml(record.recipe)
    rows = api.report(record.id, store)

    rescaled = rescaled_row(recipe)
    start = time.perf_counter()
    label, uniform, tried = best_of(recipe, uniform_merges(recipe, options.weights))
    grid_seconds = time.perf_counter() - start
    place = next(i for i, row in enumerate(rows) if row["role"] == "evolved")
    rows[place:place] = [
        rescaled,
        api.scores_of(uniform, f"best uniform merge ({label})", "uniform grid"),
    ]

    lines = [
        *table(rows),
        "",
        f"Task {rows[0]['task']}, {rows[0]['n']} test problems. Evolution: {recipe.space.method}, "
        f"{recipe.budget.candidates} candidates, seed {recipe.seed}; the whole run with its random "
        f"baseline and report took {record.seconds:.0f} s. Uniform grid: {tried} merges, "
        f"{grid_seconds:.0f} s. {machine()}, Python {platform.python_version()}.",
    ]
    publish("bonsai_table", lines)


if __name__ == "__main__":
    main()
