"""Greedy decoding on a CPU without padding: tokens of many sequences in one flat row.

Knows prompts, slots of the key-value cache, and when an answer ends. A step takes the next token of
every sequence under way, or reads some prompts; whoever is done makes room for the next at once.
What all prompts begin with is read once. Refuses to know text and
layers (`studio.evolve.flat`), tasks and candidates: nothing of one call is left to the next but the
memory it was held in.

Cores share sequences, not matrices: each has slots and prompts of its own and waits for nobody.
Which prompts those are follows from the prompts, the batch size and the number of cores alone.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields
from os.path import commonprefix
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import torch

from studio.evolve.flat import Cache, FlatModel, Memory
from studio.evolve.generate import Answer
from studio.evolve.leading import ROOM, Leading, Shelf
from studio.evolve.loops import Loops

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Sequences that a core has, at least, before another is asked to help: for fewer, reading the
#: weights takes longer than computing with them. Sharing a product waits for both at every one.
SHARE = 8
#: Tokens of prompts that are read at a time, where there is more than one of them.
PREFILL = 2048
#: Prompts are read so much fewer at a time than are answered, where others wait for a place.
READ = 4
#: Where nobody waits, at least so many are read together.
TOGETHER = 8
#: A beginning of fewer tokens than this is read again with every prompt.
COMMON = 8
#: Prompts from which on weights are laid out anew before they are read.
MANY = 16


def decode(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    stops: Sequence[int],
    *,
    max_new_tokens: int,
    slots: int,
    on_token: Callable[[], None],
    cut_loops: bool,
) -> list[Answer]:
    """Greedy continuations, in the prompts' order.

    Args:
        prompts: token ids, at least one of each.
        stops: token ids that end an answer.
        slots: how many sequences are under way at a time, at most.
        max_new_tokens, on_token, cut_loops: as of `studio.evolve.generate.generate`.

    Raises:
        BrokenModel: a logit is NaN or infinite.
        MemoryError, RuntimeError: the cache does not fit the memory.
    """
    threads = torch.get_num_threads()
    lanes = max(1, min(threads, slots // SHARE, len(prompts)))
    each = -(-len(prompts) // lanes)
    rows = min(-(-slots // lanes), each)
    width = max(map(len, prompts)) + max_new_tokens
    stop, common = Event(), commonprefix(prompts)[: min(map(len, prompts)) - 1]
    common = common if len(common) >= COMMON and len(prompts) > 1 else []
    memory, flat = Memory.of(model), FlatModel(model, width, len(prompts) >= MANY)
    together = max(TOGETHER if rows == each else 1, -(-rows // READ))
    # those that were read wait for a place in slots of their own
    room = min(rows + together - 1, each)
    caches = [flat.cache(memory, lane, room) for lane in range(lanes)]
    begun = _begin(flat, common, caches[0])
    shares = [
        _Lane(flat, cache, begun, prompts[lane::lanes], stops, max_new_tokens, cut_loops)
        for lane, cache in enumerate(caches)
    ]

    def work(number: int, before: Callable[[], None]) -> None:
        torch.set_num_threads(max(1, threads // lanes))  # of this thread alone
        try:
            groups = _groups([len(ids) for ids in prompts[number::lanes]], together)
            with torch.inference_mode():
                shares[number].run(groups, rows, memory.shelf(number), before)
        except BaseException:
            stop.set()
            raise

    def go_on() -> None:
        if stop.is_set():
            raise _Stopped

    with ThreadPoolExecutor(lanes) as pool:
        others = [pool.submit(work, lane, go_on) for lane in range(1, lanes)]
        try:
            _first(lambda: work(0, on_token), others, on_token, stop)
        finally:
            torch.set_num_threads(threads)
    memory.leave(model)
    answers: list[Answer] = [([], False)] * len(prompts)
    for lane, share in enumerate(shares):
        answers[lane::lanes] = share.answers()
    return answers


class _Stopped(Exception):
    """Somebody else's work failed or was stopped."""


def _first(
    work: Callable[[], None], others: list[Future], on_token: Callable[[], None], stop: Event
) -> None:
    """Do one's own work, then wait for the others; what went wrong anywhere is raised."""
    try:
        work()
        while wait(others, timeout=0.1).not_done:
            on_token()
    except _Stopped:
        pass
    except BaseException:
        stop.set()
        wait(others)
        raise
    failed = [other.exception() for other in others]
    for error in sorted(filter(None, failed), key=lambda error: isinstance(error, _Stopped)):
        raise error


def _begin(flat: FlatModel, common: list[int], cache: Cache) -> Cache:
    """Keys and values of a common beginning, without slots."""
    count = len(common)
    if count:
        places = np.arange(count, dtype=np.int32)
        with torch.inference_mode():
            flat.next(np.array(common), np.zeros_like(places), places, np.array([count - 1]), cache)
    return cache[:, :, 0, :, :count].copy()


