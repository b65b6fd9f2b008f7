"""Files that travel: which they are, how they are found there, and that they are the same."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.evolve import shipping
from studio.evolve.inputs import of_models
from studio.evolve.shipping import Bundle, File, at_home, bundles, find, take_in
from studio.evolve.spaces import Ancestor, open_models
from studio.models import open_source, sources
from studio.recipe import Recipe


@pytest.fixture(autouse=True)
def nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(sources, "elsewhere", {})


@pytest.fixture
def family(tiny_family, tmp_path) -> dict[str, Path]:
    """The tiny family in a folder that a test may take away."""
    copied = tmp_path / "driver"
    shutil.copytree(tiny_family["base"].parent, copied)
    return {name: copied / path.name for name, path in tiny_family.items()}


def reading(bundle: Bundle):
    """A bundle's files in pieces of a few bytes, as they come from the driver."""
    contents = {
        file: (Path(bundle.path) / file.name if file.name else Path(bundle.path)).read_bytes()
        for file in bundle.files
    }

    def pieces(file: File) -> Iterator[bytes]:
        data = contents[file]
        yield from (data[at : at + 1000] for at in range(0, len(data), 1000))

    return pieces


def test_what_every_machine_opens_by_name_is_not_sent(tiny_recipe):
    recipe = Recipe.load(Path(__file__).parents[2] / "recipes" / "quick.yaml")
    assert bundles(recipe, {}) == []


def test_models_and_questions_are_sent_whole_and_open_as_the_same(family, tiny_recipe):
    (family["ja"] / "optimizer.pt").write_bytes(b"a pickle")
    (family["ja"] / "old").mkdir()
    (family["ja"] / "old" / "model.safetensors").write_bytes(b"a checkpoint of before")
    recipe = tiny_recipe(base=str(family["base"]), sources=[str(family["ja"]), str(family["math"])])
    before = of_models(open_models(recipe))
    questions = recipe.objectives[0].options["path"]
    found = {bundle.name: bundle for bundle in bundles(recipe, {})}
    assert set(found) == {str(family[name]) for name in ("base", "ja", "math")} | {questions}
    assert not {"optimizer.pt", "old"} & {file.name for file in found[str(family["ja"])].files}
    assert all(find(bundle) == Path(bundle.path) for bundle in found.values())

    sent = {name: reading(bundle) for name, bundle in found.items()}
    shutil.rmtree(family["base"].parent)  # as on another machine
    (family["math"]).mkdir(parents=True)  # where something else has the name
    (family["math"] / "config.json").write_text("{}")
    models = {name: bundle for name, bundle in found.items() if name != questions}
    for name, bundle in models.items():
        assert find(bundle) is None
        take_in(bundle, sent[name])
    places = {name: find(bundle) for name, bundle in found.items()}
    assert places[questions] == Path(questions)
    sources.elsewhere.update(places)
    assert of_models(open_models(recipe)) == before
    assert [model.name for model in open_models(recipe)] == [recipe.base, *recipe.sources]


def test_questions_that_were_sent_are_read_where_they_lie(tiny_recipe, questions, tmp_path):
    recipe = tiny_recipe()
    there = tmp_path / "there.csv"
    shutil.copy(questions, there)
    moved = Recipe.from_yaml(at_home(recipe.to_yaml(), {str(questions): there}))
    assert moved.build_tasks()[0].path == there
    assert moved.build_tasks()[0].examples("dev") == recipe.build_tasks()[0].examples("dev")
    assert Recipe.from_yaml(at_home(recipe.to_yaml(), {})) == recipe


def test_an_adapter_brings_its_base(family, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "base_model_name_or_path": "../driver/base",
    }
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    assert set(shipping._places(str(adapter))) == {str(adapter), "../driver/base"}
    own = shipping._places(f"{adapter}+{family['ja']}")
    assert own == {str(adapter): adapter.resolve(), str(family["ja"]): family["ja"].resolve()}
    assert shipping._places(f"owner/adapter+{family['ja']}") == {
        str(family["ja"]): family["ja"].resolve()
    }


def test_ancestors_bring_what_they_are_made_of(family, tiny_recipe):
    other = tiny_recipe(base=str(family["base"]), sources=[str(family["ja"]), str(family["abel"])])
    known = {"0123abcd:4": Ancestor(other.to_yaml(), {}, "cma", {}, None)}
    recipe = tiny_recipe(base=str(family["base"]), sources=["0123abcd:4", str(family["math"])])
    names = {bundle.name for bundle in bundles(recipe, known)} - {
        recipe.objectives[0].options["path"]
    }
    assert names == {str(path) for path in family.values()}


def test_a_file_that_changed_is_another(family):
    config = family["base"] / "config.json"
    first = Bundle("base", str(family["base"]), shipping._model_files(family["base"]))
    os.utime(config, ns=(0, config.stat().st_mtime_ns + 1))
    assert find(first) is None
    second = Bundle("base", str(family["base"]), shipping._model_files(family["base"]))
    assert find(second) == family["base"] and first.key != second.key


def test_what_arrives_in_part_is_no_copy(family):
    bundle = Bundle("base", str(family["base"]), shipping._model_files(family["base"]))
    sent = reading(bundle)
    shutil.rmtree(family["base"])

    def breaking(file: File) -> Iterator[bytes]:
        yield next(sent(file))
        raise RuntimeError("the machine it comes from is gone")

    with pytest.raises(RuntimeError):
        take_in(bundle, breaking)
    assert find(bundle) is None
    take_in(bundle, sent)
    assert open_source(find(bundle)).layers == 3

    def full(file: File) -> Iterator[bytes]:
        raise OSError(28, "No space left on device")

    shutil.rmtree(find(bundle))
    with pytest.raises(StudioError, match="base cannot be copied to .*No space left.*make room"):
        take_in(bundle, full)


def test_copies_that_nobody_asks_for_are_deleted(family, own_workspace):
    old, new = (
        Bundle(name, str(family[name]), shipping._model_files(family[name]))
        for name in ("base", "ja")
    )
    for bundle in (old, new):
        sent = reading(bundle)
        shutil.rmtree(bundle.path)
        if bundle is new:
            os.utime(find(old).parent, (0, 0))
        take_in(bundle, sent)
    assert find(old) is None and find(new) is not None
    assert [p.name for p in (own_workspace / "shipped").iterdir() if p.is_dir()] == [new.key]
