"""The tabs' handlers over a real store: what the page would be told, without a browser."""

import shutil
from pathlib import Path
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
    results,
    shared,
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
    for tab in (chat, evolve, page, results, sources, take_home):
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


# ── results ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def questionnaires(tmp_path, questions) -> tuple[Path, Path]:
    """Two files of a user's questions; the second asks other things."""
    mine, other = tmp_path / "mine.csv", tmp_path / "other.csv"
    shutil.copy(questions, mine)
    words = questions.read_text(encoding="utf-8").replace("apples", "pears")
    other.write_text(words, encoding="utf-8")
    return mine, other


@pytest.fixture
def run(store, tiny_recipe, questionnaires) -> str:
    """A finished run with two tasks of one kind."""
    mine, other = (
        {"task": "csv", "options": {"path": str(path), "match": "contains", "max_new_tokens": 2}}
        for path in questionnaires
    )
    recipe = tiny_recipe(
        objectives=[mine | {"examples": 5}],
        report=[other],
        budget={"candidates": 4},
        search={"population": 4, "finalists": 2, "random_baseline": False},
    )
    results._questions.cache_clear()
    return api.evolve(recipe, store)


def test_the_second_task_of_a_kind_shows_its_own_questions(run):
    _, strip, _, answers = results.draw_strip(run, "csv (2)", ENGLISH)
    assert "pears" in strip and "pears" in answers and "apples" not in strip
    assert "pears" in results.read(run, "csv (2)", 2, ENGLISH)
    assert "apples" in results.draw_strip(run, "csv", ENGLISH)[1]


def test_a_task_file_that_is_gone_or_changed(run, questionnaires):
    mine, other = questionnaires
    mine.unlink()
    lines = other.read_text(encoding="utf-8").splitlines(keepends=True)
    other.write_text(lines[0] + "New?,1,test\n" + "".join(lines[1:]), encoding="utf-8")
    for task in ("csv", "csv (2)"):
        _, strip, _, answers = results.draw_strip(run, task, ENGLISH)
        assert "gone or has changed" in answers and "pears" not in strip
        assert 'class="cells' in strip and "evolved" in answers
        assert "gone or has changed" in results.read(run, task, 2, ENGLISH)


@pytest.mark.parametrize("optimizer", ["cma", "random"])
def test_the_winner_is_marked_whatever_searched_for_it(store, tiny_recipe, optimizer):
    search = {"optimizer": optimizer, "population": 4, "finalists": 2}
    found = api.evolve(tiny_recipe(search=search, budget={"candidates": 4}), store)
    split, rows = results._rows(found, "csv")
    assert split == "test"
    roles = ["base", "source", "source", *(["random"] if optimizer == "cma" else []), "evolved"]
    assert [row["role"] for row in rows] == roles
    _, strip, _, _ = results.draw_strip(found, "csv", ENGLISH)
    assert strip.count('class="cells best"') == 1 and "test questions" in strip
    assert 'class="evolved"' in results.draw(store.run(found), ENGLISH)[0]


# ── other spaces, several objectives ──────────────────────────────────────────────────────────


@pytest.fixture
def wide(store, tiny_recipe, questionnaires) -> str:
    """A finished run in both spaces for two tasks and the length."""
    mine, other = (
        {"task": "csv", "examples": 4, "options": {"path": str(path), "match": "contains"}}
        for path in questionnaires
    )
    for item in (mine, other):
        item["options"]["max_new_tokens"] = 2
    recipe = tiny_recipe(
        objectives=[mine, other, {"property": "length"}],
        space={
            "type": "both",
            "parameter": {"method": "linear", "layer_granularity": "all"},
            "data_flow": {"repeats": 2},
        },
        search={"population": 4, "finalists": 2, "optimizer": "random"},
        budget={"candidates": 8},
    )
    results._questions.cache_clear()
    return api.evolve(recipe, store)


