"""An evolution in four bits from start to report, resumed, exported; and its plan."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio import api
from studio.errors import StudioError
from studio.evolve import executors, plan, report, session
from studio.evolve.memory import Need, need
from studio.evolve.spaces import build_space, open_models
from studio.recipe import Recipe
from studio.runs import Store
from tests.trajectory import trajectory

SPACES = {
    "parameter": {"method": "ties", "layer_granularity": "all"},
    "data_flow": {"type": "data_flow", "repeats": 1, "max_length": 4},
    "both": {
        "type": "both",
        "parameter": {"method": "linear", "layer_granularity": "all"},
        "data_flow": {"repeats": 1, "max_length": 4},
    },
}


@pytest.mark.parametrize("precision", ["int8", "nf4"])
@pytest.mark.parametrize("space", SPACES)
def test_both_scores_are_reported_and_the_export_is_unquantized(
    tiny_recipe, store, tmp_path, space, precision
):
    recipe = tiny_recipe(space=SPACES[space], precision=precision, budget={"candidates": 4})
    run = api.evolve(recipe, store)
    rows = api.report(run, store)
    roles = [row["role"] for row in rows]
    assert roles.count("evolved") == roles.count("exported") == 1
    evolved, exported = (next(r for r in rows if r["role"] == x) for x in ("evolved", "exported"))
    number = evolved["subject"].partition(":")[2]
    assert exported["subject"] == f"export:{number}" and exported["n"] == evolved["n"] == 6
    assert f"#{number}" in exported["model"] and "exported" in exported["model"]

    out = api.export(run, tmp_path / "out", store=store)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.float32  # as the sources are stored
    scored = api.evaluate(
        str(out), "csv", "test", recipe.objectives[0].options, precision="fp32", batch_size=8
    )
    recorded = store.evaluation(run, exported["subject"], "csv", "test")
    assert [o.response for o in scored.outcomes] == [o.response for o in recorded.outcomes]
    card = (out / "README.md").read_text()
    assert exported["model"] in card and f"precision: {precision}" in card


def test_a_run_in_four_bits_resumes_as_if_never_stopped(tiny_recipe, store, monkeypatch, tmp_path):
    recipe = tiny_recipe(precision="nf4", budget={"candidates": 6})
    whole = api.evolve(recipe, store)
    other = Store(tmp_path / "other.sqlite")
    with monkeypatch.context() as patch:
        steps = iter(range(9))

        def stop_at_last(self):
            if next(steps, None) is None:
                raise executors.Stopped

        patch.setattr(session.Session, "check_stop", stop_at_last)
        run = api.evolve(recipe, other)
    assert other.run(run).status == "stopped"
    api.resume(run, other)
    assert trajectory(other, run) == trajectory(store, whole)
    other.close()


def test_an_export_that_was_not_scored_yet_is_scored_on_resuming(tiny_recipe, store, monkeypatch):
    recipe = tiny_recipe(precision="int8", budget={"candidates": 4})
    with monkeypatch.context() as patch:
        patch.setattr(report, "report_export", lambda *_: (_ for _ in ()).throw(executors.Stopped))
        run = api.evolve(recipe, store)
    assert [r["role"] for r in api.report(run, store)].count("exported") == 0
    api.resume(run, store)
    assert [r["role"] for r in api.report(run, store)].count("exported") == 1


# ── the plan ──────────────────────────────────────────────────────────────────────────────────


def test_a_batch_of_auto_is_planned_once_and_kept(tiny_recipe, store, monkeypatch):
    recipe = tiny_recipe(batch_size="auto", budget={"candidates": 4})
    monkeypatch.setattr(plan, "LARGEST", 4)
    run = api.evolve(recipe, store)
    planned = [e.payload for e in store.events(run) if e.kind == "batch"]
    assert planned == [{"batch_size": 4}]
    monkeypatch.setattr(plan, "LARGEST", 2)  # a resumed run asks nobody again
    assert session.Session(store, run).bench.batch_size == 4


def test_a_smaller_memory_means_a_smaller_batch_and_then_a_sentence(tiny_recipe, monkeypatch):
    recipe = tiny_recipe(batch_size="auto")
    models = open_models(recipe)
    tasks = recipe.build_tasks()
    planned = plan.plan(recipe, models, tasks, 10**12)
    assert planned.batch == plan.LARGEST and planned.fits
    only = planned.needs["cma"]
    tight = plan.plan(recipe, models, tasks, int(only.peak(8) / 0.95) + 2)
    assert tight.batch == 8 and tight.peak <= only.peak(8)
    assert not plan.plan(recipe, models, tasks, 1000).fits
    monkeypatch.setattr(plan, "available", lambda device: 1000)
    with pytest.raises(StudioError, match="GB of memory with one question at a time"):
        plan.plan(recipe, models, tasks)


def test_precisions_need_less_and_less(tiny_recipe):
    rows = {row["precision"]: row for row in api.memory(tiny_recipe())}
    assert list(rows) == ["fp32", "bf16", "int8", "nf4"]
    recipe = tiny_recipe()
    space = build_space(recipe, recipe.stages()[0], open_models(recipe))
    sizes = [need(space, p, "packed", 10, 10, "cuda").resident for p in rows]
    assert sizes == sorted(sizes, reverse=True) and sizes[3] < 0.5 * sizes[0]
    forms = [need(space, "nf4", form, 10, 10, "cuda").resident
             for form in ("paged", "packed", "int8", "bf16")]  # fmt: skip
    assert forms == sorted(forms)


def test_the_peak_is_merging_or_scoring_whichever_is_more():
    plain = Need(resident=100, merging=50, scoring=10, unpacking=5)
    assert [plain.peak(n) for n in (1, 4, 5)] == [150, 150, 155]
    assert plain.batch(200, 64) == 8 and plain.batch(200, 5) == 5
    assert plain.batch(150, 64) == 0  # 142 can be used: too little to merge


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int4"}, "precision"),
        ({"base_storage": "bf16"}, "base_storage: in fp32 the base is held as everything else"),
        ({"base_storage": "disk", "precision": "nf4"}, "base_storage"),
        ({"batch_size": 0}, "batch_size: it must be from 1 to 4096, or 'auto'"),
        ({"batch_size": "big"}, "batch_size"),
    ],
)
def test_settings_that_do_not_fit(tiny_recipe, changes, message):
    with pytest.raises(StudioError, match=message):
        tiny_recipe(**changes)


def test_a_path_has_no_base_to_store(tiny_recipe):
    with pytest.raises(StudioError, match="base_storage: a path has no base"):
        tiny_recipe(space=SPACES["data_flow"], precision="nf4", base_storage="bf16")


def test_the_document_keeps_the_settings(tiny_recipe):
    recipe = tiny_recipe(precision="nf4", base_storage="paged", batch_size="auto")
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert json.loads(recipe.model_dump_json())["batch_size"] == "auto"
