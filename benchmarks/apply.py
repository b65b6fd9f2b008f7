"""How long a live model takes to take on a candidate: the bonsai sources, every merge method.

    python benchmarks/apply.py [--repeat 20]

Prints medians and spread of wall-clock time, beside a plain copy of the bytes a merge has to read
and write (base, sources, result), which is the floor. Writes benchmarks/results/apply.md.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from publish import machine, publish

from studio.evolve.spaces import first_space
from studio.merge.live import LiveModel
from studio.merge.methods import METHODS
from studio.recipe import Recipe

RECIPE = Path(__file__).parent.parent / "recipes" / "jmath.yaml"


def timed(call: Callable[[], object], repeat: int) -> list[float]:
    """Milliseconds of each call, after one that warms up."""
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times


def row(name: str, times: list[float]) -> str:
    return f"| {name} | {statistics.median(times):.1f} | {min(times):.1f} | {max(times):.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    document = Recipe.load(RECIPE).model_dump(mode="json")
    random = np.random.default_rng(0)
    lines = ["| method | median ms | min | max |", "|---|---|---|---|"]
    for method in METHODS:
        document["space"]["method"] = method
        sources = document["sources"][: METHODS[method].sources]
        space = first_space(Recipe.from_dict({**document, "sources": sources}))
        live = LiveModel(space)
        times = timed(lambda s=space, m=live: m.apply(random.uniform(s.lower, s.upper)),
                      options.repeat)  # fmt: skip
        lines.append(row(method, times))
    weights = sum(tensor.numel() for tensor in live.state_dict().values())
    source = torch.ones((len(document["sources"]) + 2) * weights // 2)
    target = torch.empty_like(source)
    copied = timed(lambda: target.copy_(source), options.repeat)
    lines.append(row("copy of base, three sources and result (half read, half written)", copied))
    lines += [
        "",
        f"{weights / 1e6:.2f} M weights in fp32, three sources (slerp two), {machine()}, "
        f"{options.repeat} candidates each.",
    ]
    publish("apply", lines)


if __name__ == "__main__":
    main()
