"""One tensor's merge: what is read and prepared once, and what a setting makes of it.

Knows the models' tensors of one name and the merge method; refuses to know about genomes, whole
models or files. What is merged may be held in memory, for a live model that merges again and again;
packed into 4 or 8 bits, for one with little memory; or left in its file and read as it is merged,
for export. Held or streamed, the same arithmetic is done on the same numbers, equal to the bit.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from studio.merge import masks
from studio.merge.methods import Method, cosine_of, divisor, slerp_weights
from studio.merge.parameter_space import ParameterSpace, Setting
from studio.models.model import Model, Reader
from studio.models.packed import SMALLEST_PACKED, Packed

#: Entries merged at a time on one CPU thread: the temporaries stay in its cache.
CPU_CHUNK = 1 << 15
#: Tensors from this size are worth waking the other CPU threads for.
LARGE = 1 << 22
#: Entries merged at a time on a GPU: enough to keep it busy, few enough to bound the temporaries.
GPU_CHUNK = 1 << 22
#: Entries that fill whole lines of the cache, 64 bytes, in any dtype.
ALIGNED = 32
#: Entries read from a file at a time.
STREAM_CHUNK = 1 << 20


class Vector(Protocol):
    """Numbers in some form, of which pieces can be had."""

    def read(self, start: int, stop: int) -> Tensor:
        """The numbers [start, stop) in float32, on the device where they are merged."""
        ...


class Held:
    """Numbers in memory, in a working dtype."""

    def __init__(self, numbers: Tensor):
        self.numbers = numbers

    def read(self, start: int, stop: int) -> Tensor:
        return self.numbers[start:stop].float()


class Streamed:
    """A tensor, or its difference from a base, read where it lies and rounded to a working dtype.

    The difference is taken in float32 *before* rounding: a fine-tune's delta is a few percent of
    the weights, and would drown in their rounding.
    """

    def __init__(
        self,
        reader: Reader,
        base: Reader | None,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ):
        self._reader, self._base, self._dtype, self._device = reader, base, dtype, device

    def read(self, start: int, stop: int) -> Tensor:
        numbers = self._reader(start, stop).float()
        if self._base is not None:
            numbers = numbers - self._base(start, stop).float()
        return numbers.to(self._device, self._dtype).float()

    def read_into(self, numbers: Tensor) -> Tensor:
        """Fill a flat tensor with the same numbers."""
        for start, stop in _spans(numbers.numel(), STREAM_CHUNK):
            numbers[start:stop] = self.read(start, stop)
        return numbers

    def packed(self, shape: Sequence[int], kind: str) -> Packed:
        """The same numbers, packed."""
        packed = Packed(kind, shape, self._device)
        for start, stop in _spans(packed.count, STREAM_CHUNK):
            packed.write(start, self.read(start, stop))
        return packed


class _Zero:
    """The task vector of the model that is the base."""

    def __init__(self, device: torch.device | str):
        self._device = device

    def read(self, start: int, stop: int) -> Tensor:
        return torch.zeros(stop - start, device=self._device)


@dataclass(frozen=True)
class Resident:
    """One tensor of a space's models, in memory.

    Attributes:
        base: what is merged is added to, ``[count]``; None where the method adds to none.
        vectors: task vectors, or the sources themselves, of the same dtype, ``[sources, count]``.
        keys: of the masks, one per source.
        cosine: between the two whole sources, for slerp.
    """

    method: Method
    base: Tensor | None
    vectors: Tensor
    keys: Sequence[tuple[int, int]]
    cosine: float | None

    @classmethod
    def all(
        cls,
        space: ParameterSpace,
        dtype: torch.dtype,
        device: torch.device | str,
        names: Iterable[str] | None = None,
    ) -> Iterator[tuple[str, "Resident"]]:
        """The tensors of the space's models, or those of these names, side by side.

        Memory for all is taken at once: taken one by one, between what is read in passing, they
        leave gaps of a tenth of it that nobody can use.

        Raises:
            MemoryError: there is not so much.
        """
        counts = {name: math.prod(space.tensors[name]) for name in names or space.tensors}
        rows = len(space.sources) + (1 if space.base else 0)
        try:
            room = torch.empty(
                sum(rows * _padded(count) for count in counts.values()), dtype=dtype, device=device
            )
        except RuntimeError as error:  # which is what torch says
            raise MemoryError(str(error)) from error
        for name, count in counts.items():
            yield name, cls._of(space, name, room[: rows * count].view(rows, count))
            room = room[rows * _padded(count) :]

    @classmethod
    def _of(cls, space: ParameterSpace, name: str, room: Tensor) -> "Resident":
        """A tensor of the space's models, read into ``room``, the base's behind the sources'."""
        below = space.base.reader(name) if space.base else None
        readers = [source.reader(name) for source in space.sources]
        vectors = room[: len(readers)]
        for vector, reader in zip(vectors, readers, strict=True):
            Streamed(reader, below, room.dtype, room.device).read_into(vector)
        base = Streamed(below, None, room.dtype, room.device).read_into(room[-1]) if below else None
        keys = [masks.key(space.seed, index, name) for index in range(len(readers))]
        cosine = _cosine(space.method, readers, vectors.shape[1])
        return cls(space.method, base, vectors, keys, cosine)

    def coefficients(
        self, setting: Setting, normalize: bool
    ) -> tuple[Sequence[float], Sequence[float], float]:
        """What entries are multiplied by, the weights of the sources, and what divides their sum.

        For kernels that merge by any method. Where signs are elected nothing divides the sum:
        there every entry has a divisor of its own.
        """
        if setting.t is not None:
            weights = slerp_weights(setting.t, self.cosine)
            return weights, weights, 1.0
        factors = weights = setting.weights
        if self.method.masks == "random":
            factors = [w / p for w, p in zip(weights, setting.densities, strict=True)]
        return factors, weights, divisor(weights) if normalize and not self.method.elects else 1.0


