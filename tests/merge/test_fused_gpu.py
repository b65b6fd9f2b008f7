"""The GPU's merge against the plain one, as Triton's interpreter runs it on a CPU.

The interpreter rounds to bfloat16 towards zero, where a GPU rounds to the nearest: there results
may be a unit apart. What a GPU would run is compiled, too, which takes no GPU.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from studio.merge.methods import METHODS

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


#: The types of the kernel's arguments; {0} is that of the numbers.
ARGUMENTS = {
    "out": "*{0}", "base": "*{0}", "vectors": "*{0}", "factors": "*fp32", "keys": "*i32",
    "limits": "*i32", "count": "i32", "divided": "fp32",
}  # fmt: skip

with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton on this platform")


@with_triton
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


@with_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_what_cards_run_fuses_no_product_with_a_sum(method, dtype, capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from studio.merge import fused_gpu

    how = METHODS[method]
    constants = {
        "sources": how.sources or 3, "masked": fused_gpu._MASKS[how.masks], "elect": how.elects,
        "share": how.elects, "onto": how.needs_base, "block": fused_gpu.BLOCK,
    }  # fmt: skip
    signature = {name: kind.format(dtype) for name, kind in ARGUMENTS.items()}
    source = ASTSource(
        fn=fused_gpu._merge,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constexprs={
            (fused_gpu._merge.arg_names.index(name),): value for name, value in constants.items()
        },
    )
    made = compile(source, target=GPUTarget("cuda", capability, 32), options=fused_gpu.OPTIONS)
    assert made.asm["cubin"]
    code = made.asm["ptx"]
    assert ".rn.f32" in code and "fma." not in code
    assert ("mul.lo" in code) == (how.masks is not None)  # where nothing is hashed, none is made
