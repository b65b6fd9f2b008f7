"""Safetensors files as a stream: a header that says what comes, then one piece after another.

Knows the file format (https://github.com/huggingface/safetensors#format), how a model is split over
files, and their index. Holds one piece of one tensor at a time, so that what a file takes in memory
does not depend on its size. Refuses to know where pieces come from and what a folder is for.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from studio.models.model import Model

#: The format's name of each dtype that is written here.
CODES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
}  # fmt: skip

#: Told, now and then, how many bytes were written since.
Told = Callable[[int], None]


def write_model(
    model: "Model", folder: Path, max_shard_size: int | str, told: Told = lambda count: None
) -> None:
    """Write a model's tensors into a folder: one file, or shards and their index.

    Args:
        max_shard_size: of a file, in bytes or as "4GB"; a larger tensor has a file of its own.

    Raises:
        ValueError: a tensor's pieces are not what its shape and dtype promise.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    shapes = {name: model.shape(name) for name in model.names()}
    # Meta tensors: shapes without memory, enough to decide what goes into which file.
    layout = {
        name: torch.empty(shape, dtype=model.dtype_of(name), device="meta")
        for name, shape in shapes.items()
    }
    plan = split_torch_state_dict_into_shards(layout, max_shard_size=max_shard_size)
    for file, names in plan.filename_to_tensors.items():
        inside = {name: shapes[name] for name in names}
        dtypes = {name: layout[name].dtype for name in names}
        write_file(folder / file, dtypes, inside, model.pieces, told)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True)
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def write_file(
    path: Path,
    dtype: torch.dtype | Mapping[str, torch.dtype],
    shapes: Mapping[str, tuple[int, ...]],
    pieces: Callable[[str], Iterable[torch.Tensor]],
    told: Told = lambda count: None,
) -> None:
    """Write one safetensors file, and see it on the disk.

    Args:
        dtype: of all tensors, or of each.
        shapes: of each tensor, in the order of the file.
        pieces: name → the flattened tensor in consecutive pieces of its dtype on the CPU.

    Raises:
        ValueError: pieces of another dtype, or more or fewer entries than the shape says.
    """
    dtypes = dict.fromkeys(shapes, dtype) if isinstance(dtype, torch.dtype) else dtype
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        stop = offset + math.prod(shape) * dtypes[name].itemsize
        header[name] = {
            "dtype": CODES[dtypes[name]],
            "shape": list(shape),
            "data_offsets": [offset, stop],
        }
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants its data to begin at a multiple of 8
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            left = math.prod(shape)
            for piece in pieces(name):
                left -= piece.numel()
                if piece.dtype != dtypes[name] or left < 0:
                    left = -1  # not written where the next tensor belongs
                    break
                file.write(piece.detach().contiguous().view(-1).view(torch.uint8).numpy())
                told(piece.nbytes)
                del piece  # before the next is made
            if left:
                raise ValueError(
                    f"the pieces of {name} are not the {shape} of {dtypes[name]} promised"
                )
        file.flush()
        os.fsync(file.fileno())
