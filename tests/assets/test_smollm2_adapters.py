"""The bundled LoRA adapters of SmolLM2: small, safe, honest, and clean of dev and test problems.

Reads what is bundled, and the script that made it; needs neither peft nor the base.
"""

import json
import re
import sys
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = ["smollm2-addsub", "smollm2-muldiv"]
BASE = "smollm2-135m-instruct"
MODULES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
LAYERS, HIDDEN = 30, 576


def folder(name: str) -> Path:
    return ROOT / "assets" / "adapters" / name


def config(name: str) -> dict:
    return json.loads((folder(name) / "adapter_config.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def smollm2():
    """The build script as a module; it imports torch and peft only when it trains."""
    sys.path.insert(0, str(ROOT / "assets" / "build"))
    try:
        import smollm2

        yield smollm2
    finally:
        sys.path.remove(str(ROOT / "assets" / "build"))


@pytest.fixture(scope="module")
def questions():
    """Every dev and test problem of emath, as text and as (type, numbers)."""
    texts, numbers = set(), set()
    for split in ("dev", "test"):
        path = ROOT / "assets" / "data" / "emath" / f"{split}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts.add(row["question"])
            numbers.add((row["type"], *row["numbers"]))
    return texts, numbers


def test_the_script_and_the_folders_name_the_same_adapters(smollm2):
    assert list(smollm2.ADAPTERS) == ADAPTERS
    assert {path.name for path in folder("").iterdir() if path.name.startswith("smollm2-")} == set(
        ADAPTERS
    )


@pytest.mark.parametrize("name", ADAPTERS)
def test_files_are_few_small_and_safe(name):
    files = {path.name: path.stat().st_size for path in folder(name).iterdir()}
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert files["adapter_model.safetensors"] < 6_000_000


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_config_names_the_base_and_what_was_trained(name, smollm2):
    written, adapter = config(name), smollm2.ADAPTERS[name]
    assert written["base_model_name_or_path"] == BASE
    assert written["peft_type"] == "LORA" and written["task_type"] == "CAUSAL_LM"
    assert set(written["target_modules"]) == MODULES
    assert written["r"] == adapter.rank and written["lora_alpha"] == adapter.alpha
    assert written["bias"] == "none" and not written["use_dora"] and not written["modules_to_save"]


@pytest.mark.parametrize("name", ADAPTERS)
def test_weights_are_a_pair_for_every_linear_layer(name):
    import numpy as np
    from safetensors import safe_open

    rank = config(name)["r"]
    with safe_open(folder(name) / "adapter_model.safetensors", framework="np") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}
    assert len(weights) == LAYERS * len(MODULES) * 2
    for layer in range(LAYERS):
        for module in MODULES:
            part = "self_attn" if module in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            prefix = f"base_model.model.model.layers.{layer}.{part}.{module}"
            down, up = (weights[f"{prefix}.lora_{side}.weight"] for side in "AB")
            assert down.shape[0] == rank == up.shape[1]
            assert HIDDEN in down.shape or HIDDEN in up.shape
            for matrix in (down, up):
                assert matrix.dtype == np.float16 and np.isfinite(matrix).all() and matrix.any()


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_card_states_licence_base_and_diet(name, smollm2):
    text = (folder(name) / "README.md").read_text(encoding="utf-8")
    front = text.split("---")[1]
    assert "license: apache-2.0" in front
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in front
    for kind in smollm2.ADAPTERS[name].kinds:
        assert f"`{kind}`" in text
    assert f"{smollm2.ADAPTERS[name].steps} steps" in text


@pytest.mark.parametrize("name", ADAPTERS)
def test_training_shows_no_dev_or_test_problem_and_only_its_own_types(
    name, smollm2, questions, monkeypatch
):
    texts, numbers = questions
    drawn = []
    draw = smollm2.problems.draw
    monkeypatch.setattr(
        smollm2.problems, "draw", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1]
    )
    adapter = smollm2.ADAPTERS[name]
    shown = list(islice(smollm2.exchanges(name), adapter.steps * adapter.batch))  # all of it
    assert not texts & {question for question, _ in shown}
    assert not numbers & {(problem.kind, *problem.numbers) for problem in drawn}
    assert {problem.kind for problem in drawn} == set(adapter.kinds)


@pytest.mark.parametrize("name", ADAPTERS)
def test_answers_end_in_the_right_number(name, smollm2, monkeypatch):
    drawn = []
    draw = smollm2.problems.draw
    monkeypatch.setattr(
        smollm2.problems, "draw", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1]
    )
    for _, answer in islice(smollm2.exchanges(name), 300):
        assert int(re.findall(r"\d+", answer)[-1]) == drawn[-1].answer


def test_the_skills_are_complementary_and_cover_the_task(smollm2):
    first, second = (set(adapter.kinds) for adapter in smollm2.ADAPTERS.values())
    assert not first & second
    assert first | second == set(smollm2.problems.KINDS)


def test_the_recipe_merges_them():
    from studio.recipe import Recipe

    recipe = Recipe.from_yaml((ROOT / "recipes" / "smollm2.yaml").read_text(encoding="utf-8"))
    assert recipe.base == BASE and recipe.sources == ADAPTERS
    assert [item.task for item in recipe.objectives] == ["emath"]
