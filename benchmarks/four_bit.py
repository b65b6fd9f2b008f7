"""What four bits do to a merged task vector: two parts, the whole weight, naive subtraction.

    python benchmarks/four_bit.py [--base NAME --sources NAME NAME …] [--layers 30]

By default SmolLM2-135M-Instruct and the bundled adapters on it, 120 steps of LoRA each.
For every method, at the search's start (weights and densities 0.5), over all linear layers:

- stored: the delta of the Studio's two-part layer as it is stored, against the merge in float32;
- computed: what that layer adds to its base's output, for Gaussian inputs, in float32 and bfloat16;
- whole: the delta left in a merged weight that is quantized whole, Q(base + delta) - base;
- naive: the delta merged from Q(source) - Q(base), stored in full.

Numbers are norms of the error over the norm of the true merged delta. Prints a Markdown table and
writes it to benchmarks/results/four_bit.md.
"""

import argparse
import math
from collections import defaultdict
from dataclasses import replace

import torch
from publish import machine, publish

from studio.merge import masks
from studio.merge.ingredients import Held, Ingredients, anchor
from studio.merge.methods import METHODS
from studio.merge.parameter_space import ParameterSpace, layer_of
from studio.models import Model, bundled, open_source
from studio.models.packed import Packed
from studio.models.packed_model import PackedLinear, is_packed

#: Bounds as stored that the project set itself.
BOUNDS = {
    "linear": 0.15, "task_arithmetic": 0.15, "dare_linear": 0.15, "slerp": 0.15,
    "dare_ties": 0.25, "ties": 0.35,
}  # fmt: skip


def whole(ingredients: Ingredients, setting) -> torch.Tensor:
    out = torch.empty(ingredients.count)
    ingredients.merge_into(out, setting, False)
    return out


def naive(space: ParameterSpace, name: str, packed: Ingredients, quantized: dict) -> Ingredients:
    """The same merge from differences of quantized weights."""
    below = quantized[anchor(space).name]
    vectors = [Held((quantized[source.name] - below).flatten()) for source in space.sources]
    orders = packed.masks
    if space.method.masks == "magnitude":
        keys = [masks.key(space.seed, index, name) for index in range(len(vectors))]
        orders = [
            masks.Magnitudes(vector.read, packed.count, packed.chunk, key)
            for vector, key in zip(vectors, keys, strict=True)
        ]
    return replace(packed, vectors=vectors, masks=orders)


def errors(space: ParameterSpace, names: list[str]) -> dict[str, float]:
    """Relative errors over all tensors together."""
    settings = space.settings(space.initial)
    wrong, right = defaultdict(float), defaultdict(float)

    def note(key: str, got: torch.Tensor, true: torch.Tensor) -> None:
        wrong[key] += float((got - true).double().square().sum())
        right[key] += float(true.double().square().sum())

    below = anchor(space)
    for name in names:
        shape, setting = space.tensors[name], settings[name]
        packed = Ingredients.packed(space, name, "nf4", "cpu")
        share = packed.share(setting, False)
        base = below.get(name).float() * share
        full = Ingredients.streamed(
            space.method, space.seed, name, space.base.reader(name) if space.base else None,
            [source.reader(name) for source in space.sources], packed.count, torch.float32,
        )  # fmt: skip
        true = whole(full, setting).view(shape) - base
        delta = Packed.of(whole(packed, setting).view(shape), "nf4")
        note("stored", delta.dense(torch.float32), true)
        held = Packed.of(below.get(name).float(), "nf4")
        layer, alone = PackedLinear(held, None, delta), PackedLinear(held, None)
        layer.factor = share
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(64, shape[1], generator=generator)
        for dtype, key in ((torch.float32, "computed"), (torch.bfloat16, "computed in bf16")):
            x = inputs.to(dtype)
            added = layer(x).float() - (share * alone(x).float())
            note(key, added, x.float() @ true.T)
        note("whole", Packed.of(base + true, "nf4").dense(torch.float32) - base, true)
        quantized = {
            model.name: Packed.of(model.get(name).float(), "nf4").dense(torch.float32)
            for model in {below.name: below, **{s.name: s for s in space.sources}}.values()
        }
        note("naive", whole(naive(space, name, packed, quantized), setting).view(shape), true)
    return {key: math.sqrt(wrong[key] / right[key]) for key in wrong}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--sources", nargs="+")
    parser.add_argument("--layers", type=int, help="only so many, from the first")
    options = parser.parse_args()
    found = options.sources or [
        name for name in bundled() if name.startswith("smollm2-") and name != options.base
    ]
    base: Model = open_source(options.base)
    sources = [open_source(name) for name in found]
    names = [
        name for name in base.names()
        if is_packed(name, base.shape(name)) and layer_of(name) < (options.layers or base.layers)
    ]  # fmt: skip
    size = [
        math.sqrt(
            sum(float((s.get(n).float() - base.get(n).float()).square().sum()) for n in names)
            / sum(float(base.get(n).float().square().sum()) for n in names)
        )
        for s in sources
    ]
    lines = [
        "| method | bound | stored | computed | in bf16 | whole | naive | naive / stored |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        taken = sources[: METHODS[method].sources]
        space = ParameterSpace(base, taken, method=method, layer_granularity="all")
        e = errors(space, names)
        cells = [f"{e[k]:.3f}" for k in ("stored", "computed", "computed in bf16")]
        cells += [f"{e[k]:.2f}" for k in ("whole", "naive")]
        lines.append(
            f"| {method} | {BOUNDS[method]} | {' | '.join(cells)} | "
            f"{e['naive'] / e['stored']:.0f} × |"
        )
        print(lines[-1], flush=True)
    listed = ", ".join(f"{n} ({s:.1%} of the weights)" for n, s in zip(found, size, strict=True))
    lines += [
        "",
        f"{options.base} with {listed}; {len(names)} linear layers, nf4 in blocks of 64. "
        f"{machine()}.",
    ]
    publish("four_bit", lines)


if __name__ == "__main__":
    main()