def test_a_run_for_several_objectives_shows_a_column_and_two_curves(store, wide):
    recipe = Recipe.from_yaml(store.run(wide).recipe)
    table = evolve._table(wide, recipe, "en")
    heads = table["value"]["headers"]
    assert heads[2:-1] == ["Search", "csv %", "csv (2) %", "layers", "Mean %"]
    rows = table["value"]["data"]
    assert {row[2] for row in rows} == {"parameter space", "data-flow space"}
    for row in rows:
        found = store.candidate(wide, row[0]).scores
        assert row[3] == round(100 * found["csv"], 1)
        # what no merge of weights changes is no objective there
        assert row[5] == found.get("length") and (row[5] is None) == (row[2] == "parameter space")
    means = [row[6] for row in rows]
    assert means == sorted(means, reverse=True)
    status, curves, _ = evolve.draw(api.progress(wide, store), "en")
    assert "Best mean so far" in status and "hypervolume" in curves
    mean, covered = curves.split("</figure>")[:2]
    assert "parameter space" in mean and "data-flow space" in mean and "/base " in mean
    assert "parameter space" not in covered and "data-flow space" in covered


def test_the_front_is_drawn_and_offered_first(store, wide):
    recipe = Recipe.from_yaml(store.run(wide).recipe)
    found, members = shared.front_of(recipe, store.ranked(wide))
    assert members and all(c.stage == "data_flow" for c in found)
    labels = dict(shared.candidate_choices(store.run(wide), store, "en"))
    firsts = list(labels)[: len(members)]
    assert all(label.startswith("★ #") and "layers" in label for label in firsts)
    assert {labels[label] for label in firsts} == {c.id for c in members}
    assert any(label.endswith(" · parameter space") for label in labels)
    html = results.draw_front(store.run(wide), "best", "en")
    assert html.count('<button type="button" class="dot"') == len(members)
    assert html.count('<i class="source" style') == 3  # their length is known too
    chosen = take_home.draw(store.run(wide), "en", first=True)[0]["choices"]
    assert [label for label, _ in chosen[1:]] == list(labels)
    offered = chat.draw(store.run(wide), "en", first=True)[0]["choices"]
    assert any("★" in label and value == f"{wide}:{members[0].id}" for label, value in offered)


def test_a_click_in_the_front_opens_that_candidate(store, wide):
    recipe = Recipe.from_yaml(store.run(wide).recipe)
    _, members = shared.front_of(recipe, store.ranked(wide))
    event = SimpleNamespace(_data={"candidate": members[-1].id})
    number, inside = results.picked_candidate(wide, event, ENGLISH)
    assert number == str(members[-1].id) and f"Candidate {number}:" in inside
    html = results.draw_front(store.run(wide), number, "en")
    assert html.count('aria-pressed="true"') == 2  # in the plot and in the table


def test_each_candidate_is_shown_as_what_it_is(store, wide):
    run = store.run(wide)
    mixed = store.ranked(wide, "parameter")[0]
    assert 'class="heat' in results.draw_recipe(run, f"#{mixed.id}", "en")
    path = results.draw_recipe(run, "best", "en")
    assert 'class="lanes"' in path and f"parameter #{store.best(wide, 'parameter').id}" in path
    assert "is no candidate" in results.draw_recipe(run, "<b>", "en")


def test_the_winner_of_a_stage_stands_between_random_search_and_the_result(store, wide):
    _, rows = results._rows(wide, "csv")
    roles = [row["role"] for row in rows]
    assert roles[:3] == ["base", "source", "source"] and roles[3] == "stage"
    assert set(roles[4:]) == {"evolved"}
    assert rows[-1]["subject"] == f"candidate:{store.best(wide).id}"
    report, tasks, strip, *_ = results.draw(store.run(wide), ENGLISH)
    assert "winner of the first search" in report
    assert tasks["choices"] == ["csv", "csv (2)"]
    assert strip.count('class="cells best"') == 1


def test_a_run_for_a_property_first_can_be_talked_to(store):
    recipe = (
        "sources: [bonsai-abel, bonsai-ja]\nspace: {type: data_flow}\n"
        "objectives: [{property: length}, {task: jmath}, {task: emath}]\n"
    )
    run = store.create_run("short", recipe)
    examples = chat.draw(store.run(run), "en", first=True)[-1]
    assert len(examples.samples) == chat.EXAMPLES
    assert "front appears" in results.draw_front(store.run(run), "best", "en")


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
