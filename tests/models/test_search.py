"""What there is to choose from: at a glance, without torch, and whatever the hub says."""

import json
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from studio.errors import StudioError
from studio.models import search, sources


def test_bundled_models_are_glanced_at_without_torch():
    code = (
        "import sys\nfrom studio.models import search\nfound = search.bundled()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "print(len(found), *(f.fault for f in found))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(len(sources.bundled()))]


def test_a_glance_says_what_opening_says():
    from studio.models import describe

    for found in search.bundled():
        if found.kind != "safetensors":
            continue
        card = describe(found.name)
        assert found.architecture in (card["architecture"], card["vision"])
        assert (found.layers, found.parameters) == (card["layers"], card["parameters"])
        assert (found.size, found.licence) == (card["size"], card["licence"])
        assert found.sees == bool(card["vision"])


@pytest.fixture
def shelf(tmp_path, tiny_family):
    """A folder of models: one, one below a folder, a broken one, an adapter, something else."""
    shutil.copytree(tiny_family["ja"], tmp_path / "mine")
    shutil.copytree(tiny_family["math"], tmp_path / "more" / "deeper")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "lora").mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_models_in_a_folder(shelf):
    found = {model.name: model for model in search.here(shelf)}
    names = ["broken", "lora", "mine", "more/deeper"]
    assert list(found) == [str(shelf / name) for name in names]
    assert found[str(shelf / "mine")].parameters > 0
    assert "JSON" in found[str(shelf / "broken")].fault
    assert found[str(shelf / "lora")].fault  # it has no weights
    assert search.here(shelf / "nowhere") == []


def test_a_glance_is_taken_again_when_the_model_changed(shelf):
    config = shelf / "mine" / "config.json"
    assert search.here(shelf / "mine")[0].layers == 3
    settings = json.loads(config.read_text()) | {"num_hidden_layers": 2}
    config.write_text(json.dumps(settings))
    assert search.here(shelf / "mine")[0].layers == 2


def test_every_word_of_a_search_counts():
    models = [
        search.Found("bonsai-ja", search.BUNDLED, architecture="Mistral", licence="mit"),
        search.Found("owner/other", search.HUB, architecture="Mistral", licence="cc-by-nc-4.0"),
    ]
    assert [m.name for m in search.matching(models, "MISTRAL")] == ["bonsai-ja", "owner/other"]
    assert [m.name for m in search.matching(models, "mistral cc-by")] == ["owner/other"]
    assert search.matching(models, "mistral llama") == []
    assert search.matching(models, " ") == models


def test_a_hub_id_can_be_typed():
    assert search.typed("owner/name")[0].place == search.HUB
    assert search.typed("owner/name@v1")[0].name == "owner/name@v1"
    assert search.typed("just words") == [] and search.typed("../up") == []


# ── the hub ───────────────────────────────────────────────────────────────────────────────────


def info(name: str, **changes) -> SimpleNamespace:
    """A repository as the hub's search tells of it."""
    told = {
        "id": name, "pipeline_tag": "text-generation", "gated": "manual", "downloads": 7,
        "tags": ["license:apache-2.0"], "config": {"architectures": ["LlamaForCausalLM"]},
        "safetensors": SimpleNamespace(parameters={"BF16": 10, "F32": 1}),
    }  # fmt: skip
    return SimpleNamespace(**(told | changes))


@pytest.fixture
def hub(monkeypatch):
    """`hub(answer)`: the hub's search answers so."""
    import huggingface_hub

    def answering(answer):
        class Api:
            def __init__(self, token=None):
                self.token = token

            def list_models(self, **asked):
                return answer(**asked)

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)

    return answering


def test_the_hubs_models(hub):
    asked = []

    def answer(**question):
        asked.append(question)
        return [
            info("a/model"),
            info("b/speech", pipeline_tag="text-to-speech"),
            info("c/adapter", tags=["base_model:adapter:a/model"], safetensors=None, gated=False),
            info("d/sees", pipeline_tag="image-text-to-text", config=None),
        ]

    hub(answer)
    model, adapter, sees = search.on_hub("llama")
    assert asked[0]["search"] == "llama" and asked[0]["filter"] == "safetensors"
    assert (model.size, model.parameters, model.licence) == (24, 11, "apache-2.0")
    assert model.gated and model.downloads == 7 and model.architecture == "LlamaForCausalLM"
    assert adapter.kind == "adapter" and adapter.base == "a/model" and not adapter.gated
    assert sees.sees and sees.architecture is None


def test_a_hub_that_is_out_of_reach_is_one_sentence(hub):
    def refuses(**_):
        raise ConnectionError("no route to host 10.0.0.1")

    hub(refuses)
    with pytest.raises(StudioError, match="cannot be searched now") as caught:
        search.on_hub("llama")
    assert "10.0.0.1" not in str(caught.value)


def test_a_hub_that_is_slow_is_not_waited_for(hub):
    hub(lambda **_: time.sleep(2) or [])
    start = time.monotonic()
    with pytest.raises(StudioError, match="cannot be searched now"):
        search.on_hub("llama", seconds=0.2)
    assert time.monotonic() - start < 1.5