@dataclass(frozen=True)
class Ingredients:
    """The prepared inputs of one tensor.

    Attributes:
        count: entries of the tensor.
        base: what merged task vectors are added to. None where the method uses no base, and where
            packed vectors are merged, which nothing is added to here.
        vectors: task vectors, or the sources themselves.
        masks: per source, or None where nothing is masked.
        cosine: between the two whole sources, for slerp.
        chunk: entries to merge at a time.
    """

    method: Method
    count: int
    base: Vector | None
    vectors: Sequence[Vector]
    masks: Sequence[masks.Mask] | None
    cosine: float | None
    chunk: int

    @classmethod
    def held(cls, resident: "Resident") -> "Ingredients":
        """A tensor in memory, and the orders of its masks."""
        method, count = resident.method, resident.vectors.shape[1]
        vectors = [Held(vector) for vector in resident.vectors]
        device = resident.vectors.device
        orders: list[masks.Mask] | None = None
        if method.masks == "random":
            orders = [
                masks.Held(masks.random_order(key, count, device), masks.random_limit)
                for key in resident.keys
            ]
        elif method.masks == "magnitude":
            orders = [
                masks.Held(
                    masks.magnitude_order(vector.float(), key),
                    lambda density: masks.magnitude_limit(density, count),
                )
                for vector, key in zip(resident.vectors, resident.keys, strict=True)
            ]
        chunk = GPU_CHUNK
        if device.type == "cpu":
            chunk = CPU_CHUNK * (torch.get_num_threads() if count >= LARGE else 1)
        base = None if resident.base is None else Held(resident.base)
        return cls(method, count, base, vectors, orders, resident.cosine, chunk)

    @classmethod
    def packed(
        cls, space: ParameterSpace, name: str, kind: str, device: torch.device | str
    ) -> "Ingredients":
        """The tensor ``name`` of every source as a packed difference from the space's `anchor`.

        Masks cost no memory and are made again for each candidate.

        Args:
            kind: "int8" or "nf4".
        """
        method, shape = space.method, space.tensors[name]
        count = math.prod(shape)
        readers = [source.reader(name) for source in space.sources]
        below = anchor(space).reader(name)
        vectors: list[Vector] = []
        for source, reader in zip(space.sources, readers, strict=True):
            vector = Streamed(reader, below, torch.float32, device)
            if source is anchor(space):
                vectors.append(_Zero(device))
            elif count < SMALLEST_PACKED:
                vectors.append(Held(vector.read_into(torch.empty(count, device=device))))
            else:
                vectors.append(vector.packed(shape, kind))
        chunk = CPU_CHUNK * 8 if torch.device(device).type == "cpu" else GPU_CHUNK
        orders = _masks(method, space.seed, name, vectors, count, chunk)
        return cls(method, count, None, vectors, orders, _cosine(method, readers, count), chunk)

    @classmethod
    def streamed(
        cls,
        method: Method,
        seed: int,
        name: str,
        base: Reader | None,
        sources: Sequence[Reader],
        count: int,
        dtype: torch.dtype,
    ) -> "Ingredients":
        """A tensor of ``count`` entries, read from where it lies as it is merged.

        Args:
            seed, name: what the masks are drawn for.
            dtype: what `held` ingredients of the same models would be held in.
        """
        vectors = [Streamed(reader, base, dtype) for reader in sources]
        orders = _masks(method, seed, name, vectors, count, STREAM_CHUNK)
        onto = Streamed(base, None, dtype) if base else None
        cosine = _cosine(method, sources, count)
        return cls(method, count, onto, vectors, orders, cosine, STREAM_CHUNK)

    def merge(self, setting: Setting, normalize: bool) -> Iterator[tuple[int, Tensor]]:
        """The merged tensor in consecutive float32 pieces, and where each begins."""
        limits = None
        if self.masks:
            limits = [
                mask.limit(density)
                for mask, density in zip(self.masks, setting.densities, strict=True)
            ]
        for start, stop in _spans(self.count, self.chunk):
            vectors = [vector.read(start, stop) for vector in self.vectors]
            keep = None
            if self.masks:
                keep = [
                    mask.keep(limit, start, vector)
                    for mask, limit, vector in zip(self.masks, limits, vectors, strict=True)
                ]
            base = self.base.read(start, stop) if self.base else vectors[0].new_zeros(())
            yield start, self._combine(setting, normalize, vectors, keep, base)

    def merge_into(self, out: Tensor, setting: Setting, normalize: bool) -> None:
        """Write the merged tensor into ``out``, flat ``[count]``."""
        for start, piece in self.merge(setting, normalize):
            out[start : start + piece.numel()] = piece

    def share(self, setting: Setting, normalize: bool) -> float:
        """How often what packed vectors are differences from is contained in the merge.

        Once where task vectors are added to it. The other methods are linear in their sources, and
        contain it as often as they contain all sources together.
        """
        if self.method.needs_base:
            return 1.0
        ones = [torch.ones((), dtype=torch.float64) for _ in self.vectors]
        return float(self._combine(setting, normalize, ones, None, None))

    def _combine(self, setting: Setting, normalize: bool, vectors, keep, base) -> Tensor:
        return self.method(
            base=base,
            sources=vectors,
            deltas=vectors,
            keep=keep,
            weights=setting.weights,
            densities=setting.densities,
            t=setting.t,
            cosine=self.cosine,
            normalize=normalize,
        )


def anchor(space: ParameterSpace) -> Model:
    """What packed vectors are differences from: the base or, without one, the first source."""
    return space.base or space.sources[0]


def _padded(count: int) -> int:
    """So many entries that the next tensor begins with a line of the cache."""
    return -(-count // ALIGNED) * ALIGNED


def _spans(count: int, chunk: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, chunk):
        yield start, min(start + chunk, count)


def _cosine(method: Method, readers: Sequence[Reader], count: int) -> float | None:
    if "t" not in method.genes:
        return None
    spans = _spans(count, STREAM_CHUNK)
    return cosine_of([read(start, stop) for read in readers] for start, stop in spans)


def _masks(
    method: Method, seed: int, name: str, vectors: Sequence[Vector], count: int, chunk: int
) -> list[masks.Mask] | None:
    """Masks that take no memory."""
    keys = [masks.key(seed, index, name) for index in range(len(vectors))]
    if method.masks == "random":
        return [masks.Hashes(key) for key in keys]
    if method.masks == "magnitude":
        return [
            masks.Magnitudes(vector.read, count, chunk, key)
            for vector, key in zip(vectors, keys, strict=True)
        ]
    return None
