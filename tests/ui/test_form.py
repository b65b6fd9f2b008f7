"""The form: what it shows of a recipe, and the recipe that it makes."""

import gradio as gr
import pytest

from studio.errors import StudioError
from studio.recipe import Recipe
from studio.tasks import YAML_ONLY, load_task, objective_names, task_names
from studio.ui import form


def filled(recipe: Recipe, **changes) -> Recipe:
    """What the form says of a recipe once some of its fields were changed."""
    values = dict(zip(form.FIELDS, form.values_of(recipe), strict=True)) | changes
    return form.overlay(recipe.to_yaml(), *(values[key] for key in form.FIELDS))


def test_form_and_yaml_carry_the_same_recipe():
    recipe = form.default_recipe()
    fields = form.values_of(recipe)
    assert len(fields) == len(form.FIELDS)
    assert form.overlay(recipe.to_yaml(), *fields) == recipe


def test_what_the_form_does_not_show_survives_it():
    document = form.default_recipe().model_dump(mode="json")
    document["space"]["filters"] = ["mlp"]
    document["precision"] = "bf16"
    recipe = Recipe.from_dict(document)
    merged = filled(recipe, budget=33, granularity="all", population=None)
    assert merged.space.filters == ["mlp"] and merged.precision == "bf16"
    assert merged.budget.candidates == 33 and merged.space.layer_granularity == "all"
    assert merged.search.population == 16  # an emptied field is the default


@pytest.mark.parametrize(
    ("preset", "field", "value", "says"),
    [
        ("jmath", "sources", [], "sources"),
        ("jmath", "base", "", "base"),
        ("jmath", "examples", 0, "examples"),
        ("jmath", "budget", -1, "candidates"),
        ("jmath", "method", "magic", "method"),
        ("jmath", "granularity", "two", "layer_granularity"),
        ("jmath", "population", 2, "population"),
        ("jmath", "seed", -3, "seed"),
        ("jmath", "objectives", [], "objectives"),
        ("jmath", "objectives", ["jmath", "length"], "data-flow"),
        ("jmath", "optimizer", "nsga2", "optimizer"),
        ("jmath", "space", "flat", "space"),
        ("paths", "repeats", 0, "repeats"),
        ("paths", "max_length", 1, "max_length"),
        ("paths", "scaling", "loud", "scaling"),
        ("paths", "objectives", ["length"], "task"),
    ],
)
def test_a_wrong_field_is_named(preset, field, value, says):
    with pytest.raises(StudioError, match=says):
        filled(form.presets()[preset], **{field: value})


def test_hours_are_a_budget_like_any_other():
    recipe = form.default_recipe()
    assert filled(recipe, hours=1.5).budget.hours == 1.5
    assert filled(filled(recipe, hours=2), hours=None).budget.hours is None
    with pytest.raises(StudioError, match="hours"):
        filled(recipe, hours=-1)


def test_where_a_search_begins():
    recipe = filled(form.default_recipe(), begin="uniform")
    assert recipe.search.start == "uniform"
    assert filled(recipe).search.start == "uniform"
    assert filled(recipe, begin=" 0a1b2c3d ").search.start == "0a1b2c3d"
    # what cannot begin there begins as ever
    assert filled(recipe, begin=None).search.start == "default"
    assert filled(recipe, optimizer="random").search.start == "default"
    assert filled(form.presets()["paths"], begin="uniform").search.start == "default"
    assert filled(form.presets()["paths"], begin="0a1b2c3d").search.start == "0a1b2c3d"
    with pytest.raises(StudioError, match="search.start"):
        filled(recipe, begin="yesterday's")
    for space, choices in (("parameter", 2), ("both", 2), ("data_flow", 1)):
        assert len(form.applying(space, ["jmath"])["begin"]["choices"]) == choices


def test_options_of_a_task():
    recipe = form.default_recipe()
    merged = filled(recipe, objectives=["csv"], options="path: q.csv\nmatch: number")
    assert merged.objectives[0].options == {"path": "q.csv", "match": "number"}
    for wrong in ("- a", "path: [", "just words"):
        with pytest.raises(StudioError, match="options"):
            filled(recipe, objectives=["csv"], options=wrong)


