"""The Models and Evolve tabs in a browser."""


def test_the_recipes_models_are_described_when_asked_for(visit):
    page = visit()
    page.locator("#field-base input").fill("smollm2-nothing")
    page.locator("#field-base input").press("Enter")
    page.locator("#models > button").click()
    cards = page.locator(".es-model")
    cards.nth(3).wait_for()
    assert "smollm2-nothing" in cards.nth(0).inner_text()  # one that is not there hides no other
    assert "Mistral" in cards.nth(1).inner_text() and "1,536" in cards.nth(1).inner_text()


def test_the_form_follows_space_and_objectives(visit):
    page = visit()
    page.get_by_label("data-flow space").check()
    page.locator("#field-repeats").wait_for()
    page.locator("#field-method").wait_for(state="detached")
    page.locator("#preset input").click()
    page.get_by_role("option", name="The paper's scheme for two objectives").click()
    page.locator("#field-scheme").wait_for()
    page.locator("#field-method").wait_for()
    page.locator("#field-seed input").fill("7")
    page.locator("#field-seed input").press("Tab")
    page.get_by_role("tab", name="Recipe (YAML)").click()
    code = page.locator("#recipe-yaml .cm-content", has_text="seed: 7")
    code.wait_for()
    assert "type: both" in code.inner_text() and "scheme: paper" in code.inner_text()
