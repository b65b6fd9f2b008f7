"""Whatever is Japanese on the page is drawn in a Japanese font."""

import re

import pytest

from studio.ui.strings import say
from tests.ui.browser.driving import settled, tab

#: Japanese fonts that come with each platform, for text and for code.
PLATFORMS = {
    "Linux": ("Noto Sans CJK JP", "Noto Sans Mono CJK JP"),
    "macOS": ("Hiragino Sans",),
    "Windows": ("Yu Gothic", "Yu Gothic UI", "Meiryo"),
}
JAPANESE = [name for names in PLATFORMS.values() for name in names]
#: Every element with Japanese text of its own is marked, and told by its text.
KANA = """
() => [...document.querySelectorAll('body *')].filter((element) => {
    delete element.dataset.kana;
    const own = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    const text = own.map((node) => node.data).join('');
    const shown = element.checkVisibility() && !element.closest('script, style, title, .sr-only');
    if (!shown || !/[ぁ-ヿ]/.test(text)) return false;
    element.dataset.kana = text.match(/[ぁ-ヿ一-鿿]/g).length;
    return true;
}).length
"""
#: What any visible element asks for, marks of SVG included.
STACKS = """
() => [...new Set([...document.querySelectorAll('body, body *')]
    .filter((element) => element.checkVisibility())
    .map((element) => getComputedStyle(element).fontFamily))]
"""


def japanese_text(page) -> int:
    """How many elements show Japanese; every one in a Japanese font of the page's own stacks."""
    settled(page)  # what is drawn anew loses its mark
    count = page.evaluate(KANA)
    session = page.context.new_cdp_session(page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    found = session.send("DOM.querySelectorAll", {"nodeId": root, "selector": "[data-kana]"})
    for node in found["nodeIds"]:
        attributes = session.send("DOM.getAttributes", {"nodeId": node})["attributes"]
        wanted = int(attributes[attributes.index("data-kana") + 1])
        fonts = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
        drawn = sum(f["glyphCount"] for f in fonts if f["familyName"] in JAPANESE)
        assert drawn >= wanted, (fonts, attributes)
    session.detach()
    return count


def japanese_stacks(page) -> None:
    """Whatever is drawn asks for a Japanese font of every platform: text may come any time."""
    for stack in page.evaluate(STACKS):
        for platform, names in PLATFORMS.items():
            assert any(name in stack for name in names), (platform, stack)


@pytest.mark.parametrize("locale", ["en-US", "ja-JP", "zh-CN"])
def test_japanese_is_drawn_in_a_japanese_font(visit, locale):
    language = locale[:2]
    page = visit(locale=locale)
    page.locator("#recipe-yaml .cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("name: りんごの個数\n")
    page.locator("#recipe-yaml .cm-content", has_text="りんご").wait_for()
    assert japanese_text(page) >= 1
    japanese_stacks(page)
    tab(page, say(language, "front_tab"))
    page.locator("#answers li p", has_text=re.compile("[ぁ-ん]")).first.wait_for()
    assert japanese_text(page) >= 2  # the question, and an answer
    japanese_stacks(page)
    tab(page, say(language, "chat"))
    page.locator("#examples button").first.click()
    page.locator("#talk-now .words", has_text=re.compile("[ぁ-ん]")).first.wait_for()
    assert japanese_text(page) >= 2 + page.locator("#examples button").count()
    japanese_stacks(page)
