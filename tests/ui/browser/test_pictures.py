"""Pictures to ask about, in a browser."""

from pathlib import Path

import pytest

from studio.ui.strings import say
from tests.ui.browser.driving import tab, toast, upload


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    """Tiny random models: `vlm` sees, `ja` does not."""
    from tests.vlm.families import make_family

    return make_family("llava", tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A photo, and files that are no pictures or none to be opened."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (900, 500), (200, 80, 40)).save(folder / "photo.jpg")
    Image.new("CMYK", (90, 50)).save(folder / "print.jpg")
    whole = (folder / "photo.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    with (folder / "large.png").open("wb") as large:
        large.truncate(25_000_000)
    return folder


def talk_to(page, place: str, model: Path) -> None:
    page.locator(f"{place} input").fill(str(model))
    page.locator(f"{place} input").press("Enter")


def test_a_picture_is_uploaded_removed_and_asked_about(visit, family, files):
    page = visit()
    tab(page, "Chat")
    talk_to(page, "#chat-model", family / "vlm")
    talk_to(page, "#chat-model-2", family / "ja")
    for name, sentence in {
        "empty.png": "empty",
        "cut.jpg": "damaged",
        "print.jpg": "CMYK",
        "drawing.svg": "SVG",
        "large.png": "size",
    }.items():
        upload(page, "#upload", files / name)
        toast(page, sentence)
        assert not page.locator("#picture img").count()
    upload(page, "#upload", files / "photo.jpg")
    page.locator("#picture img").wait_for()
    page.get_by_role("button", name="Remove the picture").press("Enter")
    page.locator("#picture img").wait_for(state="detached")
    upload(page, "#upload", files / "photo.jpg")  # the same again
    page.locator("#picture img").wait_for()
    page.wait_for_function("document.activeElement.closest('#message')")
    page.keyboard.type("What is this?")
    page.keyboard.press("Enter")
    page.locator("#talk-past img[alt='photo.jpg']").wait_for()
    page.locator("#picture img").wait_for(state="detached")  # it was sent
    sees, blind = page.locator("#talk-now li").nth(0), page.locator("#talk-now li").nth(1)
    blind.get_by_text("sees no pictures").wait_for()
    page.wait_for_function("!document.querySelector('#talk-now [aria-busy]')")
    assert "sees no pictures" not in sees.inner_text()
    # nobody is served the file itself
    assert page.locator("img[src*='photo.jpg']").count() == 0


@pytest.mark.parametrize("width", [390, 1440])
def test_the_gallery_is_searched_and_picked_from(visit, width):
    page = visit(width=width, locale="ja-JP")
    tab(page, say("ja", "chat"))
    page.locator("#gallery-card > button").click()
    page.locator("#gallery button").nth(60).wait_for(state="attached")
    page.locator("#gallery-search input").fill("鳥居")
    page.locator("#gallery .note", has_text="鳥居").wait_for()
    assert "torii" in page.locator("#gallery button").first.get_attribute("data-p")
    page.locator("#gallery button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.p.split('/')[1]") == "torii"
    page.keyboard.press("Enter")
    page.locator("#picture figcaption", has_text="鳥居").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
