"""lm_eval's tasks on a live model: what the harness would say, split, safe and in one sentence."""

import copy
import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from studio import api
from studio.errors import StudioError
from studio.evolve.evaluate import evaluate
from studio.evolve.generate import chat_prompt, generate
from studio.models import Checkpoint
from studio.recipe import Recipe
from studio.runs import Store
from studio.tasks import LiveTask, Task, lm_eval, load_task
from studio.tasks.lm_eval import LMEval
from studio.workspace import ASSETS

SUMS = {
    "task": "sums",
    "dataset_path": "json",
    "dataset_kwargs": {
        "data_files": {p: f"{p}.jsonl" for p in ("train", "validation", "test")},
    },
    "training_split": "train",
    "validation_split": "validation",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "label",
    "target_delimiter": "\n",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "brier_score"}],
}
WORDS = {
    "task": "words",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"validation": "validation.jsonl"}},
    "validation_split": "validation",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 70},
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
        {"metric": "bleu"},
        {"metric": "ter", "aggregation": "ter", "higher_is_better": False},
    ],
    "filter_list": [
        {
            "name": "last",
            "filter": [
                {"function": "regex", "regex_pattern": "([0-9]+)", "group_select": -1},
                {"function": "take_first"},
            ],
        },
        {"name": "whole", "filter": [{"function": "take_first"}]},
    ],
}


def write(folder: Path, definition: dict | str, name: str = "task.yaml") -> Path:
    text = definition if isinstance(definition, str) else yaml.safe_dump(definition)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def write_data(folder: Path, parts=("train", "validation", "test"), count: int = 16) -> Path:
    """Bundled English problems, each with four numbers to choose from and its own in any place."""
    for part in parts:
        source = ASSETS / "data" / "emath" / f"{part.replace('validation', 'dev')}.jsonl"
        rows = []
        for number, line in enumerate(source.read_text("utf-8").splitlines()[:count]):
            row = json.loads(line)
            choices = [str(int(row["answer"]) + off) for off in (1, 10, -1)]
            choices.insert(number % 4, row["answer"])
            rows.append({"question": row["question"], "answer": row["answer"],
                         "choices": choices, "label": number % 4})  # fmt: skip
        (folder / f"{part}.jsonl").write_text(
            "\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8"
        )
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """The examples that are read do not stay in the user's cache."""
    import datasets

    folder = tmp_path_factory.getbasetemp() / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_data(tmp_path_factory.mktemp("tasks"))
    write(folder, SUMS, "sums.yaml")
    return write(folder, WORDS, "words.yaml")


@pytest.fixture(scope="module")
def speaker():
    checkpoint = Checkpoint.open("bonsai-math")
    return checkpoint.load(torch.float32), checkpoint.tokenizer()


def measured(speaker, task, split="dev", **options):
    options = {"subject": "candidate:0", "split": split, "batch_size": 5} | options
    return evaluate(*speaker, task, task.examples(split), **options)


def asked(monkeypatch) -> list[str]:
    """Note each prompt that the harness would have answered, and answer none."""
    from lm_eval.models.huggingface import HFLM

    prompts: list[str] = []

    def note(_self, requests, **_):
        prompts.extend(dict.fromkeys(request.args[0] for request in requests))
        return [(-1.0, False)] * len(requests)

    monkeypatch.setattr(HFLM, "loglikelihood", note)
    return prompts


# ── measuring ─────────────────────────────────────────────────────────────────────────────────


def test_the_likeliest_ending_is_the_models_own(folder, speaker):
    model, tokenizer = speaker
    task = load_task("lm_eval", name="sums", path=folder)
    assert isinstance(task, LiveTask) and not isinstance(task, Task)
    found = measured(speaker, task)
    norm = measured(speaker, load_task("lm_eval", name="sums", path=folder, metric="acc_norm"))
    assert (found.task, found.broken, found.tokens) == ("lm_eval", "", 0)
    examples = task.examples("dev")
    for example, outcome, normed in zip(examples, found.outcomes, norm.outcomes, strict=True):
        likelihoods = []
        context = tokenizer(example.question, add_special_tokens=False)["input_ids"]
        for choice in example.meta["choices"]:
            text = f"{example.question}\n{choice}"
            ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
            with torch.no_grad():
                said = model(ids[None]).logits[0, :-1].log_softmax(-1)
            each = said.gather(1, ids[1:, None])[:, 0]
            likelihoods.append(float(each[len(context) - 1 :].sum()))
        assert outcome.details["loglikelihoods"] == pytest.approx(likelihoods, abs=1e-3)
        choices = example.meta["choices"]
        likeliest = choices[likelihoods.index(max(likelihoods))]
        assert (outcome.response, outcome.score) == (likeliest, likeliest == example.answer)
        per_letter = [one / len(c) for one, c in zip(likelihoods, choices, strict=True)]
        likeliest = choices[per_letter.index(max(per_letter))]
        assert (normed.response, normed.score) == (likeliest, likeliest == example.answer)
    assert found.score == pytest.approx(sum(o.score for o in found.outcomes) / len(examples))
    assert 0 < found.score < 1


