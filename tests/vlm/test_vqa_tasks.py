"""VQA tasks: bundled ones, a user's folder, published ones in the hub's form; the scoring."""

import json
import os
import sys
from pathlib import Path

import pytest

from studio import tasks
from studio.errors import StudioError
from studio.tasks import Task, load_task, objective_names, task_names
from tests.vlm.test_pictures import encoded, noise
from vlm import pictures

BUNDLED = ("ja_vqa", "ja_culture_vqa")
ROWS = [
    {"image": "torii.png", "question": "これは何ですか。", "answer": "鳥居です。", "split": "dev"},
    {
        "image": "fuji.png",
        "question": "これは何ですか。",
        "answer": "富士山です。",
        "split": "test",
    },
]


@pytest.fixture
def folder(tmp_path):
    """A user's folder with two pictures, and what writes its rows."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for seed, name in enumerate(("torii.png", "fuji.png")):
        (folder / name).write_bytes(encoded(noise(seed=seed)))
    write(folder, ROWS)
    return folder


def write(folder: Path, rows, name="qa.jsonl") -> None:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")


def sentence(folder, **options) -> str:
    with pytest.raises(StudioError) as refused:
        load_task("vqa", path=folder, **options).examples("dev")
    said = str(refused.value)
    assert said.endswith(".") and "\n" not in said
    return said


# ── the registry ──────────────────────────────────────────────────────────────────────────────


def test_tasks_with_pictures_are_listed_and_known_as_such():
    seeing = [name for name in task_names() if tasks.has_pictures(name)]
    assert seeing == [*BUNDLED, "vqa", "ja_vg_vqa_500", "ja_vlm_bench", "clip_score"]
    assert set(objective_names()) & set(seeing) == {*BUNDLED, "clip_score"}
    assert not any(map(tasks.has_pictures, ("jmath", "csv", "lm_eval")))


def test_without_the_vlm_folder_the_other_tasks_work(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "vlm"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "vlm", None)  # what Python does where there is none
    assert task_names() == ["jmath", "emath", "mgsm", "csv", "lm_eval"]
    assert objective_names() == ["jmath", "emath", "csv"]
    assert load_task("jmath").examples("dev")
    with pytest.raises(StudioError, match="ja_vqa needs the vlm folder"):
        load_task("ja_vqa")
    with pytest.raises(StudioError) as unknown:
        load_task("no_such_task")
    assert "ja_vqa" not in str(unknown.value)


# ── the bundled tasks ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_questions_have_pictures_and_japanese_answers(name):
    task = load_task(name)
    assert isinstance(task, Task)
    dev, test = task.examples("dev"), task.examples("test")
    assert len(dev) >= 200 and len(test) >= 400
    for examples in (dev, test):
        assert len({example.id for example in examples}) == len(examples)
        for example in examples:
            assert task.prompt(example, chat=True) == example.question
            assert set(example.meta) == {"entity", "kind", "style"}
            # its own reference is a perfect answer, so it is also taken for Japanese
            assert task.score(example, example.answer).value == 1
    for path in {example.picture for example in [*dev[:40], *test[:40]]}:
        pictures.check(path)
    with pytest.raises(StudioError, match="no 'train' split, only dev and test"):
        task.examples("train")


@pytest.mark.parametrize("name", BUNDLED)
def test_an_art_style_of_the_test_split_is_unseen_in_dev(name):
    dev, test = (load_task(name).examples(split) for split in ("dev", "test"))
    styles = {e.meta["style"] for e in test} - {e.meta["style"] for e in dev}
    unseen = [e for e in test if e.meta["style"] in styles]
    assert len(styles) == 1 and len(unseen) >= 100
    assert not {(e.picture, e.question) for e in dev} & {(e.picture, e.question) for e in test}


# ── the score ─────────────────────────────────────────────────────────────────────────────────


def test_an_answer_scores_rouge_l_and_details_say_why():
    task = load_task("ja_culture_vqa")
    example = tasks.Example("1", "これは何ですか。", "これは神社の鳥居です。")
    whole = task.score(example, "これは　神社の鳥居です。⛩")
    assert whole.value == 1 and whole.details["right"]
    assert whole.details["parsed"] == "これは神社の鳥居です。"
    assert whole.details["language"] == "ja" and whole.details["p"] > 0.9
    part = task.score(example, "鳥居です。")
    assert part.value == pytest.approx(2 * 3 / (3 + 7)) and not part.details["right"]
    assert task.score(example, "").value == 0
    json.dumps([whole.details, part.details])


def test_an_answer_in_another_language_counts_as_empty():
    task = load_task("ja_vqa")
    example = tasks.Example("1", "これは何ですか。", "これは torii です。")
    said = task.score(example, "It is a torii.")
    assert said.value == 0 and said.details["parsed"] is None
    assert said.details["language"] == "en" and said.details["p"] < 0.5
    chinese = task.score(tasks.Example("1", "", "これは動物です。"), "这是很大的动物。")
    assert chinese.value == 0 and chinese.details["language"] == "zh"


def test_an_answer_need_not_be_more_japanese_than_its_reference():
    task = load_task("ja_vqa")
    three = task.score(tasks.Example("1", "いくつありますか。", "3"), "3")
    assert three.value == 1 and three.details["p"] < 0.5


def test_no_language_may_be_asked_for(folder):
    task = load_task("vqa", path=folder, language=None)
    example = tasks.Example("1", "これは何ですか。", "これは torii です。")
    score = task.score(example, "It is a torii.")
    assert score.value == pytest.approx(1 / 5) and "language" not in score.details
    assert task.prompt(example, chat=False) == "Question: これは何ですか。\nAnswer:"
    assert load_task("vqa", path=folder).prompt(example, chat=False).endswith("\n回答：")


# ── a user's folder ───────────────────────────────────────────────────────────────────────────


def test_a_folder_of_pictures_and_questions(folder):
    write(folder, [{**ROWS[0], "place": "京都"}, "", ROWS[1]])
    for path in (folder, str(folder), folder / "qa.jsonl"):
        task = load_task("vqa", path=path)
        assert isinstance(task, Task) and task.max_new_tokens == 128
        (example,) = task.examples("dev")
        assert (example.id, example.meta) == ("line-1", {"place": "京都"})
        assert example.picture.read_bytes() == (folder / "torii.png").read_bytes()
        assert [e.answer for e in task.examples("test")] == ["富士山です。"]


def test_a_pictures_questions_land_in_the_same_half(folder):
    rows = []
    for number in range(40):
        (folder / f"{number}.png").write_bytes(encoded(noise(8, 8, seed=number)))
        rows += [{"image": f"{number}.png", "question": q, "answer": "はい"} for q in "あいう"]
    write(folder, rows)
    task = load_task("vqa", path=folder)
    halves = {split: task.examples(split) for split in ("dev", "test")}
    seen = {split: {e.picture.name for e in examples} for split, examples in halves.items()}
    assert len(seen["dev"]) > 8 and len(seen["test"]) > 8
    assert not seen["dev"] & seen["test"]
    assert len(halves["dev"]) + len(halves["test"]) == 120
    write(folder, rows[:60:-1])  # whatever else is in the file, and in whichever order
    fewer = load_task("vqa", path=folder)
    assert {e.picture.name for e in fewer.examples("dev")} <= seen["dev"]


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "sub/../../secret.png", "/etc/hostname", "link.png", "linked/secret.png",
     ".", "..", "sub/..", "torii.png\0", "~/secret.png"],
)  # fmt: skip
def test_no_file_outside_the_folder_is_read(folder, name, monkeypatch):
    secret = folder.parent / "secret.png"
    secret.write_bytes(encoded(noise()))
    (folder / "sub").mkdir()
    (folder / "link.png").symlink_to(secret)
    (folder / "linked").symlink_to(folder.parent)
    write(folder, [ROWS[0], {**ROWS[0], "image": name, "question": "何？"}])
    opened = []
    monkeypatch.setattr(pictures, "check", lambda path: opened.append(path.name))
    if name.startswith("~"):  # a name like any other, and no such file
        monkeypatch.undo()
        assert "There is no picture secret.png" in sentence(folder)
    else:
        said = sentence(folder)
        assert said.startswith("Line 2 of qa.jsonl names the image ") and "not inside" in said
        assert opened == ["torii.png"]


def test_links_and_folders_inside_are_followed(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "b.png").write_bytes(encoded(noise()))
    (folder / "link.png").symlink_to("torii.png")
    rows = [{**ROWS[0], "image": name} for name in ("sub/b.png", "link.png")]
    write(folder, rows)
    found = [e.picture.name for e in load_task("vqa", path=folder).examples("dev")]
    assert found == ["b.png", "torii.png"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "qa.jsonl is empty; it needs columns image, question and answer."),
        (["{}"], "lacks image, question and answer"),
        (["no json"], 'Line 1 of qa.jsonl is not JSON; write {"image": "…", "question": "…", '),
        ([{"question": "何？", "answer": "鳥居"}], "and lacks image"),
        ([{**ROWS[0], "image": " "}], "Line 1 of qa.jsonl has no image"),
        ([{**ROWS[0], "image": None}], "Line 1 of qa.jsonl has no image"),
        ([{**ROWS[0], "answer": ""}], "Line 1 of qa.jsonl has no answer"),
        ([{**ROWS[0], "image": "no.png"}], "Line 1 of qa.jsonl: There is no picture no.png;"),
        ([ROWS[0], {**ROWS[1], "split": "try"}], "Line 2 of qa.jsonl has the split 'try'"),
        ([ROWS[0], {**ROWS[0], "split": "test"}], "repeats the question of line 1 about the same"),
        ([{**ROWS[0], "id": "a"}, {**ROWS[1], "id": "a"}], "has the id 'a', as has line 1"),
        ([ROWS[1]], "The task vqa has no 'dev' split, only test in qa.jsonl; add questions"),
    ],
)
def test_faults_are_told_with_their_line(folder, rows, said):
    write(folder, rows)
    assert said in sentence(folder)


def test_every_picture_is_looked_at_before_a_search_begins(folder):
    """One that only the test split has would otherwise end a run at its very end."""
    (folder / "fuji.png").write_bytes(encoded(noise(), "JPEG")[:-40])
    assert sentence(folder).startswith("Line 2 of qa.jsonl: fuji.png is damaged or cut off;")


def test_folders_that_are_none(folder, tmp_path):
    assert "There is no folder" in sentence(tmp_path / "elsewhere")
    assert "cannot be read" in sentence(tmp_path / "elsewhere.jsonl")
    write(folder, ROWS, "second.jsonl")
    assert "has 2 .jsonl files (qa.jsonl, second.jsonl)" in sentence(folder)
    for file in folder.glob("*.jsonl"):
        file.unlink()
    assert "has no .jsonl file" in sentence(folder)
    for wrong in ({"path": 3}, {"path": "a", "language": "xx"}, {"path": "a", "max_new_tokens": 0}):
        with pytest.raises(StudioError):
            load_task("vqa", **wrong)


# ── the published data sets, in the hub's form ────────────────────────────────────────────────


def save(path: Path, rows: list[dict]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def image(seed: int) -> dict:
    return {"bytes": encoded(noise(seed=seed), "JPEG"), "path": f"{seed}.jpg"}


def genome_row(number: int) -> dict:
    """As the data set's card names the columns; the second question of a picture is not asked."""
    qas = [
        {"qa_id": 10 * number, "image_id": number, "question": "何ですか？", "answer": "犬です。"},
        {"qa_id": 10 * number + 1, "image_id": number, "question": "何色？", "answer": "茶色"},
    ]
    return {"image_id": number, "url": "…", "width": 40, "height": 30, "coco_id": None,
            "flickr_id": None, "image": image(number), "qas": qas}  # fmt: skip


