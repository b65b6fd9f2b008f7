"""What is wrong with a vision-language model is a sentence, and nothing of it is run."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from studio import api
from studio.errors import StudioError
from studio.models import open_source


@pytest.fixture
def folder(vlm_factory, tmp_path):
    shutil.copytree(vlm_factory("llava"), tmp_path / "family")
    return tmp_path / "family"


def rewrite(folder, change) -> None:
    file = folder / "vlm" / "config.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))


def test_code_beside_a_processor_is_refused(folder):
    file = folder / "vlm" / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["auto_map"] = {"AutoProcessor": "run.Me"}
    file.write_text(json.dumps(settings))
    with pytest.raises(StudioError, match="asks for code of its own"):
        open_source(folder / "vlm")


def test_a_tensor_too_few_or_too_many(folder):
    weights = folder / "vlm" / "model.safetensors"
    tensors = load_file(weights)
    lacking = dict(tensors)
    del lacking[next(name for name in tensors if "projector" in name)]
    save_file(lacking, weights)
    with pytest.raises(StudioError, match="lacks the tensor .*projector"):
        open_source(folder / "vlm")
    save_file(tensors | {"surplus.thing": next(iter(tensors.values())).clone()}, weights)
    with pytest.raises(StudioError, match="has no place for the stored tensor 'surplus.thing'"):
        open_source(folder / "vlm")


def test_a_forged_count_of_layers(folder):
    rewrite(folder, lambda s: s["vision_config"].update(num_hidden_layers=10_000_000))
    with pytest.raises(StudioError, match="10000000 layers"):
        open_source(folder / "vlm")


def test_a_tower_that_answers_nothing(folder):
    """CLIP has vision_config, too, and generates no text."""
    from transformers import CLIPConfig

    config = CLIPConfig().to_dict() | {"architectures": ["CLIPModel"]}
    (folder / "vlm" / "config.json").write_text(json.dumps(config, default=str))
    with pytest.raises(StudioError, match="not a vision-language model that answers"):
        open_source(folder / "vlm")


def test_without_a_processor_the_model_opens_and_cannot_be_shown_pictures(folder):
    for file in (folder / "vlm").glob("*processor*.json"):
        file.unlink()
    model = open_source(folder / "vlm")
    assert model.names()
    with pytest.raises(StudioError, match="picture processor of .* is missing"):
        model.processor()


def test_mergekit_configurations_and_adapters_are_of_language_models(folder, tmp_path):
    configuration = tmp_path / "mergekit.yaml"
    configuration.write_text(json.dumps({
        "merge_method": "linear",
        "models": [
            {"model": str(folder / "vlm"), "parameters": {"weight": 1}},
            {"model": str(folder / "ja"), "parameters": {"weight": 1}},
        ],
    }))  # fmt: skip
    with pytest.raises(StudioError, match="is a vision-language model; write a recipe"):
        api.merge(configuration, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(StudioError, match="adapter of a vision-language model"):
        open_source(f"{adapter}+{folder / 'vlm'}")


def test_the_studio_opens_language_models_without_the_vlm_folder(folder, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "vlm" else real(name, *a)
    )
    assert open_source(folder / "ja").names()
    with pytest.raises(StudioError, match="vlm package is not installed"):
        open_source(folder / "vlm")


def test_a_card_says_that_it_fits_its_base(vlm_factory):
    folder = vlm_factory("llava")
    card = api.describe(str(folder / "vlm"), str(folder / "base"))
    assert card["fits"] and card["vision"] == "LlavaForConditionalGeneration"
