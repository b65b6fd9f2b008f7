"""The tabs' handlers over a real store: what the page would be told, without a browser."""

from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from studio import api
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Evaluation, Store
from studio.runs.lock import hold
from studio.tasks import YAML_ONLY, load_task, objective_names, task_names
from studio.ui import (
    chat,
    evolve,
    page,
    sources,
    strings,
    take_home,
    words,
)

ENGLISH = SimpleNamespace(headers={"accept-language": "en"}, query_params={})
RECIPE = "base: bonsai-base\nsources: [bonsai-ja, bonsai-math]\nobjectives: [{task: jmath}]\n"


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """An empty store that every tab reads."""
    made = Store(tmp_path / "runs.sqlite")
    for tab in (chat, evolve, page, sources, take_home):
        monkeypatch.setattr(tab, "store", lambda: made)
    yield made
    made.close()


def scored(store: Store, run: str, count: int, stage: str = "cma") -> None:
    """Candidates 0, 1, …, each better than the one before."""
    store.record_ask(run, stage, 0, [(n, np.zeros(2)) for n in range(count)])
    for n in range(count):
        store.record_evaluation(
            run, Evaluation(f"candidate:{n}", "jmath", "dev", n / 1000, 3, 1.0, "", ())
        )


# ── the form ──────────────────────────────────────────────────────────────────────────────────


def test_the_form_offers_only_tasks_that_can_be_searched_for(questions):
    offered = objective_names()
    # those that are nothing without options, or large: the YAML has them
    assert YAML_ONLY <= set(task_names()) and not YAML_ONLY & set(offered)
    for name in set(task_names()) - YAML_ONLY - {"ja_vlm_bench"}:  # it is fetched from the hub
        task = load_task(name, **({"path": str(questions)} if name == "csv" else {}))
        if name in offered:
            assert task.examples("dev"), name
        else:
            with pytest.raises(StudioError, match="no 'dev' split"):
                task.examples("dev")
    with gr.Blocks():
        field = evolve._form(evolve.default_recipe())["objectives"]
    assert [value for _, value in field.choices] == offered
    assert set(evolve.WITH_OPTIONS) <= set(offered)


# ── the recipe's models ──


@pytest.mark.parametrize("language", strings.LANGUAGES)
def test_the_recipes_models_have_cards(store, tiny_recipe, family_factory, language):
    deeper = str(family_factory(layers=4)["ja"])
    made = tiny_recipe()
    shown = sources.look(made, language)
    assert shown.count("<section") == 3 and shown.count("✓") == 2
    assert "Mistral" in shown and "float32" in shown and "apache-2.0" in shown
    assert all(f'<th scope="row">{p}</th>' in shown for p in ("fp32", "bf16", "int8", "nf4"))
    wrong = made.model_copy(update={"sources": [deeper, "no-such-<b>model"]})
    shown = sources.look(wrong, language)
    assert "✗" in shown and "has 2 layers, the second 4" in shown
    assert "no-such-&lt;b&gt;model" in shown and "<b>model" not in shown


# ── watching ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("state", "stop", "resume"),
    [
        ("queued", True, False),
        ("running", True, False),
        ("stopping", False, False),
        ("interrupted", False, True),
        ("stopped", False, True),
        ("failed", False, True),
        ("finished", False, False),
    ],
)
def test_buttons_do_what_they_can(state, stop, resume):
    shown = [button["interactive"] for button in evolve.buttons(state)]
    assert shown == [stop, resume]


def test_the_table_says_that_it_is_cut(store):
    run = store.create_run("many", RECIPE)
    scored(store, run, evolve.SHOWN)
    recipe = Recipe.from_yaml(RECIPE)
    assert evolve._table(run, recipe, "en")["label"] == "Candidates"
    store.record_ask(run, "cma", 1, [(evolve.SHOWN, np.zeros(2))])
    store.record_evaluation(
        run, Evaluation(f"candidate:{evolve.SHOWN}", "jmath", "dev", 1.0, 3, 1.0, "", ())
    )
    table = evolve._table(run, recipe, "en")
    assert table["label"] == "Candidates: the best 200 of 201 scored so far"
    rows = table["value"]["data"]
    assert len(rows) == evolve.SHOWN and rows[0][0] == evolve.SHOWN and rows[-1][0] == 1


