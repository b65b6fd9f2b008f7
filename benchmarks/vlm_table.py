"""The README's table of vision-language models: sources, ungrounded, uniform and evolved, on test.

    python benchmarks/vlm_table.py [--run RUN] [--recipe recipes/vlm.yaml]

Evolves the recipe (or takes a finished run of it), whose first source sees and whose second knows.
Then, for each of its tasks by itself, the best uniform merge, with the protocol the evolution has
(`bonsai_table.py`); and the second source in the first one's frame, shown the pictures, or a blank
one in their place: what it knows without seeing. Last, how the evolved model does on the art style
that nobody was trained on. Prints Markdown and writes benchmarks/results/vlm_table.md.
"""

import argparse
import io
import platform
from dataclasses import replace
from pathlib import Path

import torch
from bonsai_table import WEIGHTS, best_of, uniform_merges
from PIL import Image
from publish import machine, publish

from studio import api
from studio.evolve.evaluate import evaluate
from studio.models import open_source
from studio.models.vocabulary import align
from studio.recipe import Recipe
from studio.runs import Evaluation, Store
from studio.runs.statistics import interval


def in_frame(recipe: Recipe, task, examples, subject: str) -> Evaluation:
    """The second source's language model behind the first one's eyes."""
    seeing, knowing = map(open_source, recipe.sources)
    _, (seeing, knowing) = align(None, [seeing, knowing], seeing.name)
    knowing = knowing.framed(seeing.frame)
    return evaluate(
        knowing.load(torch.float32), seeing.tokenizer(), task, examples, subject=subject,
        split="test", batch_size=recipe.batch_size, processor=seeing.processor(),
    )  # fmt: skip


def blank() -> bytes:
    """A white picture."""
    file = io.BytesIO()
    Image.new("RGB", (72, 72), "white").save(file, "PNG")
    return file.getvalue()


def by_style(evaluation: Evaluation, task, unseen: str) -> list[str]:
    """Cells: n and score of the seen styles, and of the unseen one."""
    styles = {example.id: example.meta["style"] for example in task.examples("test")}
    cells = []
    for is_unseen in (False, True):
        scores = [
            o.score for o in evaluation.outcomes if (styles[o.example] == unseen) == is_unseen
        ]
        low, high = interval(scores)
        mean = sum(scores) / len(scores)
        cells.append(f"{100 * mean:.1f} ({100 * low:.1f} – {100 * high:.1f}), n = {len(scores)}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a finished run; a new one is evolved if left out")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/vlm.yaml"))
    options = parser.parse_args()
    store: Store = api.open_store()
    run = options.run or api.evolve(options.recipe, store, lambda p: print(p.stage, p.done, p.best))
    record = store.run(run)
    recipe = Recipe.from_yaml(record.recipe)
    seeing, knowing = recipe.sources
    beside, tried = {}, 0
    for task in recipe.build_tasks():
        examples = task.examples("test")
        empty = blank()
        blind = in_frame(recipe, task, [replace(e, picture=empty) for e in examples], "blind")
        shown = in_frame(recipe, task, examples, "shown")
        document = recipe.model_dump(mode="json")
        document["objectives"] = [{"task": task.name, "examples": recipe.objectives[0].examples}]
        document["report"] = []
        label, uniform, tried = best_of(
            recipe, uniform_merges(Recipe.from_dict(document), WEIGHTS), task
        )
        beside[task.name] = [
            api.scores_of(blind, f"{knowing} in {seeing}'s frame, blank picture", "ungrounded"),
            api.scores_of(shown, f"{knowing} in {seeing}'s frame", "exchanged"),
            api.scores_of(uniform, f"best uniform merge ({label})", "uniform grid"),
        ]

    rows = api.report(record.id, store)
    best = f"candidate:{store.best(record.id).id}"
    lines = ["| task | model | role | ROUGE-L | 95 % interval |", "|---|---|---|---|---|"]
    styles = ["| task | seen styles | the unseen one |", "|---|---|---|"]
    for task in recipe.build_tasks():
        mine = [row for row in rows if row["task"] == task.name]
        place = next(i for i, row in enumerate(mine) if row["role"] == "evolved")
        mine[place:place] = beside[task.name]
        lines += [
            f"| {task.name} | {row['model']} | {row['role']} | {100 * row['score']:.1f} | "
            f"{100 * row['low']:.1f} – {100 * row['high']:.1f} |"
            for row in mine
        ]
        splits = ({e.meta["style"] for e in task.examples(split)} for split in ("test", "dev"))
        (unseen,) = next(splits) - next(splits)
        evolved = store.evaluation(record.id, best, task.name, "test")
        styles.append(f"| {task.name} | {' | '.join(by_style(evolved, task, unseen))} |")
    tasks = ", ".join(f"{row['n']} of {row['task']}" for row in rows if row["subject"] == best)
    lines += [
        "", *styles, "",
        f"Test splits: {tasks}. Evolved on {recipe.objectives[0].examples} dev examples of "
        f"{recipe.objectives[0].task}: {recipe.space.method}, {recipe.budget.candidates} "
        f"candidates, seed {recipe.seed}; the whole run with its random baseline and report took "
        f"{record.seconds:.0f} s. Uniform grid: {tried} merges a task. {machine()}, "
        f"Python {platform.python_version()}.",
    ]  # fmt: skip
    publish("vlm_table", lines)


if __name__ == "__main__":
    main()
