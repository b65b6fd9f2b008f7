"""A Studio served as a user would serve it, and a browser to visit it with.

Needs Chromium (Debian: `apt install chromium fonts-noto-cjk`). Where there is none, one line says
that these tests did not run; in CI that is a failure.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from studio.api import SAMPLE_RUN
from studio.models import bundled
from studio.runs import Store
from studio.runs.lock import is_held

ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = ["background-networking", "component-update", "sync", "gpu", "extensions"]
#: Tells Python of every toast that owns up to a bug; nobody need be looking at that moment.
WATCH = """
new MutationObserver(() => {
    for (const toast of document.querySelectorAll('[data-testid="toast-body"]')) {
        if (toast.innerText.includes('Something went wrong')) fault(toast.innerText);
    }
}).observe(document, {childList: true, subtree: true, characterData: true});
"""


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)


@contextmanager
def served(workspace: Path, **environment: str) -> Iterator[str]:
    """The address of a Studio over a workspace, started by `python app.py`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        **os.environ,
        "STUDIO_WORKSPACE": str(workspace),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        **environment,
    }
    log = (workspace / "app.log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=variables, stdout=log, stderr=log
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, server, workspace / "app.log")
        yield url
    finally:
        server.terminate()
        server.wait(20)
        log.close()
        _stop_workers(workspace)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"app.py did not come up:\n{log.read_text(errors='replace')}")


def _stop_workers(workspace: Path) -> None:
    store = Store(workspace / "runs.sqlite")
    held = [run.id for run in store.runs() if is_held(store, run.id)]
    for run in held:
        store.request_stop(run)
    until = time.monotonic() + 60
    while time.monotonic() < until and any(is_held(store, run) for run in held):
        time.sleep(0.3)
    store.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def environment() -> Mapping[str, str]:
    """What a module's Studio is told beside the usual; a module may have its own."""
    return {}


@pytest.fixture(scope="module")
def address(workspace, environment):
    """The Studio, served as a user would: `python app.py`."""
    with served(workspace, **environment) as url:
        yield url


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("the browser tests did not run: no Chromium here")
    assert CHROMIUM, "CI has no Chromium: the browser tests did not run"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", *(f"--disable-{what}" for what in QUIET)],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, address):
    """`visit("?run=ID", width=390, locale="ja-JP")` → a page of a browser that was never here."""
    contexts = []

    def open_page(
        query: str = "", width: int = 1440, locale: str = "en-US", theme: str = "light", beside=None
    ):
        """A fresh browser's page or, ``beside`` another page, a second tab of that browser."""
        context = (
            beside.context
            if beside
            else browser.new_context(
                viewport={"width": width, "height": 900}, locale=locale, color_scheme=theme
            )
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine is slow to import torch
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.expose_function("fault", lambda words: page.faults.append(words))
        page.add_init_script(WATCH)
        page.goto(address + query)
        page.wait_for_selector("#status :is(.es-status, .es-empty)", state="attached")
        return page

    yield open_page
    faults = [fault for c in contexts for page in c.pages for fault in page.faults]
    for context in dict.fromkeys(contexts):
        context.close()
    assert not faults


@pytest.fixture(scope="session", autouse=True)
def assets():
    assert SAMPLE_RUN.is_file(), "assets/sample-run.sqlite is missing"
    assert {"bonsai-base", "bonsai-ja", "bonsai-math", "bonsai-abel"} <= set(bundled())
