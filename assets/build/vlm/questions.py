"""The two tasks' questions: ja_vqa (everyday things) and ja_culture_vqa (Japanese culture).

Knows which picture is asked about in which split: dev sees three styles, test those and the
held-out one, half and half; no picture is asked the same kind of question in both. Knows no model.
"""

import json
import random
from pathlib import Path

import pictures
import world

TASKS = {"ja_vqa": "everyday", "ja_culture_vqa": "culture"}
DEV, TEST_SEEN, TEST_UNSEEN = 200, 250, 250


def questions(part: str, style: str, dice: random.Random) -> list[dict]:
    """Every question that can be put about one style's pictures, each kind once a picture."""
    rows = []
    for thing in world.things():
        if thing.part != part:
            continue
        for kind, (_, answer) in thing.facts.items():
            rows.append(_row(f"{style}/{thing.id}.png", style, thing.id, kind, answer, dice))
        if thing.id in world.COUNTED:
            count = dice.choice(list(world.COUNT_WORDS))
            answer = world.COUNT_WORDS[count][1]
            picture = f"{style}/{thing.id}-{count}.png"
            rows.append(_row(picture, style, thing.id, "count", answer, dice))
    return rows


def _row(
    picture: str, style: str, entity: str, kind: str, answer: str, dice: random.Random
) -> dict:
    return {
        "picture": picture, "style": style, "entity": entity, "kind": kind,
        "question": dice.choice(world.ASK[kind][1]), "answer": answer,
    }  # fmt: skip


def splits(task: str) -> dict[str, list[dict]]:
    """{"dev": rows, "test": rows} with their ids."""
    dice = random.Random(f"{task} 0")
    seen = [
        row
        for style in pictures.BUNDLED
        if style != pictures.HELD_OUT
        for row in questions(TASKS[task], style, dice)
    ]
    unseen = questions(TASKS[task], pictures.HELD_OUT, dice)
    dice.shuffle(seen)
    dice.shuffle(unseen)
    test = seen[DEV : DEV + TEST_SEEN] + unseen[:TEST_UNSEEN]
    dice.shuffle(test)
    return {
        split: [{"id": f"{task}-{split}-{n:03}", **row} for n, row in enumerate(rows, 1)]
        for split, rows in (("dev", seen[:DEV]), ("test", test))
    }


def write(out: Path) -> None:
    """Write <task>/{dev,test}.jsonl under `out`."""
    for task in TASKS:
        (out / task).mkdir(parents=True, exist_ok=True)
        for split, rows in splits(task).items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (out / task / f"{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")
