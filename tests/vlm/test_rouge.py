"""ROUGE-L over MeCab's words: the paper's normalisation, the words, and the score itself."""

import threading

import pytest

from vlm.rouge import normalise, rouge_l, words

# What emoji and neologdn 0.5.6 together make of these, run once for this list.
PUBLISHED = {
    "これは　鳥居　です。": "これは鳥居です。",
    "Ａ Ｂ　１２": "A B 12",
    "富士山 は 3,776 m です": "富士山は3,776 mです",
    "a あ b": "aあb",
    "  前後  ": "前後",
    "一行目\n二行目\t三": "一行目 二行目 三",
    "ﾗｰﾒﾝとｷﾞｮｰｻﾞとﾊﾟﾝ": "ラーメンとギョーザとパン",
    "か゛は゜ウ゛": "かﾞぱヴ",
    "スーーーパー━─―": "スーパー",
    "わ〜〜い~～": "わい",
    "‐‑‒–−": "-",
    "-–": "-",
    "--": "--",
    "“引用”と‘一’": '"引用"と`一\'',
    "（かっこ）！？％": "(かっこ)!?%",
    "＂＇＼｀": "＂＇＼｀",
    "￥100と¥100": "￥100と\\100",
    "｢はい｣､･｡": "「はい」、・。",
    "鳥居です⛩🎏😀👍🏽": "鳥居です",
    "❶✓✂ただし★は": "ただし★は",
    "#1 *2": "#1 *2",
    "㊗と㎏": "と㎏",
    "ABC abc": "ABC abc",
    "": "",
}


@pytest.mark.parametrize("text", PUBLISHED, ids=repr)
def test_texts_are_normalised_as_the_papers_evaluation_does(text):
    assert normalise(text) == PUBLISHED[text]


def test_nothing_is_left_of_an_emoji_of_several_parts():
    assert normalise("鳥居⛩\ufe0fと家族👨\u200d👩\u200d👧と国旗🇯🇵です") == "鳥居と家族と国旗です"


def test_japanese_is_cut_into_words():
    assert words("これは　神社の鳥居です。") == ["これ", "は", "神社", "の", "鳥居", "です", "。"]
    assert words("It is a torii.") == ["It", "is", "a", "torii", "."]
    assert words("") == words(" \n🎏") == []
    assert words("\ud800鳥居")[-1] == "鳥居"


def test_a_score_is_the_f1_of_the_longest_common_subsequence():
    reference = "これは神社の鳥居です"  # これ は 神社 の 鳥居 です
    assert rouge_l(reference, reference) == 1
    assert rouge_l(reference, "これは 神社の ⛩鳥居です") == 1
    # これ は 鳥居 です: 4 of 4 words and 4 of 6
    assert rouge_l(reference, "これは鳥居です") == pytest.approx(2 * 1 * (4 / 6) / (1 + 4 / 6))
    # order counts: of 寿司 と 鳥居 and 鳥居 と 寿司 one word is left
    assert rouge_l("寿司と鳥居", "鳥居と寿司") == pytest.approx(1 / 3)
    assert rouge_l(reference, "") == rouge_l("", reference) == rouge_l("", "") == 0
    assert rouge_l(reference, "寿司") == 0
    assert rouge_l("Torii", "torii") == 0  # nothing is lower-cased


def test_longer_answers_than_any_are_scored():
    once = "これは日本の神社の入り口にある鳥居です。"
    assert rouge_l(once * 60, once * 60) == 1


def test_threads_do_not_disturb_each_other():
    texts = [f"{n}番の鳥居は神社の{n}番目の入り口です。" for n in range(40)]
    alone = [words(text) for text in texts]
    found: list[list[list[str]]] = []
    threads = [
        threading.Thread(target=lambda: found.append([words(t) for t in texts * 5]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone * 5] * 4
