"""The whole road in a real browser: see the sample run, evolve, reload, look, talk, take home.

Needs Chromium (Debian: `apt install chromium fonts-noto-cjk`). Where there is none, one line says
that these tests did not run; in CI that is a failure.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from studio.api import SAMPLE_RUN
from studio.evolve.spaces import first_space
from studio.models import bundled
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store
from studio.runs.lock import hold, is_held
from studio.ui.strings import say
from studio.ui.words import phase as phase_words

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("the browser tests did not run: no Chromium here", allow_module_level=True)

pytestmark = pytest.mark.browser
QUIET = ["background-networking", "component-update", "sync", "gpu", "extensions"]
HACK = "<img src=x onerror=\"document.title='hacked'\">"
#: Tells Python of every toast that owns up to a bug; nobody need be looking at that moment.
WATCH = """
new MutationObserver(() => {
    for (const toast of document.querySelectorAll('[data-testid="toast-body"]')) {
        if (toast.innerText.includes('Something went wrong')) fault(toast.innerText);
    }
}).observe(document, {childList: true, subtree: true, characterData: true});
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def address(workspace):
    """The Studio, served as a user would: `python app.py`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "STUDIO_WORKSPACE": str(workspace),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
    }
    log = (workspace / "app.log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log
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
def browser():
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
    """`visit("?run=ID", width=390, locale="ja-JP")` → a fresh visitor's page."""
    contexts = []

    def open_page(query: str = "", width: int = 1440, locale: str = "en-US"):
        context = browser.new_context(viewport={"width": width, "height": 900}, locale=locale)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine is slow to import torch
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.expose_function("fault", lambda words: page.faults.append(words))
        page.add_init_script(WATCH)
        page.goto(address + query)
        page.wait_for_selector("#status :is(.es-status, .es-empty)")
        return page

    yield open_page
    faults = [fault for c in contexts for page in c.pages for fault in page.faults]
    for context in contexts:
        context.close()
    assert not faults


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


@pytest.fixture(scope="module", autouse=True)
def assets():
    assert SAMPLE_RUN.is_file(), "assets/sample-run.sqlite is missing"
    assert {"bonsai-base", "bonsai-ja", "bonsai-math", "bonsai-abel"} <= set(bundled())


