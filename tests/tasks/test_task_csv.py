"""A user's own file: what it may look like, and one sentence for each fault."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.tasks import load_task


def write(folder, text, name="q.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


MOUNTAINS = (
    "Question, Answer ,split,note\n日本一高い山は？,富士山,DEV,a\n二番目は？,北岳,test,b\n\n,,,\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_reads_csv_with_splits(tmp_path, encoding):
    task = load_task("csv", path=write(tmp_path, MOUNTAINS, encoding=encoding))
    (example,) = task.examples("dev")
    assert (example.id, example.question, example.answer) == (
        "line-2",
        "日本一高い山は？",
        "富士山",
    )
    assert example.meta == {"note": "a"}
    assert [e.answer for e in task.examples("test")] == ["北岳"]
    with pytest.raises(StudioError, match="no 'train' split, only dev and test in q.csv"):
        task.examples("train")
    with pytest.raises(StudioError, match="no 'valid' split"):
        task.examples("valid")


def test_csv_tsv_and_jsonl_say_the_same(tmp_path):
    rows = [(f'質問{i}、\n"{i}" は？', f"答え, {i}") for i in range(30)]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([("question", "answer"), *rows])
    lines = [json.dumps({"question": q, "answer": a}, ensure_ascii=False) for q, a in rows]
    write(tmp_path, "\n".join(lines) + "\n", "a.jsonl")
    read = [
        {
            split: [(e.question, e.answer) for e in load_task("csv", path=path).examples(split)]
            for split in ("dev", "test")
        }
        for path in sorted(tmp_path.iterdir())
    ]
    assert read[0] == read[1] == read[2]
    assert sorted(read[0]["dev"] + read[0]["test"]) == sorted(rows)
    assert min(len(part) for part in read[0].values()) >= 5


def test_hash_split_is_stable_and_holds_no_question_twice(tmp_path):
    few = "question,answer\n" + "".join(f"What is {i}?,{i}\n" for i in range(40))
    more = "question,answer\nwhat  is ７?,7\n" + few.partition("\n")[2] + "Other?,1\n"
    before = load_task("csv", path=write(tmp_path, few, "few.csv"))
    after = load_task("csv", path=write(tmp_path, more, "more.csv"))
    for split in ("dev", "test"):
        kept = {e.question for e in after.examples(split)}
        assert {e.question for e in before.examples(split)} <= kept
    halves = [{e.answer for e in after.examples(split)} - {"1"} for split in ("dev", "test")]
    assert not halves[0] & halves[1]


def test_one_question_leaves_a_split_empty(tmp_path):
    task = load_task("csv", path=write(tmp_path, "question,answer\n1+1?,2\n"))
    with pytest.raises(StudioError, match="add more questions, or a split column"):
        for split in ("dev", "test"):
            task.examples(split)


FAULTS = {
    "empty": ("", "is empty; it needs columns"),
    "only blanks": (" \n\n", "is empty"),
    "header only": ("question,answer\n", "no questions below its first line"),
    "missing column": ("question,reply\na,b\n", "columns 'question', 'reply' and lacks answer"),
    "no header": ("日本一高い山は？,富士山\n", "lacks question and answer; name them in the first"),
    "semicolons": ("question;answer\na;b\n", "separated by semicolons, so save it with commas"),
    "tabs": ("question\tanswer\na\tb\n", "separated by tabs, so call it .tsv"),
    "twice": ("question,answer,answer\na,b,c\n", "'answer' twice"),
    "blank answer": ("question,answer\na,b\nc, \n", "Line 3 of q.csv has no answer"),
    "blank question": ("question,answer\n,b\n", "Line 2 of q.csv has no question"),
    "loose comma": ("question,answer\nTom, who is 3,4\n", "Line 2 of q.csv has 3 cells"),
    "open quote": ('question,answer\n"a,b\nc,d\n', "Line 2 of q.csv cannot be read"),
    "bad split": ("question,answer,split\na,b,val\n", "split 'val'; write train, dev or test"),
    "blank split": ("question,answer,split\na,b,\n", "Line 2 of q.csv has no split"),
    "leak": (
        "question,answer,split\na b?,1,dev\nＡ  b?,1,test\n",
        "repeats the question of line 2",
    ),
    "huge": (f"question,answer\na,{'b' * 200_000}\n", "more than 100,000 characters"),
    "binary": ("question,answer\na,b\0\n", "binary data"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_sentence(tmp_path, fault):
    text, message = FAULTS[fault]
    task = load_task("csv", path=write(tmp_path, text))
    with pytest.raises(StudioError) as caught:
        task.examples("dev")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Line 1 of q.jsonl is not JSON"),
        ("[" * 100_000, "Line 1 of q.jsonl is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"question": "a"}', "Line 1 of q.jsonl has the fields 'question' and lacks answer"),
        ('{"question": "a", "answer": null}', "has no answer"),
        ('{"question": "a", "answer": 1}\n{"question": "b", "answer": 1, "split": "dev"}',
         "Line 1 of q.jsonl has no split"),
    ],
)  # fmt: skip
def test_jsonl_faults(tmp_path, line, message):
    task = load_task("csv", path=write(tmp_path, line + "\n", "q.jsonl"))
    with pytest.raises(StudioError, match=message.replace("[", r"\[")):
        task.examples("dev")


def test_wrong_encoding_name_and_place(tmp_path):
    for encoding in ("cp932", "utf-16"):
        task = load_task("csv", path=write(tmp_path, MOUNTAINS, encoding=encoding))
        with pytest.raises(StudioError, match="not UTF-8 text .*save it as UTF-8"):
            task.examples("dev")
    with pytest.raises(StudioError, match="cannot be read .*check the task's path"):
        load_task("csv", path=tmp_path / "none.csv").examples("dev")
    with pytest.raises(StudioError, match=r"is no \.csv, \.tsv or \.jsonl file"):
        load_task("csv", path=tmp_path / "q.xlsx").examples("dev")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(StudioError, match="cannot be read"):
        load_task("csv", path=tmp_path / "d.csv").examples("dev")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match": "fuzzy"}, "choose one of exact, number, contains"),
        ({"language": "japanese"}, "is not a language"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"max_new_tokens": "many"}, "write a whole number"),
        ({"path": 3}, "path is 3"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    with pytest.raises(StudioError, match=message):
        load_task("csv", **{"path": tmp_path / "q.csv", **options})


@pytest.mark.parametrize(
    ("match", "answer", "response", "value"),
    [
        ("exact", "富士山", "富士山。\n", 1.0),
        ("exact", "Mt. Fuji", "mt.  FUJI.", 1.0),
        ("exact", "富士山", "答えは富士山です。", 0.0),
        ("contains", "富士山", "日本で一番高い山は富士山です。", 1.0),
        ("contains", "no", "I do not know.", 0.0),
        ("contains", "no", "No, thanks.", 1.0),
        ("contains", "18", "It costs 180 yen.", 0.0),
        ("contains", "18", "It costs 18.5 yen.", 0.0),
        ("contains", "18", "全部で18個です。", 1.0),
        ("number", "1,800円", "定価は2000円で、値引き後は1800円です。", 1.0),
        ("number", "1,800円", "定価は1800円で、値引き後は2000円です。", 0.0),
        ("number", "5", "わかりません。", 0.0),
    ],
)
def test_scoring(tmp_path, match, answer, response, value):
    path = write(tmp_path, f'question,answer,split\nq?,"{answer}",dev\n')
    task = load_task("csv", path=path, match=match)
    score = task.score(task.examples("dev")[0], response)
    assert score.value == value
    assert json.loads(json.dumps(score.details))["right"] is bool(value)


def test_language_is_required_on_request(tmp_path):
    path = write(tmp_path, "question,answer,split\nq?,18,dev\n")
    task = load_task("csv", path=path, match="number", language="ja")
    example = task.examples("dev")[0]
    assert task.score(example, "全部で18個になります。").value == 1.0
    english = task.score(example, "There are 18 of them.")
    assert english.value == 0.0 and english.details["language"] == "en"
    assert "日本語" in task.prompt(example, chat=False)
    assert task.prompt(example, chat=True) == "q?"


def test_number_match_needs_numbers(tmp_path):
    task = load_task("csv", path=write(tmp_path, "question,answer\nq?,many\n"), match="number")
    with pytest.raises(StudioError, match="Line 2 of q.csv has the answer 'many', which is no num"):
        task.examples("dev")


@given(st.text(max_size=200), st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_any_file_is_read_or_refused_in_a_sentence(tmp_path_factory, text, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(f"question,answer\n{text}".encode("utf-8", "replace"))
    try:
        load_task("csv", path=path).examples("dev")
    except StudioError as error:
        assert str(error).endswith(".")
