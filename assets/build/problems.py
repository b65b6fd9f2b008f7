"""Grade-school word problems in English and Japanese, made from nothing.

Knows the problem types, their number ranges, phrasings, names and objects, and which split a
problem belongs to. Knows nothing of models, tokens or training.

Every problem has an English and a Japanese wording (twins) and a worked solution in each. A
problem's split is a stable hash of its type and numbers, so train, dev and test can share neither
a text nor a (type, numbers) pair, whoever draws them and in whatever order.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

LANGUAGES = ("en", "ja")

NAMES = [
    ("Ken", "健太"), ("Yuki", "ユキ"), ("Hana", "花子"), ("Taro", "太郎"), ("Mika", "ミカ"),
    ("Aki", "アキ"), ("Emma", "エマ"), ("Tom", "トム"), ("Anna", "アンナ"), ("Jack", "ジャック"),
    ("Lisa", "リサ"), ("Mei", "メイ"), ("Leo", "レオ"), ("Ben", "ベン"), ("Rika", "里香"),
    ("Sota", "蒼太"),
]  # fmt: skip

# (English plural, Japanese, Japanese counter)
OBJECTS = [
    ("apples", "リンゴ", "個"), ("oranges", "オレンジ", "個"), ("pencils", "鉛筆", "本"),
    ("books", "本", "冊"), ("stickers", "シール", "枚"), ("cards", "カード", "枚"),
    ("eggs", "卵", "個"), ("cookies", "クッキー", "枚"), ("candies", "キャンディー", "個"),
    ("marbles", "ビー玉", "個"), ("balls", "ボール", "個"), ("flowers", "花", "本"),
    ("stamps", "切手", "枚"), ("coins", "コイン", "枚"), ("cakes", "ケーキ", "個"),
    ("notebooks", "ノート", "冊"), ("bananas", "バナナ", "本"), ("stones", "石", "個"),
    ("shells", "貝殻", "個"), ("postcards", "葉書", "枚"),
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One problem type: how its steps are computed and how it is worded.

    Phrasings and solutions use {n} and {m} (names), {o} (objects), {k} (the Japanese counter),
    {a} {b} {c} (the numbers), {r} (the first step's result) and {z} (the answer).
    """

    phrasings: list[tuple[str, str]]
    worked: tuple[str, str]  # the usual solution: a sentence for every step
    brief: tuple[str, str]  # the other style: the sums alone