def test_every_preset_fills_form_and_yaml():
    assert {"jmath", "paths"} <= set(form.presets())
    assert "own-questions" not in form.presets()  # needs a file of the user's
    for key, recipe in form.presets().items():
        assert filled(recipe) == recipe, key
        values = [update["value"] for update in form.shown(recipe)]
        assert form.overlay("sources: []", *values).space == recipe.space


@pytest.mark.parametrize("space", ["parameter", "data_flow", "both"])
def test_the_form_shows_what_applies(space):
    shown = form.applying(space, ["jmath"], "cma")
    for key in ("method", "granularity"):
        assert shown[key]["visible"] == (space != "data_flow")
    for key in ("repeats", "scaling", "max_length"):
        assert shown[key]["visible"] == (space != "parameter")
    assert shown["lenders"]["visible"] == (space == "both")
    assert not shown["scheme"]["visible"] and not shown["options"]["visible"]
    offered = [value for _, value in shown["objectives"]["choices"]]
    assert ("length" in offered) == (space != "parameter")


def test_a_change_of_space_or_objectives_leaves_no_choice_that_is_not_offered():
    shown = form.applying("parameter", ["jmath", "length"], "nsga2")
    assert shown["objectives"]["value"] == ["jmath"]
    _, values = form.fitted(
        {"space": "parameter", "objectives": ["jmath", "length"], "optimizer": "nsga2"}
    )
    assert values == {"space": "parameter", "objectives": ["jmath"], "optimizer": "auto"}
    shown = form.applying("both", ["jmath", "emath"], "cma")
    assert shown["optimizer"]["value"] == "auto" and shown["scheme"]["visible"]
    assert {v for _, v in shown["optimizer"]["choices"]} == {"auto", "nsga2", "random"}


def test_another_space_keeps_what_the_form_does_not_say_of_it():
    document = form.default_recipe().model_dump(mode="json")
    document["space"] |= {"filters": ["mlp"], "normalize": True}
    both = filled(Recipe.from_dict(document), space="both", repeats=2, lenders=["bonsai-ja"])
    assert both.space.parameter.filters == ["mlp"] and both.space.parameter.normalize
    assert both.space.data_flow.repeats == 2 and both.space.data_flow.sources == ["bonsai-ja"]
    back = filled(both, space="parameter")
    assert back.space == Recipe.from_dict(document).space
    fewer = filled(both, sources=["bonsai-math", "bonsai-abel"])
    assert fewer.space.data_flow.sources is None


def test_each_objective_keeps_its_own():
    document = form.presets()["paths"].model_dump(mode="json")
    document["search"]["optimizer"] = None
    document["objectives"] = [
        {"task": "csv", "options": {"path": "a.csv"}, "examples": 5},
        {"task": "csv", "options": {"path": "b.csv"}, "examples": 7},
        {"property": "length"},
    ]
    recipe = Recipe.from_dict(document)
    assert filled(recipe) == recipe
    fewer = filled(recipe, objectives=["csv (2)", "emath", "length"])
    assert [o.task or o.property for o in fewer.objectives] == ["csv", "emath", "length"]
    assert fewer.objectives[0].options == {"path": "b.csv"} and fewer.objectives[0].examples == 7
    assert fewer.objectives[1].examples == 5
    same = filled(recipe, examples=9)
    assert [o.examples for o in same.objectives] == [9, 9, None]


def test_the_papers_scheme_is_given_up_with_what_it_needs():
    recipe = form.presets()["paper-scheme"]
    assert filled(recipe).search.scheme == "paper"
    assert filled(recipe, objectives=["jmath"], optimizer="auto").search.scheme == "joint"
    assert filled(recipe, space="data_flow").search.scheme == "joint"


def test_the_form_offers_only_tasks_that_can_be_searched_for(questions):
    offered = objective_names()
    # those that are nothing without options, or large: the YAML has them
    assert YAML_ONLY <= set(task_names()) and not YAML_ONLY & set(offered)
    for name in set(task_names()) - YAML_ONLY - {"ja_vlm_bench"}:  # it is fetched from the hub
        task = load_task(name, **({"path": str(questions)} if name == "csv" else {}))
        if name in offered:
            assert task.examples("dev"), name
        else:
            with pytest.raises(StudioError, match="no 'dev' split"):
                task.examples("dev")
    with gr.Blocks():
        field = form.build(form.default_recipe())["objectives"]
    assert [value for _, value in field.choices] == offered
    assert set(form.WITH_OPTIONS) <= set(offered)
