"""The sentences that rooms raise, in the reader's language.

Rooms write their errors in English, with values in them, and know no languages. This module knows
the catalogue `sentences.txt` and recognises which of its templates a sentence was made from. It
refuses to guess: a sentence that it does not know stays English.

``python -m studio.ui.sentences`` lists what the rooms say and the catalogue lacks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from unicodedata import east_asian_width

CATALOGUE = Path(__file__).with_suffix(".txt")
LANGUAGES = ("ja", "zh")

#: What stands between the templates that the rooms' source says and those that only their
#: libraries and tables do, which no look at the source can find.
ELSEWHERE = "# said by libraries and tables"

_VALUE = re.compile(r"\{(\d+)\}")
#: Letters of a sentence that must be recognised: "{0}: {1}" alone fits too much.
_ENOUGH = 8
#: Ways to read one sentence that are tried: a stranger's text must not cost seconds.
_WAYS, _LOOKUPS = 16, 200


@dataclass(frozen=True)
class Entry:
    """One template: the English text around its values, and its translations by language."""

    english: str
    said: dict[str, str]

    @property
    def values(self) -> list[str]:
        return _VALUE.findall(self.english)


def translate(language: str, sentence: str) -> str:
    """A sentence in another language; as it is where the catalogue does not know it.

    Of several templates that fit, the one that accounts for most of the sentence is taken. A value
    that is itself a sentence or phrase of the catalogue is translated too.

    Args:
        language: 'en', 'ja' or 'zh'; any other is English.
        sentence: as a room wrote it, not escaped.
    """
    return _translated(language, sentence) if language in LANGUAGES else sentence


@lru_cache(maxsize=256)
def _translated(language: str, sentence: str) -> str:
    understood, said = _Reader(language).read(sentence)
    return said if understood >= _ENOUGH else sentence


class _Reader:
    """Reads one sentence; remembers the values that it has looked at."""

    def __init__(self, language: str):
        self.language = language
        self.known: dict[str, tuple[int, str]] = {}

    def read(self, text: str) -> tuple[int, str]:
        """How many letters of a text are recognised, and the text in the language."""
        if text in self.known:
            return self.known[text]
        if len(self.known) >= _LOOKUPS:
            return 0, text
        self.known[text] = (0, text)
        best, own = (0, text), 0
        for texts, entry in _templates(text):
            for values in islice(_ways(texts, text), _WAYS):
                given: dict[str, str] = {}
                if any(given.setdefault(*pair) != pair[1] for pair in _pairs(entry, values)):
                    continue
                read = {number: self._value(value) for number, value in given.items()}
                letters = _letters(texts) + sum(count for count, _ in read.values())
                literal = sum(map(len, texts))
                if letters and (letters, literal) > (best[0], own):
                    own = literal
                    best = letters, _filled(entry.said[self.language], read)
        self.known[text] = best
        return best

    def _value(self, text: str) -> tuple[int, str]:
        letters, said = self.read(text)
        if letters or text.endswith("."):
            return letters, said
        letters, said = self.read(f"{text}.")  # another sentence, whose full stop was taken off
        return (letters, said.removesuffix("。")) if letters else (0, text)


def entries(text: str | None = None) -> list[Entry]:
    """The catalogue's entries, in its order: three lines each, set apart by empty ones.

    Raises:
        ValueError: a block has another number of lines.
    """
    text = CATALOGUE.read_text(encoding="utf-8") if text is None else text
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith("#")]
        if lines:
            english, *said = lines
            found.append(Entry(english, dict(zip(LANGUAGES, said, strict=True))))
    return found


def _templates(text: str) -> Iterator[tuple[tuple[str, ...], Entry]]:
    """The entries that a text can come of, each with the text around its values."""
    found = _shelves()
    for first in {text[:1], ""}:
        for last in {text[-1:], ""}:
            yield from found.get((first, last), ())


@cache
def _shelves() -> dict[tuple[str, str], list[tuple[tuple[str, ...], Entry]]]:
    """All entries, by the character that they begin and end with; "" where that is a value's."""
    shelves: dict[tuple[str, str], list] = {}
    for entry in entries():
        texts = tuple(_VALUE.split(entry.english)[::2])
        shelves.setdefault((texts[0][:1], texts[-1][-1:]), []).append((texts, entry))
    return shelves


@cache
def _letters(texts: tuple[str, ...]) -> int:
    return sum(map(str.isalpha, "".join(texts)))


def _pairs(entry: Entry, values: tuple[str, ...]) -> zip:
    return zip(entry.values, values, strict=True)


def _ways(texts: tuple[str, ...], sentence: str) -> Iterator[tuple[str, ...]]:
    """The values with which the text around them makes a sentence, in every way."""
    if len(texts) == 1:
        return iter([()] if sentence == texts[0] else [])
    if not (sentence.startswith(texts[0]) and sentence.endswith(texts[-1])):
        return iter(())
    return _rest(texts[1:], sentence, len(texts[0]))


def _rest(texts: tuple[str, ...], sentence: str, at: int) -> Iterator[tuple[str, ...]]:
    end = len(sentence) - len(texts[-1])
    if len(texts) == 1:
        if at <= end:
            yield (sentence[at:],) if not texts[0] else (sentence[at:end],)
        return
    found = sentence.find(texts[0], at, end)
    while found >= 0:
        fits = False
        for others in _rest(texts[1:], sentence, found + len(texts[0])):
            fits = True
            yield sentence[at:found], *others
        if not fits:  # what does not fit after this place fits after no later one
            return
        found = sentence.find(texts[0], found + 1, end)


def _filled(said: str, values: dict[str, tuple[int, str]]) -> str:
    """A translation with its values; two Japanese or Chinese words have no space between them."""
    filled, *rest = _VALUE.split(said)
    for number, after in zip(rest[::2], rest[1::2], strict=True):
        letters, value = values[number]
        if letters and filled.endswith(" ") and _wide(filled[-2:-1]) and _wide(value[:1]):
            filled = filled[:-1]
        if letters and after.startswith(" ") and _wide(value[-1:]) and _wide(after[1:2]):
            after = after[1:]
        filled += value + after
    return filled


def _wide(character: str) -> bool:
    return bool(character) and east_asian_width(character) in "WF"


def gaps(root: Path) -> tuple[dict[str, str], list[str]]:
    """What the rooms under `root` say and the catalogue lacks, and what it has in vain.

    Returns:
        Template → 'file:line', and the templates that no room says any more.
    """
    from studio.ui.sentences_found import sentences

    text = CATALOGUE.read_text(encoding="utf-8")
    said, kept = sentences(root), {entry.english for entry in entries(text)}
    own = [entry.english for entry in entries(text.partition(ELSEWHERE)[0])]
    missing = {template: place for template, place in said.items() if template not in kept}
    return missing, [template for template in own if template not in said]


if __name__ == "__main__":
    missing, idle = gaps(Path(__file__).parents[2])
    for template, place in missing.items():
        print(f"# missing: {place}\n{template}\n")
    for template in idle:
        print(f"# said nowhere any more:\n{template}\n")
    raise SystemExit(bool(missing or idle))
