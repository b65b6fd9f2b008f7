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
    tab(page, "Front")
    page.locator("#front .es-scatter button.dot").nth(2).wait_for()
    page.locator("#front .area i.source").wait_for()
    assert page.locator("#front .area i.source").count() == 1
    page.locator("#recipe .es-path", has_text="Candidate 1: 7 layers").wait_for()  # the best mean
    page.locator('#front .es-scatter button[data-c="0"]').click()
    page.locator("#recipe .es-path", has_text="Candidate 0: 8 layers").wait_for()
    page.locator('#candidates-table button[data-c="2"]').focus()
    page.keyboard.press("Enter")
    page.locator("#recipe .es-path", has_text="Candidate 2: 6 layers").wait_for()
    assert page.locator('[data-best] button[aria-pressed="true"]').count() == 2
    assert page.locator("#which input").input_value().startswith("★ #2 · jmath 10.0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tab(page, "Chat")
    page.locator("#chat-model input").click()
    page.get_by_role("option", name="★ #1 · jmath 70.0 · emath 50.0 · 7 layers").click()


@pytest.fixture
def sample(visit):
    """The Front tab of the bundled sample run, on a wide page."""
    page = visit("?run=cc34e4e0")
    tab(page, "Front")
    page.wait_for_selector("#recipe td.heat")
    return page


def headed(page, number: int) -> None:
    page.locator("#picked h3", has_text=f"Candidate {number} ").wait_for()


def test_all_points_are_reached_with_the_arrow_keys(sample):
    sample.locator("#front .walk").focus()
    before = sample.locator("#front .walk").get_attribute("aria-valuenow")
    sample.keyboard.press("Home")
    walk = sample.locator("#front .walk")
    assert before != walk.get_attribute("aria-valuenow") == "1"
    sample.keyboard.press("ArrowRight")
    sample.keyboard.press("ArrowUp")
    said = walk.get_attribute("aria-valuetext")
    assert sample.locator("#front .said").inner_text() == said
    assert int(walk.get_attribute("aria-valuemax")) == 481
    sample.keyboard.press("Enter")
    headed(sample, int(said[1:].split(" ")[0]))
    assert sample.evaluate("document.activeElement.classList.contains('walk')")


def test_the_table_sorts_and_picks_with_the_keyboard(sample):
    table = sample.locator("#candidates-table")
    table.locator('[data-sort="id"]').focus()
    sample.keyboard.press("Enter")
    table.locator('th[aria-sort="ascending"] [data-sort="id"]').wait_for()
    assert table.locator("tbody tr").first.get_attribute("data-c") == "0"
    sample.keyboard.press("Enter")  # the heading is still where the focus is
    table.locator('th[aria-sort="descending"] [data-sort="id"]').wait_for()
    assert table.locator('tbody button[tabindex="0"]').count() == 1
    table.locator('tbody button[tabindex="0"]').focus()
    sample.keyboard.press("ArrowDown")
    sample.keyboard.press("Enter")
    headed(sample, 479)
    assert sample.locator("#front .ring").is_visible()


def test_two_beside_each_other_a_file_the_chat_and_home(sample):
    sample.locator('#front button[data-c="2"]').click()
    headed(sample, 2)
    sample.locator("#beside input").click()
    sample.get_by_role("option", name="#226 ·").click()
    sample.wait_for_selector("#recipe .es-versus td.change")
    button = sample.locator("#only button").first
    question = button.get_attribute("data-q")
    button.click()
    sample.get_by_role("heading", name=f"Question {question} of 100").wait_for()
    with sample.expect_download() as download:
        sample.locator("#candidates-csv").click()
    assert download.value.suggested_filename == "cc34e4e0-candidates.csv"
    sample.locator("#export-this").click()
    sample.locator('[role="tab"][aria-selected="true"]', has_text="Take home").wait_for()
    sample.wait_for_function(
        "document.querySelector('#export-candidate input').value.startsWith('#2 ')"
    )
    tab(sample, "Front")
    sample.locator("#chat-with").click()
    sample.locator('[role="tab"][aria-selected="true"]', has_text="Chat").wait_for()
    sample.wait_for_function("document.querySelector('#chat-model input').value.startsWith('#2 ')")
