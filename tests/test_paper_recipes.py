"""The paper's recipes on checkpoints of the real shapes: they fit each other, and 24 GB."""

from pathlib import Path

import pytest

from studio.evolve.plan import plan
from studio.evolve.spaces import build_space, open_models
from studio.models import hub as downloads
from studio.recipe import Recipe
from tests.sparse import LLAVA_16, MISTRAL_7B, sparse_model

FOLDER = Path(__file__).parent.parent / "recipes" / "paper"
CARD = 24 * 10**9
#: Fine-tunes that may have come with a token more than their base.
PADDED = {"WizardLM/WizardMath-7B-V1.1", "GAIR/Abel-7B-002"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """`hub(name)`: a folder of the shape that the hub's model of that name has."""
    root, made = tmp_path_factory.mktemp("hub"), {}

    def folder(name: str) -> Path:
        if name not in made:
            place = root / name.replace("/", "--")
            if name.startswith("llava-hf/"):  # tokens for pictures and for padding, 32064 rows
                made[name] = sparse_model(place, LLAVA_16, tokens=32002)
            else:
                config = MISTRAL_7B | {"vocab_size": 32001 if name in PADDED else 32000}
                made[name] = sparse_model(place, config)
        return made[name]

    return folder


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_recipe_of_the_paper_fits_a_card_of_24_gb(file, hub, monkeypatch):
    recipe = Recipe.load(file)
    monkeypatch.setattr(downloads, "download", lambda name, *_: hub(name))
    models = open_models(recipe)
    planned = plan(recipe, models, None, CARD, "cuda")
    # a picture of LLaVA 1.6 is thousands of tokens, and five beams remember each
    assert planned.batch >= (1 if file.stem.startswith("evovlm") else 8), planned
    assert planned.peak <= CARD
    assert max(need.resident for need in planned.needs.values()) > 7e9  # no toy was planned
    if recipe.space.type != "data_flow":
        assert not plan(recipe, models, None, CARD, "cuda", "bf16").fits


def test_the_plan_of_the_7b_is_what_was_worked_out(hub, monkeypatch):
    """Three task vectors 12.2 GB, live delta 4.1, two-part nf4 20.6 (numerics)."""
    recipe = Recipe.load(FOLDER / "evollm-jp-7b.yaml")
    monkeypatch.setattr(downloads, "download", lambda name, *_: hub(name))
    models = open_models(recipe)
    by_base = {}
    for form in ("packed", "int8", "bf16", "paged"):
        changed = recipe.model_copy(update={"base_storage": form})
        by_base[form] = plan(changed, models, None, CARD, "cuda").needs["cma"].resident / 1e9
    assert by_base == pytest.approx(
        {"packed": 20.6, "int8": 24.1, "bf16": 30.6, "paged": 16.7}, abs=0.1
    )


def test_the_vision_language_recipe_merges_the_language_model_of_llava(hub, monkeypatch):
    recipe = Recipe.load(FOLDER / "evovlm-jp.yaml")
    monkeypatch.setattr(downloads, "download", lambda name, *_: hub(name))
    models = open_models(recipe)
    llava = models[1]
    assert llava.architecture == "MistralForCausalLM" and llava.layers == 32
    assert llava.parameters == 7_242_256_384  # Mistral-7B's and 64 rows more, twice
    assert llava.frame.parameters == 324_491_264
    assert llava.frame.tokens() == 5 * 577
    space = build_space(recipe, recipe.stages()[0], models)
    assert space.frame is llava.frame
    assert space.tensors["model.embed_tokens.weight"] == (32064, 4096)
    assert len(space.genes) == 34 * 4  # embedding, 32 layers and head; two sources, two genes each
    config = space.frame.config_for(space.template.config)
    assert config.text_config.rope_parameters["rope_theta"] == 1e6
    assert config.text_config.sliding_window is None
