"""A public Studio: visitors see their own, whatever they send to whichever endpoint."""

import sqlite3

import pytest

from studio.api import bundled_runs
from studio.runs import Evaluation, Outcome, Store
from studio.visitors import owner_of
from tests.ui.browser.calling import Caller
from tests.ui.browser.driving import state, tab, toast

ANNA, BEN = "anna" * 10, "benn" * 10
SECRET = "the-secret-of-anna"
RECIPE = (
    f"name: {SECRET}\nbase: bonsai-base\nsources: [bonsai-ja, bonsai-math]\n"
    "objectives: [{task: jmath, examples: 4}]\nbudget: {candidates: 4}\n"
)


@pytest.fixture(scope="module")
def environment():
    return {"STUDIO_PUBLIC": "1"}


@pytest.fixture
def store(workspace, address):
    made = Store(workspace / "runs.sqlite")
    yield made
    made.close()


@pytest.fixture
def annas(store, workspace):
    """A run of Anna's with one answer, and a file that she uploaded."""
    run = store.create_run(SECRET, RECIPE, owner=owner_of("token", ANNA))
    said = (Outcome("dev-0000", 1.0, SECRET, {"right": True}, 3),)
    for subject in ("model:bonsai-ja", "model:bonsai-math"):
        store.record_evaluation(run, Evaluation(subject, "jmath", "dev", 1.0, 3, 1.0, "", said))
    store.set_status(run, "stopped", SECRET)
    uploads = workspace / "uploads" / owner_of("token", ANNA)
    uploads.mkdir(parents=True, exist_ok=True)
    (uploads / "questions.csv").write_text(f"question,answer\n{SECRET},1\n")
    yield run
    store.delete_run(run)


def recorded(workspace, run: str) -> list:
    """Everything the store holds of a run."""
    db = sqlite3.connect(workspace / "runs.sqlite")
    tables = {"runs": "id", "events": "run", "candidates": "run", "evaluations": "run"}
    found = [
        db.execute(f"SELECT * FROM {table} WHERE {key} = ?", (run,)).fetchall()
        for table, key in tables.items()
    ]
    db.close()
    return found


def test_no_endpoint_gives_away_or_changes_what_is_anothers(address, annas, workspace):
    """What Gradio lets through; tests/ui/test_guests.py calls the handlers past its checks."""
    ben = Caller(address, BEN)
    before = recorded(workspace, annas)
    upload = workspace / "uploads" / owner_of("token", ANNA) / "questions.csv"
    others = (f"{annas}:best", str(upload), "jmath")
    event = {"question": 1, "candidate": 0, "run": annas, "index": 0, "value": annas}
    assert len(ben.handlers) > 30
    for handler in ben.handlers:
        for other in others:
            said = ben.call(handler, ben.values(handler, annas, other, str(upload)), event)
            # what one sent may be said again; the run's name and answers were not sent
            assert SECRET not in said, (handler["targets"], other, said[:500])
    assert recorded(workspace, annas) == before
    assert upload.is_file()


def test_anna_herself_gets_what_is_hers(address, annas):
    """The test above is worth nothing if nobody is told anything."""
    anna = Caller(address, ANNA)
    # as a page does, so that Gradio knows which runs this one may choose
    for name in ("enter", "watch", "watch"):
        handler = anna.named(name)
        anna.call(handler, anna.values(handler, annas if name == "watch" else None, "jmath", ""))
    told = set()
    for handler in anna.handlers:
        inputs = anna.values(handler, annas, "jmath", "")
        if SECRET in anna.call(handler, inputs, {"question": 1}):
            told.add(handler["id"])
    assert len(told) >= 2, told  # what the page opens with, and what it polls


@pytest.mark.parametrize("path", ["runs.sqlite", "uploads", "../etc/passwd", "app.log"])
def test_no_file_of_the_workspace_is_served(address, workspace, annas, path):
    import urllib.error
    import urllib.request

    for route in (f"file={workspace / path}", f"file={path}", f"static/{path}"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/gradio_api/{route}", timeout=10)
        assert refused.value.code in (403, 404)


def test_a_visitor_sees_the_sample_run_and_what_they_start(visit, annas, store):
    page = visit()
    state(page, "finished")
    page.locator("#run input").click()
    offered = page.get_by_role("option").all_inner_texts()
    assert len(offered) == len(bundled_runs()) and not any(SECRET in one for one in offered)
    page.keyboard.press("Escape")
    page.goto(f"{page.url.split('?')[0]}?run={annas}")
    toast(page, "no run")
    # nothing but the list can be opened
    tab(page, "Chat")
    page.locator("#chat-model input").fill("/etc")
    page.locator("#chat-model input").press("Enter")
    page.locator("#message textarea").fill("Hello")
    page.locator("#message textarea").press("Enter")
    toast(page, "not offered")


def test_a_link_shows_one_run_to_be_looked_at_only(visit, annas, store):
    page = visit(f"?share={store.share(annas)}")
    page.locator(".es-status h3", has_text=SECRET).wait_for()
    assert not page.locator("#resume:enabled").count()
    page = visit("?share=nonsense")
    toast(page, "link")
