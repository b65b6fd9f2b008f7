"""Three 7B sources and their base in four bits on one 24 GB card: planned, then measured.

    python benchmarks/memory_7b.py [--memory 24] [--candidates 3] [--folder /tmp/shapes]

Writes four random checkpoints in the shape of Mistral-7B (58 GB of bf16; they are made once), plans
a search of them in nf4 within the given gigabytes, merges candidates and scores a real batch of
prompts with the planned batch size, KV cache and logits included. Peak memory is what torch's
allocator says it gave out. Needs a CUDA device. `--layers 1 --memory 4 --answer 4 --cpu` shows on a
CPU, with one layer and the process's own memory, how good the plan is there. Prints a Markdown
table and writes it to benchmarks/results/memory_7b.md, or memory_7b_cpu.md.
"""

import argparse
import gc
import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from publish import machine, publish
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, MistralConfig

from studio.evolve.evaluate import prompts_for
from studio.evolve.generate import generate
from studio.evolve.memory import need
from studio.merge.parameter_space import ParameterSpace
from studio.models import Checkpoint
from studio.tasks import load_task

NAMES = ("base", "one", "two", "three")


def make(folder: Path, layers: int, device: str) -> list[Path]:
    """A base of random weights and three steps of 2 % from it, with a bundled tokenizer."""
    config = MistralConfig(num_hidden_layers=layers, dtype=torch.bfloat16)
    config.architectures = ["MistralForCausalLM"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    made = []
    for number, name in enumerate(NAMES):
        out = folder / f"{name}-{layers}"
        made.append(out)
        if (out / "done").exists():
            continue
        out.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(out)
        Checkpoint.open("bonsai-base").tokenizer().save_pretrained(out)
        where = {}
        for position, (tensor, shape) in enumerate(shapes.items()):
            generator = torch.Generator(device).manual_seed(position)
            values = torch.randn(shape, generator=generator, device=device) * 0.02
            if "norm" in tensor:
                values = torch.ones(shape, device=device)
            elif number:
                generator.manual_seed(1000 * number + position)
                values += 0.0004 * torch.randn(shape, generator=generator, device=device)
            where[tensor] = f"tensor-{position:05d}.safetensors"
            save_file({tensor: values.bfloat16().cpu()}, out / where[tensor])
        index = json.dumps({"metadata": {}, "weight_map": where})
        (out / "model.safetensors.index.json").write_text(index)
        (out / "done").touch()
    return made


class _Watch(threading.Thread):
    """The largest number that a function gave, asked every 10 ms."""

    def __init__(self, held: Callable[[], int]):
        super().__init__(daemon=True)
        self._held, self._most, self._ended = held, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            self._most = max(self._most, self._held())

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self._most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=float, default=24.0)
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--method", default="dare_ties")
    parser.add_argument("--answer", type=int, default=256, help="tokens to generate")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/shapes"))
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    device = "cpu" if options.cpu else "cuda"
    folders = make(options.folder, options.layers, device)
    process = psutil.Process()

    def held() -> int:
        if not options.cpu:
            return torch.cuda.memory_allocated()
        memory = process.memory_info()  # pages of mapped files are the system's to drop
        return memory.rss - getattr(memory, "shared", 0)

    base, *sources = [Checkpoint.open(folder) for folder in folders]
    space = ParameterSpace(base, sources, method=options.method)
    task = load_task("jmath")
    tokenizer = sources[0].tokenizer()
    prompts = [p * 8 for p in prompts_for(tokenizer, task, task.examples("dev"))]
    longest = max(len(tokenizer(p, add_special_tokens=False)["input_ids"]) for p in prompts)
    wanted = need(space, "nf4", "packed", longest, options.answer, device)
    batch = wanted.batch(options.memory * 1e9, 256)
    if not batch:
        raise SystemExit(f"{wanted.peak(1) / 1e9:.1f} GB are needed at least.")

    gc.collect()
    before = held()
    started = time.perf_counter()
    live = space.live("nf4", device=device)
    built = time.perf_counter() - started
    live.apply(space.initial)  # pages of a CPU count once they are written
    gc.collect()
    resident = held() - before
    watch = _Watch(held) if options.cpu else None
    rng = np.random.default_rng(0)
    applied, scored, tokens = [], [], 0
    for _ in range(options.candidates):
        if not options.cpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        live.apply(rng.uniform(space.lower, space.upper))
        if not options.cpu:
            torch.cuda.synchronize()
        applied.append(time.perf_counter() - started)
        started = time.perf_counter()
        answers = generate(
            live.model,
            live.tokenizer,
            prompts[:batch],
            max_new_tokens=options.answer,
            batch_size=batch,
        )
        scored.append(time.perf_counter() - started)
        tokens += sum(answer.tokens for answer in answers)
    if options.cpu:
        peak = watch.stop() - before
        where = "the process's own memory above that before, every 10 ms, CPU"
    else:
        peak = torch.cuda.max_memory_allocated()
        where = f"allocated on {torch.cuda.get_device_name()}"
    planned = wanted.peak(batch)
    parameters = sum(math.prod(shape) for shape in space.tensors.values())
    publish(
        "memory_7b" if not options.cpu else "memory_7b_cpu",
        [
            "| | planned, GB | measured, GB |",
            "|---|---|---|",
            f"| resident | {wanted.resident / 1e9:.2f} | {resident / 1e9:.2f} |",
            f"| peak, {batch} prompts of up to {longest} tokens, {options.answer} new | "
            f"{planned / 1e9:.2f} | {peak / 1e9:.2f} |",
            "",
            f"Three sources and a base of {parameters / 1e9:.2f} G parameters in nf4, "
            f"{options.method}; {where}. Built in {built:.0f} s, a candidate applied in "
            f"{np.median(applied):.2f} s (median of {len(applied)}), {tokens / sum(scored):.0f} "
            f"tokens a second. {machine()}.",
        ],
    )


if __name__ == "__main__":
    main()
