"""What numbers a resident model is made of, and on which device it lives.

Knows the words a recipe uses. Refuses to know how a quantized tensor is stored
(`studio.models.packed`) and what a model is for.
"""

import torch

from studio.errors import StudioError

#: What a recipe's ``precision`` means where it is a plain dtype.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Precisions that pack tensors into blocks.
QUANTIZED = ("int8", "nf4")
#: Those that differ in memory; fp16 takes what bf16 does, and is for GPUs that have no other.
PRECISIONS = ("fp32", "bf16", *QUANTIZED)


def dtype_of(precision: str) -> torch.dtype:
    """The torch dtype of an unquantized precision.

    Raises:
        StudioError: it is none of "fp32", "bf16" and "fp16".
    """
    if precision not in DTYPES:
        raise StudioError(
            f"There is no precision '{precision}'; use one of {', '.join((*DTYPES, *QUANTIZED))}."
        )
    return DTYPES[precision]


def default_device() -> torch.device:
    """CUDA if there is one, else an Apple GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def half(device: torch.device | str | None = None) -> torch.dtype:
    """The 16-bit dtype that a device computes in: bfloat16, or float16 on a GPU without it.

    Such a GPU (a T4, say) can emulate bfloat16, many times slower.
    """
    device = torch.device(device) if device else default_device()
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def automatic(device: torch.device | str | None = None) -> str:
    """What the precision "auto" of a recipe stands for on a device, by default the one here.

    "bf16" on a GPU that has it, "fp16" on one that has not, "fp32" elsewhere: CPUs compute in it
    anyway.
    """
    device = torch.device(device) if device else default_device()
    if device.type != "cuda":
        return "fp32"
    return "fp16" if half(device) is torch.float16 else "bf16"
