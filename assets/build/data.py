"""Writes the two tasks: assets/data/{jmath,emath}/{train,dev,test}.jsonl, twins row by row."""

import json
import random
from pathlib import Path

import problems

COUNTS = {"train": 2000, "dev": 500, "test": 250}


def write(out: Path) -> None:
    for split, count in COUNTS.items():
        drawn = list(problems.unique(random.Random(f"data:{split}"), split, count))
        random.Random(f"order:{split}").shuffle(drawn)  # any first n are a fair sample
        for task, language in (("jmath", "ja"), ("emath", "en")):
            rows = (
                {
                    "id": f"{split}-{number:04d}",
                    "type": problem.kind,
                    "numbers": list(problem.numbers),
                    "question": problem.question(language),
                    "solution": problem.solution(language),
                    "answer": str(problem.answer),
                }
                for number, problem in enumerate(drawn)
            )
            path = out / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[1] / "data")
