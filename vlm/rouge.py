"""ROUGE-L over MeCab's words, normalised as the paper's evaluation of VLMs does it.

Knows the text of one answer and of one reference; refuses to know languages, tasks and pictures.

The rule is that of arXiv 2403.13187's published evaluation (SakanaAI/evolutionary-model-merge,
``evomerge/eval/metrics.py``): emoji are dropped, what neologdn would change is changed, runs of
white space become one space, and MeCab cuts what is left into words; nothing is lower-cased and
punctuation counts. Stated here in full, so that neither library is needed: full-width ASCII and
half-width kana take their ordinary form; dashes of all kinds become one hyphen or one prolonged
sound mark, however many; curly quotes become straight; wave dashes vanish; and a space stays only
behind ASCII, and not before Japanese. One addition: the invisible joiners of an emoji's sequence go
with it. The paper had the dictionary of its machine; here it is always unidic-lite.
"""

import unicodedata
from functools import cache
from threading import Lock

_HYPHENS = "˗֊‐‑‒–⁃⁻₋−"
_TILDES = "~∼∾〜〰～"
#: Full-width ASCII, the ideographic space and half-width kana, but for what neologdn leaves alone.
_TABLE = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in [0x3000, *range(0xFF01, 0xFF5F), *range(0xFF61, 0xFF9E)]
    if chr(code) not in "＂＇＼｀"
} | str.maketrans(
    {
        **dict.fromkeys("－﹣—―─━", "ー"),
        **{"’": "'", "‘": "`", "”": '"', "“": '"', "¥": "\\", "゛": "ﾞ", "゜": "ﾟ"},
    }
)

#: MeCab's taggers keep state while they parse.
_parsing = Lock()


def normalise(text: str) -> str:
    """One form for what reads the same.

    >>> normalise("ﾗｰﾒﾝ　と　ＳＡＫＥ〜　です🍜")
    'ラーメンとSAKEです'
    """
    dropped, hyphens, spaces, voiceable, prolonged = _patterns()
    text = hyphens.sub("-", dropped.sub("", text)).translate(_TABLE)
    text = voiceable.sub(_voiced, spaces.sub("", text))
    return " ".join(prolonged.sub("ー", text).split())


def words(text: str) -> list[str]:
    """The words of a text as MeCab with unidic-lite cuts them, after :func:`normalise`.

    >>> words("これは鳥居です。")
    ['これ', 'は', '鳥居', 'です', '。']
    """
    line = normalise(text).encode("utf-8", "replace").decode()  # no lone surrogates
    with _parsing:
        return _tagger().parse(line).split()


def rouge_l(reference: str, answer: str) -> float:
    """F1 in [0, 1] of the longest common subsequence of words; 0.0 where either has no word.

    >>> round(rouge_l("これは鳥居です。", "鳥居です。"), 2)
    0.75
    """
    return float(_scorer().score(reference, answer)["rougeL"].fmeasure)


class _Words:
    """What rouge-score asks of a tokenizer."""

    tokenize = staticmethod(words)


@cache
def _scorer():
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


@cache
def _tagger():
    import fugashi
    import unidic_lite

    # named outright: fugashi would prefer another dictionary that happens to be installed
    folder = unidic_lite.DICDIR
    return fugashi.Tagger(f'-Owakati -r "{folder}/mecabrc" -d "{folder}"')


@cache
def _patterns():
    import regex  # the standard library's re knows no emoji

    blocks = "\u2702-\u27b0\U0001f300-\U0001f5ff\U0001f680-\U0001f6ff"  # whole, as published
    joiners = "\ufe0f\u200d"
    japanese = "\u3001-\u30fb\u30fd-\u30ff\u4e00-\u9fff\uff00-\uffef"  # all but the prolonged mark
    return (
        regex.compile(rf"[[\p{{Emoji}}--[#*0-9]]{blocks}{joiners}{_TILDES}]", regex.VERSION1),
        regex.compile(f"-?[{_HYPHENS}]+"),
        regex.compile(rf"(?<![\x00-)+-\x7f]) +|(?<= ) +| +(?=[{japanese}])"),  # * is none, there
        regex.compile("[うウカ-トハ-ホ]ﾞ|[は-ほハ-ホ]ﾟ"),
        regex.compile("ー+"),
    )


def _voiced(found) -> str:
    """A kana and the half-width mark behind it as one letter, where there is one."""
    kana, mark = found[0]
    letter = unicodedata.normalize("NFC", kana + {"ﾞ": "\u3099", "ﾟ": "\u309a"}[mark])
    return letter if len(letter) == 1 else found[0]
