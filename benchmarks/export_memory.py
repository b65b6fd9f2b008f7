"""What exporting a merge of 7B models takes: peak of resident memory, and time.

    python benchmarks/export_memory.py [--layers 32] [--methods dare_ties ties] [--folder DIR]

A base and three sources of Mistral-7B's shapes in bf16. Their files are sparse: a million numbers
of every tensor are there, the rest are holes, which read as zeros and take no disk. So the inputs
take about two gigabytes, and the export 14.5 GB. Fewer layers take less time, and have the same
largest tensor, which is all that could count. Each method is exported in a process of its own, and
what is reported is by how much the peak of its resident memory rises. Prints a Markdown table and
writes it to benchmarks/results/export_memory.md.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from publish import machine, publish

from studio.models import Checkpoint

NAMES = ("base", "one", "two", "three")
FILLED = 1 << 20

EXPORT = """
import json, resource, sys, time
import numpy as np, torch, transformers
from studio.merge.export import export
from studio.merge.parameter_space import ParameterSpace
from studio.models import Checkpoint

folder, out, method = sys.argv[1:]
models = [Checkpoint.open(f"{folder}/{name}") for name in ("base", "one", "two", "three")]
space = ParameterSpace(models[0], models[1:], method=method)
merged = space.checkpoint(space.initial, "bf16", "merged")
merged.tokenizer()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start = peak(), time.perf_counter()
export(merged, out, card="")
print(json.dumps({"bytes": peak() - before, "seconds": time.perf_counter() - start,
                  "parameters": merged.parameters, "size": merged.size}))
"""


def write(folder: Path, number: int, layers: int) -> None:
    """Model ``number`` as one sparse safetensors file."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        num_hidden_layers=layers, tie_word_embeddings=False, dtype="bfloat16",
        architectures=["MistralForCausalLM"],
    )  # fmt: skip
    with torch.device("meta"):
        model = MistralForCausalLM(config)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, parameter in model.named_parameters():
        stop = offset + 2 * parameter.numel()
        header[name] = {
            "dtype": "BF16", "shape": list(parameter.shape), "data_offsets": [offset, stop],
        }  # fmt: skip
        offset = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    config.save_pretrained(folder)
    Checkpoint.open("bonsai-base").tokenizer().save_pretrained(folder)
    random = torch.Generator().manual_seed(number)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in list(header.values())[1:]:
            count = min(FILLED, math.prod(entry["shape"]))
            numbers = torch.randn(count, generator=random).mul_(0.02).bfloat16()
            file.seek(8 + len(text) + entry["data_offsets"][0])
            file.write(numbers.view(torch.uint8).numpy())
        file.truncate(8 + len(text) + offset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--methods", nargs="+", default=["dare_ties", "ties"])
    parser.add_argument("--folder", type=Path, help="where there is room; the system's by default")
    options = parser.parse_args()
    lines = [
        "| method | parameters | export | peak of resident memory | time |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for number, name in enumerate(NAMES):
            write(Path(folder, name), number, options.layers)
        for method in options.methods:
            with tempfile.TemporaryDirectory(dir=options.folder) as out:
                done = subprocess.run(
                    [sys.executable, "-c", EXPORT, folder, f"{out}/merged", method],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
            row = json.loads(done.stdout.splitlines()[-1])
            lines.append(
                f"| {method} | {row['parameters'] / 1e9:.2f} B | {row['size'] / 1e9:.1f} GB "
                f"| {row['bytes'] / 1e6:.0f} MB | {row['seconds'] / 60:.0f} min |"
            )
            print(lines[-1], flush=True)
    lines += [
        "",
        f"Three sources and a base in bf16, {options.layers} layers of Mistral-7B's. {machine()}.",
    ]
    publish("export_memory", lines)


if __name__ == "__main__":
    main()
