"""Precision `auto`: what a machine computes best in, and half precision where that is float16."""

import pytest
import torch

from studio import api
from studio.merge.live import LiveModel
from studio.models.packed_model import compute_dtype
from studio.models.precision import automatic, default_device, dtype_of, half
from studio.recipe import Recipe
from studio.runs.store import Store


def gpu(monkeypatch, native: bool) -> None:
    """A machine with a GPU, as far as torch is asked about it."""

    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)


@pytest.mark.parametrize(
    ("native", "named", "dtype"), [(True, "bf16", torch.bfloat16), (False, "fp16", torch.float16)]
)
def test_a_gpu_computes_in_the_half_precision_that_it_has(monkeypatch, native, named, dtype):
    gpu(monkeypatch, native)
    assert automatic() == named
    assert half("cuda") is compute_dtype("cuda") is dtype_of(named) is dtype
    assert automatic("cpu") == "fp32"
    assert compute_dtype("cpu") is torch.float32


def test_here_auto_is_what_the_device_says():
    assert automatic() == ("fp32" if default_device().type != "cuda" else automatic("cuda"))


def test_a_run_records_what_auto_stood_for(monkeypatch, tiny_recipe, tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    monkeypatch.setattr("studio.models.precision.automatic", lambda: "fp16")
    run = api.create(tiny_recipe(precision="auto"), store)
    assert Recipe.from_yaml(store.run(run).recipe).precision == "fp16"


def test_a_run_in_fp16_searches_reports_and_exports(tiny_recipe, tmp_path):
    from safetensors.torch import load_file

    store = Store(tmp_path / "runs.sqlite")
    recipe = tiny_recipe(precision="fp16", budget={"candidates": 4})
    run = api.evolve(recipe, store)
    assert store.run(run).status == "finished"
    assert {row["role"] for row in api.report(run, store)} >= {"source", "evolved"}
    folder = api.export(run, tmp_path / "out", store=store)
    held = load_file(next(folder.glob("*.safetensors")))
    assert {tensor.dtype for tensor in held.values()} == {torch.float16}
    assert "float16" in (folder / "config.json").read_text(encoding="utf-8")


def test_what_is_merged_in_fp16_is_near_what_is_merged_in_fp32(tiny_recipe):
    from studio.evolve.spaces import first_space

    space = first_space(tiny_recipe())
    fine, coarse = (LiveModel(space, precision=p, device="cpu") for p in ("fp32", "fp16"))
    for live in (fine, coarse):
        live.apply(space.initial)
    other = coarse.state_dict()
    for name, tensor in fine.state_dict().items():
        assert other[name].dtype is torch.float16
        # ties of the rounded differences may be trimmed otherwise: near on the whole, not each
        assert (other[name].float() - tensor).norm() < 0.02 * tensor.norm()