def wild_row(number: int) -> dict:
    return {"page_url": f"page-{number}", "image_url": "…", "image": image(number),
            "question": "どこですか？", "answer": f"これは{number}番の神社です。"}  # fmt: skip


@pytest.fixture
def clones(tmp_path):
    genome, wild = tmp_path / "JA-VG-VQA-500", tmp_path / "JA-VLM-Bench-In-the-Wild"
    part = "00000-of-00001.parquet"
    save(genome / f"data/train-{part}", [genome_row(n) for n in range(3)])
    save(genome / f"data/test-{part}", [genome_row(n) for n in (7, 8)])
    save(wild / f"data/test-{part}", [wild_row(n) for n in range(2)])
    return {"ja_vg_vqa_500": genome, "ja_vlm_bench": wild}


def test_visual_genome_asks_the_first_question_of_each_picture(clones):
    task = load_task("ja_vg_vqa_500", path=str(clones["ja_vg_vqa_500"]))
    assert isinstance(task, Task) and task.max_new_tokens == 512
    assert [e.id for e in task.examples("dev")] == ["0", "1", "2"]
    test = task.examples("test")
    assert [(e.question, e.answer) for e in test] == [("何ですか？", "犬です。")] * 2
    assert test[0].meta == {"image_id": 7, "qa_id": 70}
    assert test[0].picture == image(7)["bytes"]
    assert pictures.decode(test[1].picture).size == (40, 30)
    assert task.score(test[0], "犬です。").value == 1


