"""Greedy decoding on a CPU without padding: tokens of many sequences in one flat row.

Knows prompts, slots of the key-value cache, and when an answer ends. A step takes the next token of
every sequence under way and all tokens of those that begin, so that whoever is done leaves its slot
to the next prompt at once. What all prompts begin with is read once. Refuses to know text and
layers (`studio.evolve.flat`), tasks and candidates: nothing of one call is left to the next but the
memory it was held in.

Cores share sequences, not matrices: each has slots and prompts of its own and waits for nobody.
Which prompts those are follows from the prompts, the batch size and the number of cores alone.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from os.path import commonprefix
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import torch

from studio.evolve.flat import Cache, FlatModel, Memory
from studio.evolve.generate import Answer
from studio.evolve.loops import Loops

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Sequences that a core has, at least, before another is asked to help: for fewer, reading the
#: weights takes longer than computing with them.
SHARE = 16
#: Tokens of prompts that a step takes, but for the first prompt's.
PREFILL = 2048
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
    rows = min(-(-slots // lanes), -(-len(prompts) // lanes))
    width = max(map(len, prompts)) + max_new_tokens
    stop, common = Event(), commonprefix(prompts)[: min(map(len, prompts)) - 1]
    common = common if len(common) >= COMMON and len(prompts) > 1 else []
    memory, flat = Memory.of(model), FlatModel(model, width, len(prompts) >= MANY)
    caches = [flat.cache(memory, lane, rows) for lane in range(lanes)]
    begun = _begin(flat, common, caches[0])
    shares = [
        _Lane(flat, cache, begun, prompts[lane::lanes], stops, max_new_tokens, cut_loops)
        for lane, cache in enumerate(caches)
    ]

    def work(lane: _Lane, before: Callable[[], None]) -> None:
        torch.set_num_threads(max(1, threads // lanes))  # of this thread alone
        try:
            with torch.inference_mode():
                lane.run(before)
        except BaseException:
            stop.set()
            raise

    def go_on() -> None:
        if stop.is_set():
            raise _Stopped

    with ThreadPoolExecutor(lanes) as pool:
        others = [pool.submit(work, lane, go_on) for lane in shares[1:]]
        try:
            _first(lambda: work(shares[0], on_token), others, on_token, stop)
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
    return [(keys[0, :, :count].copy(), values[0, :, :count].copy()) for keys, values in cache]


class _Lane:
    """The sequences of one core, from their prompts to their ends."""

    def __init__(
        self, flat: FlatModel, cache: Cache, begun: Cache, prompts, stops, most: int, cut: bool
    ):
        self._flat, self._cache, self._begun, self._prompts = flat, cache, begun, prompts
        self._stops, self._most = np.array(stops, dtype=np.int64), most
        self._free = list(range(len(cache[0][0])))[::-1]
        self._said = np.empty((len(prompts), most), np.int64)
        self._counts = np.zeros(len(prompts), np.int64)
        self._loops = Loops(len(prompts)) if cut else None
        self._runaway = np.zeros(len(prompts), bool)

    def answers(self) -> list[Answer]:
        return [
            (said[:count].tolist(), bool(runaway))
            for said, count, runaway in zip(self._said, self._counts, self._runaway, strict=True)
        ]

    def run(self, before: Callable[[], None]) -> None:
        """Decode everything; ``before`` is called before every step."""
        waiting = list(range(len(self._prompts)))[::-1]
        none = np.empty(0, np.int32)
        who, tokens, slots, places = none.astype(np.int64), none.astype(np.int64), none, none
        while len(who) or waiting:
            before()
            new = self._admitted(waiting)
            begins = [self._prompts[one][self._skipped :] for one, _ in new]
            tokens = np.concatenate([tokens, *begins]).astype(np.int64)
            last = np.cumsum([1] * len(who) + [len(ids) for ids in begins]) - 1
            who = np.append(who, [one for one, _ in new]).astype(np.int64)
            spread = [np.full(len(ids), slot) for ids, (_, slot) in zip(begins, new, strict=True)]
            slots = np.concatenate([slots, *spread]).astype(np.int32)
            reached = [np.arange(len(ids)) + self._skipped for ids in begins]
            places = np.concatenate([places, *reached]).astype(np.int32)
            tokens = self._flat.next(tokens, slots, places, last, self._cache)
            going = ~self._heard(who, tokens)
            slots, places = slots[last], places[last] + np.int32(1)
            self._free += slots[~going].tolist()
            who, tokens, slots, places = who[going], tokens[going], slots[going], places[going]

    @property
    def _skipped(self) -> int:
        """Tokens of the common beginning."""
        return self._begun[0][1].shape[1]

    def _admitted(self, waiting: list[int]) -> list[tuple[int, int]]:
        """Prompts that begin now, and their slots, which hold the common beginning."""
        new: list[tuple[int, int]] = []
        room = PREFILL
        while waiting and self._free:
            room -= len(self._prompts[waiting[-1]])
            if new and room < 0:
                break
            new.append((waiting.pop(), self._free.pop()))
        if new and self._skipped:
            slots = [slot for _, slot in new]
            for (keys, values), (key, value) in zip(self._cache, self._begun, strict=True):
                keys[slots, :, : self._skipped] = key
                values[slots, :, : self._skipped] = value
        return new

    def _heard(self, who: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Note what was said; bool ``[sequences]``, who is done."""
        self._said[who, self._counts[who]] = tokens
        self._counts[who] += 1
        done = (tokens[:, None] == self._stops).any(axis=1)
        if self._loops is not None:
            closed = self._loops.closed(tokens, who) & ~done
            self._runaway[who] = closed
            done |= closed
        return done | (self._counts[who] == self._most)