class _Lane:
    """The sequences of one core, from their prompts to their ends."""

    def __init__(
        self, flat: FlatModel, cache: Cache, begun: Cache, prompts, stops, most: int, cut: bool
    ):
        self._flat, self._cache, self._begun, self._prompts = flat, cache, begun, prompts
        self._stops, self._most = np.array(stops, dtype=np.int64), most
        self._free = list(range(cache.shape[2]))[::-1]
        self._said = np.empty((len(prompts), most), np.int64)
        self._counts = np.zeros(len(prompts), np.int64)
        self._loops = Loops(len(prompts)) if cut else None
        self._runaway = np.zeros(len(prompts), bool)

    def answers(self) -> list[Answer]:
        return [
            (said[:count].tolist(), bool(runaway))
            for said, count, runaway in zip(self._said, self._counts, self._runaway, strict=True)
        ]

    def run(self, groups: list[range], rows: int, shelf: Shelf, before) -> None:
        """Decode everything.

        Args:
            groups: of prompts, which are read together; that none is put together by how long the
                answers are makes a group the same for every candidate.
            rows: how many sequences are decoded at a time, at most.
            shelf: what is known of the groups.
            before: called before every step.
        """
        groups, going = groups[::-1], _Going.of([])
        while groups or len(going.who):
            before()
            if groups and len(going.who) < rows:
                going = going + self._read(groups.pop(), shelf)
                continue
            now, waiting = (going, None) if len(going.who) <= rows else (going[:rows], going[rows:])
            last = np.arange(len(now.who))
            said = self._flat.next(now.tokens, now.slots, now.places, last, self._cache)
            going = self._heard(_Going(now.who, said, now.slots, now.places + 1))
            going = going + waiting if waiting else going

    def _read(self, group: range, shelf: Shelf) -> "_Going":
        """Those of a group whose answers have begun."""
        begun = self._begun.shape[3]
        asked = [self._prompts[one][begun:] for one in group]
        each = [self._free.pop() for _ in group]
        self._cache[:, :, each, :, :begun] = self._begun[:, :, None]
        counts = [len(ids) for ids in asked]
        tokens, slots = np.concatenate(asked), np.repeat(np.array(each, np.int32), counts)
        places = np.concatenate([np.arange(begun, begun + count) for count in counts])
        places, last = places.astype(np.int32), np.cumsum(counts) - 1
        leading = self._leading(group, shelf)
        said = self._flat.next(tokens, slots, places, last, self._cache, leading)
        return self._heard(_Going(np.array(group), said, slots[last], places[last] + 1))

    def _leading(self, group: range, shelf: Shelf) -> Leading | None:
        """What the first layers of the path made of a group, if the model is a path."""
        if None in self._flat.does:
            return None
        tokens = sum(map(len, self._prompts))
        key = tuple(tuple(self._prompts[one]) for one in group), self._begun.shape[3]
        found = shelf.group(key, ROOM // (4 * tokens * self._flat.width))
        found.begin(self._flat.does)
        return found

    def _heard(self, going: "_Going") -> "_Going":
        """Note what was said; those whose answers go on."""
        who, tokens = going.who, going.tokens
        self._said[who, self._counts[who]] = tokens
        self._counts[who] += 1
        done = (tokens[:, None] == self._stops).any(axis=1)
        if self._loops is not None:
            closed = self._loops.closed(tokens, who) & ~done
            self._runaway[who] = closed
            done |= closed
        done |= self._counts[who] == self._most
        if not done.any():
            return going
        self._free += going.slots[done].tolist()
        return going[~done]


@dataclass(frozen=True)
class _Going:
    """Sequences under way: whose they are, their last tokens, slots, and those tokens' places."""

    who: np.ndarray
    tokens: np.ndarray
    slots: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, none: list) -> "_Going":
        whole, short = np.array(none, np.int64), np.array(none, np.int32)
        return cls(whole, whole, short, short)

    def __getitem__(self, which) -> "_Going":
        return _Going(*(getattr(self, f.name)[which] for f in fields(self)))

    def __add__(self, other: "_Going") -> "_Going":
        return _Going(
            *(np.append(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        )


def _groups(lengths: Sequence[int], most: int) -> list[range]:
    """Neighbours that are read together: at most so many, and `PREFILL` tokens."""
    groups: list[range] = []
    start = room = 0
    for number, length in enumerate(lengths):
        room -= length
        if number and (room < 0 or number - start == most):
            groups.append(range(start, number))
            start, room = number, PREFILL - length
        elif not number:
            room = PREFILL - length
    return [*groups, range(start, len(lengths))]
