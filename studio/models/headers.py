"""The table of contents of a folder of safetensors files.

It knows the file format (https://github.com/huggingface/safetensors#format) and the shard index,
and checks both against the real file sizes. It knows nothing about models: what the tensors mean,
which should be there, and how to read their values is for `studio.models.checkpoint`.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

#: Bytes per element of the dtypes whose headers can be checked; sub-byte ones are not among them.
ITEM_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip

#: The format's own limit; it keeps a forged length from asking for all memory.
MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it lies on disk.

    Attributes:
        file, name: where it is, and what it is called there.
        dtype: the format's code, such as "BF16".
        shape: as stored.
        offset: of its first byte from the beginning of the file.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def read_folder(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the folder's `model.safetensors` or, if there is none, of its shards.

    Only headers are read.

    Raises:
        StudioError: no weights, pickled weights only, an index that does not fit its shards, or a
            truncated or corrupt file.
    """
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    raise StudioError(_no_weights(folder))


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file.

    Raises:
        StudioError: the file cannot be read, is shorter than its header says, or is not a
            well-formed safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            if start == b"version ":
                raise StudioError(
                    f"{file} is a Git LFS pointer, not the weights; run `git lfs pull` in its "
                    "folder or download the model again."
                )
            if len(start) < 8:
                raise StudioError(
                    f"{file} is truncated: it holds {size:,} bytes, not even a header; download "
                    "or copy it again."
                )
            if length > MAX_HEADER:
                raise _corrupt(file, "its first bytes are no header length")
            text = stream.read(length)
    except OSError as error:
        raise StudioError(
            f"{file} cannot be read ({error.strerror}); check that it exists and that you may "
            "read it."
        ) from error
    if len(text) < length:
        raise StudioError(
            f"{file} is truncated: its header alone should take {length + 8:,} bytes and the file "
            f"holds {size:,}; download or copy it again."
        )
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _corrupt(file, "its header is not readable JSON") from error
    if not isinstance(entries, dict):
        raise _corrupt(file, "its header is not a table of tensors")
    entries.pop("__metadata__", None)

    spans = []
    tensors = {}
    for name, entry in entries.items():
        tensors[name], span = _entry(file, name, entry, 8 + length)
        spans.append(span)
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:  # the format allows neither holes nor overlaps
            raise _corrupt(file, "its tensors overlap or leave gaps")
        end = stop
    expected = 8 + length + end
    if size < expected:
        raise StudioError(
            f"{file} is truncated: it should hold {expected:,} bytes and holds {size:,}; download "
            "or copy it again."
        )
    if size > expected:
        raise _corrupt(file, f"{size - expected:,} bytes follow the last tensor")
    return tensors


def _entry(file: Path, name: str, entry: object, data: int) -> tuple[StoredTensor, tuple[int, int]]:
    """One entry of a header, and its span in the data, which begins at the byte ``data``."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = (*shape, begin, end)
        sound = isinstance(dtype, str) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise _corrupt(file, f"the entry of tensor {name[:120]!r} is malformed")
    if dtype not in ITEM_SIZES:
        raise StudioError(
            f"{file} stores {name[:120]!r} as {dtype[:40]!r}, which cannot be merged; use the "
            "model's bf16, fp16 or fp32 version."
        )
    if end - begin != math.prod(shape) * ITEM_SIZES[dtype]:
        raise _corrupt(file, f"the bytes of tensor {name[:120]!r} do not fit its shape")
    return StoredTensor(file, name, dtype, tuple(shape), data + begin), (begin, end)


def _read_shards(folder: Path) -> dict[str, StoredTensor]:
    index = folder / INDEX
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        sound = bool(where) and all(isinstance(file, str) for file in where.values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise StudioError(
            f"{index} is not a readable shard index (a JSON object with a weight_map); download "
            "or copy it again."
        )
    shards = {}
    for shard in sorted(set(where.values())):
        # The index comes from a stranger: only plain names of files in this very folder. (The file
        # itself may be a link: the hub's cache is made of them.)
        plain = shard.endswith(".safetensors") and not set(shard) & set("/\\:\0")
        if not plain:
            raise StudioError(
                f"{index} points to {shard[:120]!r}, which is not a safetensors file in the same "
                "folder; such an index is refused, use a checkpoint from a source you trust."
            )
        if not (folder / shard).is_file():
            raise StudioError(
                f"{folder} lacks the shard {shard} that its index names; download or copy the "
                "missing file."
            )
        shards[shard] = read_header(folder / shard)
    tensors = {}
    for name, shard in where.items():
        if name not in shards[shard]:
            raise StudioError(
                f"{index} says that {name[:120]!r} is in {shard}, and it is not; index and shards "
                "are from different downloads, download the model again."
            )
        tensors[name] = shards[shard][name]
    return tensors


def _no_weights(folder: Path) -> str:
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    safe = [file for file in files if file.endswith(".safetensors")]
    pickled = [
        file
        for file in files
        if file.endswith(PICKLED) and file not in ("training_args.bin", "optimizer.pt")
    ]
    if any("-of-" in file for file in safe):
        return (
            f"{folder} holds shards ({safe[0]}, …) but not their index, {INDEX}; download or copy "
            "the index too."
        )
    if safe:
        return (
            f"{folder} holds {safe[0]} but neither {SINGLE} nor {INDEX}; rename the file, or use "
            "the folder that transformers' save_pretrained wrote."
        )
    if gguf := [file for file in files if file.endswith(".gguf")]:
        return (
            f"{folder} has the config.json of a safetensors checkpoint, but holds GGUF weights; "
            f"name the file itself: {folder / gguf[0]}."
        )
    if pickled:
        return (
            f"{folder} holds only pickled weights ({pickled[0]}), which can run code when read and "
            "are refused; convert them to safetensors first (load the model in transformers where "
            "you trust it, then save_pretrained)."
        )
    return (
        f"{folder} holds no weights; a model folder needs config.json and {SINGLE} (or its shards "
        "and their index)."
    )


def _unique(pairs: list) -> dict:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("duplicate keys")
    return table


def _corrupt(file: Path, why: str) -> StudioError:
    return StudioError(
        f"{file} is corrupt or not a safetensors file ({why}); download or copy it again."
    )
