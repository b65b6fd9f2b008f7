"""The README's table: the bonsai sources, their best uniform merge, and the evolved merge on test.

    python benchmarks/bonsai_table.py [--run RUN] [--recipe recipes/jmath.yaml]

Evolves the recipe (or takes a finished run of it), then searches the best uniform merge, one weight
per source and one density for all layers, on a grid over every merge method, with the protocol the
evolution has: the same dev examples, the best five compared on the whole dev split, the winner
scored once on test. Prints a Markdown table and writes it to benchmarks/results/bonsai_table.md.
"""

import argparse
import itertools
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from studio import api
from studio.evolve.evaluate import evaluate
from studio.merge.live import LiveModel
from studio.merge.parameter_space import ParameterSpace
from studio.recipe import Recipe
from studio.runs import Evaluation, Store
from studio.tasks import load_task

WEIGHTS = (0.0, 0.33, 0.67, 1.0)
DENSITIES = (0.5,)
TS = (0.1, 0.3, 0.5, 0.7, 0.9)
RESULT = Path(__file__).parent / "results" / "bonsai_table.md"


def uniform_spaces(recipe: Recipe) -> Iterator[tuple[str, ParameterSpace]]:
    """A space of one layer group for every method (slerp: for every pair of sources)."""
    document = recipe.model_dump(mode="json")
    document["space"] |= {"layer_granularity": "all", "filters": [], "negative_weights": False}
    for method in ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"):
        document["space"]["method"] = method
        yield method, Recipe.from_dict(document).build_space()
    document["space"]["method"] = "slerp"
    for pair in itertools.combinations(recipe.sources, 2):
        document["sources"] = list(pair)
        yield f"slerp {pair[0]} → {pair[1]}", Recipe.from_dict(document).build_space()


def grid(space: ParameterSpace) -> Iterator[np.ndarray]:
    """Every combination of a weight per source and one density, as genomes of the space."""
    kinds = [gene.kind for gene in space.genes]
    if "t" in kinds:
        yield from (np.full(len(kinds), t) for t in TS)
        return
    for weights in itertools.product(WEIGHTS, repeat=kinds.count("weight")):
        if not any(weights):
            continue  # the base alone, or nothing at all
        for density in DENSITIES if "density" in kinds else (1.0,):
            values = iter(weights)
            yield np.array([next(values) if kind == "weight" else density for kind in kinds])


def best_uniform(recipe: Recipe) -> tuple[str, Evaluation, int]:
    """The grid's winner: its description, its evaluation on test, and how many were tried."""
    objective = recipe.objectives[0]
    task = load_task(objective.task, **objective.options)
    dev = task.examples("dev")

    def score(live: LiveModel, genome: np.ndarray, examples: list, split: str) -> Evaluation:
        live.apply(genome)
        return evaluate(
            live.model, live.tokenizer, task, examples,
            subject="uniform", split=split, batch_size=recipe.batch_size,
        )  # fmt: skip

    tried = []
    for method, space in uniform_spaces(recipe):
        live = LiveModel(space, precision=recipe.precision)
        found = [
            (score(live, g, dev[: objective.examples], "dev").score, method, g) for g in grid(space)
        ]
        best = max(found, key=lambda item: item[0])
        print(f"{method}: {len(found)} tried, best {best[0]:.3f} on the search's examples")
        tried += [(*item, space) for item in found]
    tried.sort(key=lambda item: -item[0])
    finalists = []
    for _, method, genome, space in tried[: recipe.search.finalists]:
        live = LiveModel(space, precision=recipe.precision)
        finalists.append((score(live, genome, dev, "selection").score, method, genome, space))
    _, method, genome, space = max(finalists, key=lambda item: item[0])
    test = score(
        LiveModel(space, precision=recipe.precision), genome, task.examples("test"), "test"
    )
    return f"{method}, {describe(space, genome)}", test, len(tried)


def describe(space: ParameterSpace, genome: np.ndarray) -> str:
    """The genome of a uniform space in words."""
    chosen = list(zip(space.genes, genome, strict=True))
    parts = [f"{gene.source or gene.kind} {v:g}" for gene, v in chosen if gene.kind != "density"]
    densities = [f"density {v:g}" for gene, v in chosen if gene.kind == "density"]
    return ", ".join(parts + densities[:1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a finished run; a new one is evolved if left out")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/jmath.yaml"))
    options = parser.parse_args()
    store: Store = api.open_store()
    run = options.run or api.evolve(options.recipe, store, lambda p: print(p.stage, p.done, p.best))
    record = store.run(run)
    recipe = Recipe.from_yaml(record.recipe)
    rows = api.report(record.id, store)

    start = time.perf_counter()
    label, uniform, tried = best_uniform(recipe)
    grid_seconds = time.perf_counter() - start
    place = next(i for i, row in enumerate(rows) if row["role"] == "evolved")
    rows.insert(place, api.scores_of(uniform, f"best uniform merge ({label})", "uniform grid"))

    lines = ["| model | role | right | 95 % interval |", "|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['role']} | {100 * row['score']:.1f} % | "
            f"{100 * row['low']:.1f} – {100 * row['high']:.1f} |"
        )
    lines += [
        "",
        f"Task {rows[0]['task']}, {rows[0]['n']} test problems. Evolution: {recipe.space.method}, "
        f"{recipe.budget.candidates} candidates, seed {recipe.seed}; the whole run with its random "
        f"baseline and report took {record.seconds:.0f} s. Uniform grid: {tried} merges, "
        f"{grid_seconds:.0f} s. {platform.machine()}, {os.cpu_count()} cores, torch "
        f"{torch.__version__}, Python {platform.python_version()}.",
    ]
    text = "\n".join(lines) + "\n"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