def test_the_whole_road(visit, workspace):
    # First visit: a finished run is open, and nothing is empty.
    page = visit()
    state(page, "finished")
    sample = page.locator(".es-status").get_attribute("data-run")
    assert page.locator("#curve path.main").count() >= 1
    assert "bonsai-math" in page.locator("#curve").inner_text()
    assert "random search" in page.locator("#curve").inner_text()
    tab(page, "Results")
    page.wait_for_selector("#report tr.evolved")
    assert page.locator("#strip .cells").count() >= 5  # base, three sources, the merge
    assert page.locator("#strip .cells.best path.right").count() == 1
    page.wait_for_selector("#recipe td.heat")

    # Any question can be read: by clicking its column, or with the keyboard.
    page.locator('#strip rect[data-q="40"]').click(force=True)
    page.get_by_role("heading", name="Question 40 of 250").wait_for()
    page.locator("#strip .over").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="Question 41 of 250").wait_for()
    assert page.locator("#answers li").count() == page.locator("#strip .cells").count()

    # A small run of one's own.
    tab(page, "Evolve")
    page.locator("#field-name textarea, #field-name input").fill("Small one")
    number(page, "examples", 8)
    number(page, "budget", 2000)  # it cannot be finished before it is stopped
    number(page, "population", 4)
    page.locator("#field-baseline input").uncheck()
    page.locator("#start").click()
    page.locator(".es-status h3", has_text="Small one").wait_for()
    mine = page.locator(".es-status").get_attribute("data-run")
    assert mine != sample
    page.wait_for_function(
        "Number(document.querySelector('.es-status [role=progressbar]')?.ariaValueNow) >= 2"
    )
    page.wait_for_selector("#curve path.main", state="attached")
    page.locator("#candidates .body-cell", has_text="evolution").first.wait_for()

    # Reloading finds it again, by its address or as the newest run at work.
    assert f"run={mine}" in page.url
    page.reload()
    page.locator(f'.es-status[data-run="{mine}"]').wait_for()
    other = visit()
    other.locator(f'.es-status[data-run="{mine}"]').wait_for()

    # Stop, from the other page; resume, from this one; the run outlives both.
    other.locator("#stop").click()
    state(page, "stopped")
    assert page.locator("#stop").is_disabled()
    page.locator("#resume").click()
    state(page, "running")
    assert page.locator("#resume").is_disabled()
    page.locator("#stop:not([disabled])").click()
    state(page, "stopped")

    # The strip of an unfinished run shows the search's own questions.
    tab(page, "Results")
    page.wait_for_selector("#strip .cells.best")
    page.get_by_role("heading", name=re.compile("Question [1-8] of ")).wait_for()

    # Talk to a source and to a candidate.
    tab(page, "Chat")
    page.locator("#message textarea").fill("Tom has 3 apples and buys 4. How many does he have?")
    page.locator("#message textarea").press("Enter")
    page.locator("#talk .bot .message", has_text=re.compile(r"\d")).wait_for()
    page.locator("#chat-model input").click()
    page.get_by_role("option", name="bonsai-ja").click()
    page.wait_for_function("!document.querySelector('#talk .bot')")  # another model, a new talk
    page.locator("#examples button").first.click()
    page.locator("#talk .bot .message", has_text=re.compile(r"\d")).wait_for()
    page.locator("#clear").click()
    page.wait_for_function("!document.querySelector('#talk .bot')")

    # Take it home: an ordinary checkpoint.
    tab(page, "Take home")
    page.locator("#card").get_by_role("button", name="Model card").click()
    page.locator("#card h1", has_text="Small one (candidate").wait_for()
    page.locator("#export-candidate input").fill("#0 ·")
    page.get_by_role("option", name="#0 ·").click()
    page.locator("#card h1", has_text="Small one (candidate 0 of").wait_for()
    page.locator("#folder textarea, #folder input").fill("mine")
    page.locator("#export").click()
    page.locator("#export-files", has_text="README.md").wait_for()
    assert "model.safetensors" in page.locator("#export-files").inner_text()
    folder = workspace / "exports" / "mine"
    assert page.locator("#export-path").locator("textarea, input").input_value() == str(folder)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size >= len(AutoTokenizer.from_pretrained(folder))
    page.locator("#export").click()  # twice into the same folder
    toast(page, "mine")

    # What was recorded is what the page showed.
    store = Store(workspace / "runs.sqlite")
    assert sum(c.score is not None for c in store.candidates(mine)) >= 2
    store.close()


def test_bad_input_is_a_toast(visit):
    page = visit()
    page.locator("#field-base input").fill("no-such-model")
    page.locator("#field-base input").press("Enter")
    page.locator("#start").click()
    toast(page, "no-such-model")
    page.get_by_role("tab", name="Recipe (YAML)").click()
    editor = page.locator("#recipe-yaml .cm-content")
    page.locator("#recipe-yaml .cm-content", has_text="no-such-model").wait_for()
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("sources: [bonsai-ja]\nobjektives: []\n")
    page.locator("#recipe-yaml .cm-content", has_text="objektives").wait_for()
    page.locator("#start").click()
    toast(page, "objecti?ves")
    tab(page, "Chat")
    page.locator("#send").click()
    toast(page, "no question")
    tab(page, "Take home")
    page.locator("#folder textarea, #folder input").fill("../../etc")
    page.locator("#export").click()
    toast(page, "folder name")


def test_an_unknown_run_in_the_address(visit):
    page = visit("?run=ffffffff")
    toast(page, "no run")
    page.wait_for_selector(".es-status")  # the newest one is shown instead