KINDS = {
    "choices": ({}, {}),
    "worked examples": ({"num_fewshot": 3}, {}),
    "unconditional": ({}, {"metric_list": [{"metric": "acc_mutual_info"}]}),
    "one ending": (
        {"metric": "acc"},
        {"output_type": "loglikelihood", "doc_to_choice": None, "doc_to_target": "{{answer}}",
         "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}]},
    ),
    "beginnings": (
        {},
        {"doc_to_text": "label", "doc_to_choice": "{{choices}}", "doc_to_target": "{{question}}"},
    ),
    "generated": (
        {"num_fewshot": 1, "max_new_tokens": 9},
        {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "{{choices}}",
         "generation_kwargs": {"until": ["."], "max_new_tokens": 9}, "repeats": 2,
         "metric_list": [{"metric": "exact_match", "ignore_punctuation": True}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "change"), KINDS.values(), ids=KINDS)
def test_scores_are_the_harnesss_own(folder, tmp_path, speaker, options, change):
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from studio.tasks.lm_eval_definition import read

    for part in ("train", "validation", "test"):
        (tmp_path / f"{part}.jsonl").write_bytes((folder / f"{part}.jsonl").read_bytes())
    path = write(tmp_path, SUMS | change)
    task = load_task("lm_eval", name="sums", path=path, **options)
    ours = measured(speaker, task, "test")
    model = copy.deepcopy(speaker[0])
    model.generation_config.max_new_tokens = None  # the harness would take that before the task's
    theirs = simple_evaluate(
        HFLM(pretrained=model, tokenizer=speaker[1], batch_size=5),
        tasks=[ConfigurableTask(config=read(path, "sums"))],
        num_fewshot=options.get("num_fewshot", 0),
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    assert ours.score == pytest.approx(theirs["results"]["sums"][f"{task.metric},none"])
    for example, outcome, sample in zip(
        task.examples("test"), ours.outcomes, theirs["samples"]["sums"], strict=True
    ):
        assert outcome.example == f"test-{sample['doc_id']}"
        assert outcome.score == sample[task.metric]
        assert example.answer in sample["doc"]["choices"] or task.metric == "exact_match"
        said = [one[0] for one in sample["resps"]]
        if "loglikelihoods" in outcome.details:
            likelihoods = [one for one, _ in said]
            assert outcome.details["loglikelihoods"] == pytest.approx(likelihoods, abs=1e-3)
        else:
            assert outcome.response == said[0]


@pytest.mark.parametrize("chat", [True, False])
def test_answers_are_those_the_studio_would_generate(folder, speaker, chat):
    model, tokenizer = speaker
    task = load_task("lm_eval", name="words", path=folder, chat=chat)
    found = measured(speaker, task)
    examples = task.examples("dev")
    prompts = [
        chat_prompt(tokenizer, [{"role": "user", "content": example.question}])
        if chat
        else example.question
        for example in examples
    ]
    expected = generate(model, tokenizer, prompts, max_new_tokens=70, batch_size=64)
    texts = [response.text.partition("\n\n")[0].strip() for response in expected]
    assert [outcome.response.strip() for outcome in found.outcomes] == texts
    for example, outcome in zip(examples, found.outcomes, strict=True):
        assert outcome.score == (outcome.details["parsed"] == example.answer)
        assert outcome.tokens <= 70 and bool(outcome.tokens) == bool(outcome.response)
    assert found.score > 0.9 if chat else found.score < 0.9


def test_the_filter_and_the_length_are_what_was_asked_for(folder, speaker):
    task = load_task(
        "lm_eval", name="words", path=folder, metric="exact_match,whole", max_new_tokens=3
    )
    found = measured(speaker, task)
    assert task.metric == "exact_match,whole"
    assert all(o.details["parsed"] == o.response and o.tokens <= 3 for o in found.outcomes)


def test_a_function_for_all_examples_can_score_each_alone(folder, speaker, monkeypatch):
    """As of ja_leaderboard_xlsum, whose YAML names functions."""
    from studio.tasks import lm_eval_definition

    def pairs(**said):
        return said["references"][0], said["predictions"][0]

    def overlap(items):
        return sum(len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in items) / len(items)

    metric = {"metric": pairs, "aggregation": overlap, "higher_is_better": True}
    read = lm_eval_definition.read
    monkeypatch.setattr(LMEval, "_check_metrics", lambda self, fields: None)
    monkeypatch.setattr(lm_eval_definition, "read", lambda *a: read(*a) | {"metric_list": [metric]})
    options = {"name": "words", "path": folder, "chat": True}
    with pytest.raises(StudioError, match="one number for all.*; set the option per_example"):
        measured(speaker, load_task("lm_eval", **options))
    task = load_task("lm_eval", **options, per_example=True)
    found = measured(speaker, task)
    assert [o.score for o in found.outcomes] == [
        overlap([(e.answer, o.details["parsed"])])
        for e, o in zip(task.examples("dev"), found.outcomes, strict=True)
    ]


def test_the_model_is_lent_and_given_back(folder, speaker):
    model, tokenizer = speaker

    def state():
        return (
            [(n, id(p), p.data_ptr(), p.sum().item()) for n, p in model.named_parameters()],
            model.training,
            model.generation_config.to_dict(),
            model.config.to_dict(),
            (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer)),
            (len(model._forward_hooks), len(model._forward_pre_hooks)),
            generate(model, tokenizer, ["Tom has"], max_new_tokens=8, batch_size=1),
        )

    before = state()
    for name in ("sums", "words"):
        measured(speaker, load_task("lm_eval", name=name, path=folder))
    assert state() == before
    with pytest.raises(KeyboardInterrupt):
        measured(speaker, load_task("lm_eval", name="words", path=folder), on_token=interrupt)
    assert state() == before


def interrupt():
    raise KeyboardInterrupt


def test_a_tokenizer_without_padding_stays_without(folder, family_factory):
    checkpoint = Checkpoint.open(family_factory(layers=2, scale=0.6)["ja"])
    tokenizer = checkpoint.tokenizer()
    tokenizer.pad_token = None
    speaker = checkpoint.load(torch.float32), tokenizer
    found = measured(speaker, load_task("lm_eval", name="words", path=folder, max_new_tokens=4))
    assert len(found.outcomes) > 3 and tokenizer.pad_token is None


# ── what the evaluator does for it ────────────────────────────────────────────────────────────


class Stopped(Exception):
    pass


@pytest.mark.parametrize(("name", "passes"), [("sums", 3), ("words", 8)])
def test_it_stops_between_two_forward_passes(folder, speaker, name, passes):
    count = 0

    def on_token():
        nonlocal count
        count += 1
        if count == passes:
            raise Stopped

    task = load_task("lm_eval", name=name, path=folder, chat=True)
    with pytest.raises(Stopped):
        measured(speaker, task, on_token=on_token)
    assert count == passes


@pytest.mark.parametrize("name", ["sums", "words"])
def test_a_broken_model_is_a_recorded_zero(folder, family_factory, name):
    checkpoint = Checkpoint.open(family_factory(layers=2, scale=0.6)["ja"])
    model = checkpoint.load(torch.float32)
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = math.nan
    task = load_task("lm_eval", name=name, path=folder)
    found = measured((model, checkpoint.tokenizer()), task)
    assert found.score == 0.0 and "not finite" in found.broken
    assert [o.example for o in found.outcomes] == [e.id for e in task.examples("dev")]


def test_a_batch_that_does_not_fit_is_halved(folder, speaker, monkeypatch):
    task = load_task("lm_eval", name="sums", path=folder)
    whole = measured(speaker, task, batch_size=8)
    forward = speaker[0].forward

    def wrapped(ids, **options):
        if ids.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(ids, **options)

    monkeypatch.setattr(speaker[0], "forward", wrapped)
    halvings = []
    found = measured(speaker, task, batch_size=8, on_halving=halvings.append)
    assert halvings == [4, 2]
    assert [o.score for o in found.outcomes] == [o.score for o in whole.outcomes]


def test_what_ends_an_answer_is_the_tasks_to_say(folder, speaker):
    task = load_task("lm_eval", name="words", path=folder, max_new_tokens=1)
    assert not measured(speaker, task, must_end=True).broken


# ── examples ──────────────────────────────────────────────────────────────────────────────────


def test_dev_and_test_are_validation_and_test(folder):
    task = load_task("lm_eval", name="sums", path=folder)
    dev, test = task.examples("dev"), task.examples("test")
    assert [e.id for e in dev] == [f"validation-{n}" for n in range(16)]
    assert [e.id for e in test] == [f"test-{n}" for n in range(16)]
    for example in dev:
        assert example.answer in example.meta["choices"] and example.question.endswith(("?", "."))
    with pytest.raises(StudioError, match="no 'train' split, only dev and test"):
        task.examples("train")


def test_one_split_is_halved_by_question(folder, tmp_path):
    def halves(path):
        task = load_task("lm_eval", name="words", path=path)
        return {s: {e.question for e in task.examples(s)} for s in ("dev", "test")}

    once = halves(folder)
    assert len(once["dev"]) > 3 and len(once["test"]) > 3
    assert not once["dev"] & once["test"] and len(once["dev"] | once["test"]) == 16
    write_data(tmp_path, ["validation"], count=40)
    more = halves(write(tmp_path, WORDS))
    assert once["dev"] <= more["dev"] and once["test"] <= more["test"]
    same = WORDS | {"test_split": "validation"}  # two names for one split are no two splits
    assert halves(write(tmp_path, same)) == more


def test_examples_are_asked_alike_whichever_are_asked(folder, speaker, monkeypatch):
    prompts = asked(monkeypatch)
    task = load_task("lm_eval", name="sums", path=folder, num_fewshot=2)
    examples = task.examples("dev")
    task.measure(*speaker, examples, 8)
    whole = list(prompts)
    assert all(prompt.count("\n\n") == 2 for prompt in whole)
    prompts.clear()
    task.measure(*speaker, examples[5:9], 8)
    assert prompts == whole[5:9]


def test_worked_examples_are_neither_test_nor_the_question(tmp_path, speaker, monkeypatch):
    write_data(tmp_path, ["validation"], count=24)
    definition = SUMS | {
        "dataset_kwargs": {"data_files": {"validation": "validation.jsonl"}},
        "training_split": None,
        "test_split": None,
    }
    prompts = asked(monkeypatch)
    for extra in ({}, {"fewshot_split": "validation"}, {"test_split": "validation"}):
        path = write(tmp_path, definition | extra)
        task = load_task("lm_eval", name="sums", path=path, num_fewshot=4)
        dev = {example.question for example in task.examples("dev")}
        for split in ("dev", "test"):
            prompts.clear()
            task.measure(*speaker, task.examples(split), 8)
            for prompt, example in zip(prompts, task.examples(split), strict=True):
                *worked, question = prompt.split("\n\n")
                assert question == example.question and len(worked) == 4
                shown = {one.partition("\n")[0] for one in worked}
                assert shown <= dev and question not in shown


# ── runs ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("space", "options"),
    [
        ({"method": "task_arithmetic", "layer_granularity": "all"}, {"name": "sums"}),
        (
            {"type": "data_flow", "repeats": 1},
            {"name": "words", "chat": True, "max_new_tokens": 12},
        ),
    ],
    ids=["weights", "paths"],
)
def test_an_evolution_for_it(folder, tmp_path, space, options):
    options = options | {"path": str(folder)}
    recipe = Recipe.from_dict(
        {
            "base": "bonsai-base",
            "sources": ["bonsai-math", "bonsai-ja"],
            "space": space,
            "objectives": [{"task": "lm_eval", "options": options, "examples": 4}],
            "search": {"population": 4, "finalists": 1, "random_baseline": False},
            "budget": {"candidates": 4},
            "batch_size": 32,
        }
    )
    store = Store(tmp_path / "runs.sqlite")
    run = api.evolve(recipe, store)
    assert store.run(run).status == "finished"
    examples = load_task("lm_eval", **options).examples("dev")[:4]
    for candidate in store.candidates(run):
        evaluation = store.evaluation(run, f"candidate:{candidate.id}", "lm_eval", "dev")
        assert [o.example for o in evaluation.outcomes] == [e.id for e in examples]
        assert candidate.score == evaluation.score
    best = next(row for row in api.report(run, store) if row["role"] == "evolved")
    number = best["subject"].partition(":")[2]
    again = api.evaluate(f"{run}:{number}", "lm_eval", "test", options, store=store)
    recorded = store.evaluation(run, best["subject"], "lm_eval", "test")
    assert again.outcomes == recorded.outcomes and best["n"] == len(again.outcomes)
    store.close()


def test_the_terminal_evaluates_it(folder, monkeypatch, capsys):
    from studio.cli import main

    command = ["studio", "evaluate", "bonsai-math", "--task", "lm_eval", "--split", "dev",
               "--option", "name=words", "--option", f"path={folder}", "--option", "chat=true",
               "--examples", "3", "--json"]  # fmt: skip
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    assert not left.value.code, said.err
    assert json.loads(said.out)["n"] == 3


# ── bad input ─────────────────────────────────────────────────────────────────────────────────


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "lm_eval" else found(name)
    )
    with pytest.raises(
        StudioError, match=r'needs the package lm_eval.*pip install -e "\.\[lm-eval'
    ):
        load_task("lm_eval", name="sums")


def test_an_old_package_is_a_sentence(folder, monkeypatch):
    monkeypatch.setitem(lm_eval.OLDEST, "datasets", "99")
    lm_eval._prepare.cache_clear()
    with pytest.raises(StudioError, match="needs datasets 99 or newer.*pip install -U"):
        load_task("lm_eval", name="sums", path=folder).examples("dev")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs the option 'name'"),
        ({"name": 3}, "name is 3"),
        ({"name": "sums", "include_path": "x"}, "no option 'include_path'; its options are name"),
        ({"name": "sums", "path": 3}, "path is 3"),
        ({"name": "sums", "metric": 3}, "metric is 3"),
        ({"name": "sums", "num_fewshot": -1}, "num_fewshot is -1; write a whole number from 0"),
        ({"name": "sums", "max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"name": "sums", "chat": "yes"}, "chat is 'yes'; write true or false"),
        ({"name": "sums", "per_example": 1}, "per_example is 1"),
    ],
)
def test_wrong_options_are_sentences(options, message):
    with pytest.raises(StudioError, match=message):
        load_task("lm_eval", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "summs"}, "no task called 'summs' in .*, only sums, words"),
        ({"name": "sums", "path": "nowhere"}, "no folder of task definitions nowhere"),
        ({"name": "sums", "metric": "rouge"}, "no metric 'rouge' of .* sums; use acc or acc_norm"),
        ({"name": "sums", "metric": "brier_score"}, "better when lower.*use acc or acc_norm"),
        ({"name": "words", "metric": "ter"}, "better when lower"),
        ({"name": "words", "metric": "bleu"}, "bleu .* one number for all.*; use exact_match"),
        ({"name": "words", "metric": "bleu", "per_example": True}, "one number for all"),
        (
            {"name": "words", "metric": "exact_match,first"},
            "no filter 'first'; use exact_match,las",
        ),
        ({"name": "words", "num_fewshot": 20}, "cannot put its questions .*Sample larger"),
        ({"name": "words", "max_new_tokens": 512}, "reads no more than 512; give .*max_new_tokens"),
    ],
)
def test_what_a_task_cannot_do_is_a_sentence(folder, speaker, options, message):
    with pytest.raises(StudioError, match=message) as caught:
        measured(speaker, load_task("lm_eval", **{"path": folder} | options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_path": "script.py"}, "'dataset_path' is 'script.py'; write json, csv"),
        ({"dataset_path": "."}, "'dataset_path' is '.'"),
        ({"dataset_path": "pandas"}, "'dataset_path' is 'pandas'"),
        ({"dataset_path": ["json"]}, "'dataset_path' is"),
        ({"dataset_kwargs": {"trust_remote_code": True}}, "has 'trust_remote_code'"),
        ({"dataset_kwargs": None}, "names no 'data_files'"),
        ({"dataset_kwargs": {"data_files": "gone.jsonl"}}, "no file 'gone.jsonl' beside it"),
        ({"generation_kwargs": {"custom_generate": "a/b"}}, "has 'custom_generate'"),
        ({"process_docs": "utils.process"}, "field 'process_docs' is not taken"),
        ({"use_prompt": "promptsource:x"}, "field 'use_prompt' is not taken"),
        ({"unsafe_code": True}, "field 'unsafe_code' is not taken"),
        ({"class": "x"}, "field 'class' is not taken"),
        ({"metric_list": [{"metric": "./evil.py"}]}, "'./evil.py'.* none of the harness's own"),
        ({"metric_list": [{"metric": "f1", "hf_evaluate": True}]}, "as code, which is never run"),
        ({"metric_list": ["acc"]}, "needs the name of a 'metric'"),
        ({"metric_list": [{"metric": "bleu"}]}, "bleu .* one number for all|no metric that scores"),
        ({"output_type": "sing"}, "cannot be loaded .*output_type"),
        ({"doc_to_text": "{{nothing}}"}, "cannot be loaded .*'nothing' is undefined"),
        ({"doc_to_text": "{{question"}, "cannot be loaded"),
        ({"training_split": "third"}, "cannot be loaded"),
        ({"validation_split": None, "test_split": None}, "cannot be loaded|neither validation"),
        ({"include": "gone.yaml"}, "cannot be read"),
        ({"include": "task.yaml"}, "around in a circle"),
    ],
)
def test_a_definition_that_will_not_do_is_a_sentence(folder, tmp_path, change, message):
    for part in ("train", "validation", "test"):
        (tmp_path / f"{part}.jsonl").write_bytes((folder / f"{part}.jsonl").read_bytes())
    (tmp_path / "script.py").write_text("raise SystemExit('run')")
    path = write(tmp_path, SUMS | change)
    with pytest.raises(StudioError, match=message) as caught:
        load_task("lm_eval", name="sums", path=path).examples("dev")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [", "not valid YAML"),
        ("- sums", "must be a YAML mapping"),
        ("task: sums\na: &x [1]\nb: *x\n", "aliases are not read"),
        ("task: sums\n# " + "x" * 300_000, "larger than 256 KiB"),
        ("task: sums\nprocess_results: !function code.run\n", "the tag !function.* runs no code"),
        ("task: sums\nmetadata: {deep: [!!python/name:os.system ]}\n", "the tag tag:yaml.org"),
        ("task: sums\ninclude: other.yaml\n", "the tag !function"),
    ],
)
def test_no_code_of_a_definition_is_run(tmp_path, text, message):
    mark = tmp_path / "mark"
    (tmp_path / "code.py").write_text(f"open({str(mark)!r}, 'w').close()\nrun = None\n")
    write(tmp_path, "process_docs: !function code.run\n", "other.yaml")
    with pytest.raises(StudioError, match=message):
        load_task("lm_eval", name="sums", path=write(tmp_path, text)).examples("dev")
    assert not mark.exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['_' ~ '_class_' ~ '_'].mro() }}",
        "{{ cycler|attr('\\x5f\\x5finit\\x5f\\x5f') }}",
        "{{ lipsum.__globals__['os'].system('true') }}",
        "{{ '{0.__class__}'.format(1) }}",
    ],
)
def test_no_template_gets_out_of_its_sandbox(folder, tmp_path, template):
    for part in ("train", "validation", "test"):
        (tmp_path / f"{part}.jsonl").write_bytes((folder / f"{part}.jsonl").read_bytes())
    path = write(tmp_path, SUMS | {"doc_to_text": template})
    with pytest.raises(StudioError, match="Security|unsafe"):
        load_task("lm_eval", name="sums", path=path).examples("dev")


