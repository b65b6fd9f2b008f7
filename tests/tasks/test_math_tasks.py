"""The registry, the bundled word problems and MGSM."""

import json
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.tasks import TASKS, Task, load_task, mgsm, task_names, word_problems

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MGSM_JA = DATA / "mgsm_ja.tsv"
needs_mgsm = pytest.mark.skipif(not MGSM_JA.exists(), reason="MGSM is not beside this checkout")


def test_registry_is_strings_and_loads_tasks(tmp_path):
    own = ["jmath", "emath", "mgsm", "csv"]
    seen = ["ja_vqa", "ja_culture_vqa", "vqa", "ja_vg_vqa_500", "ja_vlm_bench", "clip_score"]
    assert task_names() == [*own, "lm_eval", *seen]
    assert all(isinstance(place, str) for place in TASKS.values())
    options = {"csv": {"path": tmp_path / "q.csv"}}
    for name in own:
        task = load_task(name, **options.get(name, {}))
        assert isinstance(task, Task)
        assert (task.name, task.metric) == (name, "accuracy")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gsm9k", {}, "no task called 'gsm9k'; choose one of jmath, emath, mgsm, csv"),
        ("mgsm", {"lang": "ja"}, "no option 'lang'; its options are language, path, paper_exact"),
        ("jmath", {"split": "dev"}, "no option 'split'; it has no options"),
        ("csv", {}, "needs the option 'path'"),
        ("mgsm", {"language": "ko"}, "no language 'ko'; choose one of bn, de, en"),
        ("mgsm", {"path": 3}, "path is 3"),
    ],
)
def test_registry_says_what_there_is(name, options, message):
    with pytest.raises(StudioError, match=message):
        load_task(name, **options)


@pytest.mark.parametrize("name", ["jmath", "emath"])
def test_bundled_worked_answers_score_one(name):
    task = load_task(name)
    for split in ("train", "dev", "test"):
        examples = task.examples(split)
        assert len({example.id for example in examples}) == len(examples)
        assert all(task.score(example, example.meta["solution"]).value for example in examples)
    assert len(task.examples("test")) == 250


def test_answer_must_be_in_the_language_asked_for():
    japanese, english = load_task("jmath"), load_task("emath")
    example, twin = japanese.examples("test")[1], english.examples("test")[1]
    wrong_language = japanese.score(example, twin.meta["solution"])
    assert wrong_language.value == 0.0
    assert wrong_language.details["right"] is True
    assert wrong_language.details["language"] == "en"
    assert wrong_language.details["p"] < 0.5
    assert english.score(twin, twin.meta["solution"]).value == 1.0
    wrong = japanese.score(example, "まずノートは42冊になります。答えは17冊です。")
    assert wrong.value == 0.0 and wrong.details["parsed"] == "17" and not wrong.details["right"]
    silent = japanese.score(example, "")
    assert silent.value == 0.0 and silent.details["parsed"] is None
    json.dumps(wrong_language.details)


def test_prompts():
    task = load_task("jmath")
    example = task.examples("dev")[0]
    assert task.prompt(example, chat=True) == example.question
    whole = task.prompt(example, chat=False)
    assert example.question in whole and "日本語" in whole and whole.endswith("### 応答:\n")
    german = load_task("mgsm", language="de").prompt(example, chat=False)
    assert "in German" in german and example.question in german


def test_splits_and_damaged_assets(tmp_path, monkeypatch):
    with pytest.raises(StudioError, match="no 'validation' split, only train and dev and test"):
        load_task("jmath").examples("validation")
    monkeypatch.setattr(word_problems, "ASSETS", tmp_path)
    with pytest.raises(StudioError, match="missing or damaged"):
        load_task("jmath").examples("dev")
    (tmp_path / "data" / "jmath").mkdir(parents=True)
    (tmp_path / "data" / "jmath" / "dev.jsonl").write_text('{"id": "dev-0000"}\n{"id', "utf-8")
    with pytest.raises(StudioError, match="missing or damaged"):
        load_task("jmath").examples("dev")


