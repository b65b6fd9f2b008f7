"""Merging by hand: sliders move the model, its answers and its score."""

import time

import numpy as np
import pytest

from studio.errors import StudioError
from studio.evolve.evaluate import evaluate
from studio.evolve.spaces import first_space
from studio.recipe import Recipe
from studio.widgets import MergeByHand

PATIENCE = 60


@pytest.fixture
def recipe(tiny_recipe) -> Recipe:
    """One whose models babble long enough for no two of them to say the same."""
    (objective,) = tiny_recipe().model_dump()["objectives"]
    objective["options"] |= {"max_new_tokens": 12}
    space = {"method": "task_arithmetic", "layer_granularity": 1}
    return tiny_recipe(space=space, objectives=[objective])


@pytest.fixture
def hand(recipe) -> MergeByHand:
    made = MergeByHand(recipe, examples=6)
    made.wait(PATIENCE)
    return made


def test_there_is_a_slider_for_every_gene(hand):
    assert len(hand.sliders) == len(hand.space.genes) == 8
    assert np.array_equal(hand.genome, hand.space.initial)


def test_moving_a_slider_changes_answer_and_score_as_a_run_would_measure(hand, recipe):
    before = hand.answers.text
    slider = hand.sliders["head", hand.space.sources[0].name]
    slider.value = 2.0  # as a mouse does
    score = hand.wait(PATIENCE)
    assert hand.answers.text != before
    assert np.array_equal(hand.live.genome, hand.genome)

    live = first_space(recipe).live("fp32")
    live.apply(hand.genome)
    task = recipe.build_tasks()[0]
    expected = evaluate(
        live.model,
        live.tokenizer,
        task,
        task.examples("dev")[:6],
        subject="expected",
        split="dev",
        batch_size=32,
    )
    assert score == expected.score
    assert hand.tried[-1][1] == score
    assert f"{100 * score:.1f}" in hand._note.value


def test_only_the_last_of_many_moves_is_carried_out(hand):
    count = len(hand.tried)
    slider = hand.sliders["embedding", hand.space.sources[0].name]
    for step in range(100):
        slider.value = step / 50
    hand.wait(PATIENCE)
    assert len(hand.tried) < count + 50
    assert hand.live.genome[0] == pytest.approx(1.98)


def test_stop_leaves_the_questions_off(hand, monkeypatch):
    def endless(*_, on_token, **__):
        while True:
            on_token()
            time.sleep(0.01)

    monkeypatch.setattr("studio.evolve.evaluate.evaluate", endless)
    hand.move(1.0)
    time.sleep(0.1)
    hand.stop_button.click()
    assert hand.wait(PATIENCE) is None


def test_code_moves_sources_groups_and_whole_genomes(hand):
    name = hand.space.sources[1].name
    hand.move(0.0).move(1.25, source=name, group="layer 1").wait(PATIENCE)
    assert {key: s.value for key, s in hand.sliders.items() if s.value} == {("layer 1", name): 1.25}
    hand.take(np.full(8, 0.75)).wait(PATIENCE)
    assert {slider.value for slider in hand.sliders.values()} == {0.75}
    with pytest.raises(StudioError, match="layer 1"):
        hand.move(1.0, group="layer 7")


def test_methods_with_other_genes_have_other_sliders(tiny_recipe):
    dense = MergeByHand(tiny_recipe(space={"method": "dare_ties", "layer_granularity": "all"}))
    dense.density.value = 0.3
    dense.wait(PATIENCE)
    assert [g for g in dense.live.genome] == [0.5, 0.3, 0.5, 0.3]
    between = MergeByHand(
        tiny_recipe(base=None, space={"method": "slerp", "layer_granularity": "all"})
    )
    between.sliders["all", None].value = 1.0
    between.wait(PATIENCE)
    assert between.density is None and list(between.live.genome) == [1.0]


def test_a_path_cannot_be_moved_by_hand(tiny_recipe):
    with pytest.raises(StudioError, match="parameter space"):
        MergeByHand(tiny_recipe(space={"type": "data_flow"}, base=None))
