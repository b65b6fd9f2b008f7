"""The values of tensors that lie in safetensors files, through memory maps.

Knows how to read what `studio.models.headers` found, and how to tell that a large file is another
than before. Refuses to know what the tensors mean.
"""

import hashlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.models.documents import reason
from studio.models.headers import ITEM_SIZES, StoredTensor

if TYPE_CHECKING:
    import torch

    from studio.models.model import Reader

#: Stored dtypes a merge can start from, as torch names; anything else is a quantized checkpoint.
FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}

#: What else of a model's folder decides how it answers.
_SETTINGS = (".json", ".jinja", ".model", ".txt", ".tiktoken")


class Values:
    """Reads stored tensors; a file is mapped when it is first needed, and stays so."""

    def __init__(self) -> None:
        self._files: dict[Path, object] = {}

    def get(self, tensor: StoredTensor) -> "torch.Tensor":
        """The tensor on the CPU, a view of the file: pages are read as they are touched.

        Raises:
            StudioError: the file is gone or another than when its header was read.
        """
        if tensor.file not in self._files:
            self._files[tensor.file] = _map(tensor.file)
        return self._files[tensor.file].get_tensor(tensor.name)


def reader(tensor: StoredTensor) -> "Reader":
    """Reads from the file, not through a memory map: what was read does not stay resident."""
    import torch

    kind = dtype(tensor)
    stream = tensor.file.open("rb")

    def read(start: int, stop: int) -> torch.Tensor:
        buffer = bytearray((stop - start) * kind.itemsize)
        stream.seek(tensor.offset + start * kind.itemsize)
        if stream.readinto(buffer) < len(buffer):
            raise _changed(tensor.file, "it became shorter")
        return torch.frombuffer(buffer, dtype=kind)

    return read


def dtype(tensor: StoredTensor) -> "torch.dtype":
    """The torch dtype of a stored tensor."""
    import torch

    return getattr(torch, FLOATS[tensor.dtype])


def whole(tensor: StoredTensor) -> "torch.Tensor":
    """All of a tensor, read from the file; raises as `Values.get`."""
    return reader(tensor)(0, math.prod(tensor.shape)).view(tensor.shape)


def equal(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two stored tensors hold the same bytes, reading up to the first difference.

    Piece by piece: of two embeddings of a large model, no more than a few MB are ever resident.
    """
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    left = math.prod(one.shape) * ITEM_SIZES[one.dtype]
    with one.file.open("rb") as a, other.file.open("rb") as b:
        a.seek(one.offset)
        b.seek(other.offset)
        while left > 0:
            piece = min(left, 1 << 22)
            if a.read(piece) != b.read(piece):
                return False
            left -= piece
    return True


def fingerprint(folder: Path, weights: Collection[Path]) -> str:
    """32 hex digits that change when a model's folder does: its weights, settings or tokenizer.

    Settings and tokenizer are read whole; of each weight file the size, the beginning and a few
    pages spread over the rest, so that 14 GB take no longer than 14 MB. Weights trained further
    differ nearly everywhere, and are noticed; one tensor edited by hand may not be.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(folder.iterdir()):
        if file in weights:
            digest.update(f"{file.name} {file.stat().st_size}".encode())
            for page in sample(file):
                digest.update(page)
        elif file.suffix in _SETTINGS and file.is_file():
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def sample(file: Path) -> Iterator[bytes]:
    """The first 64 KiB of a file, then up to 256 pages of 4 KiB at even distances."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        yield stream.read(1 << 16)
        for offset in range(1 << 16, size, max(1 << 12, size // 256)):
            stream.seek(offset)
            yield stream.read(1 << 12)


def _map(file: Path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise _changed(file, reason(error)) from error


def _changed(file: Path, why: str) -> StudioError:
    return StudioError(
        f"{file} cannot be read any more ({why}); it was moved or changed while in use, open the "
        "model again."
    )
