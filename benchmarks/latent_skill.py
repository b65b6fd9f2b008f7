"""What each bundled model can do and what it shows: right numbers, and right numbers in Japanese.

    python benchmarks/latent_skill.py

On the test split of jmath and of its English twin emath, bare; and the base once more with the
words before each problem with which it was asked to solve it in training (assets/build/corpus.py).
Prints a Markdown table and writes it to benchmarks/results/latent_skill.md.
"""

import dataclasses

import torch
from publish import publish

from studio.evolve.evaluate import evaluate
from studio.models import Checkpoint
from studio.models.precision import default_device
from studio.runs import Evaluation
from studio.tasks import load_task

MODELS = ("bonsai-base", "bonsai-ja", "bonsai-math", "bonsai-abel")
ASK = {"jmath": "解いてください：", "emath": "Solve: "}


def answers(name: str, task_name: str, *, asked: bool) -> Evaluation:
    checkpoint = Checkpoint.open(name)
    task = load_task(task_name)
    prefix = ASK[task_name] if asked else ""
    examples = [
        dataclasses.replace(example, question=prefix + example.question)
        for example in task.examples("test")
    ]
    return evaluate(
        checkpoint.load(torch.float32, default_device()), checkpoint.tokenizer(), task, examples,
        subject=f"model:{name}", split="test", batch_size=128,
    )  # fmt: skip


def row(name: str, *, asked: bool = False) -> str:
    japanese, english = (answers(name, task, asked=asked) for task in ("jmath", "emath"))
    right = sum(outcome.details["right"] for outcome in japanese.outcomes) / len(japanese.outcomes)
    shares = (right, japanese.score, english.score)
    label = f"{name}, asked" if asked else name
    return f"| {label} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |"


def main() -> None:
    lines = [
        "| model | `jmath`: right number | right and in Japanese | `emath`: right and in English |",
        "|---|---|---|---|",
    ]
    lines += [row(name) for name in MODELS]
    lines += [
        row("bonsai-base", asked=True),
        "",
        f"Test split, {len(load_task('jmath').examples('test'))} problems each; asked: "
        f'"{ASK["jmath"]}" or "{ASK["emath"].strip()}" before the problem. torch '
        f"{torch.__version__}, {default_device()}.",
    ]
    publish("latent_skill", lines)


if __name__ == "__main__":
    main()
