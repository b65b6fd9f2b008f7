"""Talking in a browser: side by side, kept over a reload, stopped, taken along."""

import json
import time

import pytest

from tests.ui.browser.driving import tab

QUESTION = "リサさんは9人の友達にシールを14枚ずつ配ります。全部で何枚配りますか。"


def choose(page, place: str, model: str) -> None:
    page.locator(f"{place} input").fill(model)
    page.locator(f"{place} input").press("Enter")


def ask(page, words: str) -> None:
    page.locator("#message textarea").fill(words)
    page.locator("#message textarea").press("Enter")


def said(page) -> list[str]:
    """The questions and answers that are shown."""
    return page.locator("#talk :is(.es-asked, .es-said)").all_inner_texts()


def quiet(page) -> None:
    """Wait until everybody has answered."""
    page.wait_for_function("document.querySelector('#talk-now li')")
    page.wait_for_function("!document.querySelector('#talk-now [aria-busy]')")


@pytest.fixture
def chat(visit):
    def opened(*arguments, **options):
        page = visit(*arguments, **options)
        tab(page, "Chat")
        page.locator("#examples button").nth(1).wait_for()
        return page

    return opened


@pytest.mark.parametrize("width", [390, 1440])
def test_three_models_side_by_side(chat, width):
    page = chat(width=width)
    choose(page, "#chat-model-3", "bonsai-math")
    ask(page, QUESTION)
    page.locator("#talk-now li .words", has_text="126").first.wait_for()
    quiet(page)
    cards = [card.bounding_box() for card in page.locator("#talk-now li").all()]
    assert len(cards) == 3
    across = len({round(card["y"]) for card in cards}) == 1
    assert across == (width > 640)  # beside each other, or below on a phone
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # somebody else joins for the question that was asked
    choose(page, "#chat-model-2", "bonsai-abel")
    page.locator("#talk-now li", has_text="bonsai-abel").locator(".words").wait_for()
    assert page.locator("#talk-now li", has_text="bonsai-ja").count() == 0


def test_a_talk_outlives_a_reload_and_is_nobody_elses(chat):
    page = chat()
    ask(page, QUESTION)
    quiet(page)
    before = said(page)
    page.reload()
    page.wait_for_selector("#status :is(.es-status, .es-empty)", state="attached")
    tab(page, "Chat")
    page.locator("#talk-now .words").first.wait_for()
    assert said(page) == before and len(before) == 2
    stranger = chat()
    stranger.locator("#talk .es-hint").wait_for()
    assert not said(stranger)
    beside = chat(beside=page)  # another tab of the same browser
    beside.locator("#talk-now .words").first.wait_for()
    page.locator("#clear").click()
    page.locator("#talk .es-hint").wait_for()


def test_it_is_copied_and_downloaded(chat):
    page = chat()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, QUESTION)
    quiet(page)
    for button, name in (("#talk-markdown", "chat.md"), ("#talk-json", "chat.json")):
        with page.expect_download() as waited:
            page.locator(button).click()
        assert waited.value.suggested_filename == name
        text = open(waited.value.path(), encoding="utf-8").read()
        assert QUESTION in text and "126" in text
    document = json.loads(text)
    assert document["questions"][0]["settings"]["temperature"] == 0
    page.locator("#talk-copy").click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('126'))")
    page.locator("#talk-now [data-copy]").first.click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => !text.includes('#'))")


def test_stop_really_stops(chat):
    page = chat()
    page.locator("#decoding > button").click()
    tokens = page.locator("#max-new-tokens input[type=number]")
    tokens.fill("1024")
    tokens.press("Tab")
    warmth = page.locator("#temperature input[type=number]")
    warmth.fill("2")  # nonsense goes on for long
    warmth.press("Tab")
    ask(page, QUESTION)
    page.locator("#talk-now .words").first.wait_for()
    start = time.monotonic()
    page.locator("#chat-stop").click()
    page.wait_for_function("!document.querySelector('#talk-now [aria-busy]')")
    assert time.monotonic() - start < 5
    before = said(page)
    page.wait_for_timeout(700)
    assert said(page) == before and len(before[1].splitlines()) > 1
