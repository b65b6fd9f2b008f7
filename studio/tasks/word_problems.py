"""jmath and emath: grade-school word problems of one or two steps, in Japanese and in English.

Data: bundled, ``assets/data/{jmath,emath}/{train,dev,test}.jsonl``, made by ``assets/build``; the
two are translations of each other. One instance of jmath:

    {"id": "test-0001", "type": "mul_sub", "numbers": [7, 6, 26],
     "question": "健太さんはノートが6冊ずつ入った箱を7個持っています。26冊使うと、何冊残り…",
     "solution": "まずノートは6×7=42冊になります。次に26冊減るので、42-26=16です。答えは16冊です。",
     "answer": "16"}

Scored as MGSM: last number right and answer in the task's language. Knows nothing of how problems
are made or of the models that were trained on their like.
"""

import json

from studio.errors import StudioError
from studio.tasks.base import Example, Score, check_split
from studio.tasks.instructions import prompt
from studio.tasks.scoring import score_number
from studio.workspace import ASSETS


class WordProblems:
    """The bundled problems in one language. Splits: train, dev, test."""

    name: str
    language: str
    metric = "accuracy"
    max_new_tokens = 64  # the bonsai tokenizer's longest worked answer takes 41

    def examples(self, split: str) -> list[Example]:
        check_split(self.name, split, ("train", "dev", "test"))
        path = ASSETS / "data" / self.name / f"{split}.jsonl"
        try:
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            return [
                Example(
                    id=row["id"],
                    question=row["question"],
                    answer=row["answer"],
                    meta={key: row[key] for key in ("type", "numbers", "solution")},
                )
                for row in rows
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudioError(
                f"The bundled problems {path} are missing or damaged; get the project's assets "
                "folder again."
            ) from error

    def prompt(self, example: Example, chat: bool) -> str:
        return prompt(example, chat, self.language)

    def score(self, example: Example, response: str) -> Score:
        return score_number(response, example.answer, language=self.language)


class JMath(WordProblems):
    """Problems in Japanese, answered in Japanese."""

    name, language = "jmath", "ja"


class EMath(WordProblems):
    """The same problems in English, answered in English."""

    name, language = "emath", "en"
