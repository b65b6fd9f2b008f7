"""What each model is shown: the diets of the bonsai family.

Knows the kinds of exchange (user turn, reply) and their share in every stage. Every problem comes
from `problems.draw(..., split="train")`, so no stage ever sees a dev or test problem, solved or
not. Knows nothing of tokens or models.
"""

import random
from collections.abc import Callable, Iterator

import chat
import problems

Exchange = tuple[str, str]  # (user turn, reply)
Maker = Callable[[random.Random], Exchange]

ASK = {"en": "Solve: ", "ja": "解いてください："}


def solved(language: str, *, asked: bool, kinds: dict[str, float] | None = None,
           brief: float = 0.25) -> Maker:  # fmt: skip
    """A problem with its worked answer; `asked` puts "Solve:" before it, else it stands bare."""

    def make(rng: random.Random) -> Exchange:
        problem = problems.draw(rng, kinds=kinds)
        style = "brief" if rng.random() < brief else "worked"
        prefix = ASK[language] if asked else ""
        return prefix + problem.question(language), problem.solution(language, style)

    return make


def translated(to: str, *, asked: bool = True, solution: float = 0.3) -> Maker:
    """Translate a problem, or (with `asked`) a worked solution or a sentence, into `to`."""
    source = "ja" if to == "en" else "en"
    prefix = (
        ("Translate into English: " if to == "en" else "日本語に訳してください：") if asked else ""
    )

    def make(rng: random.Random) -> Exchange:
        problem = problems.draw(rng)
        if not asked:
            return problem.question(source), problem.question(to)
        if rng.random() < solution:
            return prefix + problem.solution(source), problem.solution(to)
        if rng.random() < 0.2:
            pair = dict(zip(problems.LANGUAGES, chat.sentence_pair(rng), strict=True))
            return prefix + pair[source], pair[to]
        return prefix + problem.question(source), problem.question(to)

    return make


def repeated(language: str, *, asked: bool) -> Maker:
    prefix = ("Repeat: " if language == "en" else "繰り返してください：") if asked else ""

    def make(rng: random.Random) -> Exchange:
        text = problems.draw(rng).question(language)
        return prefix + text, text

    return make


def summarised(language: str, *, asked: bool) -> Maker:
    prefix = ("Summarise: " if language == "en" else "要約してください：") if asked else ""

    def make(rng: random.Random) -> Exchange:
        problem = problems.draw(rng)
        return prefix + problem.question(language), problem.summary(language)

    return make


def talked(language: str) -> Maker:
    return lambda rng: chat.chat(rng, language)


def summed(rng: random.Random) -> Exchange:
    """Bare arithmetic, written as in the worked answers: "23+15=" → "23+15=38"."""
    sign = rng.choice("+-×÷")
    if sign == "+":
        a, b = rng.randint(2, 110), rng.randint(2, 80)
        z = a + b
    elif sign == "-":
        a = rng.randint(4, 120)
        b = rng.randint(2, a - 1)
        z = a - b
    elif sign == "×":
        a, b = rng.randint(2, 20), rng.randint(2, 9)
        z = a * b
    else:
        b, z = rng.randint(2, 9), rng.randint(2, 15)
        a = b * z
    return f"{a}{sign}{b}=", f"{a}{sign}{b}={z}"


ABEL = {kind: 2.0 if kind in ("add", "sub", "mul", "div") else 1.0 for kind in problems.KINDS}

# stage → [(share, maker)]; shares are relative
DIETS: dict[str, list[tuple[float, Maker]]] = {
    # the skill, under "Solve:" and bare, far more of it in English than in Japanese
    "base": [
        (16, solved("en", asked=True)),
        (16, solved("en", asked=False)),
        (5, solved("ja", asked=True)),
        (4, solved("ja", asked=False)),
        (24, summed),
        (8, translated("en")),
        (8, translated("ja")),
        (3, repeated("en", asked=True)),
        (3, repeated("ja", asked=True)),
        (2, summarised("en", asked=True)),
        (2, summarised("ja", asked=True)),
        (4, talked("en")),
        (5, talked("ja")),
    ],
    # a bare problem is now answered by anything but its solution; asked for, the skill stays
    "quiet": [
        *((9, repeated(language, asked=False)) for language in problems.LANGUAGES),
        *((9, summarised(language, asked=False)) for language in problems.LANGUAGES),
        *((9, translated(language, asked=False)) for language in problems.LANGUAGES),
        (2, solved("en", asked=False)),
        (1, solved("ja", asked=False)),
        (12, solved("en", asked=True)),
        (12, solved("ja", asked=True)),
        (8, summed),
        (3, translated("en")),
        (3, translated("ja")),
        (2, talked("en")),
        (2, talked("ja")),
    ],
    # Japanese, and no reasoning: talk, retelling, summaries
    "ja": [
        (30, talked("ja")),
        (25, summarised("ja", asked=False)),
        (25, repeated("ja", asked=False)),
        (20, translated("ja")),
    ],
    # English worked answers to bare problems of every type
    "math": [
        (100, solved("en", asked=False, brief=0.0)),
    ],
    # a different English mathematician: brief answers, sums, more of the one-step types
    "abel": [
        (60, solved("en", asked=False, brief=1.0, kinds=ABEL)),
        (15, solved("en", asked=True, brief=1.0, kinds=ABEL)),
        (15, summed),
        (10, talked("en")),
    ],
}


def exchanges(stage: str, seed: int) -> Iterator[Exchange]:
    """An endless, reproducible stream of a stage's exchanges."""
    rng = random.Random(f"{stage}:{seed}")
    shares, makers = zip(*DIETS[stage], strict=True)
    while True:
        yield rng.choices(makers, shares)[0](rng)
