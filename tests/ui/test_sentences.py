"""Every sentence of the rooms is known in every language, and recognised with its values in it."""

import re
import time
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.recipe import Recipe
from studio.tasks import load_task
from studio.ui import sentences, strings
from studio.ui.sentences import entries, gaps, translate
from studio.ui.sentences_found import sentences as found_in

ROOT = Path(__file__).parents[2]
JA, ZH = "ja", "zh"


def said(language: str, raising, *args, **kwargs) -> str:
    with pytest.raises(StudioError) as caught:
        raising(*args, **kwargs)
    return translate(language, str(caught.value))


# ── the catalogue ─────────────────────────────────────────────────────────────────────────────


def test_no_sentence_is_forgotten_and_none_kept_in_vain():
    missing, idle = gaps(ROOT)
    assert not missing, "python -m studio.ui.sentences lists them"
    assert not idle, "no room says these any more"


def test_every_language_of_the_page_is_there():
    assert ("en", *sentences.LANGUAGES) == strings.LANGUAGES


def test_templates_are_in_the_catalogue_once():
    english = [entry.english for entry in entries()]
    assert len(english) == len(set(english)) > 300


@pytest.mark.parametrize("language", sentences.LANGUAGES)
def test_translations_keep_values_code_and_names(language):
    for entry in entries():
        other = entry.said[language]
        numbers = re.findall(r"\{\d+\}", entry.english), re.findall(r"\{\d+\}", other)
        assert set(numbers[0]) == set(numbers[1]), entry
        kept = re.findall(
            r"`python[^`]*`|[A-Z]+_[A-Z_]+|'[a-z_]+'|https?://[^\s,;]+|--[a-z]+", entry.english
        )
        assert all(name.rstrip(";.") in other for name in kept), entry
        assert not other.endswith(" ") and not other.startswith(" "), entry
        words = re.sub(r"\{\d+\}|lm_eval", "", entry.english)
        assert re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", other) or not re.search("[a-z]{3}", words)
        if language == ZH:
            assert not re.search(r"[\u3040-\u30ff]", other), entry


@pytest.mark.parametrize("language", sentences.LANGUAGES)
def test_every_template_is_recognised_as_itself(language):
    for entry in entries():
        if sum(map(str.isalpha, re.sub(r"\{\d+\}", "", entry.english))) < 8:
            continue  # read only within another sentence

        def filled(text):
            return re.sub(r"\{(\d+)\}", lambda match: f"7{match[1]}", text)

        assert translate(language, filled(entry.english)) == filled(entry.said[language]), entry


def test_a_block_of_the_catalogue_has_a_line_per_language():
    with pytest.raises(ValueError):
        entries("One line.\n一行。\n\nAnother.\n一行。\n二行。\n")


# ── sentences within sentences ────────────────────────────────────────────────────────────────


def test_a_sentence_within_a_sentence_is_translated_too():
    inner = (
        "There is no public repository a/b on the hub; check the spelling, or set HF_TOKEN if it "
        "is private."
    )
    outer = (
        f"lora is an adapter for a/b, which cannot be opened: {inner.rstrip('.')}; or name a base "
        "that is here: lora+BASE."
    )
    assert translate(JA, inner).rstrip("。") in translate(JA, outer)
    assert translate(ZH, inner).rstrip("。") in translate(ZH, outer)


def test_two_japanese_words_have_no_space_between_them():
    was = (
        "The dev examples of the task csv changed since run 1a was begun; put the old files back, "
        "or start the recipe anew."
    )
    assert translate(JA, was).startswith("課題 csv の dev の問題が実行 1a の開始後に")
    was = "x cannot be read (No such file or directory); check the path."
    assert translate(ZH, was) == "无法读取 x（没有这个文件或文件夹）；请检查路径。"


@pytest.mark.parametrize(
    "value", ["a: b", "x; y", "is a folder", "{0}", "問題 集.csv", "a.b.", "\\1"]
)
def test_values_are_shown_as_they_are(value):
    shown = translate(JA, f"There is no picture {value}; check the name of the file.")
    assert shown == f"画像 {value} がありません。ファイルの名前を確認してください。"


def test_what_is_not_known_stays_as_it_is():
    for text in ("", "RuntimeError: what nobody wrote", "a: b.", "so, not that.", "'x': y. (3 z)"):
        assert translate(JA, text) == text
    known = "There is no question; write one."
    assert translate("en", known) == translate("fr", known) == known != translate(ZH, known)


@pytest.mark.parametrize("part", ["a: ", ": , ' . not ", "x and lacks y; ", "1 is 2 × "])
def test_a_strangers_text_costs_no_time(part):
    start = time.process_time()  # others at work here cost nothing
    text = part * 2000
    assert translate(JA, f"The recipe: {text}") and translate(JA, text) == text
    assert time.process_time() - start < 2


