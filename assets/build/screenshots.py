"""Pictures of every tab, as a first visitor sees them: assets/screenshots/*.png.

    python assets/build/screenshots.py [TAB …]

Serves the Studio over an empty workspace, opens it in Chromium and photographs each tab, at 1440 px
in light and in English, and at 390 px in dark and in Japanese. Needs `pip install -e ".[test]"` and
Chromium with Japanese fonts (`.ci/run` says which packages).
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from studio.ui.strings import say  # noqa: E402
from tests.ui.browser.conftest import CHROMIUM, served  # noqa: E402
from tests.ui.browser.driving import settled  # noqa: E402

OUT = ROOT / "assets" / "screenshots"
#: Tab by the key of its name → the file's name.
TABS = {
    "models_tab": "models",
    "evolve": "evolve",
    "front_tab": "front",
    "chat": "chat",
    "take_home": "take-home",
    "paper": "paper",
}
LOOKS = {
    "wide": {"width": 1440, "height": 1000, "language": "en", "locale": "en-US", "theme": "light"},
    "phone": {"width": 390, "height": 844, "language": "ja", "locale": "ja-JP", "theme": "dark"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tabs", nargs="*", metavar="TAB", help=f"of {', '.join(TABS.values())}")
    wanted = parser.parse_args().tabs or list(TABS.values())
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            for name, look in LOOKS.items():
                context = chromium.new_context(
                    viewport={"width": look["width"], "height": look["height"]},
                    locale=look["locale"],
                    color_scheme=look["theme"],
                )
                page = context.new_page()
                page.set_default_timeout(120_000)
                page.goto(address)
                page.locator(".es-status").wait_for()
                for key, tab in TABS.items():
                    if tab in wanted:
                        page.get_by_role("tab", name=say(look["language"], key), exact=True).click()
                        _prepare(page, tab)
                        page.screenshot(path=OUT / f"{tab}-{name}.png")
                        print(OUT / f"{tab}-{name}.png")
                context.close()
            chromium.close()


def _prepare(page: Page, tab: str) -> None:
    """Have on the page what the tab is for."""
    if tab == "front":
        page.locator("#recipe td.heat").first.wait_for()
    if tab == "chat":
        page.locator("#examples button").first.click()
        page.locator("#talk-now .words").first.wait_for()
        page.wait_for_timeout(4000)
    page.mouse.move(0, 0)
    settled(page)
    page.wait_for_timeout(1000)


if __name__ == "__main__":
    if not CHROMIUM or not shutil.which(CHROMIUM):
        sys.exit("There is no Chromium here; install it (Debian: apt install chromium).")
    main()
