"""The merge of tensors in one pass over memory, on all cores of a CPU.

Knows numbers held in memory, the keys of their masks and what a setting asks for. Refuses to know
models, genomes and files, and leaves the loops themselves to :mod:`studio.merge.kernels`. The
arithmetic is that of :mod:`studio.merge.methods`, step by step and in its order, which is the
reference that this is tested against: the same masks, the same values.

Masks are not held but made on the way, a hash or a comparison per entry, which is no slower than
reading 4 bytes for each and takes no memory. Cores share what there is to merge, a tensor or a part
of one at a time.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache, partial
from threading import Condition

import numpy as np
import torch

from studio.merge import kernels, masks
from studio.merge.ingredients import Resident
from studio.merge.parameter_space import Setting

#: Entries that a core merges before it looks for more to do; whole blocks of the kernels.
PART = 1 << 20
#: How far from where it should be a hash is looked for; beyond six it is once in 10⁹ times.
DEVIATIONS = 6

_MASKS = {None: kernels.NONE, "random": kernels.RANDOM, "magnitude": kernels.MAGNITUDE}


def fuses(device: torch.device | str, dtype: torch.dtype) -> bool:
    """Whether numbers of a dtype on a device can be merged here."""
    return torch.device(device).type == "cpu" and dtype in (torch.float32, torch.bfloat16)


class Fused:
    """One tensor's base and sources in memory, of which `merge_into` makes candidates."""

    def __init__(self, resident: Resident):
        self._resident, self._method = resident, resident.method
        self._vectors = _numbers(resident.vectors)
        base = resident.base
        self._base = self._vectors[0, :0] if base is None else _numbers(base)
        self._keys = np.array(resident.keys, np.uint32)
        self._places = None
        if self._method.masks == "magnitude":
            self._places = [Place(*pair) for pair in zip(self._vectors, self._keys, strict=True)]

    def merge_into(self, out: torch.Tensor, setting: Setting, normalize: bool) -> None:
        """Write the merged tensor into ``out``, of the vectors' dtype, flat ``[count]``."""
        share_out([self.merging(out, setting, normalize)])

    def merging(self, out: torch.Tensor, setting: Setting, normalize: bool) -> "Work":
        """What `merge_into` does, for whoever shares it out with that of other tensors."""
        return partial(self._begin, out, setting, normalize)

    def _begin(self, out: torch.Tensor, setting: Setting, normalize: bool) -> "list[Work]":
        factors, weights, divided = self._resident.coefficients(setting, normalize)
        method, numbers, count = self._method, _numbers(out), out.numel()
        merge = kernels.merger(
            len(self._vectors),
            _MASKS[method.masks],
            method.elects,
            normalize if method.elects else divided != 1.0,
            method.needs_base,
        )
        given = (
            numbers, self._base, self._vectors, np.array(factors, np.float32),
            np.array(weights, np.float32), self._keys, self._limits(setting), np.float32(divided),
        )  # fmt: skip
        starts = range(0, count, PART)
        return [partial(merge, *given, start, min(start + PART, count)) for start in starts]

    def _limits(self, setting: Setting) -> np.ndarray:
        """What the masks compare with, uint32 ``[sources, 2]``: bits of magnitude, and hash."""
        limits = np.zeros((len(self._vectors), 2), np.uint32)
        if self._method.masks == "random":
            limits[:, 1] = [int(density * 2**32) - 1 for density in setting.densities]
        elif self._places:
            for row, place, density in zip(limits, self._places, setting.densities, strict=True):
                row[:] = place.limit(density)
        return limits


class Place:
    """Where in a task vector, by magnitude, the last entry lies that TIES keeps.

    As `masks.Magnitudes`, without sorting: a histogram over the upper 16 of 31 bits, made once,
    says in which bin. Of float32 a second one, over the other bits of the entries there, says at
    which magnitude; a bin of bfloat16 has one. Of those that are as large the hash decides: its
    limit lies about where that of evenly spread hashes would, and those nearby are sorted out.
    """

    def __init__(self, vector: np.ndarray, key: np.ndarray):
        self._vector, self._key = vector, key
        counts = np.zeros(1 << 16, np.int64)
        kernels.count_upper(vector, counts)
        # A fine-tune's differences are in a few thousand of the bins.
        self._bins = counts.nonzero()[0].astype(np.uint16)
        self._sums = counts[self._bins].cumsum().astype(np.uint32)  # below 2³², as every place is

    def limit(self, density: float) -> tuple[int, int]:
        """Magnitude bits and hash of the last entry kept."""
        rank = masks.magnitude_limit(density, self._vector.size)  # from the largest, from 0
        bin = int(self._sums.searchsorted(rank, side="right"))
        before = int(self._sums[bin - 1]) if bin else 0
        rank, size, upper = rank - before, int(self._sums[bin]) - before, int(self._bins[bin])
        lower = 0x7FFF
        if self._vector.itemsize == 4:
            lower, rank, size = kernels.find_lower(self._vector, upper, rank)
        edge = 0x7FFFFFFF - (upper << 15 | lower)
        return edge, 0xFFFFFFFF if rank == size - 1 else self._hash(edge, rank, size)

    def _hash(self, edge: int, rank: int, size: int) -> int:
        """The ``rank``-th smallest hash of the ``size`` entries of this magnitude."""
        middle, wide = (rank + 0.5) / size, (DEVIATIONS * math.sqrt(rank + 1) + 2) / size
        low, high = (int((middle + side * wide) * 2**32) for side in (-1, 1))
        low, high = max(0, low), min(0xFFFFFFFF, high)
        while True:
            room = min(size, int((high - low) / 2**32 * size * 2) + 64)
            near = np.empty(room, np.uint32)
            below, found = kernels.hashes_between(
                self._vector, self._key, *map(np.uint32, (edge, low, high)), near
            )
            if below <= rank < below + found <= below + room:
                return int(np.partition(near[:found], rank - below)[rank - below])
            low, high = 0, 0xFFFFFFFF  # uneven after all: look at every one


#: Something to be done on any core; it may leave more to do.
Work = Callable[[], "list[Work] | None"]


def share_out(work: Iterable[Work]) -> None:
    """Do everything, and what it leaves to do, on as many cores as torch computes on."""
    threads, queue = torch.get_num_threads(), _Queue(work)
    others = [_pool(threads).submit(queue.work_off) for _ in range(threads - 1)]
    try:
        queue.work_off()
    finally:  # what fails leaves nobody at work on the tensors
        wait([other for other in others if not other.cancel()])
    for other in others:
        if not other.cancelled():
            other.result()


class _Queue:
    """What is left to do, for any number of threads."""

    def __init__(self, work: Iterable[Work]):
        self._left, self._busy, self._failed = deque(work), 0, False
        self._turn = Condition()

    def work_off(self) -> None:
        """Work until nothing is left and nobody can leave more. After a failure nothing is left."""
        while (one := self._next()) is not None:
            more: list[Work] | None = None
            try:
                more = one()
            except BaseException:
                self._failed = True
                raise
            finally:
                with self._turn:
                    self._busy -= 1
                    self._left.extend(more or ())
                    if self._failed:
                        self._left.clear()
                    self._turn.notify_all()

    def _next(self) -> Work | None:
        with self._turn:
            self._turn.wait_for(lambda: self._left or not self._busy)
            if not self._left:
                return None
            self._busy += 1
            return self._left.popleft()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="merge")


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's memory, bfloat16 as its bits."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()
