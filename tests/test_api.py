"""The steps a user takes, as functions: from a recipe to a folder that says what was measured."""

import json
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio import api
from studio.errors import StudioError
from studio.evolve.evaluate import prompts_for
from studio.evolve.spaces import first_space
from studio.recipe import Recipe
from studio.runs import Store


@pytest.fixture(scope="module")
def finished(tiny_recipe, tmp_path_factory):
    """(store, run, recipe) of a finished evolution; read-only."""
    store = Store(tmp_path_factory.mktemp("finished") / "runs.sqlite")
    recipe = tiny_recipe()
    return store, api.evolve(recipe, store), recipe


# ── reading a run ─────────────────────────────────────────────────────────────────────────────


def test_progress_from_queue_to_report(tiny_recipe, store):
    run = api.create(tiny_recipe(), store)
    queued = api.progress(run, store)
    assert (queued.state, queued.done, queued.total, queued.best) == ("queued", 0, 28, None)
    assert queued.eta is None
    seen = []
    api.resume(run, store, seen.append)
    assert {p.state for p in seen[:-1]} == {"running"} and seen[-1].state == "finished"
    done = [p.done for p in seen]
    assert done == sorted(done) and done[-1] == 28
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == ["sources", "cma", "selection", "random", "report", ""]
    working = [p for p in seen if 0 < p.done < 28]
    assert all(p.tokens_per_second > 0 and p.candidates_per_minute > 0 for p in working)
    assert all(p.eta > 0 for p in working)
    assert working[-1].elapsed <= seen[-1].elapsed


def test_the_curve_never_falls_and_counts_each_stage(finished):
    store, run, _ = finished
    curve = api.curve(run, store)
    assert list(curve) == ["cma", "random"]
    for stage, line in curve.items():
        assert [count for count, _ in line] == list(range(1, len(line) + 1))
        assert [best for _, best in line] == sorted(best for _, best in line)
        assert line[-1][1] == max(c.score for c in store.candidates(run, stage))


def test_the_report_names_everybody_with_an_interval(finished):
    store, run, recipe = finished
    rows = api.report(run, store)
    assert [row["role"] for row in rows] == ["base", "source", "source", "evolved", "random"]
    assert [row["model"] for row in rows[:3]] == [recipe.base, *recipe.sources]
    for row in rows:
        assert row["n"] == 6 and row["task"] == "csv"
        assert 0 <= row["low"] <= row["score"] <= row["high"] <= 1
        assert row["high"] - row["low"] > 0.2  # six questions say little


def test_the_strip_shows_the_same_questions_for_everybody(finished):
    store, run, _ = finished
    for split, questions in (("test", 6), ("dev", 5)):
        rows = api.strip(run, "csv", split, store)
        asked = [[outcome.example for outcome in row["outcomes"]] for row in rows]
        assert len(asked[0]) == questions
        assert all(ids == asked[0] for ids in asked)
        assert {row["role"] for row in rows} >= {"base", "source", "evolved"}
    assert api.strip(run, store=store) == api.strip(run, "csv", "test", store)


# ── models of a run ───────────────────────────────────────────────────────────────────────────


def test_a_candidate_can_be_asked_again(finished):
    store, run, recipe = finished
    options = recipe.objectives[0].options
    winner = store.best(run)
    again = api.evaluate(f"{run}:best", "csv", "test", options, store=store)
    assert again.outcomes == store.evaluation(run, f"candidate:{winner.id}", "csv", "test").outcomes
    third = api.evaluate(f"{run[:6]}:3", "csv", "dev", options, examples=5, store=store)
    assert third.outcomes == store.evaluation(run, "candidate:3", "csv", "dev").outcomes
    source = api.evaluate(recipe.sources[0], "csv", "test", options, store=store)
    recorded = store.evaluation(run, f"model:{recipe.sources[0]}", "csv", "test")
    assert source.outcomes == recorded.outcomes


def test_a_candidate_is_asked_again_in_its_own_precision(tiny_recipe, store, tmp_path):
    recipe = tiny_recipe(precision="bf16", budget={"candidates": 4})
    run = api.evolve(recipe, store)
    options = recipe.objectives[0].options
    recorded = store.evaluation(run, f"candidate:{store.best(run).id}", "csv", "test").outcomes
    assert api.evaluate(f"{run}:best", "csv", options=options, store=store).outcomes == recorded
    out = api.export(run, tmp_path / "mine", store=store)
    again = api.evaluate(str(out), "csv", options=options, batch_size=8, precision="bf16")
    assert again.outcomes == recorded


def test_an_export_holds_its_exact_genome_and_the_card_shown_before(finished, tmp_path):
    store, run, recipe = finished
    out = api.export(run, tmp_path / "mine", store=store)
    best = store.best(run)
    genes = json.loads((out / "genome.json").read_text(encoding="utf-8"))
    assert [gene["value"] for gene in genes] == best.genome.tolist()
    assert [(gene["source"], gene["gene"]) for gene in genes] == [
        (Path(gene.source).name, gene.kind) for gene in first_space(recipe).genes
    ]
    assert (out / "README.md").read_text(encoding="utf-8") == api.card(run, store=store)


