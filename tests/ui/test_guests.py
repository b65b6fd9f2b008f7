"""Every handler of a public page, called with whatever may be sent, past Gradio's own checks."""

import inspect
import sqlite3
from itertools import islice
from types import SimpleNamespace

import gradio as gr
import pytest

from studio.runs import Evaluation, Outcome
from studio.ui import shared
from studio.ui.page import build
from studio.visitors import owner_of

ANNA, BEN = "anna" * 10, "benn" * 10
SECRET = "the-secret-of-anna"
RECIPE = (
    f"name: {SECRET}\nbase: bonsai-base\nsources: [bonsai-ja, bonsai-math]\n"
    "objectives: [{task: jmath, examples: 4}]\nbudget: {candidates: 4}\n"
)
#: Steps of a streaming handler that are looked at.
STEPS = 6


@pytest.fixture
def public(tmp_path, monkeypatch):
    """A public workspace with a run of Anna's, something of it on every tab, and her upload."""
    monkeypatch.setenv("STUDIO_PUBLIC", "1")
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path))
    monkeypatch.setattr("studio.api.processes.detach", lambda *_, **__: None)
    shared.store.cache_clear()
    store = shared.store()
    owner = owner_of("token", ANNA)
    run = store.create_run(SECRET, RECIPE, owner=owner)
    store.record_ask(run, "cma", 0, [(0, _genome())])
    said = (Outcome("dev-0000", 1.0, SECRET, {"right": True}, 3),)
    for subject in ("model:bonsai-ja", "model:bonsai-math", "candidate:0"):
        store.record_evaluation(run, Evaluation(subject, "jmath", "dev", 1.0, 3, 1.0, "", said))
    store.set_status(run, "stopped", SECRET)
    for kind in ("uploads", "chats", "exports"):
        (tmp_path / kind / owner).mkdir(parents=True)
        (tmp_path / kind / owner / "questions.csv").write_text(f"question,answer\n{SECRET},1\n")
    yield SimpleNamespace(store=store, run=run, folder=tmp_path, owner=owner)
    store.close()
    shared.store.cache_clear()


def _genome():
    from studio.evolve.spaces import first_space
    from studio.recipe import Recipe

    return first_space(Recipe.from_yaml(RECIPE)).initial


@pytest.fixture(scope="module")
def page():
    return build()


def called(function, token: str, values: list, event: dict) -> str:
    """All that a handler says, its errors included."""
    request = SimpleNamespace(headers={"accept-language": "en"}, query_params={})
    happened = SimpleNamespace(_data=event)
    kept = {"token": token, "language": "en"}
    try:
        said = function.fn(request, happened, None, None, kept, frozenset(), *values)
        if inspect.isgenerator(said):
            steps = list(islice(said, STEPS))
            said.close()
            said = steps
        return repr(said)
    except gr.Error as error:
        return repr(error)
    except Exception as error:  # a value of a kind that Gradio never lets through
        return type(error).__name__


def sent(function, run: str, other: object) -> list:
    """A value per input: a run where one is chosen, states as they begin, else ``other``."""
    values = []
    for part in list(function.inputs)[2:]:
        if isinstance(part, gr.State):
            values.append(part.value() if callable(part.value) else part.value)
        elif part.elem_id == "run":
            values.append(run)
        elif isinstance(part, gr.Number | gr.Slider):
            values.append(1)
        elif getattr(part, "multiselect", False) or isinstance(part, gr.Dropdown):
            values.append([other] if getattr(part, "multiselect", False) else other)
        elif isinstance(part, gr.Checkbox):
            values.append(True)
        else:
            values.append(other)
    return values


def handlers(page) -> list:
    return [fn for fn in page.fns.values() if fn.fn is not None]


def recorded(public) -> list:
    """Everything the store and the folders hold of Anna's."""
    db = sqlite3.connect(public.store.path)
    tables = {"runs": "id", "events": "run", "candidates": "run", "evaluations": "run"}
    found = [
        db.execute(f"SELECT * FROM {table} WHERE {key} = ?", (public.run,)).fetchall()
        for table, key in tables.items()
    ]
    db.close()
    files = sorted(
        (path, path.read_bytes())
        for kind in ("uploads", "chats", "exports")
        for path in (public.folder / kind / public.owner).rglob("*")
        if path.is_file()
    )
    return [*found, files]


def attacks(public) -> list:
    run = public.run
    upload = str(public.folder / "uploads" / public.owner / "questions.csv")
    return [
        run,
        f"{run}:best",
        f"{run}:0",
        "0",
        "best",
        "jmath",
        upload,
        "../" + public.owner,
        None,
    ]


EVENTS = {"question": 1, "candidate": 0, "index": 0, "c": 0, "column": "jmath", "key": "0"}


def test_no_handler_gives_away_or_changes_what_is_anothers(public, page):
    before = recorded(public)
    found = handlers(page)
    assert len(found) > 40
    for function in found:
        for other in attacks(public):
            values = sent(function, public.run, other)
            said = called(function, BEN, values, EVENTS | {"run": public.run, "value": other})
            assert SECRET not in said, (function.fn.__name__, other, said[:600])
            assert recorded(public) == before, (function.fn.__name__, other)


def test_nobody_at_all_gets_as_little(public, page):
    before = recorded(public)
    for function in handlers(page):
        for token in ("", None, "short", {"a": 1}):
            said = called(function, token, sent(function, public.run, "0"), EVENTS)
            assert SECRET not in said, (function.fn.__name__, said[:600])
    assert recorded(public) == before


def test_anna_herself_gets_what_is_hers(public, page):
    """The tests above are worth nothing where nobody is told anything."""
    told = set()
    for function in handlers(page):
        for other in ("jmath", "0", "best"):
            said = called(function, ANNA, sent(function, public.run, other), EVENTS)
            if SECRET in said:
                told.add(function.fn.__name__)
    assert len(told) >= 6, told
