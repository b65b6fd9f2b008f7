"""Paths that begin alike read their prompts from where they part, and say the same to the bit."""

import numpy as np
import pytest
import torch

from studio.evolve import flat, leading, unpadded
from studio.evolve.generate import stop_ids
from studio.evolve.leading import Leading, Shelf
from studio.evolve.whole import Whole
from studio.merge.data_flow import DataFlowSpace
from studio.models import Checkpoint

PROMPTS = [[5 + (7 * n + 3 * k) % 300 for k in range(12 + n % 5)] for n in range(22)]


@pytest.fixture(scope="module")
def space(family_factory):
    """Two models of three layers, laid out twice, without scales."""
    family = family_factory(scale=0.6)
    sources = [Checkpoint.open(family[name]) for name in ("ja", "math")]
    return DataFlowSpace(sources, repeats=2, scaling="off")


def genome(space, *slots) -> np.ndarray:
    found = np.full(len(space.initial), -0.5)
    found[list(slots)] = 0.5
    return found


def said(live, prompts=PROMPTS, **options):
    options = {"max_new_tokens": 6, "slots": 8, "on_token": lambda: None, "cut_loops": False}
    return unpadded.decode(live.model, prompts, stop_ids(live.model, live.tokenizer), **options)


@pytest.fixture
def shared(monkeypatch):
    """How many layers were not passed again, group by group."""
    found, begin = [], Leading.begin

    def noted(self, layers):
        begin(self, layers)
        found.append(self.shared)

    monkeypatch.setattr(Leading, "begin", noted)
    return found


def test_answers_are_to_the_bit_those_of_a_path_that_begins_anew(space, shared, monkeypatch):
    """One path after another in one live model, against each in a live model of its own."""
    logits = []
    for kind in (flat._Parts, Whole):

        def noted(self, *arguments, following=kind.next):
            chosen, best = following(self, *arguments)
            logits.append(best)
            return chosen, best

        monkeypatch.setattr(kind, "next", noted)
    # after the first layer of the main model: math 0, ja 1, math 1, …
    paths = [(3, 4, 7), (3, 5, 7), (3, 5, 7, 10), (3,), (1, 2), (1, 2), (3, 4, 7)]
    live = space.live("fp32", device="cpu")
    parts = []
    for slots in paths:
        live.apply(genome(space, *slots))
        shared.clear(), logits.clear()
        found, seen = said(live), list(logits)
        parts.append(shared[0])
        assert shared == [shared[0]] * 11  # groups of two
        alone = space.live("fp32", device="cpu")
        alone.apply(genome(space, *slots))
        logits.clear()
        assert said(alone) == found
        assert len(logits) == len(seen) and all(map(np.array_equal, logits, seen))
    # the first layer is everybody's; the last is passed again even where nothing differs
    assert parts == [0, 2, 4, 2, 1, 3, 1]


def test_a_scale_that_differs_is_another_layer(family_factory, shared):
    family = family_factory(scale=0.6)
    sources = [Checkpoint.open(family[name]) for name in ("ja", "math")]
    space = DataFlowSpace(sources, repeats=2, scaling="matrix")
    live = space.live("fp32", device="cpu")
    for scale in (0.0, 0.3, 0.3):
        changed = genome(space, 1, 2)
        changed[len(space.slots) :] = scale
        live.apply(changed)
        found = said(live)
        alone = space.live("fp32", device="cpu")
        alone.apply(changed)
        count = len(shared)
        assert said(alone) == found
        del shared[count:]
    assert shared == [0] * 11 + [1] * 11 + [3] * 11


def test_other_prompts_are_other_groups(space, shared):
    live = space.live("fp32", device="cpu")
    live.apply(genome(space, 1, 2))
    said(live)
    said(live, PROMPTS[1:])
    assert shared == [0] * 22
    said(live)
    assert shared[22:] == [3] * 11  # both are known


def test_no_more_is_kept_than_there_is_room_for(space, shared, monkeypatch):
    live = space.live("fp32", device="cpu")
    live.apply(genome(space, 1, 2, 3))
    tokens = sum(map(len, PROMPTS))
    width = 64 + 2 * 2 * 16  # hidden numbers, and two heads' keys and values
    monkeypatch.setattr(unpadded, "ROOM", 4 * tokens * width)  # of one layer
    said(live), said(live)
    assert shared == [0] * 11 + [1] * 11


def test_an_old_group_makes_room_for_a_new_one(monkeypatch):
    monkeypatch.setattr(leading, "ROOM", 3_000)
    shelf = Shelf()
    for key in "abca":
        shelf.group(key, 2).keep(0, torch.zeros(100, 2), np.zeros((100, 1), np.float32))
    kept = [key for key, group in shelf._groups.items() if group.size]
    assert kept == ["b", "c", "a"] or kept == ["c", "a"]
    assert sum(group.size for group in shelf._groups.values()) <= 3_000 + 1_200


def test_what_a_model_that_is_no_path_made_is_not_kept(family_factory, shared):
    checkpoint = Checkpoint.open(family_factory()["ja"])
    model = checkpoint.load(torch.float32)
    unpadded.decode(
        model, PROMPTS, [2], max_new_tokens=3, slots=8, on_token=lambda: None, cut_loops=False
    )
    assert shared == []