@pytest.mark.parametrize(
    "sampling", [{"do_sample": True, "temperature": 0.7}, {"temperature": 0.7}]
)
def test_a_task_that_draws_its_answers_is_refused(folder, tmp_path, sampling):
    write_data(tmp_path, ["validation"])
    path = write(tmp_path, WORDS | {"generation_kwargs": {"until": ["\n"], **sampling}})
    with pytest.raises(StudioError, match="draws its answers at random"):
        load_task("lm_eval", name="words", path=path).examples("dev")


def test_the_harnesss_own_tasks(monkeypatch):
    """Offline: what they are called, and what a dataset that cannot be had is said to be."""
    import lm_eval as package
    from lm_eval.tasks import TaskManager

    there = Path(package.__file__).parent / "tasks"  # all of them take seconds to index
    folders = [str(there / "japanese_leaderboard"), str(there / "humaneval")]
    manager = TaskManager(include_defaults=False, include_path=folders)
    monkeypatch.setattr(lm_eval, "_manager", lambda: manager)
    for name, message in (
        ("ja_leaderboard_jnlli", "no task 'ja_leaderboard_jnlli'; .* such as ja_leaderboard_jnli"),
        ("japanese_leaderboard", "is a group of lm_eval tasks; name one of its tasks"),
        ("ja_leaderboard_jnli", "dataset of .* could not be had from the hub .offline mode is on"),
        ("humaneval", "metric code_eval, which is downloaded as code and never run"),
    ):
        with pytest.raises(StudioError, match=message):
            load_task("lm_eval", name=name).examples("dev")