def test_folders_that_cannot_be_made_are_a_sentence(tiny_recipe, tmp_path):
    for name in ("locks", "logs"):
        place = tmp_path / f"without {name}"
        place.mkdir()
        (place / name).write_text("in the way")
        store = Store(place / "runs.sqlite")
        use = api.evolve if name == "locks" else api.start
        with pytest.raises(StudioError, match=f"{name}.* a file is in the way"):
            use(tiny_recipe(), store)
        assert name == "locks" or store.runs() == []
        store.close()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("{run}:99", "no candidate 99"),
        ("zzzz:best", "no run 'zzzz'"),
        ("{run}:worst", "no model '.*:worst'"),
    ],
)
def test_unknown_candidates_are_a_sentence(finished, model, says):
    store, run, recipe = finished
    options = recipe.objectives[0].options
    with pytest.raises(StudioError, match=says):
        api.evaluate(model.format(run=run), "csv", options=options, store=store)


@pytest.mark.parametrize("candidate", [None, 20])
def test_an_exported_candidate_says_what_was_recorded(finished, tmp_path, candidate):
    store, run, recipe = finished
    out = api.export(run, tmp_path / "mine", candidate, store)
    number = store.best(run).id if candidate is None else candidate
    split, task = ("test" if candidate is None else "dev"), recipe.build_tasks()[0]
    recorded = store.evaluation(run, f"candidate:{number}", "csv", split)

    options, n = recipe.objectives[0].options, len(recorded.outcomes)
    again = api.evaluate(str(out), "csv", split, options, n)
    assert again.outcomes == recorded.outcomes

    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)  # plain transformers
    tokenizer = AutoTokenizer.from_pretrained(out)
    examples = task.examples(split)[:n]
    for prompt, outcome in zip(
        prompts_for(tokenizer, task, examples), recorded.outcomes, strict=True
    ):
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        answer = model.generate(**ids, do_sample=False, max_new_tokens=task.max_new_tokens)
        text = tokenizer.decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.strip() == outcome.response

    assert Recipe.load(out / "recipe.yaml") == Recipe.from_yaml(store.run(run).recipe)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert run in card and f"{100 * recorded.score:.1f}" in card and "apache-2.0" in card


def test_a_merge_without_a_search(tiny_recipe, tmp_path):
    recipe = tiny_recipe(space={"method": "linear", "layer_granularity": "all"})
    ja, math = recipe.sources
    out = api.merge(recipe, tmp_path / "merged", {ja: 1.0, math: 0.0})
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    source = AutoModelForCausalLM.from_pretrained(ja, dtype=torch.float32).state_dict()
    assert all(torch.equal(merged[name], source[name]) for name in source)
    for arguments, says in (
        (({"other": 1.0},), "'other' is no source"),
        (({ja: 9.0},), "weight"),
        (({}, 0.5), "has no density"),
        (({}, None, 0.5), "has no t"),
    ):
        with pytest.raises(StudioError, match=says):
            api.merge(recipe, tmp_path / "other", *arguments)
    assert not (tmp_path / "other").exists()


# ── refusing in time ──────────────────────────────────────────────────────────────────────────


def test_a_recipe_that_cannot_run_is_never_queued(tiny_recipe, store, questions, tmp_path):
    only_test = tmp_path / "test.csv"
    only_test.write_text("question,answer,split\nq,a,test\n")
    options = {"path": str(questions)}
    cases = [
        ({"sources": ["no-such-model"]}, "no-such-model"),
        ({"objectives": [{"task": "chess"}]}, "no task called 'chess'"),
        ({"objectives": [{"task": "csv", "options": options | {"x": 1}}]}, "no option 'x'"),
        ({"objectives": [{"task": "csv", "options": {"path": str(only_test)}}]}, "'dev'"),
        ({"report": [{"task": "csv", "options": {"path": "absent.csv"}}]}, "absent.csv"),
    ]
    for changes, says in cases:
        with pytest.raises(StudioError, match=says):
            api.start(tiny_recipe(**changes), store)
    assert store.runs() == []


def test_local_paths_are_recorded_whole(tiny_recipe, store, questions, monkeypatch):
    recipe = tiny_recipe()
    family = Path(recipe.base).parent
    monkeypatch.chdir(family)
    run = api.create(
        tiny_recipe(
            base="base",
            sources=["./ja", "math"],
            objectives=[
                {"task": "csv", "options": {"path": f"../{questions.parent.name}/questions.csv"}}
            ],
        ),
        store,
    )
    monkeypatch.chdir("/")
    record = Recipe.from_yaml(store.run(run).recipe)
    assert [record.base, *record.sources] == [recipe.base, *recipe.sources]
    assert Path(record.objectives[0].options["path"]) == questions.resolve()


def test_a_worker_outlives_its_starter(tiny_recipe, store):
    """`start` returns at once; the run is worked on by a process of its own, to its end."""
    run = api.start(tiny_recipe(budget={"candidates": 4}), store)
    end = time.monotonic() + 180
    while (state := api.progress(run, store).state) != "finished":
        assert state in ("queued", "running"), store.run(run).message
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(api.report(run, store)) == 5
    with pytest.raises(StudioError, match="finished; there is nothing left"):
        api.restart(run, store)


def test_the_workspaces_store_holds_the_sample_run(finished, monkeypatch, tmp_path):
    finished[0].save_copy(tmp_path / "sample.sqlite")
    monkeypatch.setattr(api.samples, "SAMPLE_RUN", tmp_path / "sample.sqlite")
    papers = api.bundled_runs()[1:]
    assert len(papers) == 2 and api.bundled_runs()[0] == finished[1]
    for _ in range(2):
        store = api.open_store()
        assert {run.id for run in store.runs()} == {finished[1], *papers}
        assert api.report(finished[1], store) == api.report(finished[1], finished[0])
        store.close()
