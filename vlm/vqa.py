"""Visual question answering: how a question is put and how its answer is scored.

Knows wording, ROUGE-L and the rule for answers in another language; refuses to know where pictures
and questions come from, how a picture reaches a model, and how an answer is decoded.

Scored as arXiv 2403.13187 scores VLMs, by its published evaluation: ROUGE-L over MeCab's words
(`vlm.rouge`), where an answer that is not Japanese counts as empty. As there, that rule asks for
nothing that the reference itself does not give: where the reference is not recognised as Japanese
("3", "torii"), an answer need not be.
"""

from studio.tasks.base import Example, Score
from studio.tasks.language import identify, probability
from studio.tasks.scoring import THRESHOLD
from vlm.rouge import normalise, rouge_l

_JAPANESE = "質問：{question}\n回答："
_ENGLISH = "Question: {question}\nAnswer:"


class VisualQuestions:
    """What all VQA tasks share; each adds ``name``, ``examples`` and its answers' length.

    ``language`` is the one that answers must be in (None: any).
    """

    metric = "rouge_l"
    language: str | None = "ja"

    def prompt(self, example: Example, chat: bool) -> str:
        """The bare question (``chat``), or with the words around it that ask for an answer."""
        if chat:
            return example.question
        wording = _JAPANESE if self.language == "ja" else _ENGLISH
        return wording.format(question=example.question)

    def score(self, example: Example, response: str) -> Score:
        """ROUGE-L's F1 in [0, 1].

        ``details``: ``parsed`` is the normalised answer, None where it counts as empty; ``right``,
        whether it is the reference word for word; ``language`` and ``p``, if one is asked for.
        """
        value = rouge_l(example.answer, response)
        details = {"parsed": normalise(response), "right": value == 1}
        if self.language is not None:
            p = probability(response, self.language)
            details |= {"language": identify(response)[0], "p": round(p, 4)}
            asked = probability(example.answer, self.language) > THRESHOLD
            if asked and p <= THRESHOLD:
                return Score(0.0, details | {"parsed": None})
        return Score(value, details)