def look(run: str, known: dict) -> tuple[dict, dict]:
    """What a page that knows ``known`` is told now, by component name, and what it then knows."""
    names = {
        "monitor": ["status", "curve", "table", "stop", "resume"],
        "results": ["report", "task", "strip", "question", "answers"],
        "talk": ["model", "compare", "talk", "talk-2", "examples"],
        "home": ["candidate", "path", "files"],
        "pictures": ["front", "which", "recipe"],
    }
    told: dict = {}
    for changes in page._look(run, known, None, "best", ENGLISH, "run", "seen", names):
        told |= changes if "__type__" not in changes else {}
    return told, told.get("seen", known)


def test_a_run_that_no_worker_takes_up_becomes_resumable(store, monkeypatch):
    """Nothing is written when that happens: the page must see it all the same."""
    run = store.create_run("waiting", RECIPE)
    told, known = look(run, {})
    assert 'data-state="queued"' in told["status"] and told["stop"]["interactive"]
    told, known = look(run, known)
    assert "status" not in told
    state = api.progress

    def late(*arguments):
        return SimpleNamespace(**(vars(state(*arguments)) | {"state": "interrupted"}))

    monkeypatch.setattr(api, "progress", late)
    told, known = look(run, known)
    assert 'data-state="interrupted"' in told["status"]
    assert told["resume"]["interactive"] and not told["stop"]["interactive"]


# ── every phase ───────────────────────────────────────────────────────────────────────────────


def phases() -> list[str]:
    """The phases that the loop recorded in the bundled sample run."""
    sample = Store()
    sample.import_runs(api.SAMPLE_RUN)
    events = [event for found in sample.runs() for event in sample.events(found.id)]
    sample.close()
    return list(dict.fromkeys(e.payload["name"] for e in events if e.kind == "phase"))


@pytest.mark.parametrize("language", strings.LANGUAGES)
def test_every_phase_can_be_shown(store, language):
    recorded = phases()
    assert recorded == ["sources", "cma", "selection", "random", "report"]
    run = store.create_run("busy", RECIPE)
    store.set_status(run, "running")
    lock = hold(store, run)
    try:
        for phase in recorded:
            store.append(run, "phase", {"name": phase})
            progress = api.progress(run, store)
            assert progress.stage == phase
            assert words.phase(language, phase) in evolve.draw(progress, language)[0]
    finally:
        lock.release()


# ── take home ─────────────────────────────────────────────────────────────────────────────────


def test_the_card_is_shown_before_it_is_written(run, store, tmp_path):
    best = store.best(run)
    card = take_home.preview(run, "best", True)
    assert card.lstrip().startswith("# tiny (candidate") and "license:" not in card
    assert f"candidate {best.id} of run {run}" in card
    other = next(c for c in store.ranked(run) if c.id != best.id)
    assert f"candidate {other.id} of run" in take_home.preview(run, f"#{other.id}", True)
    written = api.export(run, tmp_path / "out", other.id, store) / "README.md"
    assert written.read_text(encoding="utf-8").endswith(
        take_home.preview(run, str(other.id), True).lstrip()
    )


def test_the_card_waits_until_it_is_looked_at(store):
    run = store.create_run("new", RECIPE)
    assert take_home.preview(run, "best", False)["__type__"] == "update"
    assert "no scored candidate yet" in take_home.preview(run, "best", True)
    assert "is no candidate" in take_home.preview(run, "<b>", True)
    assert "<b>" not in take_home.preview(run, "<b>", True)


def test_menus_offer_the_best_first(store):
    run = store.create_run("three", RECIPE)
    scored(store, run, 3)
    menu = take_home.draw(store.run(run), "en", first=True)[0]
    assert [value for _, value in menu["choices"]] == ["best", "2", "1", "0"]
    menu = chat.draw(store.run(run), "en", first=True)[0]
    assert [value for _, value in menu["choices"]][-3:] == [f"{run}:{n}" for n in (2, 1, 0)]
