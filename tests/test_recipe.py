"""The recipe: what it accepts comes back whole, what it refuses is a sentence naming the field."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.evolve.spaces import first_space
from studio.recipe import MAX_BYTES, Recipe

SMALL = {
    "base": "bonsai-base",
    "sources": ["bonsai-ja", "bonsai-math"],
    "objectives": [{"task": "jmath"}],
}


def refused(text: str) -> str:
    with pytest.raises(StudioError) as caught:
        Recipe.from_yaml(text, "The recipe r.yaml")
    sentence = str(caught.value)
    assert sentence.startswith("The recipe r.yaml")
    assert "\n" not in sentence and sentence.isprintable() and len(sentence) < 400
    return sentence


def with_fields(fields: dict) -> str:
    return yaml.safe_dump(SMALL | fields)


def test_defaults_are_the_papers_and_written_out():
    recipe = Recipe.from_yaml(with_fields({}))
    document = yaml.safe_load(recipe.to_yaml())
    assert document["search"]["optimizer"] == "cma"
    assert document["search"]["random_baseline"] is True
    assert document["space"]["method"] == "dare_ties"
    assert document["seed"] == 0 and document["precision"] == "fp32"
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@settings(max_examples=40, deadline=None)
@given(
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=50).filter(str.strip),
    method=st.sampled_from(["linear", "ties", "dare_linear", "dare_ties", "task_arithmetic"]),
    granularity=st.one_of(st.just("all"), st.integers(1, 40)),
    sigma=st.floats(0.001, 1),
    seed=st.integers(0, 2**32 - 1),
    path=st.text(st.characters(codec="utf-8")),
)
def test_any_recipe_survives_the_record(name, method, granularity, sigma, seed, path):
    recipe = Recipe(
        name=name,
        base="bonsai-base",
        sources=["a", "b"],
        space={"method": method, "layer_granularity": granularity},
        objectives=[{"task": "csv", "options": {"path": path}}],
        search={"sigma": sigma},
        seed=seed,
    )
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sourcs": ["a"]}, "no field 'sourcs'; use one of name, base, sources"),
        ({"search": {"popsize": 3}}, "no field 'search.popsize'; use one of optimizer, population"),
        ({"objectives": [{"task": "jmath", "exampels": 3}]}, "no field 'objectives.0.exampels'"),
        ({"sources": "bonsai-ja"}, "'sources': input should be a valid list"),
        ({"sources": []}, "'sources'"),
        ({"sources": ["a", 3]}, "'sources.1'"),
        ({"sources": ["a", "a"]}, "listed twice"),
        ({"objectives": "jmath"}, "'objectives'"),
        ({"objectives": []}, "'objectives'"),
        ({"objectives": [{"property": "length"}]}, "objectives: name at least one task"),
        ({"report": [{"task": "emath", "examples": 5}]}, "report: 'examples'"),
        ({"base": None}, "base: the method dare_ties"),
        ({"space": {"method": "magic"}}, "'space.method'.*dare_ties"),
        ({"space": {"layer_granularity": 0}}, "layer_granularity"),
        ({"space": {"layer_granularity": "some"}}, "'space.layer_granularity'"),
        ({"search": {"optimizer": "pso"}}, "'search.optimizer'"),
        ({"search": {"population": 1}}, "'search.population'.*4"),
        ({"search": {"sigma": float("nan")}}, "'search.sigma'"),
        ({"search": 3}, "'search'"),
        ({"budget": {"candidates": "many"}}, "'budget.candidates'"),
        ({"budget": {"candidates": 0}}, "'budget.candidates'"),
        ({"precision": "fp8"}, "'precision'"),
        ({"seed": -1}, "'seed'.*greater than or equal to 0"),
        ({"name": ""}, "'name'"),
        ({"name": "x" * 5000}, "'name'.*200"),
        ({"name": {"a": 1}}, "'name'"),
        ({3: 4}, "3"),
        ({"objectives": [{"task": "csv", "options": {3: 4}}]}, "objectives.0.options"),
        ({"a\nb\x1b[31m" + "c" * 999: 1}, "there is no field"),
    ],
)
def test_a_wrong_field_is_named(fields, says):
    assert re.search(says, refused(with_fields(fields)))


def test_a_missing_field_is_named():
    assert "'objectives' is missing" in refused("base: a\nsources: [b]\n")


@pytest.mark.parametrize("text", ["", "42", "- a\n- b\n", "just words", "null", "~"])
def test_other_documents_are_no_recipe(text):
    assert "mapping" in refused(text)


def test_broken_yaml_is_told_with_its_line():
    assert "at line 2, column 11" in refused("base: a\nsources: b: c\n")
    assert "not valid YAML" in refused("\0\1\2")
    assert "not valid YAML" in refused("[" * 5_000)
    assert "not valid YAML" in refused("name: " + "9" * 5000)


@pytest.mark.parametrize(
    "attack",
    [
        "!!python/object/apply:os.system ['touch PWNED']",
        "name: !!python/object/new:os.system ['touch PWNED']",
        "name: !!python/name:os.system",
        "name: !!python/module:os",
    ],
)
def test_yaml_never_runs_code(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "not valid YAML" in refused(attack)
    assert not list(tmp_path.iterdir())


def test_aliases_cannot_blow_up_or_loop():
    bomb = "options: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    assert "aliases" in refused(bomb)
    assert "aliases" in refused("sources: &a [*a]\n")
    shared = "base: &b bonsai-base\nsources: [*b, bonsai-ja]\nobjectives: [{task: jmath}]\n"
    assert Recipe.from_yaml(shared).sources == ["bonsai-base", "bonsai-ja"]


def test_files_that_cannot_be_read(tmp_path):
    cases = {
        "absent.yaml": None,
        "latin1.yaml": "name: é".encode("latin-1"),
        "huge.yaml": b"# " + b"x" * MAX_BYTES,
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(StudioError, match=name):
            Recipe.load(tmp_path / name)
    with pytest.raises(StudioError, match="cannot be read"):
        Recipe.load(tmp_path)  # a folder


def test_two_tasks_of_one_kind_keep_apart(questions, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("question,answer,split\nq,a,dev\nr,b,test\n")
    recipe = Recipe.from_dict(
        SMALL
        | {
            "objectives": [{"task": "csv", "options": {"path": str(questions)}}],
            "report": [{"task": "csv", "options": {"path": str(other)}}, {"task": "emath"}],
        }
    )
    tasks = recipe.build_tasks()
    assert [task.name for task in tasks] == ["csv", "csv (2)", "emath"]
    assert [len(task.examples("test")) for task in tasks[:2]] == [6, 1]
    assert recipe.build_tasks()[0].name == "csv"  # no name leaks into the class


def test_options_reach_the_space(family_factory):
    family = family_factory(layers=2, scale=0.6)
    recipe = Recipe(
        base=str(family["base"]),
        sources=[str(family["ja"])],
        objectives=[{"task": "jmath"}],
        space={"method": "task_arithmetic", "layer_granularity": 1, "negative_weights": True},
    )
    space = first_space(recipe)
    assert len(space.genes) == 4  # embedding, two layers, head; no densities
    assert (space.lower == -2).all() and (space.upper == 2).all()
    assert {gene.source for gene in space.genes} == {str(family["ja"])}
