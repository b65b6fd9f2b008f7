"""What an export takes in memory, at a smaller shape with a proportional bound.

What could grow with the model is the largest single tensor: everything else is read, merged and
written a piece at a time. A Mistral-7B's largest has 131 million entries (32,000 × 4,096), and its
merge may take 3 GB: 23 bytes per entry of the largest tensor.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from studio.merge.shards import write_file
from tests.conftest import make_tokenizer

BYTES_PER_ENTRY = 3e9 / (32_000 * 4_096)
SHAPE = {"vocab_size": 16_000, "hidden_size": 1_024, "intermediate_size": 3_072}

#: Prints how many bytes the peak of resident memory rises while argv[1] is exported to argv[2].
EXPORT = """
import json, resource, sys
import numpy as np, torch, transformers
from safetensors import safe_open
from studio.merge.card import model_card
from studio.merge.export import export
from studio.merge.parameter_space import ParameterSpace
from studio.models import Checkpoint

torch.set_num_threads(1)
folder, out, method = sys.argv[1:]
models = [Checkpoint.open(f"{folder}/{name}") for name in ("base", "one", "two", "three")]
space = ParameterSpace(models[0], models[1:], method=method)
merged = space.checkpoint(space.initial, "bf16", "merged")
merged.config.save_pretrained(f"{folder}/imports"), merged.tokenizer()  # what is imported on use
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
export(merged, out, card="", max_shard_size="60MB")
print(json.dumps({"bytes": peak() - before, "size": merged.size}))
"""


@pytest.fixture(scope="module")
def large_family(tmp_path_factory) -> Path:
    """A base and three steps from it, bf16, 100 MB each, written without being in memory."""
    from transformers import MistralConfig, MistralForCausalLM

    root = tmp_path_factory.mktemp("large")
    config = MistralConfig(
        **SHAPE, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2,
        tie_word_embeddings=False, dtype="bfloat16",
    )  # fmt: skip
    with torch.device("meta"):
        model = MistralForCausalLM(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for step, name in enumerate(("base", "one", "two", "three")):
        same, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(step)

        def pieces(name, step=step, same=same, own=own):
            left = torch.Size(shapes[name]).numel()
            while left:
                count = min(left, 1 << 20)
                numbers = torch.randn(count, generator=same)
                if step:
                    numbers += 0.05 * torch.randn(count, generator=own)
                yield (0.02 * numbers).bfloat16()
                left -= count

        folder = root / name
        config.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        write_file(folder / "model.safetensors", torch.bfloat16, shapes, pieces)
    return root


@pytest.mark.skipif(os.name == "nt", reason="getrusage")
@pytest.mark.parametrize("method", ["dare_ties", "ties"])
def test_the_peak_is_bounded_by_the_largest_tensor(large_family, tmp_path, method):
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(large_family), str(tmp_path / "out"), method],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout.splitlines()[-1])
    entries = SHAPE["vocab_size"] * SHAPE["hidden_size"]
    assert taken["bytes"] < BYTES_PER_ENTRY * entries, taken
    assert taken["size"] > 1e8  # the four models alone are more than the bound allows
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = {*index["weight_map"].values()}
    assert len(shards) > 1
    for shard in shards:
        with safe_open(tmp_path / "out" / shard, "pt") as file:
            assert {n for n, s in index["weight_map"].items() if s == shard} == set(file.keys())
