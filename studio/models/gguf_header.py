"""The header of a GGUF file, read strictly before any library sees the file.

Knows the format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) and checks every count,
length and offset against the file's real size: a forged header costs a sentence, never the memory
or the patience that it asks for. Refuses to know what the metadata mean, and reads no tensor.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import StudioError

#: No header comes near: a vocabulary of 260,000 tokens with its merges takes 10 MB.
MAX_HEADER = 100_000_000
#: Values in all arrays together; that vocabulary has 1.3 million.
MAX_VALUES = 4_000_000
MAX_DIMENSIONS = 4
#: In bytes; the format's own limit for keys, generous for tensors.
MAX_NAME = 65_535

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Array:
    """What is remembered of an array: how many values it has."""

    count: int


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as it lies in the file.

    Attributes:
        type: ggml's number of the quantization.
        shape: in torch's order.
        offset: of its first byte from the beginning of the file.
        bytes: how many it takes.
    """

    type: int
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What a header says.

    Attributes:
        metadata: numbers, truths and strings by key; of an array only its length.
        tensors: by GGUF name.
        documents: bytes from the beginning of the file that hold the metadata.
    """

    file: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    documents: int


def read_header(file: Path) -> GgufHeader:
    """The header of a GGUF file.

    Raises:
        StudioError: the file cannot be read, is truncated, or is no well-formed GGUF of version 2
            or 3 with tensors of known types.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(4)
            if start != b"GGUF":
                if start == b"vers":
                    raise StudioError(
                        f"{file} is a Git LFS pointer, not the model; run `git lfs pull` in its "
                        "folder or download the file again."
                    )
                raise _corrupt(file, "it does not begin with GGUF")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Parser(file, data).header()
    except OSError as error:
        raise StudioError(
            f"{file} cannot be read ({error.strerror}); check that it exists and that you may "
            "read it."
        ) from error


class _Parser:
    """Walks through the bytes of a header; every step is checked before it is taken."""

    def __init__(self, file: Path, data: mmap.mmap):
        self.file = file
        self.data = data
        self.at = 4
        self.end = min(len(data), MAX_HEADER)
        self.values = 0

    def header(self) -> GgufHeader:
        version = self.number("<I")
        if version & 0xFFFF == 0 and version:
            raise StudioError(
                f"{self.file} is a big-endian GGUF, which is not supported; use the usual "
                "little-endian file."
            )
        if version not in (2, 3):
            raise StudioError(
                f"{self.file} is a GGUF of version {version}; only 2 and 3 can be read, convert or "
                "download it again."
            )
        tensors, keys = self.number("<Q"), self.number("<Q")
        # Each takes some bytes, so that absurd counts are noticed before anything is counted.
        if 13 * keys + 32 * tensors > self.end - self.at:
            raise self.truncated(f"{tensors:,} tensors and {keys:,} keys")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self.text(MAX_NAME)
            if key in metadata:
                raise _corrupt(self.file, f"the key {key[:120]!r} appears twice")
            metadata[key] = self.value(self.number("<I"))
        documents = self.at
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment not in (1 << n for n in range(3, 17)):
            raise _corrupt(self.file, f"its alignment is {alignment!s:.40}")
        entries = {}
        for _ in range(tensors):
            name = self.text(MAX_NAME)
            if name in entries:
                raise _corrupt(self.file, f"the tensor {name[:120]!r} appears twice")
            entries[name] = self.entry(name, alignment)
        begin = -(-self.at // alignment) * alignment
        placed = {name: self.place(name, entry, begin) for name, entry in entries.items()}
        self.check_overlaps(placed)
        return GgufHeader(self.file, metadata, placed, documents)

    def take(self, count: int) -> int:
        """Step over ``count`` bytes; returns where they begin."""
        at = self.at
        if count > self.end - at:
            raise self.truncated(f"{count:,} bytes more")
        self.at = at + count
        return at

    def number(self, form: str) -> Any:
        return struct.unpack_from(form, self.data, self.take(struct.calcsize(form)))[0]

    def text(self, most: int) -> str:
        length = self.number("<Q")
        if length > most:
            raise _corrupt(self.file, f"a name of it would be {length:,} bytes long")
        return self.string(length)

    def string(self, length: int) -> str:
        at = self.take(length)
        try:
            return self.data[at : at + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _corrupt(self.file, "a text in it is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string(self.number("<Q"))
        if kind != _ARRAY:
            raise _corrupt(self.file, f"it holds a value of the unknown type {kind}")
        kind, count = self.number("<I"), self.number("<Q")
        self.values += count
        if self.values > MAX_VALUES:
            raise _corrupt(self.file, f"its metadata would hold {self.values:,} values")
        if kind in _SCALARS:
            self.take(count * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            unpack, data = struct.Struct("<Q").unpack_from, self.data
            for _ in range(count):  # walked, not kept: a vocabulary is the tokenizer's business
                self.take(unpack(data, self.take(8))[0])
        else:
            # No model needs arrays of arrays, and readers differ in what they make of them.
            raise _corrupt(self.file, f"it holds an array of the type {kind}")
        return Array(count)

    def entry(self, name: str, alignment: int) -> GgufTensor:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        dimensions = self.number("<I")
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise _corrupt(self.file, f"the tensor {name[:120]!r} has {dimensions} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dimensions))
        kind, offset = self.number("<I"), self.number("<Q")
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise StudioError(
                f"{self.file} stores {name[:120]!r} in the unknown quantization {kind}; use "
                "another file of the model, or a newer gguf package."
            ) from None
        count = math.prod(shape)
        if not count or shape[0] % block or count > len(self.data) * block:
            raise _corrupt(self.file, f"the shape of the tensor {name[:120]!r} is not possible")
        if offset % alignment:
            raise _corrupt(self.file, f"the tensor {name[:120]!r} is not aligned")
        # ggml counts the dimension that varies fastest first, torch last
        return GgufTensor(kind, shape[::-1], offset, count // block * size)

    def place(self, name: str, entry: GgufTensor, begin: int) -> GgufTensor:
        """The entry with its offset counted from the beginning of the file."""
        end = begin + entry.offset + entry.bytes
        if end > len(self.data):
            raise StudioError(
                f"{self.file} is truncated: the tensor {name[:120]!r} should end at byte {end:,} "
                f"and the file holds {len(self.data):,}; download or copy it again."
            )
        return GgufTensor(entry.type, entry.shape, begin + entry.offset, entry.bytes)

    def check_overlaps(self, tensors: dict[str, GgufTensor]) -> None:
        end = 0
        for tensor in sorted(tensors.values(), key=lambda t: t.offset):
            if tensor.offset < end:
                raise _corrupt(self.file, "its tensors overlap")
            end = tensor.offset + tensor.bytes

    def truncated(self, what: str) -> StudioError:
        if self.end < len(self.data):
            return _corrupt(self.file, f"its header does not end within {MAX_HEADER:,} bytes")
        return StudioError(
            f"{self.file} is truncated or corrupt: its header asks for {what} than the "
            f"{self.end:,} bytes of the file can hold; download or copy it again."
        )


def _corrupt(file: Path, why: str) -> StudioError:
    return StudioError(f"{file} is corrupt or not a GGUF file ({why}); download or copy it again.")