def test_nothing_that_was_said_becomes_markup(visit, workspace):
    store = Store(workspace / "runs.sqlite")
    recipe = (
        f"name: '{HACK}'\nbase: bonsai-base\nsources: [bonsai-ja, bonsai-math]\n"
        "objectives: [{task: jmath}]\n".replace("'hacked'", "''hacked''")
    )
    run = store.create_run(HACK, recipe)
    outcome = Outcome("dev-0000", 0.0, HACK, {"right": False, "language": HACK}, 3)
    for subject in ("model:bonsai-ja", f"model:{HACK}"):
        store.record_evaluation(
            run, Evaluation(subject, "jmath", "dev", 0.0, 3, 1.0, HACK, (outcome,))
        )
    store.set_status(run, "failed", HACK)
    store.close()
    page = visit(f"?run={run}")
    page.locator(".es-status .message", has_text="<img").wait_for()
    tab(page, "Results")
    page.locator("#answers li p", has_text="<img").first.wait_for()
    tab(page, "Chat")
    page.locator("#chat-model input").fill(HACK)
    page.locator("#chat-model input").press("Enter")
    page.locator("#message textarea").fill(HACK)
    page.locator("#send").click()
    page.get_by_test_id("toast-body").filter(has_text="<img").wait_for()
    page.wait_for_timeout(500)
    assert page.title() == "EvoLLM Studio"
    store = Store(workspace / "runs.sqlite")
    store.delete_run(run)
    store.close()


@pytest.mark.parametrize(("locale", "words"), [("ja-JP", "開始"), ("zh-CN", "开始")])
def test_it_speaks_the_browsers_language(visit, locale, words):
    page = visit(locale=locale)
    assert page.locator("#start").inner_text() == words
    shown = page.locator(".es-status dt").first.inner_text()
    assert shown in ("候補", "候选")


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_overflows_sideways(visit, width):
    page = visit(width=width)
    for name in ("Evolve", "Results", "Chat", "Take home"):
        tab(page, name)
        if name == "Take home":
            page.locator("#card").get_by_role("button", name="Model card").click()
            page.locator("#card table").first.wait_for()
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_every_phase_is_shown(visit, workspace):
    """A run in each phase that the sample run went through, one after the other."""
    visit()  # the sample run is there once a page was
    store = Store(workspace / "runs.sqlite")
    sample = next(run for run in store.runs() if run.status == "finished")
    phases = [e.payload["name"] for e in store.events(sample.id) if e.kind == "phase"]
    assert "selection" in phases
    run = store.create_run("Every phase", sample.recipe)
    store.set_status(run, "running")
    lock = hold(store, run)
    try:
        page = visit(f"?run={run}")
        for phase in dict.fromkeys(phases):
            store.append(run, "phase", {"name": phase})
            words = f"running · {phase_words('en', phase)}"
            page.locator(".es-status .state").get_by_text(words, exact=True).wait_for()
    finally:
        lock.release()
        store.delete_run(run)
        store.close()


# ── other spaces, several objectives ──────────────────────────────────────────────────────────

AIMS = """
name: Two aims
sources: [bonsai-math, bonsai-ja]
space: {type: data_flow, repeats: 1}
objectives: [{task: jmath}, {task: emath}, {property: length}]
"""


