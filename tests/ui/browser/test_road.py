"""The whole road: see the sample run, evolve, reload, look, talk, take home."""

import re

from studio.runs import Store
from tests.ui.browser.driving import number, state, tab, toast


def test_the_whole_road(visit, workspace):
    # First visit: a finished run is open, and nothing is empty.
    page = visit()
    state(page, "finished")
    sample = page.locator(".es-status").get_attribute("data-run")
    assert page.locator("#curve path.main").count() >= 1
    assert "bonsai-math" in page.locator("#curve").inner_text()
    assert "random search" in page.locator("#curve").inner_text()
    tab(page, "Front")
    page.wait_for_selector("#report tr.evolved")
    assert page.locator("#strip .cells").count() >= 5  # base, three sources, the merge
    assert page.locator("#strip .cells.best path.right").count() == 1
    page.wait_for_selector("#recipe td.heat")

    # Any question can be read: by clicking its column, or with the keyboard.
    page.locator('#strip rect[data-q="40"]').click(force=True)
    page.get_by_role("heading", name="Question 40 of 250").wait_for()
    page.locator("#strip .over").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="Question 41 of 250").wait_for()
    assert page.locator("#answers li").count() == page.locator("#strip .cells").count()

    # A small run of one's own.
    tab(page, "Evolve")
    page.locator("#field-name textarea, #field-name input").fill("Small one")
    number(page, "examples", 8)
    number(page, "budget", 2000)  # it cannot be finished before it is stopped
    number(page, "population", 4)
    page.locator("#field-baseline input").uncheck()
    page.locator("#start").click()
    page.locator(".es-status h3", has_text="Small one").wait_for()
    mine = page.locator(".es-status").get_attribute("data-run")
    assert mine != sample
    page.wait_for_function(
        "Number(document.querySelector('.es-status [role=progressbar]')?.ariaValueNow) >= 2"
    )
    page.wait_for_selector("#curve path.main", state="attached")

    # Reloading finds it again, by its address or as the newest run at work.
    assert f"run={mine}" in page.url
    page.reload()
    page.locator(f'.es-status[data-run="{mine}"]').wait_for()
    other = visit()
    other.locator(f'.es-status[data-run="{mine}"]').wait_for()

    # Pause, from the other page, which asks first; resume, from this one; the run outlives both.
    other.locator("#pause").click()
    other.locator("#confirm", has_text="Small one").wait_for()
    other.locator("#confirm-yes").click()
    state(page, "stopped")
    page.locator("#pause").wait_for(state="hidden")
    page.locator("#resume").click()
    state(page, "running")
    page.locator("#resume").wait_for(state="hidden")
    page.locator("#pause").click()
    state(page, "stopped")

    # The strip of an unfinished run shows the search's own questions.
    tab(page, "Front")
    page.wait_for_selector("#strip .cells.best")
    page.get_by_role("heading", name=re.compile("Question [1-8] of ")).wait_for()

    # Talk to a source and to a candidate.
    tab(page, "Chat")
    page.locator("#message textarea").fill("Tom has 3 apples and buys 4. How many does he have?")
    page.locator("#message textarea").press("Enter")
    answers = page.locator("#talk-now li")
    answers.nth(0).locator(".words", has_text=re.compile(r"\d")).wait_for()
    assert answers.count() == 2  # the merge beside a source
    page.locator("#chat-model input").click()
    page.get_by_role("option", name="bonsai-ja").click()
    page.locator("#examples button").first.click()
    page.locator("#talk-now li", has_text="bonsai-ja").locator(".words").wait_for()
    page.locator("#clear").click()
    page.locator("#talk .es-hint").wait_for()

    # Take it home: an ordinary checkpoint.
    tab(page, "Take home")
    page.locator("#card").get_by_role("button", name="Model card").click()
    page.locator("#card h1", has_text="Small one (candidate").wait_for()
    page.locator("#export-candidate input").fill("#0 ·")
    page.get_by_role("option", name="#0 ·").click()
    page.locator("#card h1", has_text="Small one (candidate 0 of").wait_for()
    page.locator("#folder textarea, #folder input").fill("mine")
    page.locator("#export").click()
    page.locator("#export-files", has_text="README.md").wait_for()
    assert "model.safetensors" in page.locator("#export-files").inner_text()
    folder = workspace / "exports" / "local" / "mine"
    assert page.locator("#export-path").locator("textarea, input").input_value() == str(folder)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size >= len(AutoTokenizer.from_pretrained(folder))
    page.locator("#export").click()  # twice into the same folder
    toast(page, "mine")

    # What was recorded is what the page showed.
    store = Store(workspace / "runs.sqlite")
    assert sum(c.score is not None for c in store.candidates(mine)) >= 2
    store.close()
