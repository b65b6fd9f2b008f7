"""What races save and what they cost: the same recipe with and without, ten seeds each.

    python benchmarks/racing.py [--recipe recipes/jmath.yaml] [--seeds 0 1 2 3 4 5 6 7 8 9]

Three searches a seed: every candidate asked all of the search's examples; as many candidates,
raced; and more of them, raced for as many generations as about a fifth of the first one's tokens
pays for. What is compared is the score of the reported merge on the test split, which no search
sees, and the tokens that search and selection generated; sources and test are the same for all.
Runs are kept in the workspace: one that is there already is not run again. Prints a Markdown table
and writes it to benchmarks/results/racing.md.
"""

import argparse
from pathlib import Path

import numpy as np
from publish import machine, publish
from scipy import stats
from seeds import finished

from studio import api
from studio.recipe import Recipe
from studio.runs import Run, Store

WHOLE, RACED, LONGER = "all examples", "raced", "raced for more generations"
#: How many times as many candidates the longer search has.
LONG = 2


def variants(document: dict) -> dict[str, dict]:
    """The recipe's search in the three ways."""
    search = document["search"] | {"random_baseline": False}
    raced = search | {"racing": True}
    many = document["budget"] | {"candidates": round(LONG * document["budget"]["candidates"])}
    return {
        WHOLE: document | {"search": search | {"racing": False}},
        RACED: document | {"search": raced},
        LONGER: document | {"search": raced, "budget": many},
    }


def measured(record: Run, store: Store) -> tuple[float, int, int]:
    """A finished run's test score, and the tokens and answers of its search and selection."""
    row = next(r for r in api.report(record.id, store) if r["role"] == "evolved")
    stages = Recipe.from_yaml(record.recipe).stages()
    (stage,) = (stage.name for stage in stages if not stage.baseline)
    candidates = store.candidates(record.id, stage)
    own = {f"candidate:{c.id}" for c in candidates}
    again = [e for e in store.evaluations(record.id, "selection") if e.subject in own]
    tokens = sum(c.tokens for c in candidates) + sum(e.tokens for e in again)
    answers = sum(c.examples for c in candidates)
    return row["score"], tokens, answers


def spread(values: np.ndarray) -> str:
    """A mean with its 95 % interval by Student's t, in percent."""
    mean, half = values.mean(), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{100 * mean:.1f} [{100 * (mean - half):.1f} – {100 * (mean + half):.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=Path("recipes/jmath.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    options = parser.parse_args()
    document = Recipe.load(options.recipe).model_dump(mode="json")
    ways, store = variants(document), api.open_store()
    found: dict[str, list[tuple[float, int, int]]] = {way: [] for way in ways}
    for seed in options.seeds:
        for way, changed in ways.items():
            record = finished(Recipe.from_dict(changed | {"seed": seed}), store)
            found[way].append(measured(record, store))
            score, tokens, answers = found[way][-1]
            print(f"seed {seed}, {way}: {100 * score:.1f} %, {tokens:,} tokens", flush=True)
    table = {way: np.array(rows, np.float64) for way, rows in found.items()}
    whole = table[WHOLE]
    lines = [
        "| search | candidates | test score, mean and 95 % interval | difference, paired | "
        "answers a candidate | tokens generated, median | fewer tokens, median (range) |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, rows in table.items():
        candidates = ways[way]["budget"]["candidates"]
        ratio = whole[:, 1] / rows[:, 1]
        fewer = f"{np.median(ratio):.1f}× ({ratio.min():.1f} – {ratio.max():.1f})"
        lines.append(
            f"| {way} | {candidates} | {spread(rows[:, 0])} | "
            f"{'' if way == WHOLE else spread(rows[:, 0] - whole[:, 0])} | "
            f"{rows[:, 2].mean() / candidates:.1f} | {np.median(rows[:, 1]):,.0f} | "
            f"{'' if way == WHOLE else fewer} |"
        )
    lines += ["", "| seed | " + " | ".join(ways) + " |", "|---|" + "---|" * len(ways)]
    for place, seed in enumerate(options.seeds):
        scores = " | ".join(f"{100 * rows[place, 0]:.1f} %" for rows in table.values())
        lines.append(f"| {seed} | {scores} |")
    lines += [
        "",
        f"{document['objectives'][0]['task']}, {document['space']['method']}, "
        f"{document['objectives'][0]['examples']} examples seen by the search. {machine()}.",
    ]
    publish("racing", lines)


if __name__ == "__main__":
    main()
