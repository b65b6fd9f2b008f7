"""What every browser test does to a page."""

import re

#: Markup that must never become a part of the page.
HACK = "<img src=x onerror=\"document.title='hacked'\">"


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def state(page, *wanted: str) -> None:
    """Wait until the watched run is in one of the states."""
    page.wait_for_selector(",".join(f'.es-status[data-state="{name}"]' for name in wanted))


def number(page, field: str, value: int) -> None:
    page.locator(f"#field-{field} input").fill(str(value))
    page.locator(f"#field-{field} input").press("Tab")


def toast(page, words: str) -> None:
    """A toast says so, and the page is still there; then close the toast."""
    note = page.get_by_test_id("toast-body").filter(has_text=re.compile(words))
    note.wait_for()
    note.get_by_test_id("toast-close").click()
    note.wait_for(state="detached")
    assert page.locator("#start").count() == 1


def upload(page, chooser: str, file) -> None:
    """Choose a file with an upload button."""
    with page.expect_file_chooser() as opened:
        page.locator(chooser).click()
    opened.value.set_files(file)


def settled(page) -> None:
    """Wait until nothing on the page is being loaded, faded in or drawn."""
    page.wait_for_timeout(400)
    page.wait_for_function(
        """() => !document.querySelector('.generating, .progress-text') &&
            ![...document.querySelectorAll('#tabs .html-container, #tabs .prose')].some(
                (e) => e.checkVisibility() && Number(getComputedStyle(e).opacity) < 1)"""
    )
