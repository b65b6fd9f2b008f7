"""The Models and Evolve tabs in a browser."""

from studio.recipe import Recipe
from tests.ui.browser.driving import number, tab, toast, upload


def code_with(page, words: str):
    """Wait until the recipe's YAML has these words."""
    found = page.locator("#recipe-yaml .cm-content", has_text=words)
    found.wait_for()
    return found


def write(page, text: str) -> None:
    """Replace the YAML as a user would."""
    page.locator("#recipe-yaml .cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)


def field(page, key: str, value: str) -> None:
    """Wait until a field of the form has a value."""
    page.wait_for_function(
        "([key, value]) => document.querySelector(`#field-${key} input`)?.value === value",
        arg=[key, value],
    )


RECIPE = (
    "name: Mine\nbase: bonsai-base\nsources: [bonsai-ja, bonsai-math]\n"
    "objectives: [{task: jmath, examples: 7}]\nbudget: {candidates: 44}\n"
)


def test_the_recipes_models_are_described_when_asked_for(visit):
    page = visit()
    page.locator("#field-base input").fill("smollm2-nothing")
    page.locator("#field-base input").press("Enter")
    code_with(page, "smollm2-nothing")
    page.locator("#models > button").click()
    cards = page.locator("#model-cards .es-model")
    cards.nth(3).wait_for()
    assert "smollm2-nothing" in cards.nth(0).inner_text()  # one that is not there hides no other
    assert "Mistral" in cards.nth(1).inner_text() and "1,536" in cards.nth(1).inner_text()


def test_form_and_yaml_are_in_step(visit):
    page = visit()
    number(page, "budget", 33)
    code_with(page, "candidates: 33")
    page.get_by_label("data-flow space").check()
    page.locator("#field-repeats").wait_for()
    page.locator("#field-method").wait_for(state="detached")
    code_with(page, "type: data_flow")
    write(page, RECIPE)
    field(page, "budget", "44")
    page.locator("#field-method").wait_for()
    write(page, RECIPE.replace("44", "many"))
    page.locator("#problem [role=alert]", has_text="candidates").wait_for()
    field(page, "budget", "44")
    write(page, RECIPE.replace("44", "45"))
    field(page, "budget", "45")
    page.locator("#problem [role=alert]").wait_for(state="detached")
    # a reload, and another language, find the draft again
    page.wait_for_function("localStorage.getItem('evollm-studio-draft')")
    page.locator("#language input").click()
    with page.expect_navigation():
        page.get_by_role("option", name="日本語").click()
    page.locator(".es-status dt", has_text="候補").first.wait_for()
    field(page, "budget", "45")


def test_recipes_go_out_and_come_in(visit, tmp_path):
    page = visit()
    page.locator("#preset input").click()
    page.get_by_role("option", name="The paper's scheme for two objectives").click()
    code_with(page, "scheme: paper")
    page.locator("#command", has_text="recipes/paper-scheme.yaml").wait_for()
    with page.expect_download() as saved:
        page.locator("#save-recipe").click()
    file = tmp_path / saved.value.suggested_filename
    saved.value.save_as(file)
    assert file.suffix == ".yaml" and Recipe.load(file).search.scheme == "paper"
    mine = tmp_path / "mine.yaml"
    mine.write_text(RECIPE)
    upload(page, "#load-recipe", mine)
    field(page, "budget", "44")
    page.locator("#command", has_text="cat > recipe.yaml").wait_for()
    questions = tmp_path / "questions.csv"
    questions.write_text("question,answer\n" + "".join(f"{n} + 1?,{n + 1}\n" for n in range(40)))
    upload(page, "#upload-questions", questions)
    toast(page, "questions.csv")
    code_with(page, "task: csv")
    assert "questions.csv" in page.locator("#field-options textarea").input_value()


def test_models_are_chosen_on_cards_with_the_keyboard(visit):
    page = visit()
    tab(page, "Models")
    page.locator("#shelf .es-card").nth(6).wait_for()
    page.locator("#search-models input, #search-models textarea").click()
    page.keyboard.type("culture")
    page.wait_for_function("document.querySelectorAll('#shelf .es-card').length === 1")
    source = page.locator('#shelf button[data-role="source"]')
    source.focus()
    page.keyboard.press("Enter")
    page.locator("#chosen li", has_text="bonsai-culture").wait_for()
    assert source.get_attribute("aria-pressed") == "true"
    page.locator("#fits .no").wait_for()  # it has another shape than the base
    page.locator('#chosen button[data-name="bonsai-culture"]').click()
    page.locator("#chosen li", has_text="bonsai-culture").wait_for(state="detached")
    page.locator('#chosen button[data-name="bonsai-abel"]').click()
    page.locator("#chosen li", has_text="bonsai-abel").wait_for(state="detached")
    page.locator("#use-models").click()
    page.locator("#start").wait_for()
    yaml = code_with(page, "bonsai-math").inner_text()
    assert "bonsai-abel" not in yaml


def test_a_run_is_used_again_and_shared(visit):
    page = visit()
    page.wait_for_selector(".es-status")
    page.locator("#duplicate").click()
    toast(page, "form")
    page.locator("#more-of-run > button").click()
    page.locator("#share").click()
    link = page.locator("#share-link").locator("input, textarea")
    link.wait_for()
    page.wait_for_function(
        "document.querySelector('#share-link input, #share-link textarea').value.includes('//')"
    )
    with page.expect_download() as kept:
        page.locator("#keep-run").click()
    assert kept.value.suggested_filename.endswith(".sqlite")
    guest = visit("?" + link.input_value().partition("?")[2])
    guest.locator("#run-note", has_text="only be looked at").wait_for()
    for button in ("pause", "finish", "resume", "delete", "share"):
        assert not guest.locator(f"#{button}").is_visible()
