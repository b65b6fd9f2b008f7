"""Whole runs over vision-language models: searched, recorded, reported, resumed, taken home."""

import json
import shutil

import pytest

import studio
from studio import api
from studio.errors import StudioError
from studio.evolve import inputs, library
from studio.evolve.plan import lengths, plan
from studio.evolve.spaces import open_models
from studio.recipe import Recipe
from studio.runs.store import Store
from studio.tasks import load_task
from tests.vlm.encoders import make_encoder
from tests.vlm.test_merging import by_transformers


@pytest.fixture(scope="module")
def questions(tmp_path_factory, pictures):
    """A user's folder: three pictures, six dev questions and three for the test."""
    folder = tmp_path_factory.mktemp("questions")
    rows = []
    for number in range(9):
        picture = pictures[number % 3]
        shutil.copyfile(picture, folder / picture.name)
        rows.append({
            "image": picture.name, "question": f"{number}番目は何ですか。", "answer": "赤い丸です",
            "split": "dev" if number < 6 else "test",
        })  # fmt: skip
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")
    return folder


def tiny(folder, questions, **changes) -> Recipe:
    options = {"path": str(questions), "language": None, "max_new_tokens": 3}
    return Recipe.from_dict({
        "name": "seen",
        "base": str(folder / "base"),
        "sources": [str(folder / "vlm"), str(folder / "ja")],
        "space": {"method": "linear", "layer_granularity": "all"},
        "objectives": [{"task": "vqa", "options": options}],
        "search": {"population": 4, "finalists": 2},
        "budget": {"candidates": 6},
        **changes,
    })  # fmt: skip


def test_a_run_from_sources_to_an_export_that_answers_alike(
    vlm_factory, questions, pictures, tmp_path
):
    folder = vlm_factory("llava")
    store = Store(tmp_path / "runs.sqlite")
    run = api.evolve(tiny(folder, questions), store=store)
    rows = api.report(run, store=store)
    assert {row["role"] for row in rows} >= {"base", "source", "evolved", "random"}
    best = store.best(run)
    out = api.export(run, tmp_path / "out", best.id, store)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-text-to-text" in card
    evaluation = store.evaluation(run, f"candidate:{best.id}", "vqa", "test")
    again = api.evaluate(
        f"{run}:{best.id}", "vqa", "test", options={"path": str(questions), "language": None,
        "max_new_tokens": 3}, store=store,
    )  # fmt: skip
    assert [o.response for o in again.outcomes] == [o.response for o in evaluation.outcomes]
    assert len(by_transformers(out, pictures)) == 3


def test_beams_reach_the_evaluation(vlm_factory, questions, tmp_path, monkeypatch):
    seen = []
    original = library.generate

    def watched(*args, **options):
        seen.append(options["decoding"])
        return original(*args, **options)

    monkeypatch.setattr(library, "generate", watched)
    decoding = {"beams": 2, "repetition_penalty": 1.5}
    recipe = tiny(vlm_factory("llava"), questions, decoding=decoding, budget={"candidates": 2})
    assert Recipe.from_yaml(recipe.to_yaml()).decoding.beams == 2
    api.evolve(recipe, store=Store(tmp_path / "runs.sqlite"))
    assert {(d.beams, d.repetition_penalty) for d in seen} == {(2, 1.5)}


def test_two_tasks_about_the_same_answers_ask_once(vlm_factory, questions, tmp_path, monkeypatch):
    asked = []
    original = library.generate

    def counted(model, tokenizer, prompts, *args, **options):
        asked.append(len(prompts))
        return original(model, tokenizer, prompts, *args, **options)

    monkeypatch.setattr(library, "generate", counted)
    encoder = make_encoder(tmp_path / "encoder")
    options = {"path": str(questions), "language": None, "max_new_tokens": 3}
    recipe = tiny(
        vlm_factory("llava"),
        questions,
        objectives=[
            {"task": "vqa", "options": options},
            {"task": "clip_score", "options": {
                "of": "vqa", "options": options, "model": str(encoder)}},
        ],
        search={"population": 4, "finalists": 2, "random_baseline": False},
        budget={"candidates": 4},
    )  # fmt: skip
    store = Store(tmp_path / "runs.sqlite")
    run = api.evolve(recipe, store=store)
    for candidate in store.candidates(run):
        assert set(candidate.scores) == {"vqa", "clip_score"}
        said = [
            store.evaluation(run, f"candidate:{candidate.id}", task, "dev").outcomes
            for task in ("vqa", "clip_score")
        ]
        assert [o.response for o in said[0]] == [o.response for o in said[1]]
    # the one model that sees, twice on each split; then once for each candidate and the finalists
    finalists = asked.count(3) - 2
    assert asked.count(6) == 2 + 4 and 1 <= finalists <= 2


def test_another_picture_is_another_question(vlm_factory, questions, tmp_path, pictures):
    copy = tmp_path / "copy"
    shutil.copytree(questions, copy)
    options = {"path": str(copy), "language": None}
    before = inputs.of_examples({("vqa", "dev"): load_task("vqa", **options).examples("dev")})
    shutil.copyfile(pictures[1], copy / pictures[0].name)
    after = inputs.of_examples({("vqa", "dev"): load_task("vqa", **options).examples("dev")})
    assert before.keys() == after.keys() and before != after


@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_a_plan_counts_pictures(vlm_factory, questions, kind):
    recipe = tiny(vlm_factory(kind), questions)
    models = open_models(recipe)
    tasks = recipe.build_tasks()
    prompt, answer = lengths(models, tasks)
    without, _ = lengths([models[0], models[2]], tasks)
    pictures = {"llava": 4, "llava_next": 4 + 2 * 4}[kind]
    assert prompt >= without + pictures and answer == 3
    planned = plan(recipe, models, tasks)
    frame = models[1].frame.parameters
    text = plan(
        recipe.model_copy(update={"sources": [recipe.sources[1]]}), [models[0], models[2]], None
    )
    assert planned.fits and planned.sources == 4 * (models[1].parameters + frame)
    assert planned.needs["cma"].resident > text.needs["cma"].resident + 4 * frame


def test_the_base_of_a_path_or_a_vocabulary_that_sees_nothing_is_a_sentence(vlm_factory, questions):
    folder = vlm_factory("llava")
    recipe = tiny(folder, questions, vocabulary="base")
    with pytest.raises(StudioError, match="needs them for its pictures"):
        studio.api.plan(recipe)


@pytest.mark.parametrize("space", [
    {"type": "data_flow", "repeats": 1},
    {"type": "both", "parameter": {"method": "linear", "layer_granularity": "all"},
     "data_flow": {"repeats": 1}},
], ids=["paths", "both"])  # fmt: skip
def test_runs_in_the_other_spaces_report_what_sees(vlm_factory, questions, tmp_path, space):
    store = Store(tmp_path / "runs.sqlite")
    search = {"population": 4, "finalists": 1, "random_baseline": False}
    recipe = tiny(
        vlm_factory("llava"), questions, space=space, search=search, budget={"candidates": 4}
    )
    run = api.evolve(recipe, store=store)
    best = store.best(run)
    assert api.subject(f"{run}:{best.id}", store)[2].frame is not None
    assert any(row["role"] == "evolved" for row in api.report(run, store=store))
