"""clip_score: how well an answer fits its picture, by an encoder's eye and without a reference.

Knows CLIPScore (Hessel et al., EMNLP 2021, arXiv 2104.08718): w·max(cos(picture, answer), 0), where
w stretches an encoder's cosines over [0, 1]. Its questions are another task's, whichever of those
with pictures it is told; refuses to know their reference answers and an answer's language.

An answer may be scored by several tasks: ``asks`` names the one whose questions and prompts these
are, and ``task`` is that task, so that who has its responses need not generate them again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.tasks import TASKS, has_pictures, load_task
from studio.tasks.base import Example, Score
from vlm.encoder import BUNDLED, Encoder

#: Hessel et al.'s w: of encoders trained on a web of pictures few cosines are above 0.4.
WEIGHT = 2.5
#: Those of the bundled encoder, trained on some thousand pictures, reach 0.8: stretched, most right
#: answers would score 1 and be told apart no more.
BUNDLED_WEIGHT = 1.0


class CLIPScore:
    """The fit of picture and answer on the examples of another task.

    ``of`` is that task's name and ``options`` are its options; ``model`` is an encoder's name, see
    :meth:`vlm.encoder.Encoder.open`; ``weight`` is w, by default the paper's 2.5, and 1 for the
    bundled encoder.

    Attributes:
        asks: the name of the task whose examples and prompts these are.
        options: its options.
        task: that task, made with them.

    Raises:
        StudioError: ``of`` is no task with pictures, or its options are wrong; the encoder is
            opened when the first answer is scored.
    """

    name = "clip_score"
    metric = "clip_score"

    def __init__(
        self,
        of: str = "ja_culture_vqa",
        model: str = BUNDLED,
        options: dict[str, Any] | None = None,
        weight: float | None = None,
    ):
        if of == self.name or of not in TASKS or not has_pictures(of):
            seen = ", ".join(name for name in TASKS if has_pictures(name) and name != self.name)
            raise StudioError(f"clip_score cannot be of {of!r}; choose one of {seen}.")
        if options is not None and not isinstance(options, dict):
            raise StudioError(f"clip_score's options of {of} are {options!r}; write name: value.")
        if not isinstance(model, str):
            raise StudioError(f"clip_score's model is {model!r}; write an encoder's name.")
        if weight is None:
            weight = BUNDLED_WEIGHT if model == BUNDLED else WEIGHT
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 100:
            raise StudioError(f"clip_score's weight is {weight!r}; write a number such as 2.5.")
        self.asks, self.options = of, options or {}
        self.model, self.weight = model, weight
        self.task = load_task(of, **self.options)
        self.max_new_tokens = self.task.max_new_tokens

    def examples(self, split: str) -> list[Example]:
        return self.task.examples(split)

    def prompt(self, example: Example, chat: bool) -> str:
        return self.task.prompt(example, chat)

    def score(self, example: Example, response: str) -> Score:
        """CLIPScore, no more than 1; an empty answer scores 0. ``details``: the ``cosine``."""
        if not response.strip():
            return Score(0.0, {"cosine": None})
        encoder = Encoder.open(self.model)
        # one by one: in a batch, the last bits would depend on what else is in it
        seen, said = encoder.pictures([example.picture]), encoder.texts([response])
        cosine = round(float(seen[0] @ said[0]), 6)
        return Score(min(1.0, max(0.0, self.weight * cosine)), {"cosine": cosine})


def rank(
    query: str, pictures: "Sequence[Path | bytes]", encoder: Encoder
) -> list[tuple[int, float]]:
    """Pictures by their likeness to a text: their indices with the cosines, the likest first.

    Raises:
        StudioError: a picture cannot be decoded.
    """
    cosines = encoder.pictures(pictures) @ encoder.texts([query])[0]
    order = sorted(range(len(cosines)), key=lambda index: -cosines[index])
    return [(index, float(cosines[index])) for index in order]