KINDS: dict[str, Kind] = {
    "add": Kind(
        [
            ("{n} has {a} {o}. {m} gives {n} {b} more. How many {o} does {n} have now?",
             "{n}さんは{o}を{a}{k}持っています。{m}さんから{b}{k}もらいました。{o}は全部で何{k}になりましたか。"),
            ("There are {a} {o} in a box and {b} {o} in a bag. How many {o} are there in all?",
             "箱に{o}が{a}{k}、袋に{b}{k}入っています。{o}は合わせて何{k}ありますか。"),
            ("{n} found {a} {o} in the morning and {b} in the afternoon. "
             "How many {o} did {n} find?",
             "{n}さんは{o}を午前に{a}{k}、午後に{b}{k}見つけました。全部で何{k}見つけましたか。"),
            ("A shop had {a} {o} and {b} more arrived. How many {o} does the shop have?",
             "店に{o}が{a}{k}あり、さらに{b}{k}届きました。店の{o}は何{k}になりましたか。"),
        ],
        ("Put the {o} together: {a}+{b}={z}. The answer is {z}.",
         "{o}を合わせると、{a}+{b}={z}です。答えは{z}{k}です。"),
        ("{a}+{b}={z}, so the answer is {z}.", "式は{a}+{b}={z}なので、答えは{z}{k}です。"),
    ),
    "sub": Kind(
        [
            ("{n} has {a} {o} and gives {b} of them to {m}. How many {o} does {n} have left?",
             "{n}さんは{o}を{a}{k}持っています。{m}さんに{b}{k}あげました。{o}は何{k}残っていますか。"),
            ("There were {a} {o} on the table. {n} took {b} of them away. "
             "How many {o} are still there?",
             "机の上に{o}が{a}{k}ありました。{n}さんが{b}{k}持っていきました。残りは何{k}ですか。"),
            ("{n} has {a} {o}. {m} has {b} fewer. How many {o} does {m} have?",
             "{n}さんは{o}を{a}{k}持っています。{m}さんはそれより{b}{k}少ないです。{m}さんは何{k}持っていますか。"),
            ("A shop had {a} {o} and sold {b}. How many {o} are left in the shop?",
             "店に{o}が{a}{k}あり、{b}{k}売れました。店に残った{o}は何{k}ですか。"),
        ],
        ("Take away the {b} {o}: {a}-{b}={z}. The answer is {z}.",
         "{o}が{b}{k}減るので、{a}-{b}={z}です。答えは{z}{k}です。"),
        ("{a}-{b}={z}, so the answer is {z}.", "式は{a}-{b}={z}なので、答えは{z}{k}です。"),
    ),
    "mul": Kind(
        [
            ("There are {a} boxes with {b} {o} in each. How many {o} are there altogether?",
             "{o}が{b}{k}ずつ入った箱が{a}個あります。{o}は全部で何{k}ですか。"),
            ("{n} gives {b} {o} to each of {a} friends. How many {o} does {n} give away?",
             "{n}さんは{a}人の友達に{o}を{b}{k}ずつ配ります。全部で何{k}配りますか。"),
            ("{n} buys {b} {o} every day for {a} days. How many {o} does {n} buy?",
             "{n}さんは毎日{o}を{b}{k}ずつ、{a}日間買います。全部で何{k}買いますか。"),
            ("{a} children each have {b} {o}. How many {o} do they have in total?",
             "{a}人の子供が{o}を{b}{k}ずつ持っています。みんなで何{k}持っていますか。"),
        ],
        ("There are {a} groups of {b} {o}: {b}×{a}={z}. The answer is {z}.",
         "{o}が{b}{k}ずつ{a}組あるので、{b}×{a}={z}です。答えは{z}{k}です。"),
        ("{b}×{a}={z}, so the answer is {z}.", "式は{b}×{a}={z}なので、答えは{z}{k}です。"),
    ),
    "div": Kind(
        [
            ("{n} shares {a} {o} equally among {b} friends. How many {o} does each friend get?",
             "{n}さんは{o}{a}{k}を{b}人の友達に同じ数ずつ分けます。一人何{k}もらえますか。"),
            ("{a} {o} are packed equally into {b} boxes. How many {o} are in each box?",
             "{o}{a}{k}を{b}個の箱に同じ数ずつ入れます。一箱に何{k}入りますか。"),
            ("{b} children picked up {a} {o} and divided them equally. "
             "How many {o} did each child get?",
             "{b}人の子供が{o}を{a}{k}拾い、同じ数ずつ分けました。一人分は何{k}ですか。"),
            ("{n} uses up {a} {o} in {b} days, the same number every day. "
             "How many {o} does {n} use a day?",
             "{n}さんは{o}{a}{k}を{b}日間で毎日同じ数ずつ使い切ります。一日に何{k}使いますか。"),
        ],
        ("Divide the {o} into {b} equal parts: {a}÷{b}={z}. The answer is {z}.",
         "{o}を{b}つに等しく分けるので、{a}÷{b}={z}です。答えは{z}{k}です。"),
        ("{a}÷{b}={z}, so the answer is {z}.", "式は{a}÷{b}={z}なので、答えは{z}{k}です。"),
    ),
    "add_sub": Kind(
        [
            ("{n} had {a} {o}, got {b} more and then gave {c} to {m}. "
             "How many {o} does {n} have now?",
             "{n}さんは{o}を{a}{k}持っていました。{b}{k}もらい、その後{m}さんに{c}{k}あげました。今{o}は何{k}ありますか。"),
            ("A shop had {a} {o}. In the morning {b} {o} arrived and in the afternoon {c} were "
             "sold. How many {o} are left?",
             "店に{o}が{a}{k}ありました。午前に{b}{k}届き、午後に{c}{k}売れました。{o}は何{k}残っていますか。"),
            ("{n} has {a} {o} and {m} has {b}. Together they use {c} of them. "
             "How many {o} remain?",
             "{n}さんは{o}を{a}{k}、{m}さんは{b}{k}持っています。二人で{c}{k}使うと、残りは何{k}ですか。"),
        ],
        ("First there are {a}+{b}={r} {o}. Then {c} of them go: {r}-{c}={z}. The answer is {z}.",
         "まず{o}は{a}+{b}={r}{k}になります。次に{c}{k}減るので、{r}-{c}={z}です。答えは{z}{k}です。"),
        ("{a}+{b}={r} and {r}-{c}={z}, so the answer is {z}.",
         "式は{a}+{b}={r}、{r}-{c}={z}なので、答えは{z}{k}です。"),
    ),
    "mul_add": Kind(
        [
            ("{n} has {a} boxes of {b} {o} and {c} more {o}. How many {o} does {n} have in all?",
             "{n}さんは{o}が{b}{k}入った箱を{a}個と、ばらの{o}を{c}{k}持っています。全部で何{k}ですか。"),
            ("{n} buys {a} bags with {b} {o} in each. {m} gives {n} {c} more. "
             "How many {o} does {n} have?",
             "{n}さんは{o}が{b}{k}ずつ入った袋を{a}つ買いました。{m}さんから{c}{k}もらうと、{o}は何{k}になりますか。"),
            ("{a} children bring {b} {o} each and the teacher brings {c}. "
             "How many {o} are there?",
             "{a}人の子供が{o}を{b}{k}ずつ、先生が{c}{k}持ってきました。{o}は全部で何{k}ありますか。"),
        ],
        ("First there are {b}×{a}={r} {o}. Then {c} more come: {r}+{c}={z}. The answer is {z}.",
         "まず{o}は{b}×{a}={r}{k}になります。次に{c}{k}増えるので、{r}+{c}={z}です。答えは{z}{k}です。"),
        ("{b}×{a}={r} and {r}+{c}={z}, so the answer is {z}.",
         "式は{b}×{a}={r}、{r}+{c}={z}なので、答えは{z}{k}です。"),
    ),
    "mul_sub": Kind(
        [
            ("{n} has {a} boxes with {b} {o} in each and uses {c} {o}. How many {o} are left?",
             "{n}さんは{o}が{b}{k}ずつ入った箱を{a}個持っています。{c}{k}使うと、{o}は何{k}残りますか。"),
            ("A shop has {a} shelves of {b} {o}. Today {c} {o} were sold. How many remain?",
             "店に{o}が{b}{k}ずつ並んだ棚が{a}つあります。今日{c}{k}売れました。残りは何{k}ですか。"),
            ("{n} gets {b} {o} a day for {a} days and gives {c} of them to {m}. "
             "How many {o} does {n} keep?",
             "{n}さんは{a}日間、毎日{o}を{b}{k}もらい、{m}さんに{c}{k}あげました。{n}さんの{o}は何{k}ですか。"),
        ],
        ("First there are {b}×{a}={r} {o}. Then {c} of them go: {r}-{c}={z}. The answer is {z}.",
         "まず{o}は{b}×{a}={r}{k}になります。次に{c}{k}減るので、{r}-{c}={z}です。答えは{z}{k}です。"),
        ("{b}×{a}={r} and {r}-{c}={z}, so the answer is {z}.",
         "式は{b}×{a}={r}、{r}-{c}={z}なので、答えは{z}{k}です。"),
    ),
    "more_total": Kind(
        [
            ("{n} has {a} {o}. {m} has {b} more {o} than {n}. How many {o} do they have together?",
             "{n}さんは{o}を{a}{k}持っています。{m}さんは{n}さんより{b}{k}多く持っています。二人合わせて何{k}ですか。"),
            ("A box holds {a} {o} and a bag holds {b} {o} more than the box. "
             "How many {o} are there altogether?",
             "箱に{o}が{a}{k}入っています。袋には箱より{b}{k}多く入っています。合わせて何{k}ですか。"),
            ("Yesterday {n} found {a} {o}, and today {b} more than yesterday. "
             "How many {o} did {n} find in the two days?",
             "{n}さんは昨日{o}を{a}{k}、今日は昨日より{b}{k}多く見つけました。二日間で何{k}見つけましたか。"),
        ],
        ("The larger number of {o} is {a}+{b}={r}. Together that makes {a}+{r}={z}. "
         "The answer is {z}.",
         "多い方の{o}は{a}+{b}={r}{k}です。合わせると、{a}+{r}={z}です。答えは{z}{k}です。"),
        ("{a}+{b}={r} and {a}+{r}={z}, so the answer is {z}.",
         "式は{a}+{b}={r}、{a}+{r}={z}なので、答えは{z}{k}です。"),
    ),
    "sub_div": Kind(
        [
            ("{n} has {a} {o}, keeps {b} and shares the rest equally among {c} friends. "
             "How many {o} does each friend get?",
             "{n}さんは{o}を{a}{k}持っています。{b}{k}を取っておき、残りを{c}人の友達に同じ数ずつ分けます。一人何{k}もらえますか。"),
            ("Of {a} {o}, {b} are broken. The others are packed equally into {c} boxes. "
             "How many {o} are in each box?",
             "{o}が{a}{k}ありますが、{b}{k}は壊れています。残りを{c}個の箱に同じ数ずつ入れると、一箱に何{k}入りますか。"),
            ("A shop had {a} {o} and sold {b}. It puts the rest on {c} shelves, the same number "
             "on each. How many {o} are on a shelf?",
             "店に{o}が{a}{k}あり、{b}{k}売れました。残りを{c}つの棚に同じ数ずつ並べます。一つの棚に何{k}並びますか。"),
        ],
        ("First {a}-{b}={r} {o} remain. Divide them into {c} equal parts: {r}÷{c}={z}. "
         "The answer is {z}.",
         "まず{o}は{a}-{b}={r}{k}残ります。次に{c}つに等しく分けるので、{r}÷{c}={z}です。答えは{z}{k}です。"),
        ("{a}-{b}={r} and {r}÷{c}={z}, so the answer is {z}.",
         "式は{a}-{b}={r}、{r}÷{c}={z}なので、答えは{z}{k}です。"),
    ),
}  # fmt: skip


