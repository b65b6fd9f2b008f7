"""What evolving paths takes: memory over the sources alone, and seconds to lay a path.

    python benchmarks/memory.py [--layers 12] [--hidden 512] [--sources 3]

Random-weight Mistrals, each way measured in a process of its own: resident memory once k sources
are loaded as transformers does and have read a sentence each, and once the live path model of the
same k has read it along 20 random paths of up to 3 × k × layers layers. The floor is the sources'
weights. Prints a Markdown table and writes it to benchmarks/results/memory.md.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from publish import machine, publish


def write(folder: Path, layers: int, hidden: int, seed: int) -> None:
    """A random-weight Mistral with the tokenizer of a bundled model."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from studio.models import Checkpoint

    tokenizer = Checkpoint.open("bonsai-base").tokenizer()
    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=4 * hidden,
        num_hidden_layers=layers, num_attention_heads=8, num_key_value_heads=4,
        sliding_window=None,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(what: str, folders: list[str], pipe) -> None:
    """Send resident bytes gained, in this fresh process, by holding the sources in one way."""
    import torch
    import transformers

    from studio.merge.data_flow import DataFlowSpace
    from studio.models import Checkpoint

    checkpoints = [Checkpoint.open(folder) for folder in folders]
    assert transformers.AutoModelForCausalLM  # its lazy import is not the sources' memory
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    result, ids = {}, torch.arange(16)[None]
    if what == "sources":
        held = [checkpoint.load(torch.float32) for checkpoint in checkpoints]
        for model in held:  # weights are mapped, and only what is used becomes resident
            with torch.inference_mode():
                model(ids, use_cache=False)
    else:
        space = DataFlowSpace(checkpoints, scaling="network")
        held = space.live("fp32", "cpu")
        random = np.random.default_rng(0)
        seconds, longest = [], 0
        for _ in range(20):
            genome = random.uniform(space.lower, space.upper)
            start = time.perf_counter()
            held.apply(genome)
            seconds.append(time.perf_counter() - start)
            longest = max(longest, len(space.path(genome)))
            with torch.inference_mode():
                held.model(ids, use_cache=False)
        result |= {"milliseconds": 1000 * float(np.median(seconds)), "longest": longest}
    result["bytes"] = process.memory_info().rss - before
    result["weights"] = sum(4 * checkpoint.parameters for checkpoint in checkpoints)
    assert held is not None
    pipe.send(json.dumps(result))


def in_a_process(what: str, folders: list[str]) -> dict:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=measure, args=(what, folders, theirs))
    process.start()
    result = json.loads(mine.recv())
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--sources", type=int, default=3)
    options = parser.parse_args()
    lines = [
        "| sources | their weights | loaded one by one | path model, 20 paths | longest path "
        "| laying a path |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        folders = [str(Path(folder) / str(number)) for number in range(options.sources)]
        for number, path in enumerate(folders):
            write(Path(path), options.layers, options.hidden, number)
        for count in range(1, options.sources + 1):
            plain = in_a_process("sources", folders[:count])
            paths = in_a_process("paths", folders[:count])
            sizes = (plain["weights"], plain["bytes"], paths["bytes"])
            cells = " | ".join(f"{size / 1e6:.0f} MB" for size in sizes)
            laid = f"{paths['longest']} layers | {paths['milliseconds']:.1f} ms"
            lines.append(f"| {count} | {cells} | {laid} |")
    lines += [
        "",
        f"Resident memory gained, fp32, {options.layers} layers of hidden size {options.hidden} "
        f"each. {machine()}.",
    ]
    publish("memory", lines)


if __name__ == "__main__":
    main()
