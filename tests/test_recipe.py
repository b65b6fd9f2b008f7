"""The recipe: what it accepts comes back whole, what it refuses is a sentence naming the field."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from studio import api
from studio.errors import StudioError
from studio.evolve.spaces import first_space
from studio.recipe import PROPERTIES, DataFlow, Parameter, Recipe
from studio.runs import Store
from studio.yaml_page import MAX_BYTES

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


parameters = st.fixed_dictionaries(
    {"method": st.sampled_from(["linear", "ties", "dare_ties"])},
    optional={"layer_granularity": st.just("all") | st.integers(1, 9), "normalize": st.booleans(),
              "filters": st.lists(st.sampled_from(["mlp", "self_attn"]), unique=True)},
)  # fmt: skip
data_flows = st.fixed_dictionaries(
    {},
    optional={
        "sources": st.sampled_from([["a"], ["b", "a"], ["b"]]),
        "repeats": st.integers(1, 16),
        "scaling": st.sampled_from(["auto", "matrix", "network", "off"]),
        "max_length": st.integers(2, 400),
        "start": st.sampled_from(["main", "undecided"]),
    },
)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["data_flow", "both"]),
    parameter=parameters,
    data_flow=data_flows,
    tasks=st.integers(1, 3),
    properties=st.lists(st.sampled_from(PROPERTIES), unique=True),
    random=st.booleans(),
    scheme=st.sampled_from(["joint", "paper"]),
)
def test_any_space_and_any_objectives_survive_the_record(
    kind, parameter, data_flow, tasks, properties, random, scheme
):
    space = data_flow if kind == "data_flow" else {"parameter": parameter, "data_flow": data_flow}
    objectives = [{"task": name, "examples": 5} for name in ("jmath", "emath", "mgsm")[:tasks]]
    recipe = Recipe.from_dict(
        {
            "base": "base",
            "sources": ["a", "b"],
            "space": {"type": kind, **space},
            "objectives": objectives + [{"property": name} for name in properties],
            "search": ({"optimizer": "random"} if random else {})
            | ({"scheme": scheme} if kind == "both" and tasks > 1 else {}),
        }
    )
    again = Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe and again.stages() == recipe.stages()
    assert again.to_yaml() == recipe.to_yaml()
    several = tasks + len(properties) > 1
    assert recipe.search.optimizer == ("random" if random else "nsga2" if several else "cma")


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
        ({"budget": {"hours": 0}}, "'budget.hours'.*greater than 0"),
        ({"budget": {"hours": float("inf")}}, "'budget.hours'.*finite"),
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


TWO = [{"task": "jmath"}, {"task": "emath"}]
SHORT = [{"task": "jmath"}, {"property": "length"}]


def of(kind: str, **fields) -> dict:
    """A space of this type."""
    return {"type": kind, **fields}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        # the space
        ({"space": of("magic")}, "'space': .*type 'parameter', 'data_flow' or 'both'"),
        ({"space": of(None)}, "'space': .*type 'parameter'"),
        ({"space": of(["both"])}, "'space': .*type 'parameter'"),
        ({"space": "data_flow"}, "'space': must be a section with the type"),
        ({"space": 3}, "'space': must be a section"),
        ({"space": None}, "'space': must be a section"),
        ({"space": ["data_flow"]}, "'space': must be a section"),
        ({"space": of("data_flow", method="ties")}, "no field 'space.method'; use one of type, so"),
        ({"space": {"repeats": 3}}, "no field 'space.repeats'; use one of type, method"),
        ({"space": of("data_flow", repeats=0)}, "'space.repeats'.*equal to 1, not 0"),
        ({"space": of("data_flow", repeats=17)}, "'space.repeats'.*equal to 16"),
        ({"space": of("data_flow", scaling="full")}, "'space.scaling'.*'auto', 'matrix', 'netw"),
        ({"space": of("data_flow", max_length=1)}, "'space.max_length'.*equal to 2"),
        ({"space": of("data_flow", start="best")}, "'space.start'.*'main' or 'undecided'"),
        ({"space": of("data_flow", sources=[])}, "'space.sources'"),
        ({"space": of("data_flow", sources="bonsai-ja")}, "'space.sources'.*list"),
        ({"space": of("data_flow", sources=["a"])}, "space.sources: a is not among the recipe's"),
        ({"space": of("data_flow", sources=["bonsai-ja"] * 2)}, "space.sources: .*listed twice"),
        # both
        ({"space": of("both", repeats=3)}, "no field 'space.repeats'; use one of type, parameter"),
        ({"space": of("both", data_flow={"repeat": 3})}, "no field 'space.data_flow.repeat'; use"),
        ({"space": of("both", parameter={"method": "m"})}, "'space.parameter.method'.*dare_ties"),
        ({"space": of("both", parameter={"layer_granularity": "x"})}, "'space.parameter.layer_gra"),
        ({"space": of("both", data_flow={"max_length": 1})}, "'space.data_flow.max_length'"),
        ({"space": of("both", data_flow=of("parameter"))}, "'space.data_flow.type'"),
        ({"space": of("both", data_flow=3)}, "'space.data_flow'"),
        ({"space": of("both"), "base": None}, "base: the method dare_ties"),
        (
            {"space": of("both", data_flow={"sources": ["a"]})},
            "space.data_flow.sources: a is not among the recipe's sources; list it there too",
        ),
        (
            {"space": of("both", data_flow={"sources": ["bonsai-ja", "bonsai-ja"]})},
            "space.data_flow.sources: the same model is listed twice",
        ),
        # objectives
        ({"objectives": [{}]}, "'objectives.0': an objective is a 'task' or a 'property'"),
        ({"objectives": [{"task": "jmath", "property": "length"}]}, "'objectives.0': .*one of the"),
        ({"objectives": [{"property": "size"}]}, "'objectives.0.property'.*'length' or 'parameter"),
        ({"objectives": SHORT}, "objectives: every merge .* the same length; leave it out"),
        (
            {"space": of("data_flow"), "objectives": [*SHORT, {"property": "length"}]},
            "objectives: the same property is listed twice",
        ),
        (
            {"space": of("data_flow"), "objectives": [{"property": "length"}]},
            "objectives: name at least one task",
        ),
        (
            {"space": of("data_flow"),
             "objectives": [{"task": "jmath"}, {"property": "length", "examples": 3}]},
            "'objectives.1': a property has no examples",
        ),
        (
            {"space": of("data_flow"),
             "objectives": [{"task": "jmath"}, {"property": "length", "options": {"a": 1}}]},
            "'objectives.1': a property has no examples and no options",
        ),
        ({"report": [{"property": "length"}]}, "report: only tasks are reported on test"),
        # the search
        ({"objectives": TWO, "search": {"optimizer": "cma"}}, "search.optimizer: cma takes one ob"),
        ({"objectives": TWO, "search": {"optimizer": "cmaes"}}, "optimizer: cmaes .*nsga2 or rand"),
        (
            {"objectives": SHORT, "space": of("data_flow"), "search": {"optimizer": "cma"}},
            "search.optimizer: cma takes one objective",
        ),
        ({"search": {"optimizer": "nsga2"}}, "search.optimizer: nsga2 .*use cma, cmaes or random"),
        ({"search": {"scheme": "paper"}}, "search.scheme: .*space 'both' and two tasks or more"),
        ({"objectives": TWO, "search": {"scheme": "paper"}}, "search.scheme: .*space 'both'"),
        (
            {"objectives": SHORT, "space": of("both"), "search": {"scheme": "paper"}},
            "search.scheme: .*two tasks or more",
        ),
        ({"search": {"scheme": "papers"}}, "'search.scheme'.*'joint' or 'paper'"),
    ],
)  # fmt: skip
def test_a_wrong_space_objective_or_search_is_named(fields, says):
    assert re.search(says, refused(with_fields(fields)))


def test_a_missing_field_is_named():
    assert "'objectives' is missing" in refused("base: a\nsources: [b]\n")


@pytest.mark.parametrize("text", ["", "42", "- a\n- b\n", "just words", "null", "~"])
def test_other_documents_are_no_recipe(text):
    assert "mapping" in refused(text)


def test_broken_yaml_is_told_with_its_line():
    assert "at line 2, column 11" in refused("base: a\nsources: b: c\n")
    assert "not valid YAML" in refused("\0\1\2")
    assert "brackets within brackets" in refused("[" * 200_000)
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


# ── stages ────────────────────────────────────────────────────────────────────────────────────


def stages(**fields) -> dict[str, tuple]:
    """Name → (space, optimizer, objectives, pool, baseline, final), in order."""
    return {
        stage.name: (stage.space.type, stage.optimizer, stage.objectives, stage.pool,
                     stage.baseline, stage.final)
        for stage in Recipe.from_dict(SMALL | fields).stages()
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["parameter", "data_flow"])
def test_one_space_is_one_search_and_its_baseline(kind):
    one = ("jmath",)
    assert stages(space=of(kind)) == {
        "cma": (kind, "cma", one, (), False, True),
        "random": (kind, "random", one, (), True, True),
    }
    assert list(stages(space=of(kind), search={"random_baseline": False})) == ["cma"]
    assert stages(space=of(kind), search={"optimizer": "random"}) == {
        "random": (kind, "random", one, (), False, True)
    }


def test_both_spaces_are_a_stage_each_and_the_baseline_goes_the_same_way():
    one = ("jmath",)
    found = stages(space=of("both"), search={"optimizer": "cmaes"})
    assert list(found) == ["parameter", "data_flow", "random parameter", "random data_flow"]
    assert found == {
        "parameter": ("parameter", "cmaes", one, (), False, False),
        "data_flow": ("data_flow", "cmaes", one, ("parameter",), False, True),
        "random parameter": ("parameter", "random", one, (), True, False),
        "random data_flow": ("data_flow", "random", one, ("random parameter",), True, True),
    }
    assert len(stages(space=of("both"), search={"optimizer": "random"})) == 2


def test_several_objectives_are_searched_together():
    both = ("jmath", "emath")
    found = stages(space=of("both"), objectives=[*TWO, {"property": "parameters"}])
    # what no merge of weights can change is no objective of the parameter space
    assert found["parameter"] == ("parameter", "nsga2", both, (), False, False)
    assert found["data_flow"][1:4] == ("nsga2", (*both, "parameters"), ("parameter",))
    alone = stages(space=of("both"), objectives=SHORT)
    assert alone["parameter"][1:3] == ("cma", ("jmath",))
    assert alone["data_flow"][1:3] == ("nsga2", ("jmath", "length"))
    assert alone["random parameter"][1] == "random"


def test_the_papers_scheme_searches_weights_once_per_task_and_then_paths():
    found = stages(
        space=of("both"), objectives=[*TWO, {"property": "length"}], search={"scheme": "paper"}
    )
    pool = ("parameter jmath", "parameter emath")
    assert list(found)[:3] == [*pool, "data_flow"] and len(found) == 6
    assert found["parameter jmath"] == ("parameter", "cma", ("jmath",), (), False, False)
    assert found["parameter emath"] == ("parameter", "cma", ("emath",), (), False, False)
    assert found["data_flow"] == (
        "data_flow", "nsga2", ("jmath", "emath", "length"), pool, False, True
    )  # fmt: skip
    assert found["random data_flow"][3] == ("random parameter jmath", "random parameter emath")
    recipe = Recipe.from_dict(
        SMALL | {"space": of("both"), "objectives": TWO, "search": {"scheme": "paper"},
                 "seed": 2**32 - 1}
    )  # fmt: skip
    seeds = {stage.name: stage.seed for stage in recipe.stages()}
    assert seeds["parameter jmath"] != seeds["parameter emath"]  # or both search the same merges
    assert all(0 <= seed < 2**32 for seed in seeds.values())


def test_two_tasks_of_one_kind_are_objectives_of_two_names():
    csv = [{"task": "csv", "options": {"path": path}} for path in ("a.csv", "b.csv")]
    recipe = Recipe.from_dict(
        SMALL | {"objectives": [*csv, {"property": "length"}], "space": of("data_flow"),
                 "report": [{"task": "csv", "options": {"path": "c.csv"}}]}
    )  # fmt: skip
    assert recipe.objective_names() == ["csv", "csv (2)", "length"]
    assert recipe.task_names() == ["csv", "csv (2)", "csv (3)"]
    assert recipe.stages()[0].objectives == ("csv", "csv (2)", "length")


# ── recipes recorded by an earlier version ────────────────────────────────────────────────────


def test_the_bundled_sample_run_is_read_as_it_was_recorded(tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    (run,) = store.import_runs(api.SAMPLE_RUN)
    recorded = yaml.safe_load(store.run(run).recipe)
    recipe = Recipe.from_yaml(store.run(run).recipe)
    assert [stage.name for stage in recipe.stages()] == ["cma", "random"]
    assert all(stage.final and not stage.pool for stage in recipe.stages())
    assert isinstance(recipe.space, Parameter) and recipe.search.optimizer == "cma"
    assert recipe.objective_names() == [item["task"] for item in recorded["objectives"]]
    # nothing that was written then is lost or means something else now
    now = yaml.safe_load(recipe.to_yaml())
    for section, value in recorded.items():
        if isinstance(value, dict):
            assert value.items() <= now[section].items()
        else:
            assert now[section] == value
    assert {c.stage for c in store.candidates(run)} == {"cma", "random"}
    best = store.best(run)
    assert best.stage == "cma" and list(best.scores) == recipe.objective_names()
    assert {row["role"] for row in api.report(run, store)} == {
        "base", "source", "evolved", "random"
    }  # fmt: skip
    store.close()


def test_a_recipe_without_types_and_objectives_of_tasks_only_means_what_it_did():
    old = with_fields({"space": {"method": "ties"}, "search": {"optimizer": "cma", "sigma": 0.3}})
    recipe = Recipe.from_yaml(old)
    assert recipe.space == Parameter(method="ties") and recipe.search.scheme == "joint"
    assert Recipe.from_yaml(with_fields({"space": of("data_flow")})).space == DataFlow()
