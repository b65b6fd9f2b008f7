"""The Front tab in a browser."""

import pytest

from studio.evolve.spaces import first_space
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store
from tests.ui.browser.driving import tab

AIMS = """
name: Two aims
sources: [bonsai-math, bonsai-ja]
space: {type: data_flow, repeats: 1}
objectives: [{task: jmath}, {task: emath}, {property: length}]
"""


@pytest.fixture
def aims(visit, workspace):
    """A run with a front: the main model's own path, and two that leave layers out."""
    visit()  # the store is there once a page was
    space = first_space(Recipe.from_yaml(AIMS))
    store = Store(workspace / "runs.sqlite")
    run = store.create_run("Two aims", AIMS)
    genomes = [space.initial.copy() for _ in range(3)]
    genomes[1][2] = genomes[2][2] = genomes[2][3] = -1.0
    store.record_ask(run, "nsga2", 0, list(enumerate(genomes)))
    measured = {
        "candidate:0": (0.2, 0.9, 8.0),
        "candidate:1": (0.7, 0.5, 7.0),
        "candidate:2": (0.1, 0.3, 6.0),
        "model:bonsai-math": (0.1, 0.8),
    }
    said = (Outcome("dev-0000", 1.0, "42", {"right": True}, 3),)
    for subject, scores in measured.items():
        for name, score in zip(("jmath", "emath", "length"), scores, strict=False):
            store.record_evaluation(run, Evaluation(subject, name, "dev", score, 3, 1.0, "", said))
    store.set_status(run, "stopped")
    yield run
    store.delete_run(run)
    store.close()


@pytest.mark.parametrize("width", [390, 1440])
def test_a_front_is_read_and_picked_from(visit, aims, width):
    page = visit(f"?run={aims}", width=width)
    page.locator("#candidates", has_text="emath %").wait_for()
    tab(page, "Front")
    page.locator("#front .es-scatter button.dot").nth(2).wait_for()
    assert page.locator("#front i.source:not(.es-key *)").count() == 1
    page.locator("#recipe .es-path", has_text="Candidate 1: 7 layers").wait_for()  # the best mean
    page.locator('#front .es-scatter button[data-c="0"]').click()
    page.locator("#recipe .es-path", has_text="Candidate 0: 8 layers").wait_for()
    page.locator('#front table button[data-c="2"]').focus()
    page.keyboard.press("Enter")
    page.locator("#recipe .es-path", has_text="Candidate 2: 6 layers").wait_for()
    assert page.locator('#front button[aria-pressed="true"]').count() == 2
    assert page.locator("#which input").input_value().startswith("★ #2 · jmath 10.0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tab(page, "Chat")
    page.locator("#chat-model input").click()
    page.get_by_role("option", name="★ #1 · jmath 70.0 · emath 50.0 · 7 layers").click()
