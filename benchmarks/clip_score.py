"""Whether clip_score, which sees no reference, agrees with ROUGE-L, which does, on real answers.

    python benchmarks/clip_score.py [--models bonsai-llava bonsai-culture] [--run last]
        [--tasks ja_vqa ja_culture_vqa] [--encoder bonsai-clip] [--examples N]

The answers are those that models give to the test split of the bundled tasks, or (--run) those that
a run recorded for whatever it reported. For all answers to a task together: the correlation of
clip_score with ROUGE-L (Pearson, and Spearman's of the ranks), and how often a right answer
(ROUGE-L 1) fits its picture better than a wrong one (AUC; 0.5 is chance). The last is measured
again among answers to questions of one kind, and with every answer beside another question's
picture, which says how much is the picture's and how much the answer's own. Intervals are
bootstrapped over the questions. Prints Markdown tables and writes them to
benchmarks/results/clip_score.md.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from publish import machine, publish

from studio import api
from studio.tasks import Example, load_task
from vlm.clip_score import CLIPScore

RESAMPLED = 1000


@dataclass
class Answers:
    """All answers to one task, as parallel arrays.

    ``question`` numbers the examples; ``shuffled`` is clip_score beside another example's picture.
    """

    kind: np.ndarray
    question: np.ndarray
    rouge: np.ndarray
    clip: np.ndarray
    shuffled: np.ndarray


def answered(task: str, options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Responses by model and example."""
    if options.run:
        store = api.open_store()
        run = store.run(options.run).id
        evaluations = [e for e in store.evaluations(run, "test") if e.task == task]
    else:
        evaluations = [
            api.evaluate(model, task, examples=options.examples) for model in options.models
        ]
    return {e.subject: {o.example: o.response for o in e.outcomes} for e in evaluations}


def measure(task: str, options: argparse.Namespace) -> tuple[Answers, list[str]]:
    """The scores of all answers to a task, and a row of a table for each model."""
    asked, scorer = load_task(task), CLIPScore(of=task, model=options.encoder)
    examples = asked.examples("test")
    pictures = [example.picture for example in examples]
    elsewhere = pictures[len(pictures) // 2 :] + pictures[: len(pictures) // 2]
    values, rows = [], []
    for subject, responses in answered(task, options).items():
        own = []
        for number, example in enumerate(examples):
            if example.id not in responses:
                continue
            said = responses[example.id]
            wrong = Example(example.id, "", "", picture=elsewhere[number])
            own.append((
                example.meta["kind"], number, asked.score(example, said).value,
                scorer.score(example, said).value, scorer.score(wrong, said).value,
            ))  # fmt: skip
        rouge, clip = (np.mean([value[column] for value in own]) for column in (2, 3))
        name = subject.removeprefix("model:")
        rows.append(f"| {task} | {name} | {len(own)} | {100 * rouge:.1f} | {100 * clip:.1f} |")
        values += own
    return Answers(*map(np.array, zip(*values, strict=True))), rows


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else float("nan")


def auc(right: np.ndarray, values: np.ndarray) -> float:
    """The chance that a right answer's value is above a wrong one's; ties count half."""
    n, m = right.sum(), (~right).sum()
    if not n or not m:
        return float("nan")
    return float((ranks(values)[right].sum() - n * (n + 1) / 2) / (n * m))


def agreement(answers: Answers, among: np.ndarray) -> list[str]:
    """The statistics of the answers at some indices, with intervals, as the table's columns."""
    rouge, clip, other = answers.rouge, answers.clip, answers.shuffled
    right = rouge == 1

    def statistics(i: np.ndarray) -> list[float]:
        return [
            pearson(rouge[i], clip[i]),
            pearson(ranks(rouge[i]), ranks(clip[i])),
            auc(right[i], clip[i]),
            auc(right[i], other[i]),
        ]

    by_question = [among[answers.question[among] == q] for q in np.unique(answers.question[among])]
    drawn = [
        statistics(np.concatenate([by_question[n] for n in chosen]))
        for chosen in np.random.default_rng(0).integers(
            len(by_question), size=(RESAMPLED, len(by_question))
        )
    ]
    bounds = np.nanpercentile(drawn, [2.5, 97.5], axis=0).T
    return [
        f"{value:.2f} ({low:.2f} – {high:.2f})"
        for value, (low, high) in zip(statistics(among), bounds, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["bonsai-llava", "bonsai-culture"])
    parser.add_argument("--run")
    parser.add_argument("--tasks", nargs="+", default=["ja_vqa", "ja_culture_vqa"])
    parser.add_argument("--encoder", default="bonsai-clip")
    parser.add_argument("--examples", type=int)
    options = parser.parse_args()
    scored = ["| task | model | answers | ROUGE-L | clip_score |", "|---|---|---|---|---|"]
    agreed = [
        "| task | questions | answers | Pearson | Spearman | right above wrong (AUC) "
        "| beside another picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in options.tasks:
        answers, rows = measure(task, options)
        scored += rows
        groups = {"all": np.arange(len(answers.kind))}
        groups |= {kind: np.flatnonzero(answers.kind == kind) for kind in np.unique(answers.kind)}
        agreed += [
            f"| {task} | {name} | {len(among)} | {' | '.join(agreement(answers, among))} |"
            for name, among in groups.items()
        ]
    publish(
        "clip_score",
        [*agreed, "", *scored, "", f"Encoder {options.encoder}, test split, 95 % intervals over "
         f"questions. {machine()}."],
    )  # fmt: skip


if __name__ == "__main__":
    main()