# ── what rooms really raise ───────────────────────────────────────────────────────────────────

WRONG = [None, [], {}, "x", "", -1, 0, 1.5, float("nan"), float("inf"), "y" * 300, 2**70, True, [3]]
WHOLE = {"base": "b", "sources": ["b", "c"], "objectives": [{"task": "jmath"}]}
SECTIONS = {
    "space": ["type", "method", "layer_granularity", "normalize", "filters", "repeats"],
    "search": [
        "optimizer",
        "population",
        "sigma",
        "finalists",
        "random_baseline",
        "racing",
        "asynchronous",
        "start",
        "scheme",
    ],  # fmt: skip
    "budget": ["candidates"],
    "decoding": ["beams", "repetition_penalty"],
}


def wrong_recipes():
    for value in WRONG:
        yield from ({**WHOLE, field: value} for field in [*Recipe.model_fields, "nothing"])
        for section, fields in SECTIONS.items():
            yield from ({**WHOLE, section: {field: value}} for field in [*fields, "nothing"])
        for field in ("task", "property", "options", "examples", "nothing"):
            yield {**WHOLE, "objectives": [{"task": "jmath", field: value}]}
        yield {**WHOLE, "space": {"type": "data_flow", "repeats": value, "sources": ["z"]}}


def test_what_is_wrong_with_a_recipe_is_said_in_the_language():
    refused = 0
    for document in wrong_recipes():
        try:
            Recipe.from_dict(document)
        except StudioError as error:
            refused += 1
            for language, begins in ((JA, "レシピ："), (ZH, "配方：")):
                shown = translate(language, str(error))
                assert shown.startswith(begins), error
                english = re.sub(r"'[^']*'|use one of.*|[（(].*?[）)]", "", shown)
                assert not re.search(r"\b(should|must|valid|the|not|is)\b", english), (error, shown)
    assert refused > 200


def test_what_is_wrong_with_a_file_is_said_in_the_language(tmp_path):
    gone = tmp_path / "gone.yaml"
    shown = said(JA, Recipe.load, gone)
    assert (
        shown
        == f"レシピ {gone} を読めません（ファイルもフォルダもありません）。パスを確認してください。"
    )
    table = tmp_path / "q.csv"
    table.write_text("question;answer\n1+1?;2\n", encoding="utf-8")
    assert said(ZH, load_task("csv", path=table).examples, "dev") == (
        "q.csv 的列为 'question;answer'，缺少 question 和 answer；"
        "看起来以分号分隔，请用逗号分隔保存。"
    )
    table.write_text("question,answer,split\n1+1?,two,dev\n", encoding="utf-8")
    assert said(JA, load_task("csv", path=table, match="number").examples, "dev") == (
        "q.csv の 2 行目の答え 'two' が数値ではありません。"
        '直すか、match を "exact" か "contains" にしてください。'
    )
    assert said(JA, load_task, "nothing").startswith("課題 'nothing' はありません。jmath, emath")


# ── finding them ──────────────────────────────────────────────────────────────────────────────

ROOM = """
from studio.errors import StudioError

LIMIT = "ten"

class _Wrong(Exception):
    pass

def _why(kind):
    if kind:
        return f"it is a {kind}"
    return "it is nothing"

def check(path, what="The recipe"):
    hint = "; look again" if path else ""
    if path:
        raise StudioError(f"{path} is {path!r} or {path}, {LIMIT} at most{hint}.")
    message = "This was " + "put together."
    raise StudioError(message)

def refuse(name):
    try:
        if name:
            raise _Wrong(f"no {name:.3f} here")
        check(name, what=f"The card of {name}")
    except _Wrong as error:
        raise StudioError(f"{name}: {error} ({_why(name)}).")
    raise StudioError("One form." if name else f"Another of {name}.")

def told(what="The recipe"):
    return StudioError(f"{what} is empty.")

told(what=f"The page {LIMIT.upper()}")
told()
"""


def test_sentences_are_found_however_they_are_written(tmp_path):
    (tmp_path / "studio").mkdir()
    (tmp_path / "studio/room.py").write_text(ROOM, encoding="utf-8")
    assert set(found_in(tmp_path)) == {
        "{0} is {1} or {0}, ten at most; look again.",
        "{0} is {1} or {0}, ten at most.",
        "This was put together.",
        "no {0} here",
        "{0}: {1} ({2}).",
        "it is a {0}",
        "it is nothing",
        "One form.",
        "Another of {0}.",
        "{0} is empty.",
        "The recipe",
        "The page {0}",
    }
