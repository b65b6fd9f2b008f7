r"""The answer to a math problem: the last number of a response.

Knows how people and models write one number: ``70,000``, ``－１２．５``, ``1,234円``, ``$18.00.``,
``7万``, ``150%``, ``70{,}000`` in LaTeX. Refuses to evaluate: ``1/2`` is two numbers, 十八 a word.

Two readers. :func:`last_number` reads what was meant. :func:`paper_last_number` is the published
scorer of arXiv 2403.13187 (the last match of ``\d*\.?\d+``), kept for comparison with its table: it
reads 70,000 as 0 and loses minus signs.
"""

import re
from decimal import Decimal

#: Languages that write 3,5 for three and a half, and 70.000 or 70 000 for seventy thousand.
DECIMAL_COMMA = frozenset({"de", "es", "fr", "ru"})

# Character for character, so that ² stays an exponent and ½ no number; NFKC would make them digits.
_PLAIN = str.maketrans(
    "\uff0e\uff0c\uff0b\uff0d\u2212\u2010\u2011\u2013\uff04\uffe5\u066b\u066c",
    ".,+-----$¥.,",
)
_WORDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_KANJI = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4}
_KANJI |= {"億": 10**8, "亿": 10**8, "兆": 10**12}


def _pattern(point: str, groups: str) -> re.Pattern[str]:
    return re.compile(
        rf"""
        (?P<sign> [-+] )? [$¥€£]? (?P<inner> [-+] )?
        (?P<whole>
            \d{{1,3}} (?P<gap>[{groups}]) \d{{3}} (?: (?P=gap) \d{{3}} )* (?!\d)
          | \d+
          | (?<![\d.]) (?= {point}\d )                         # .5
        )
        (?P<part> {point}\d+ )?
        (?P<scale>
            [十百千]? [万萬億亿兆]                             # 5千万
          | 千 (?! [克米瓦卡焦] )                              # 5千円, yet 5千克 is 5 kg
          | \s? (?i: {"|".join(_WORDS)} ) (?![A-Za-z])
        )?
        """,
        re.VERBOSE,
    )


_SPACES = "\u00a0\u2009\u202f"  # no-break, thin and narrow no-break space group digits everywhere
_PATTERNS = {
    ".": _pattern(r"\.", rf",{_SPACES}"),
    ",": _pattern("[.,]", rf".\x20{_SPACES}"),
}
# What stands before a hyphen that joins or takes away: 10-3, (4) -3, 3円-2円, 3つ-2つ, sub-5.
_OPERAND = re.compile(r"(?: [\d)\]%°][ \t]* | [A-Za-z] | \d\s?(?:[^\W\d_ぁ-ん]{1,3}|つ) )$", re.X)
_EXPONENT = re.compile(r"\^\s?(?:\{[^{}]{0,20}\}|[-+]?\d+)|(?<![A-Za-z])([cdkm]?m)[23](?!\d)")


def last_number(text: str, *, decimal: str = ".") -> Decimal | None:
    """The last number in ``text``, exactly, or None where there is none.

    ``decimal`` is ``"."`` (1,234.5) or ``","`` (1.234,5 and 1 234,5; a point that does not part
    groups of three is a decimal point there too).

    >>> last_number("利益は－１，２３４．５０円です。")
    Decimal('-1234.50')
    >>> last_number("答えは1億2,000万円")
    Decimal('120000000')
    >>> last_number("Das macht 70.000 Euro.", decimal=",")
    Decimal('70000')
    """
    text = text.translate(_PLAIN).replace("{,}", ",").replace(r",\!", ",")
    text = text.replace("マイナス", "-")
    text = _EXPONENT.sub(lambda match: match[1] or "", text)  # neither cm^2 nor m2 holds a 2
    total, negative, end, open_ended = None, False, -1, False
    for match in _PATTERNS[decimal].finditer(text):
        value, scale = _read(match)
        sign = match["sign"] or match["inner"]
        if total is not None and open_ended and match.start() == end and not sign:
            total += value  # 1億2000万 is one number
        else:
            total = value
            before = text[max(0, match.start() - 8) : match.start()]
            negative = sign == "-" and not _OPERAND.search(before)
        end, open_ended = match.end(), scale[-1:] in _KANJI
    return None if total is None else -total if negative else total


def _read(match: re.Match[str]) -> tuple[Decimal, str]:
    """The value without its sign, and the word or kanji that scaled it ("" if none)."""
    digits = "".join(char for char in match["whole"] if char.isdecimal())
    scale = (match["scale"] or "").strip().lower()
    factor = _WORDS.get(scale, 1)
    if scale not in _WORDS:
        for kanji in scale:
            factor *= _KANJI[kanji]
    number = Decimal((digits or "0") + (match["part"] or "").replace(",", "."))
    return (number * factor if scale else number), scale


def paper_last_number(text: str) -> float | None:
    r"""The last match of ``\d*\.?\d+``, as the paper's published scorer reads it.

    >>> paper_last_number("答えは70,000です。"), paper_last_number("-5")
    (0.0, 5.0)
    """
    matches = re.findall(r"\d*\.?\d+", text)
    return float(matches[-1]) if matches else None


def plain(number: Decimal | float | None) -> str | None:
    """A number as people write it, for the record: ``"70000"``, ``"2.5"``; None stays None."""
    if number is None:
        return None
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
