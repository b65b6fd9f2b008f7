"""Every tab at both widths, in every language and both themes: no serious fault of axe's, nothing
sideways, no word of another language, everything reached with the keyboard."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from studio.ui.strings import TABLE, say
from tests.ui.browser.driving import settled, tab

TABS = ("models_tab", "evolve", "front_tab", "chat", "take_home", "paper")
LOCALES = {"en": "en-US", "ja": "ja-JP", "zh": "zh-CN"}
#: Faults of Gradio's own markup that no stylesheet can mend: axe's rule, and where it is found.
GRADIOS = (
    # CodeMirror scrolls in an element of its own, beside the text area that has the focus
    ("scrollable-region-focusable", r"\.cm-scroller"),
)
#: Words that are the same in English: names, and what nobody translates.
LOANS = re.compile(r"^[\W\d]*$|CMA-ES|NSGA|GPU|Hub|ROUGE|CLIPScore|YAML|^[A-Z]{2,}$")
#: The text of every element that is shown and has some of its own.
SHOWN = """
() => [...document.querySelectorAll('body *')]
    .filter((e) => e.checkVisibility())
    .filter((e) => !e.closest('script, style, .cm-editor, [aria-hidden=true]'))
    .flatMap((e) => [...e.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE))
    .map((n) => n.data.trim()).filter(Boolean)
"""


def faults(page) -> list[str]:
    """What axe finds serious, but for Gradio's own."""
    found = []
    for fault in Axe().run(page).response["violations"]:
        if fault["impact"] not in ("serious", "critical"):
            continue
        for node in fault["nodes"]:
            where = " ".join(map(str, node["target"]))
            own = any(rule == fault["id"] and re.search(at, where) for rule, at in GRADIOS)
            if not own:
                found.append(f"{fault['id']}: {where}: {node['html'][:200]}")
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", LOCALES)
@pytest.mark.parametrize("width", [390, 1440])
def test_every_tab(visit, width, language, theme):
    page = visit(width=width, locale=LOCALES[language], theme=theme)
    page.locator(".es-status").wait_for()
    wrong = []
    for name in TABS:
        tab(page, say(language, name))
        settled(page)
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            wrong.append(f"{name}: {wide} px wide")
        wrong += [f"{name}: {fault}" for fault in faults(page)]
        if language != "en":
            wrong += [f"{name}: in English: {words}" for words in strangers(page, language)]
    assert not wrong, "\n".join(wrong)


def strangers(page, language: str) -> list[str]:
    """Words of the page's table that are shown in English although there are others."""
    column = {"ja": 1, "zh": 2}[language]
    english = {row[0] for row in TABLE.values() if row[0] != row[column]}
    same = {row[column] for row in TABLE.values()}
    shown = set(page.evaluate(SHOWN))
    return sorted(w for w in shown & english - same if not LOANS.search(w))


def test_the_language_is_chosen_in_the_header_and_kept(visit):
    page = visit()
    page.locator("#language input").click()
    with page.expect_navigation():
        page.get_by_role("option", name="日本語").click()
    page.locator("#start", has_text=say("ja", "start")).wait_for()
    assert page.evaluate("document.documentElement.lang") == "ja"
    page.locator(".es-status dt", has_text=say("ja", "candidates")).first.wait_for()
    # errors too
    tab(page, say("ja", "chat"))
    page.locator("#send").click()
    page.get_by_test_id("toast-body").filter(has_text=re.compile("[ぁ-ん]")).wait_for()
    # and another tab of the same browser
    other = visit(beside=page)
    other.locator("#start", has_text=say("ja", "start")).wait_for()


def test_the_theme_is_chosen_in_the_header_and_kept(visit):
    page = visit(theme="light")
    dark = "document.body.classList.contains('dark')"
    assert not page.evaluate(dark)
    page.locator("#theme").click()
    page.wait_for_function(dark)
    page.reload()
    page.wait_for_function(dark)
    page.locator("#theme").click()
    page.reload()
    page.locator(".es-status").wait_for()
    assert not page.evaluate(dark)


def test_tabs_and_controls_are_reached_with_the_keyboard(visit):
    page = visit()
    page.locator(".es-status").wait_for()
    page.evaluate("window.stayed = true")
    reached = set()
    for _ in range(140):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.closest('[id]:not([id^=component])')?.id"
                " || document.activeElement.id"
            )
        )
    wanted = {"run", "language", "theme", "preset", "start", "field-name", "field-sources"}
    assert wanted <= {re.sub(r"-?\d*$", "", name or "") for name in reached} | reached, reached
    assert page.evaluate("window.stayed"), "the page was loaded anew on the way"
    page.get_by_role("tab", name="Chat", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("#message textarea").wait_for()
