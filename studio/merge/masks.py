"""Which entries of a task vector a sparse merge keeps: the same on every device, every day.

Knows flat indices, keys and magnitudes of one tensor; refuses to know about models, genomes or
merge methods, and draws from no random generator. Both kinds of mask compare one fixed integer per
entry, its *order*, with a limit that the density sets. So masks are nested (a smaller density keeps
a subset), a small change of density flips few entries, and a candidate costs one comparison:

- random masks (DARE): the order is a counter hash of (seed, source, tensor name, flat index);
- magnitude masks (TIES): the order is the entry's exact rank by |delta|, ties broken by that hash.

An order takes 4 bytes an entry. Where memory is short, `Hashes` and `Magnitudes` make the same
masks from the entries themselves, a piece at a time; `Held` keeps the orders.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from studio.merge.methods import truth

#: Entries hashed at a time: bounds the 64-bit temporaries to a few megabytes.
HASH_CHUNK = 1 << 20
#: Entries ranked at a time (about; a run of equal magnitude bits is never split).
RANK_CHUNK = 1 << 24

_LOW32 = 0xFFFFFFFF
_SIGN = 1 << 31


def key(seed: int, source: int, tensor: str) -> tuple[int, int]:
    """Two uint32 words that name one tensor of one source under one seed.

    ``source`` is the position in the recipe rather than a name or path, so that masks survive a
    folder being moved. BLAKE2 keeps different tensors' masks independent.

    >>> key(0, 1, "lm_head.weight")
    (694917696, 4152203005)
    """
    text = f"{seed}\0{source}\0{tensor}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _mix(x: torch.Tensor) -> torch.Tensor:
    """A bijection of uint32, held in int64 (torch has no uint32 arithmetic), in place.

    Xor-shifts and odd multipliers, each of which can be undone, so different inputs give different
    outputs. Both multipliers are below 2³¹: no product leaves 63 bits, and so no device's idea of
    overflow matters. (Constants from C. Wellons' hash-prospector, "low bias" list.)
    """
    x.bitwise_xor_(x >> 15)
    x.mul_(0x2C1B3C6D).bitwise_and_(_LOW32)
    x.bitwise_xor_(x >> 12)
    x.mul_(0x297A2D39).bitwise_and_(_LOW32)
    return x.bitwise_xor_(x >> 15)


def hashes(key: tuple[int, int], index: torch.Tensor) -> torch.Tensor:
    """uint32 hashes, as int64, of the flat indices ``index`` (int64, any shape, below 2³²).

    For one key they are all different, which makes them a total order to break ties with.
    """
    return _mix(_mix(index ^ key[0]).bitwise_xor_(key[1]))


def random_order(
    key: tuple[int, int], count: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """The hash of every entry of a tensor, shifted to fit int32 ``[count]``: half the memory."""
    order = torch.empty(count, dtype=torch.int32, device=device)
    for start in range(0, count, HASH_CHUNK):
        stop = min(start + HASH_CHUNK, count)
        index = torch.arange(start, stop, dtype=torch.int64, device=device)
        order[start:stop] = hashes(key, index) - _SIGN
    return order


def random_limit(density: float) -> int:
    """Keep where ``random_order ≤`` this, that is where the uint32 hash < ⌊density · 2³²⌋."""
    return int(density * 2**32) - 1 - _SIGN


def magnitude_order(delta: torch.Tensor, key: tuple[int, int]) -> torch.Tensor:
    """Rank by |delta|, largest first, of every entry of a float32 ``[count]``, as int32.

    Non-negative floats order as their bit patterns do. A histogram over the patterns' upper 16
    bits, summed from the top, says at which rank each bin begins; bins are then ordered inside, a
    slab of them at a time, by (remaining bits, hash). The hash decides among equals: deltas of bf16
    checkpoints are massively tied. Done once per tensor; slabs bound the memory of sorting.
    """
    bits = delta.abs().view(torch.int32)
    bins = bits >> 15
    order = torch.empty_like(bits)
    rank = 0
    for lowest, highest, size in _slabs(torch.bincount(bins).tolist()):
        index = ((bins >= lowest) & (bins <= highest)).nonzero().squeeze(1)
        sorter = torch.empty_like(index)
        for start in range(0, size, HASH_CHUNK):
            part = index[start : start + HASH_CHUNK]
            descending = _SIGN - 1 - bits[part].long()
            sorter[start : start + HASH_CHUNK] = (descending << 32) | hashes(key, part)
        order[index[sorter.argsort()]] = torch.arange(
            rank, rank + size, dtype=torch.int32, device=delta.device
        )
        rank += size
    return order


def _slabs(histogram: list[int]) -> Iterator[tuple[int, int, int]]:
    """Runs of bins (lowest, highest, entries), from the top, of about RANK_CHUNK entries each."""
    highest, size = len(histogram) - 1, 0
    for lowest in range(len(histogram) - 1, -1, -1):
        if size and size + histogram[lowest] > RANK_CHUNK:
            yield lowest + 1, highest, size
            highest, size = lowest, 0
        size += histogram[lowest]
    if size:
        yield 0, highest, size


def magnitude_limit(density: float, count: int) -> int:
    """Keep where ``magnitude_order ≤`` this: exactly max(1, ⌊density · count⌋) entries."""
    return max(1, int(density * count)) - 1


class Mask(Protocol):
    """Which entries of one task vector are kept, for any density."""

    def limit(self, density: float) -> Any:
        """What `keep` compares with."""
        ...

    def keep(self, limit: Any, start: int, values: torch.Tensor) -> torch.Tensor:
        """1 to keep and 0 to drop, for the float32 ``values`` ``[n]`` that begin at ``start``."""
        ...


class Held:
    """Orders in memory, made once: a candidate costs one comparison.

    Args:
        order: int32 ``[count]``, of `random_order` or `magnitude_order`.
        limit: `random_limit`, or `magnitude_limit` of that many entries.
    """

    def __init__(self, order: torch.Tensor, limit: Callable[[float], int]):
        self._order, self.limit = order, limit

    def keep(self, limit: int, start: int, values: torch.Tensor) -> torch.Tensor:
        return truth(torch.le, self._order[start : start + values.numel()], limit).float()


class Hashes:
    """Random masks without memory: entries are hashed again for each candidate."""

    def __init__(self, key: tuple[int, int]):
        self._key = key

    def limit(self, density: float) -> int:
        return random_limit(density)

    def keep(self, limit: int, start: int, values: torch.Tensor) -> torch.Tensor:
        kept = torch.empty_like(values)
        for first in range(0, values.numel(), HASH_CHUNK):
            part = kept[first : first + HASH_CHUNK]
            index = torch.arange(
                start + first, start + first + part.numel(), dtype=torch.int64, device=kept.device
            )
            part.copy_(hashes(self._key, index) <= limit + _SIGN)
        return kept


class Magnitudes:
    """Magnitude masks without memory: the limit is found by passes over the vector.

    An entry's order is (bits from the largest down, hash), 63 bits. A histogram over their upper
    16, made once, says where the last entry to keep lies; the entries there are looked at again,
    16 bits more at a time, until few enough are left to sort out.

    Args:
        read: the float32 entries [start, stop) of the vector.
        count: its length.
        chunk: entries to read at a time.
    """

    def __init__(
        self,
        read: Callable[[int, int], torch.Tensor],
        count: int,
        chunk: int,
        key: tuple[int, int],
    ):
        self._read, self._count, self._chunk, self._key = read, count, chunk, key
        bins = (self._bins(values) for _, values in self._pieces())
        self._histogram = sum(torch.bincount(b, minlength=1 << 16) for b in bins).cpu()

    def limit(self, density: float) -> int:
        """The order of the last entry kept."""
        rank = magnitude_limit(density, self._count)  # its place among the orders, from 0
        prefix, rank, size = place(self._histogram, rank)
        top, shift = prefix, 47
        while size > HASH_CHUNK and shift > 15:
            shift -= 16
            histogram = sum(
                torch.bincount((orders >> shift) & 0xFFFF, minlength=1 << 16)
                for orders in self._orders(top, prefix, shift + 16)
            ).cpu()
            digit, rank, size = place(histogram, rank)
            prefix = prefix << 16 | digit
        orders = torch.cat(list(self._orders(top, prefix, shift)))
        return int(orders.kthvalue(rank + 1).values)

    def keep(self, limit: int, start: int, values: torch.Tensor) -> torch.Tensor:
        bits = values.abs().view(torch.int32)
        edge = _SIGN - 1 - (limit >> 32)  # the bits of the last entry kept
        kept = truth(torch.gt, bits, edge).float()
        tied = (bits == edge).nonzero().squeeze(1)
        kept[tied] = (self._order(start + tied, values[tied]) <= limit).float()
        return kept

    def _orders(self, top: int, prefix: int, shift: int) -> Iterator[torch.Tensor]:
        """The orders that begin with ``prefix`` and so with ``top``, its first 16 bits."""
        for start, values in self._pieces():
            index = (self._bins(values) == top).nonzero().squeeze(1)
            orders = self._order(start + index, values[index])
            yield orders[orders >> shift == prefix]

    def _pieces(self) -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(0, self._count, self._chunk):
            yield start, self._read(start, min(start + self._chunk, self._count))

    @staticmethod
    def _bins(values: torch.Tensor) -> torch.Tensor:
        return (_SIGN - 1 - values.abs().view(torch.int32)) >> 15

    def _order(self, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        descending = _SIGN - 1 - values.abs().view(torch.int32).long()
        return (descending << 32) | hashes(self._key, index)


def place(histogram: torch.Tensor, rank: int) -> tuple[int, int, int]:
    """The bin in which the entry of a rank lies, its rank within, and the bin's size."""
    sums = histogram.cumsum(0)
    bin = int((sums <= rank).sum())
    size = int(histogram[bin])
    return bin, rank - int(sums[bin]) + size, size