def draw_numbers(kind: str, rng: random.Random) -> tuple[int, ...]:
    """Numbers for one problem of this type; the answer is a non-negative integer below 200."""
    pick = rng.randint
    if kind == "add":
        return pick(3, 99), pick(3, 79)
    if kind == "sub":
        a = pick(11, 99)
        return a, pick(2, a - 1)
    if kind == "mul":
        return pick(2, 9), pick(2, 20)
    if kind == "div":
        b = pick(2, 9)
        return b * pick(2, 15), b
    if kind == "add_sub":
        a, b = pick(5, 60), pick(5, 40)
        return a, b, pick(2, min(60, a + b - 1))
    if kind == "mul_add":
        return pick(2, 9), pick(2, 12), pick(2, 30)
    if kind == "mul_sub":
        a, b = pick(2, 9), pick(3, 12)
        return a, b, pick(2, min(40, a * b - 1))
    if kind == "more_total":
        return pick(3, 45), pick(2, 30)
    if kind == "sub_div":
        b, c = pick(2, 20), pick(2, 9)
        return b + c * pick(2, 10), b, c
    raise KeyError(kind)


def solve(kind: str, numbers: tuple[int, ...]) -> tuple[int | None, int]:
    """(result of the first of two steps or None, answer)."""
    a, b, c = (*numbers, 0)[:3]
    return {
        "add": lambda: (None, a + b),
        "sub": lambda: (None, a - b),
        "mul": lambda: (None, a * b),
        "div": lambda: (None, a // b),
        "add_sub": lambda: (a + b, a + b - c),
        "mul_add": lambda: (a * b, a * b + c),
        "mul_sub": lambda: (a * b, a * b - c),
        "more_total": lambda: (a + b, a + a + b),
        "sub_div": lambda: (a - b, (a - b) // c if c else 0),
    }[kind]()


def split_of(kind: str, numbers: tuple[int, ...]) -> str:
    """ "test" (8 % of all problems), "dev" (16 %) or "train": a stable hash of type and numbers.

    >>> split_of("add", (23, 15)) == split_of("add", (23, 15))
    True
    """
    digest = hashlib.sha256(f"{kind}:{','.join(map(str, numbers))}".encode()).digest()
    bucket = int.from_bytes(digest[:4], "big") % 100
    return "test" if bucket < 8 else "dev" if bucket < 24 else "train"


@dataclass(frozen=True)
class Problem:
    """One word problem; everything about it follows from these fields."""

    kind: str
    numbers: tuple[int, ...]
    phrasing: int
    name: int
    other: int
    thing: int

    @property
    def answer(self) -> int:
        return solve(self.kind, self.numbers)[1]

    @property
    def split(self) -> str:
        return split_of(self.kind, self.numbers)

    def _fill(self, template: str, language: str) -> str:
        at = LANGUAGES.index(language)
        first, answer = solve(self.kind, self.numbers)
        a, b, c = (*self.numbers, 0)[:3]
        return template.format(
            n=NAMES[self.name][at], m=NAMES[self.other][at], o=OBJECTS[self.thing][at],
            k=OBJECTS[self.thing][2], a=a, b=b, c=c, r=first, z=answer,
        )  # fmt: skip

    def question(self, language: str) -> str:
        phrasing = KINDS[self.kind].phrasings[self.phrasing]
        return self._fill(phrasing[LANGUAGES.index(language)], language)

    def solution(self, language: str, style: str = "worked") -> str:
        """style "worked" has a sentence for every step, "brief" the sums alone."""
        return self._fill(getattr(KINDS[self.kind], style)[LANGUAGES.index(language)], language)

    def summary(self, language: str) -> str:
        """What the problem is about, without solving it."""
        head, tail = [str(n) for n in self.numbers[:-1]], str(self.numbers[-1])
        if language == "en":
            given = f"{', '.join(head)} and {tail}"
            return self._fill(f"This is a problem about {{o}}. Its numbers are {given}.", "en")
        given = f"{'、'.join(head)}と{tail}"
        return self._fill(f"これは{{o}}についての問題です。出てくる数は{given}です。", "ja")


def draw(
    rng: random.Random, split: str = "train", kinds: dict[str, float] | None = None
) -> Problem:
    """A random problem of the wanted split; problems of other splits are never returned."""
    kinds = kinds or dict.fromkeys(KINDS, 1.0)
    while True:
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        numbers = draw_numbers(kind, rng)
        if split_of(kind, numbers) != split:
            continue
        name, other = rng.sample(range(len(NAMES)), 2)
        return Problem(
            kind, numbers, rng.randrange(len(KINDS[kind].phrasings)), name, other,
            rng.randrange(len(OBJECTS)),
        )  # fmt: skip


def unique(rng: random.Random, split: str, count: int) -> Iterator[Problem]:
    """`count` problems of a split, no (type, numbers) pair twice, types as even as they allow."""
    seen: set[tuple[str, tuple[int, ...]]] = set()
    kinds = list(KINDS)
    while len(seen) < count:
        kind = kinds[len(seen) % len(kinds)]
        for _ in range(400):  # the small types (mul, div) may run dry: then the next one steps in
            problem = draw(rng, split, {kind: 1.0})
            if (kind, problem.numbers) not in seen:
                seen.add((kind, problem.numbers))
                yield problem
                break
        else:
            kinds.remove(kind)
