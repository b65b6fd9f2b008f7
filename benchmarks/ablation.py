"""Which source matters: the best candidate of a run again, with one source taken out at a time.

    python benchmarks/ablation.py [RUN]

Sets every weight of one source to 0 and leaves all other genes as they are; scored on the whole dev
split, since the test split is for what is reported. Without RUN it takes the bundled sample run.
Prints a Markdown table and writes it to benchmarks/results/ablation.md.
"""

import sys

from publish import cells, publish

from studio import api
from studio.evolve.evaluate import evaluate
from studio.evolve.spaces import first_space
from studio.merge.live import LiveModel
from studio.recipe import Recipe
from studio.runs import Store


def main() -> None:
    store = Store(":memory:")
    if sys.argv[1:]:
        store, run = api.open_store(), sys.argv[1]
    else:
        run = store.import_runs(api.SAMPLE_RUN)[0]
    record = store.run(run)
    recipe = Recipe.from_yaml(record.recipe)
    task = recipe.build_tasks()[0]
    dev = task.examples("dev")
    best = store.best(record.id)
    live = LiveModel(first_space(recipe), precision=recipe.precision)
    lines = [
        f"| candidate #{best.id} of run {record.id} | {task.name}, {len(dev)} dev problems | "
        "95 % interval |",
        "|---|---|---|",
    ]
    for left_out in (None, *recipe.sources):
        live.apply(live.space.without(best.genome, left_out) if left_out else best.genome)
        row = api.scores_of(
            evaluate(
                live.model, live.tokenizer, task, dev,
                subject="ablation", split="dev", batch_size=recipe.batch_size,
            ),
            f"without {left_out}" if left_out else "whole",
            "evolved",
        )  # fmt: skip
        lines.append(f"| {row['model']} | {cells(row)}")
    publish("ablation", lines)


if __name__ == "__main__":
    main()
