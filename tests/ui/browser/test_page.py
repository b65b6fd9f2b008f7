"""The page as a whole: bad input, languages, widths, what is said never becomes markup."""

import pytest

from studio.evolve.spaces import first_space
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store
from studio.runs.lock import hold
from studio.ui.words import phase as phase_words
from tests.ui.browser.driving import HACK, tab, toast


def test_bad_input_is_a_toast(visit):
    page = visit()
    page.locator("#field-base input").fill("no-such-model")
    page.locator("#field-base input").press("Enter")
    page.locator("#start").click()
    toast(page, "no-such-model")
    editor = page.locator("#recipe-yaml .cm-content")
    page.locator("#recipe-yaml .cm-content", has_text="no-such-model").wait_for()
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("sources: [bonsai-ja]\nobjektives: []\n")
    page.locator("#recipe-yaml .cm-content", has_text="objektives").wait_for()
    page.locator("#start").click()
    toast(page, "objecti?ves")
    tab(page, "Chat")
    page.locator("#send").click()
    toast(page, "no question")
    tab(page, "Take home")
    page.locator("#folder textarea, #folder input").fill("../../etc")
    page.locator("#export").click()
    toast(page, "folder name")


def test_an_unknown_run_in_the_address(visit):
    page = visit("?run=ffffffff")
    toast(page, "no run")
    page.wait_for_selector(".es-status")  # the newest one is shown instead


def test_nothing_that_was_said_becomes_markup(visit, workspace):
    store = Store(workspace / "runs.sqlite")
    recipe = (
        f"name: '{HACK}'\nbase: bonsai-base\nsources: [bonsai-ja, bonsai-math]\n"
        "objectives: [{task: jmath}]\n".replace("'hacked'", "''hacked''")
    )
    run = store.create_run(HACK, recipe)
    outcome = Outcome("dev-0000", 0.0, HACK, {"right": False, "language": HACK}, 3)
    store.record_ask(run, "cma", 0, [(0, first_space(Recipe.from_yaml(recipe)).initial)])
    for subject in ("model:bonsai-ja", f"model:{HACK}", "candidate:0"):
        store.record_evaluation(
            run, Evaluation(subject, "jmath", "dev", 0.0, 3, 1.0, HACK, (outcome,))
        )
    store.set_status(run, "failed", HACK)
    store.close()
    page = visit(f"?run={run}")
    page.locator(".es-status .message", has_text="<img").wait_for()
    tab(page, "Front")
    page.locator("#answers li p", has_text="<img").first.wait_for()
    tab(page, "Chat")
    page.locator("#chat-model input").fill(f"{HACK}!")  # not a candidate of the run of that name
    page.locator("#chat-model input").press("Enter")
    page.locator("#message textarea").fill(HACK)
    page.locator("#send").click()
    page.locator("#talk-now li", has_text="<img").first.wait_for()
    page.wait_for_timeout(500)
    assert page.title() == "EvoLLM Studio"
    store = Store(workspace / "runs.sqlite")
    store.delete_run(run)
    store.close()


@pytest.mark.parametrize(("locale", "words"), [("ja-JP", "開始"), ("zh-CN", "开始")])
def test_it_speaks_the_browsers_language(visit, locale, words):
    page = visit(locale=locale)
    assert page.locator("#start").inner_text() == words
    shown = page.locator(".es-status dt").first.inner_text()
    assert shown in ("候補", "候选")


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_overflows_sideways(visit, width):
    page = visit(width=width)
    for name in ("Evolve", "Front", "Chat", "Take home"):
        tab(page, name)
        if name == "Take home":
            page.locator("#card").get_by_role("button", name="Model card").click()
            page.locator("#card table").first.wait_for()
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_every_phase_is_shown(visit, workspace):
    """A run in each phase that the sample run went through, one after the other."""
    visit()  # the sample run is there once a page was
    store = Store(workspace / "runs.sqlite")
    sample = next(run for run in store.runs() if run.status == "finished")
    phases = [e.payload["name"] for e in store.events(sample.id) if e.kind == "phase"]
    assert "selection" in phases
    run = store.create_run("Every phase", sample.recipe)
    store.set_status(run, "running")
    lock = hold(store, run)
    try:
        page = visit(f"?run={run}")
        for phase in dict.fromkeys(phases):
            store.append(run, "phase", {"name": phase})
            words = f"running · {phase_words('en', phase)}"
            page.locator(".es-status .state").get_by_text(words, exact=True).wait_for()
    finally:
        lock.release()
        store.delete_run(run)
        store.close()
