"""Whole runs over models with different vocabularies."""

import pytest
import torch

from studio import api, chat
from studio.errors import StudioError
from studio.evolve import spaces
from studio.models.vocabulary import Aligned, vocabulary_of
from studio.recipe import Recipe
from tests.models.test_vocabulary import ENGLISH_BYTES, OTHER_BYTES, OTHER_PIECES, save


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Folders: a base, a source with its vocabulary, two with others."""
    root = tmp_path_factory.mktemp("models")
    tokenizers = {"base": ENGLISH_BYTES, "a": ENGLISH_BYTES, "b": OTHER_BYTES, "c": OTHER_PIECES}
    for seed, (name, tokenizer) in enumerate(tokenizers.items()):
        save(root / name, tokenizer, seed=seed, num_hidden_layers=2)
    return {name: str(root / name) for name in tokenizers}


@pytest.fixture
def make_recipe(models, questions):
    def make(**changes) -> Recipe:
        options = {"path": str(questions), "match": "contains", "max_new_tokens": 2}
        document = {
            "base": models["base"],
            "sources": [models["a"], models["b"]],
            "vocabulary": "union",
            "space": {"method": "ties", "layer_granularity": "all"},
            "objectives": [{"task": "csv", "options": options, "examples": 4}],
            "search": {"population": 4, "finalists": 1, "random_baseline": False},
            "budget": {"candidates": 4},
        }
        return Recipe.from_dict(document | changes)

    return make


def test_a_run_over_a_union(make_recipe, models, store, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = api.evolve(make_recipe(), store)
    assert store.run(run).status == "finished"
    assert len(store.candidates(run)) == 5
    # every source was scored as it is, with its own tokenizer
    for name in ("base", "a", "b"):
        assert store.evaluation(run, f"model:{models[name]}", "csv", "test")
    best = store.best(run)
    rebuilt = spaces.rebuild(store, run, best, "best")
    out = api.export(run, tmp_path / "out", store=store)
    loaded, tokenizer = (
        AutoModelForCausalLM.from_pretrained(out),
        AutoTokenizer.from_pretrained(out),
    )
    for name, parameter in loaded.named_parameters():
        assert parameter.equal(rebuilt.get(name))
    assert len(tokenizer) == loaded.config.vocab_size > len(OTHER_BYTES)
    assert tokenizer.decode(tokenizer("the déjà vu")["input_ids"]) == "the déjà vu"
    card = (out / "README.md").read_text()
    assert "**Vocabulary.** Its vocabulary is the union" in card
    assert "vocabulary: union" in (out / "recipe.yaml").read_text()
    answer = list(
        chat.stream(f"{run}:{best.id}", [{"role": "user", "content": "déjà vu?"}], store, 4)
    )
    assert isinstance(answer, list)


def test_both_spaces(make_recipe, models, store):
    """The merge is aligned, and leads a path that has its vocabulary."""
    recipe = make_recipe(space={"type": "both", "data_flow": {"repeats": 1}}, vocabulary="union")
    run = api.evolve(recipe, store)
    assert store.run(run).status == "finished"
    stage = recipe.stages()[-1].name
    space = spaces.rebuild_space(store, run, stage)
    merged = space.sources[0]
    assert merged.shape("lm_head.weight")[0] == len(merged.tokenizer()) > len(OTHER_BYTES)
    assert not any(isinstance(source, Aligned) for source in space.sources)
    path = spaces.rebuild(store, run, store.best(run, stage), "path")
    assert path.get("lm_head.weight").equal(merged.get("lm_head.weight"))
    assert len(path.models) == 3 and not any(isinstance(m, Aligned) for m in path.models)


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_without_a_base(make_recipe, models, method):
    recipe = make_recipe(space={"method": method}, vocabulary=models["b"])
    space = spaces.first_space(recipe)
    assert vocabulary_of(space.models).giver.name == models["b"]
    assert space.tensors["lm_head.weight"][0] == len(OTHER_BYTES)
    recipe = make_recipe(space={"method": method}, vocabulary="base")
    with pytest.raises(StudioError, match="write vocabulary: union, or vocabulary: .*/b"):
        spaces.first_space(recipe)  # b speaks, and the base does not know how it ends


def test_a_merge_is_a_source_again(make_recipe, models, store):
    """A union of a union and a third model, none of them ever written."""
    run = api.evolve(make_recipe(), store)
    recipe = make_recipe(sources=[f"{run}:0", models["c"]])
    space = spaces.first_space(recipe, store)
    vocabulary = vocabulary_of(space.models)
    assert {token.origin for token in vocabulary.new} == {1, 2}
    checkpoint = space.checkpoint(space.initial, "fp32", "again")
    assert len(checkpoint.models) == 4
    tokens = checkpoint.tokenizer()
    assert len(tokens) == vocabulary.count == checkpoint.shape("lm_head.weight")[0]
    model = checkpoint.load()
    ids = tokens("the déjà vu 太郎", return_tensors="pt")["input_ids"]
    assert tokens.decode(ids[0]) == "the déjà vu 太郎"
    assert torch.isfinite(model(ids).logits).all()


def test_the_source_that_gives_it_may_be_named_from_here(make_recipe, models, store, monkeypatch):
    monkeypatch.chdir(models["b"])
    run = api.create(make_recipe(sources=["../a", "../b"], vocabulary="../b"), store)
    recorded = Recipe.from_yaml(store.run(run).recipe)
    assert recorded.vocabulary == recorded.sources[1] == models["b"]


def test_same_refuses_and_says_what_helps(make_recipe, store):
    with pytest.raises(StudioError, match=r"'vocabulary: union' \(or base\) in the recipe"):
        api.evolve(make_recipe(vocabulary="same"), store)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocabulary": "onion"}, "onion is not among the recipe's sources; write one of them"),
        ({"vocabulary": "base", "base": None, "space": {"method": "linear"}}, "there is no base"),
        ({"space": {"type": "data_flow"}}, "a path has its main model's; leave it out"),
    ],
)
def test_a_vocabulary_that_cannot_be(make_recipe, changes, words):
    with pytest.raises(StudioError, match=f"vocabulary: .*{words}"):
        make_recipe(**changes)


def test_the_field_is_same_unless_told(make_recipe, models):
    recipe = make_recipe()
    assert Recipe.from_yaml(recipe.to_yaml()).vocabulary == "union"
    document = recipe.model_dump()
    del document["vocabulary"]
    assert Recipe.from_dict(document).vocabulary == "same"
    assert make_recipe(vocabulary=models["b"]).vocabulary == models["b"]