def test_the_bench_in_the_wild_has_a_test_split_only(clones):
    task = load_task("ja_vlm_bench", path=clones["ja_vlm_bench"], max_new_tokens=64)
    assert task.max_new_tokens == 64
    test = task.examples("test")
    assert [e.id for e in test] == ["00", "01"]
    assert test[1].answer == "これは1番の神社です。" and test[1].meta == {"page_url": "page-1"}
    with pytest.raises(StudioError, match="no 'dev' split, only test; search on another"):
        task.examples("dev")


def test_clones_that_are_none(clones, tmp_path):
    for name, clone in clones.items():
        with pytest.raises(StudioError, match="has no data/test-00000-of-00001.parquet"):
            load_task(name, path=tmp_path / "empty").examples("test")
        file = next(clone.glob("data/test*"))
        for damaged in (file.read_bytes()[:100], b""):
            file.write_bytes(damaged)
            with pytest.raises(StudioError, match="is not SakanaAI/.*Parquet file"):
                load_task(name, path=clone).examples("test")
    for row in (
        {"a": 1},
        {**genome_row(1), "qas": []},
        {**genome_row(1), "image": {"bytes": None}},
    ):
        save(file := clones["ja_vg_vqa_500"] / "data/test-00000-of-00001.parquet", [row])
        with pytest.raises(StudioError, match="is not SakanaAI/JA-VG-VQA-500's Parquet file"):
            load_task("ja_vg_vqa_500", path=file.parent.parent).examples("test")


