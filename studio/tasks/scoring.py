"""MGSM's scoring, shared by every math task: last number right **and** answer in the language.

Knows numbers and languages; nothing of where questions come from.
"""

from studio.tasks.base import Score
from studio.tasks.language import identify, probability
from studio.tasks.numbers import DECIMAL_COMMA, last_number, paper_last_number, plain

#: arXiv 2403.13187: an answer is in a language where lid.176 gives it more than this.
THRESHOLD = 0.5


def score_number(
    response: str, answer: str, *, language: str | None, paper_exact: bool = False
) -> Score:
    """1.0 if the last number of ``response`` is ``answer`` and the response is in ``language``.

    ``language=None`` asks for no language. ``paper_exact`` reads numbers as the paper's scorer did.
    """
    if paper_exact:
        parsed = paper_last_number(response)
        right = parsed == float(answer.replace(",", ""))
    else:
        decimal = "," if language in DECIMAL_COMMA else "."
        parsed = last_number(response, decimal=decimal)
        right = parsed is not None and parsed == last_number(answer, decimal=decimal)
    return with_language(response, right, language, parsed=plain(parsed))


def with_language(response: str, right: bool, language: str | None, **details) -> Score:
    """A score of 1.0 where ``right`` and the response is in ``language`` (None: any)."""
    details["right"] = right
    spoken = True
    if language is not None:
        p = probability(response, language)
        details |= {"language": identify(response)[0], "p": round(p, 4)}
        spoken = p > THRESHOLD
    return Score(float(right and spoken), details)
