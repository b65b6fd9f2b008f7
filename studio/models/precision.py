"""What numbers a resident model is made of, and on which device it lives.

Knows the words a recipe uses. Refuses to know how a quantized tensor is stored
(`studio.models.packed`) and what a model is for.
"""

import torch

from studio.errors import StudioError

#: What a recipe's ``precision`` means where it is a plain dtype.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
#: Precisions that pack tensors into blocks.
QUANTIZED = ("int8", "nf4")
PRECISIONS = (*DTYPES, *QUANTIZED)


def dtype_of(precision: str) -> torch.dtype:
    """The torch dtype of an unquantized precision.

    Raises:
        StudioError: it is neither "fp32" nor "bf16".
    """
    if precision not in DTYPES:
        raise StudioError(
            f"There is no precision '{precision}'; use one of {', '.join(PRECISIONS)}."
        )
    return DTYPES[precision]


def default_device() -> torch.device:
    """CUDA if there is one, else an Apple GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
