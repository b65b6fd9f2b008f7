"""A first visit: seconds from `python app.py` to the page, and from a question to its first word.

    python benchmarks/first_visit.py [--repeat 5]

Each time a fresh server over an empty workspace, and a browser that was never there: when the
server answers, when the page is painted first and when it can be used, when the finished sample run
stands there; then a question to its best merge, once that is painted, and a second one. Needs
Chromium. Prints medians and the slowest, and writes benchmarks/results/first_visit.md.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from publish import machine, publish

from tests.ui.browser.conftest import CHROMIUM, served

QUESTIONS = (
    "トムさんは3個のりんごを持っています。4個もらいました。全部で何個ですか。",
    "箱に鉛筆が12本あります。5本使いました。残りは何本ですか。",
)
#: What is measured, in the order in which it happens.
STEPS = {
    "answers": "the server answers",
    "painted": "first contentful paint",
    "usable": "the form can be used",
    "run": "the sample run is there",
    "word": "first word of the first answer, after asking",
    "second": "first word of the second answer, after asking",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        found = [visited(chromium) for _ in range(repeat)]
        chromium.close()
    rows = ["| | median, s | slowest, s |", "|---|---|---|"]
    for key, what in STEPS.items():
        seconds = [one[key] for one in found]
        rows.append(f"| {what} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")
    publish("first_visit", [*rows, "", f"{repeat} visits, {machine()}"])


def visited(chromium: Browser) -> dict[str, float]:
    """One visit: seconds by step; those of the page since the server was started."""
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with served(Path(folder)) as address:
            took["answers"] = time.perf_counter() - begun
            context = chromium.new_context(viewport={"width": 1440, "height": 900})
            page = context.new_page()
            asked = time.perf_counter() - begun
            page.goto(address)
            page.locator("#start").wait_for()
            took["usable"] = time.perf_counter() - begun
            paint = page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            )
            took["painted"] = asked + paint / 1000
            page.locator(".es-status").wait_for()
            took["run"] = time.perf_counter() - begun
            page.get_by_role("tab", name="Chat", exact=True).click()
            page.locator("#examples button").first.wait_for()
            took["word"] = answered(page, QUESTIONS[0])
            page.wait_for_function("!document.querySelector('#talk-now [aria-busy]')")
            took["second"] = answered(page, QUESTIONS[1])
            context.close()
    return took


def answered(page, question: str) -> float:
    """Seconds from asking to the first word."""
    page.locator("#message textarea").fill(question)
    start = time.perf_counter()
    page.locator("#message textarea").press("Enter")
    page.wait_for_function(
        """(question) => {
            const now = document.querySelector('#talk-now');
            const asked = document.querySelector('#talk')?.innerText.includes(question);
            return asked && [...(now?.querySelectorAll('.words') ?? [])]
                .some((words) => words.innerText.trim());
        }""",
        arg=question,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
