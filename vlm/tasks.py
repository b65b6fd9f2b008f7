"""ja_vqa and ja_culture_vqa: questions in Japanese about the bundled pictures.

Data: bundled, ``assets/data/{ja_vqa,ja_culture_vqa}/{dev,test}.jsonl`` and ``assets/pictures``,
made by ``assets/build``; emoji of several artists, one of whose styles only the test split has. One
instance of ja_culture_vqa:

    {"id": "ja_culture_vqa-dev-002", "picture": "openmoji/onsen.png", "style": "openmoji",
     "entity": "onsen", "kind": "use", "question": "これにはどんな役目がありますか。",
     "answer": "湯につかる"}

Scored as the paper scores VLMs, see `vlm.vqa`. Knows nothing of how pictures and questions are made
or of the models that were trained on their like.
"""

import json

from studio.errors import StudioError
from studio.tasks.base import Example, check_split
from studio.workspace import ASSETS
from vlm.vqa import VisualQuestions


class Bundled(VisualQuestions):
    """Questions that come with the project. Splits: dev, test."""

    name: str
    max_new_tokens = 24

    def examples(self, split: str) -> list[Example]:
        check_split(self.name, split, ("dev", "test"))
        path = ASSETS / "data" / self.name / f"{split}.jsonl"
        try:
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            return [
                Example(
                    id=row["id"],
                    question=row["question"],
                    answer=row["answer"],
                    meta={key: row[key] for key in ("entity", "kind", "style")},
                    picture=ASSETS / "pictures" / row["picture"],
                )
                for row in rows
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudioError(
                f"The bundled questions {path} are missing or damaged; get the project's assets "
                "folder again."
            ) from error


class JaVQA(Bundled):
    """Everyday things: what they are, where they are found, their colours, how many there are."""

    name = "ja_vqa"


class JaCultureVQA(Bundled):
    """Things of Japanese culture: what they are for, too, and when they are used."""

    name = "ja_culture_vqa"