@pytest.mark.parametrize("name", ["ja_vg_vqa_500", "ja_vlm_bench"])
def test_the_hubs_refusals_are_one_sentence(name, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import errors

    class Answer:
        headers: dict = {}
        request = None

    def refusing(error):
        def download(*_, **__):
            raise error

        return download

    refusals = {
        errors.GatedRepoError("no", response=Answer()): "is gated: accept its terms",
        errors.RepositoryNotFoundError("no", response=Answer()): "The hub has no data/test-",
        errors.RemoteEntryNotFoundError("no", response=Answer()): "The hub has no data/test-",
        errors.LocalEntryNotFoundError("no"): "could not be had from the hub; connect",
        OSError("no"): "could not be had from the hub; connect",
    }
    for error, said in refusals.items():
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", refusing(error))
        with pytest.raises(StudioError, match=said):
            load_task(name).examples("test")
    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(StudioError, match="unset HF_HUB_OFFLINE"):
        load_task(name).examples("test")


def test_the_hubs_files_are_asked_for_by_name(clones, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repository, file, repo_type):
        asked.append((repository, file, repo_type))
        return str(clones["ja_vg_vqa_500"] / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    task = load_task("ja_vg_vqa_500")
    assert len(task.examples("dev")) == len(task.examples("dev")) == 3
    assert asked == [("SakanaAI/JA-VG-VQA-500", "data/train-00000-of-00001.parquet", "dataset")]