@pytest.fixture
def aims(visit, workspace):
    """A run with a front: the main model's own path, and two that leave layers out."""
    visit()  # the store is there once a page was
    space = first_space(Recipe.from_yaml(AIMS))
    store = Store(workspace / "runs.sqlite")
    run = store.create_run("Two aims", AIMS)
    genomes = [space.initial.copy() for _ in range(3)]
    genomes[1][2] = genomes[2][2] = genomes[2][3] = -1.0
    store.record_ask(run, "nsga2", 0, list(enumerate(genomes)))
    measured = {
        "candidate:0": (0.2, 0.9, 8.0),
        "candidate:1": (0.7, 0.5, 7.0),
        "candidate:2": (0.1, 0.3, 6.0),
        "model:bonsai-math": (0.1, 0.8),
    }
    said = (Outcome("dev-0000", 1.0, "42", {"right": True}, 3),)
    for subject, scores in measured.items():
        for name, score in zip(("jmath", "emath", "length"), scores, strict=False):
            store.record_evaluation(run, Evaluation(subject, name, "dev", score, 3, 1.0, "", said))
    store.set_status(run, "stopped")
    yield run
    store.delete_run(run)
    store.close()


@pytest.mark.parametrize("width", [390, 1440])
def test_a_front_is_read_and_picked_from(visit, aims, width):
    page = visit(f"?run={aims}", width=width)
    page.locator("#candidates", has_text="emath %").wait_for()
    tab(page, "Results")
    page.locator("#front .es-scatter button.dot").nth(2).wait_for()
    assert page.locator("#front i.source:not(.es-key *)").count() == 1
    page.locator("#recipe .es-path", has_text="Candidate 1: 7 layers").wait_for()  # the best mean
    page.locator('#front .es-scatter button[data-c="0"]').click()
    page.locator("#recipe .es-path", has_text="Candidate 0: 8 layers").wait_for()
    page.locator('#front table button[data-c="2"]').focus()
    page.keyboard.press("Enter")
    page.locator("#recipe .es-path", has_text="Candidate 2: 6 layers").wait_for()
    assert page.locator('#front button[aria-pressed="true"]').count() == 2
    assert page.locator("#which input").input_value().startswith("★ #2 · jmath 10.0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tab(page, "Chat")
    page.locator("#chat-model input").click()
    page.get_by_role("option", name="★ #1 · jmath 70.0 · emath 50.0 · 7 layers").click()


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


# ── pictures ──────────────────────────────────────────────────────────────────────────────────


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


def upload(page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#upload").click()
    chooser.value.set_files(file)


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
        upload(page, files / name)
        toast(page, sentence)
        assert not page.locator("#picture img").count()
    upload(page, files / "photo.jpg")
    page.locator("#picture img").wait_for()
    page.get_by_role("button", name="Remove the picture").press("Enter")
    page.locator("#picture img").wait_for(state="detached")
    upload(page, files / "photo.jpg")  # the same again
    page.locator("#picture img").wait_for()
    page.wait_for_function("document.activeElement.closest('#message')")
    page.keyboard.type("What is this?")
    page.keyboard.press("Enter")
    for place in ("#talk", "#talk-2"):
        page.locator(f"{place} .bot .message").wait_for()
        assert page.locator(f"{place} .user img[alt='photo.jpg']").count() == 1
    assert not page.locator("#picture img").count()  # it was sent
    page.locator("#talk-head-2", has_text="sees no pictures").wait_for()
    assert "sees no pictures" not in page.locator("#talk-head").inner_text()
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


# ── fonts ─────────────────────────────────────────────────────────────────────────────────────

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
    page.get_by_role("tab", name=say(language, "yaml")).click()
    page.locator("#recipe-yaml .cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("name: りんごの個数\n")
    page.locator("#recipe-yaml .cm-content", has_text="りんご").wait_for()
    assert japanese_text(page) >= 1
    japanese_stacks(page)
    tab(page, say(language, "results"))
    page.locator("#answers li p", has_text=re.compile("[ぁ-ん]")).first.wait_for()
    assert japanese_text(page) >= 2  # the question, and an answer
    japanese_stacks(page)
    tab(page, say(language, "chat"))
    page.locator("#examples button").first.click()
    page.locator("#talk .bot .message", has_text=re.compile("[ぁ-ん]")).wait_for()
    assert japanese_text(page) >= 2 + page.locator("#examples button").count()
    japanese_stacks(page)
