"""The GPU's merge against the plain one, as Triton's interpreter runs it on a CPU.

The interpreter rounds to bfloat16 towards zero, where a GPU rounds to the nearest: there results
may be a unit apart.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

COMPARE = """
import torch
from studio.merge import fused_gpu
from studio.merge.ingredients import Ingredients
from studio.merge.methods import METHODS
from tests.merge.test_fused import resident, setting

count = 2 * fused_gpu.BLOCK + 17
for method in METHODS:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for normalize in (False, True) if method != "slerp" else (False,):
            made = resident(method, dtype, count, sources=2 if method == "slerp" else 3)
            asked = setting(method, [0.5, 0.7, -0.3], [0.5, 0.05, 1.0])
            found = []
            for merger in (fused_gpu.FusedOnGpu(made), Ingredients.held(made)):
                found.append(torch.full_like(made.vectors[0], torch.nan))
                merger.merge_into(found[-1], asked, normalize)
            kernel, plain = found
            if dtype == torch.bfloat16:
                bits = [each.view(torch.int16).int() for each in found]
                assert (bits[0] - bits[1]).abs().max() <= 1, (method, normalize)
            else:
                assert torch.equal(kernel, plain), (method, normalize, dtype)
            print("same")
cpu = torch.device("cpu")
print("works", fused_gpu.works(cpu, torch.float32))
fused_gpu._merge = None
fused_gpu.works.cache_clear()
print("works", fused_gpu.works(cpu, torch.float32))
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton on this platform")
def test_the_kernel_is_the_plain_merge():
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["same"] * 33 + ["works True", "works False"]
    assert "does not run" in done.stderr