@needs_mgsm
def test_mgsm_on_the_real_problems():
    task = load_task("mgsm", path=MGSM_JA)
    paper = load_task("mgsm", path=str(MGSM_JA), paper_exact=True)
    examples = task.examples("test")
    assert len(examples) == 250 and len({e.id for e in examples}) == 250
    assert [e.answer for e in examples[:3]] == ["18", "3", "70000"]
    assert "2125" in {e.answer for e in examples}  # the file writes 2,125
    for example in examples:
        number = int(example.answer)
        said = f"順番に考えると、答えは{number}になります。したがって、正解は{number}です。"
        assert task.score(example, said).value == paper.score(example, said).value == 1.0
        grouped = f"順番に考えます。したがって、正解は全部で{number:,}円です。"
        assert task.score(example, grouped).value == 1.0
        assert paper.score(example, grouped).value == float(number < 1000)
        assert task.score(example, f"The answer to this is {number}.").value == 0.0
        off = f"順番に考えます。したがって、正解は{number + 1}です。"
        assert task.score(example, off).value == 0.0
        echo = task.score(example, example.question)  # every question is Japanese to lid.176
        assert echo.details["p"] > 0.5


@needs_mgsm
def test_mgsm_english_twin():
    task = load_task("mgsm", language="en", path=DATA / "mgsm_en.tsv")
    examples = task.examples("test")
    assert [e.answer for e in examples] == [
        e.answer for e in load_task("mgsm", path=MGSM_JA).examples("test")
    ]
    assert task.score(examples[0], "So she makes 9 * 2 = $18 every day.").value == 1.0
    assert task.score(examples[0], "彼女は毎日18ドルを手に入れています。").value == 0.0


def test_mgsm_splits_and_files(tmp_path):
    with pytest.raises(StudioError, match="no 'dev' split, only train and test; search on"):
        load_task("mgsm").examples("dev")
    local = tmp_path / "mgsm_ja.tsv"
    task = load_task("mgsm", path=local)
    with pytest.raises(StudioError, match="no 'train' split, only test where"):
        task.examples("train")
    with pytest.raises(StudioError, match="cannot be read .*check the task's path"):
        task.examples("test")
    local.write_text("", "utf-8")
    with pytest.raises(StudioError, match="is empty"):
        task.examples("test")
    local.write_text("りんごは何個？\t3\nみかんは何個？\n", "utf-8")
    with pytest.raises(StudioError, match="Line 2 of .* is not a question and a number"):
        task.examples("test")
    local.write_bytes("りんごは何個？\t3\n".encode("cp932"))
    with pytest.raises(StudioError, match="not UTF-8"):
        task.examples("test")
    local.write_bytes("\ufeffりんごは\u2028何個？\t2,125\r\n".encode())
    assert [(e.question, e.answer) for e in task.examples("test")] == [
        ("りんごは\u2028何個？", "2125")
    ]


def _hub(folder: Path, monkeypatch):
    """Stand ``folder`` in for the hub's copy of the dataset."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(repository, name, repo_type):
        assert (repository, repo_type) == ("juletxara/mgsm", "dataset")
        if not (folder / name).exists():
            raise LocalEntryNotFoundError(name)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


EXEMPLARS = """
EXEMPLAR_NUMBER_ANSWERS = [11]
MGSM_EXEMPLARS = {"ja": {"1": {"q": "問題："
    "ロジャーは5個のボールを持っています。", "a": "答えは11。"}}}
open("stolen", "w")
"""


def test_mgsm_from_the_hub_as_tsv(tmp_path, monkeypatch):
    _hub(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mgsm_ja.tsv").write_text("りんごは何個？\t3\n", "utf-8")
    (tmp_path / "exemplars.py").write_text(EXEMPLARS, "utf-8")
    task = load_task("mgsm")
    assert task.examples("test")[0].answer == "3"
    (train,) = task.examples("train")
    assert (train.question, train.answer) == ("ロジャーは5個のボールを持っています。", "11")
    assert not (tmp_path / "stolen").exists()  # the file is read, not run


def test_mgsm_from_the_hub_as_parquet(tmp_path, monkeypatch):
    import pyarrow
    from pyarrow import parquet

    _hub(tmp_path, monkeypatch)
    (tmp_path / "de").mkdir()
    rows = {"question": ["Frage: Wie viele?"], "answer": ["x"], "answer_number": [70000]}
    for split in ("train", "test"):
        file = tmp_path / "de" / f"{split}-00000-of-00001.parquet"
        parquet.write_table(pyarrow.table(rows), file)
    task = load_task("mgsm", language="de")
    assert task.examples("train")[0].question == "Wie viele?"
    example = task.examples("test")[0]
    said = "Insgesamt verdient sie damit 70.000 Euro."
    assert task.score(example, said).value == 1.0
    file.write_bytes(b"not parquet")
    with pytest.raises(StudioError, match="not MGSM's Parquet file"):
        task.examples("test")


def test_mgsm_without_hub_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _hub(tmp_path, monkeypatch)
    assert mgsm.DATASET == "juletxara/mgsm"
    with pytest.raises(StudioError, match="could not be had from the hub .*give the task its path"):
        load_task("mgsm").examples("test")
