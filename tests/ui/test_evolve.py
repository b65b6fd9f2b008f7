"""The Evolve tab's handlers over a real store: the recipe that is written, what a run allows."""

import re
import subprocess
import threading
import time
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import yaml

from studio import api
from studio.api.probing import Estimate
from studio.api.standing import standing
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome
from studio.runs.lock import hold
from studio.ui import (
    controls,
    editor,
    estimating,
    evolve,
    form,
    lent,
    monitor,
    placing,
    queue,
    shared,
)
from studio.ui.strings import LANGUAGES
from studio.ui.wiring import Look, Visit
from studio.visitors import Visitor, owner_of

RECIPE = (
    "name: mine\nbase: bonsai-base\nsources: [bonsai-ja, bonsai-math]\n"
    "objectives: [{task: jmath, examples: 4}]\nbudget: {candidates: 8}\n"
)
#: What the page sends of where a run is worked on, unless somebody chose.
HERE = ("here", None, "")
ANNA, BEN = Visit(token="anna" * 10), Visit(token="benn" * 10)


def public(name: str) -> Visit:
    token = name * 10
    return Visit(Visitor(owner_of("token", token), public=True, host=False), token=token)


@pytest.fixture
def store(own_workspace, monkeypatch):
    """The page's store, in which no worker is ever started."""
    monkeypatch.setattr("studio.api.processes.detach", lambda *_, **__: None)
    shared.store.cache_clear()
    yield shared.store()
    shared.store().close()
    shared.store.cache_clear()


@pytest.fixture(autouse=True)
def toasts(monkeypatch) -> list[str]:
    """What the page was told in passing."""
    said: list[str] = []
    monkeypatch.setattr(gr, "Info", lambda words, **_: said.append(words))
    monkeypatch.setattr(gr, "Warning", lambda words, **_: said.append(words))
    return said


def values(recipe: Recipe) -> list:
    """The form's, as a page would send them."""
    return form.values_of(recipe)


def scored(store, run: str, scores: dict[int, list[float]], stage: str = "cma") -> None:
    """Candidates with these scores on the search's questions."""
    store.record_ask(run, stage, 0, [(n, np.zeros(2)) for n in scores])
    for n, given in scores.items():
        outcomes = tuple(Outcome(f"dev-{i}", score, "", {}, 3) for i, score in enumerate(given))
        mean = sum(given) / len(given)
        store.record_evaluation(
            run, Evaluation(f"candidate:{n}", "jmath", "dev", mean, 3, 1.0, "", outcomes)
        )


def look(store, run: str, visit: Visit = ANNA) -> Look:
    return Look(visit, store.run(run), api.progress(run, store), True)


# ── the recipe ────────────────────────────────────────────────────────────────────────────────


def test_the_yaml_follows_the_form():
    recipe = form.default_recipe()
    given = dict(zip(form.FIELDS, values(recipe), strict=True)) | {"budget": 33}
    code, problem, command, draft = editor.from_form(ANNA, recipe.to_yaml(), *given.values())
    assert Recipe.from_yaml(code).budget.candidates == 33 and problem == ""
    assert draft == {"yaml": code} and code in command


def test_the_form_follows_the_yaml():
    recipe = form.default_recipe()
    code = "# mine\n" + recipe.to_yaml().replace("candidates: 240", "candidates: 44")
    *fields, problem, command, draft = editor.from_yaml(ANNA, code)
    shown = dict(zip(form.FIELDS, (update["value"] for update in fields), strict=True))
    assert shown["budget"] == 44 and problem == "" and draft == {"yaml": code}
    assert "# mine" in command  # a command writes the file as its author did


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_no_recipe_is_said_and_changes_nothing_else(language):
    visit = Visit(language=language)
    broken = "sources: [<b>x</b>]\nbudget: {candidates: no}\nobjectives: [{task: jmath}]"
    *fields, problem, command, draft = editor.from_yaml(visit, broken)
    assert all(field == gr.skip() for field in fields) and command == gr.skip()
    assert 'role="alert"' in problem and "candidates" in problem and "<b>" not in problem
    assert draft == {"yaml": broken}  # a reload does not cost what was typed
    given = dict(zip(form.FIELDS, values(form.default_recipe()), strict=True)) | {"sources": []}
    code, problem, *rest = editor.from_form(visit, broken, *given.values())
    assert code == gr.skip() and "sources" in problem and rest == [gr.skip()] * 2


def test_what_was_edited_last_is_meant():
    recipe = form.default_recipe()
    other = recipe.to_yaml().replace("candidates: 240", "candidates: 44")
    assert editor.recipe_of("yaml", other, *values(recipe)).budget.candidates == 44
    assert editor.recipe_of("form", other, *values(recipe)).budget.candidates == 240
    with pytest.raises(StudioError):
        editor.recipe_of("yaml", "nothing", *values(recipe))
    assert editor.recipe_of("form", "nothing", *values(recipe)) == recipe


def test_a_draft_is_found_again():
    recipe = form.default_recipe().model_copy(update={"name": "kept"})
    preset, view, code, *fields = editor.restore(ANNA, {"yaml": recipe.to_yaml()})
    assert preset is None and view == "yaml" and Recipe.from_yaml(code) == recipe
    assert fields[0]["value"] == "kept"
    preset, view, code, *rest = editor.restore(ANNA, {"yaml": "sources: ["})
    assert code == "sources: [" and 'role="alert"' in rest[len(form.FIELDS)]
    for strange in (None, {}, [], {"yaml": 3}, {"yaml": "x" * 2_000_000}):
        filled = editor.restore(ANNA, strange)
        assert Recipe.from_yaml(filled[2]) == form.default_recipe()


@pytest.mark.parametrize("key", sorted(form.presets()))
def test_a_presets_command_names_its_file(key):
    recipe = form.presets()[key]
    assert editor.command_for(recipe) == f"python -m studio evolve recipes/{key}.yaml"


def test_any_other_command_brings_its_file_along(tmp_path):
    """Pasted into a shell it writes the very recipe that it names, whatever is in it."""
    recipe = form.default_recipe().model_copy(update={"name": "it's $HOME `id`\nRECIPE"})
    command = editor.command_for(recipe).replace("python -m studio evolve", "cat")
    said = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Recipe.from_yaml(said.stdout) == recipe
    code = "# RECIPE\nname: x\n# next\nRECIPE: 1\n" + RECIPE.partition("\n")[2]
    command = editor.command_for(recipe, code.replace("RECIPE: 1\n", "")).splitlines()
    assert command[-1] == "python -m studio evolve recipe.yaml"


def test_a_recipe_from_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("# why\n" + RECIPE, encoding="utf-8")
    view, code, *fields = editor.from_file(ANNA, str(file))
    assert view == "yaml" and code.startswith("# why") and fields[0]["value"] == "mine"
    file.write_text("#" * 1_100_000)
    with pytest.raises(StudioError, match="too large"):
        editor.from_file(ANNA, str(file))


def test_own_questions_become_the_task(store, questions, toasts):
    recipe = form.presets()["tradeoff"]
    given = ["form", recipe.to_yaml(), *values(recipe)]
    made = Recipe.from_yaml(editor.with_questions(ANNA, str(questions), *given)[1])
    kept = Path(made.objectives[0].options["path"])
    assert made.objectives[0].task == "csv" and kept.read_bytes() == questions.read_bytes()
    assert kept.parent == ANNA.who.folder("uploads") and "questions.csv" in toasts[-1]
    assert [o.property for o in made.objectives[1:]] == ["length"]
    given = ["form", made.to_yaml(), *values(made)]
    again = Recipe.from_yaml(editor.with_questions(ANNA, str(questions), *given)[1])
    assert again == made


def test_a_file_without_questions_is_not_kept(store, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    wrong = tmp_path / "..what? &<b>.csv"
    wrong.write_text("a,b\n1,2\n")
    with pytest.raises(StudioError, match="question"):
        editor.keep_questions(folder, wrong)
    assert list(folder.iterdir()) == []
    wrong.write_text("question,answer\n" + "\n".join(f"q{n},{n}" for n in range(40)))
    assert re.fullmatch(r"[\w-]+\.csv", editor.keep_questions(folder, wrong).name)
    wrong.write_bytes(b"x" * (editor.MAX_QUESTIONS + 1))
    with pytest.raises(StudioError, match="larger than"):
        editor.keep_questions(folder, wrong)


def test_models_of_another_tab_come_into_the_recipe(store):
    recipe = form.presets()["both"]
    given = ["form", recipe.to_yaml(), *values(recipe)]
    made = Recipe.from_yaml(
        editor.with_models(ANNA, "bonsai-base", ["bonsai-math", "bonsai-abel"], *given)[1]
    )
    assert made.base == "bonsai-base" and made.sources == ["bonsai-math", "bonsai-abel"]
    assert made.space.data_flow.sources is None  # bonsai-ja lends nothing any more
    paths = Recipe.from_yaml(editor.with_models(ANNA, None, ["bonsai-ja"], *given)[1])
    assert paths.base is None and paths.space.type == "data_flow"
    sees = editor.with_models(ANNA, "bonsai-vlm-base", ["bonsai-llava", "bonsai-culture"], *given)
    assert [o.task for o in Recipe.from_yaml(sees[1]).objectives] == ["ja_culture_vqa"]
    back = Recipe.from_yaml(sees[1])
    given = ["form", back.to_yaml(), *values(back)]
    made = Recipe.from_yaml(editor.with_models(ANNA, "bonsai-base", ["bonsai-ja"], *given)[1])
    assert [o.task for o in made.objectives] == ["jmath"] and made.report == []
    with pytest.raises(StudioError, match="not offered"):
        editor.with_models(public("anna"), None, ["owner/name"], *given)


# ── starting ──────────────────────────────────────────────────────────────────────────────────


def start(visit: Visit, recipe: Recipe, known=None) -> str:
    picker, _ = evolve.begin(visit, known, *HERE, "yaml", recipe.to_yaml(), *values(recipe))
    return picker["value"]


def test_start_queues_a_run_of_ones_own(store, tiny_recipe, toasts):
    recipe = tiny_recipe()
    run = start(ANNA, recipe, {"yaml": recipe.to_yaml(), "seconds": 77.0})
    assert store.run(run).expected == 77.0 and [r.id for r in store.queue()] == [run]
    assert not controls.is_elsewhere(ANNA, store.run(run), store)
    assert controls.is_elsewhere(BEN, store.run(run), store)
    second = start(BEN, recipe, {"yaml": "another", "seconds": 77.0})
    assert store.run(second).expected is None and "number 2" in toasts[-1]
    assert ANNA.token not in str([e.payload for e in store.events(run)])  # hashed


def test_a_run_is_worked_on_where_one_chose_and_so_is_its_repetition(store, tiny_recipe):
    recipe = tiny_recipe()
    given = ["yaml", recipe.to_yaml(), *values(recipe)]
    run = evolve.begin(ANNA, None, "devices", 2.0, "", *given)[0]["value"]
    assert api.Place.recorded(store, run) == api.Place("devices", workers=2)
    controls.repeated(ANNA, run, 1)
    [again] = [waiting.id for waiting in store.queue() if waiting.id != run]
    assert api.Place.recorded(store, again) == api.Place("devices", workers=2)
    assert api.Place.recorded(store, start(ANNA, recipe)) == api.Place()
    with pytest.raises(StudioError, match="takes a number of workers"):
        evolve.begin(ANNA, None, "devices", -1.0, "", *given)


def test_a_place_shows_its_settings_and_its_flags():
    workers, address, flags = placing.shown(ANNA, "here", 2, "host:1")
    assert not workers["visible"] and not address["visible"] and not flags["visible"]
    workers, address, flags = placing.shown(ANNA, "devices", 2, "host:1")
    assert workers["visible"] and not address["visible"]
    assert flags["value"] == "--executor devices --workers 2"
    flags = placing.shown(ANNA, "ray", None, "my host:1; rm")[2]
    assert flags["value"] == "--executor ray --address 'my host:1; rm'"
    assert placing.chosen("ray", None, " host:1 ") == api.Place("ray", address="host:1")


def test_in_public_nobody_chooses_a_place(store, tiny_recipe, monkeypatch):
    run = start(ANNA, tiny_recipe())
    api.Place("devices", workers=2).record(store, run)
    monkeypatch.setenv("STUDIO_PUBLIC", "1")
    assert placing.hidden() and placing.chosen("ray", 2, "host:1") is None
    assert api.Place.recorded(store, run) == api.Place()


def test_a_public_start_keeps_to_what_is_offered(store, tiny_recipe):
    with pytest.raises(StudioError, match="not offered"):
        start(public("anna"), tiny_recipe())
    assert not store.queue()


def test_an_estimate_says_what_was_measured(store, monkeypatch):
    found = Estimate(125.0, 0.5, 2_000_000_000, 30_000_000, 4_800, 64, measured=True)
    monkeypatch.setattr(api, "estimate", lambda recipe, base, left: time.sleep(0.7) or found)
    recipe = form.default_recipe()
    steps = list(estimating.estimated(ANNA, "form", recipe.to_yaml(), *values(recipe)))
    assert "ten seconds" in steps[0][0] and not steps[0][1]["interactive"]
    shown, button, cancel, known = steps[-1]
    assert all(words in shown for words in ("2 min 5 s", "2.00 GB", "30.0 MB", "4,800"))
    assert "Measured on this machine" in shown
    assert button["interactive"] and not cancel["visible"]
    assert estimating.expected(known, recipe) == 125.0
    assert estimating.expected(known, form.presets()["quick"]) is None


def test_whoever_leaves_ends_the_probe(store, monkeypatch):
    ended = threading.Event()

    def estimate(recipe, base, left):
        assert left.wait(20)
        ended.set()

    monkeypatch.setattr(api, "estimate", estimate)
    recipe = form.default_recipe()
    asking = estimating.estimated(ANNA, "form", recipe.to_yaml(), *values(recipe))
    next(asking)
    asking.close()
    assert ended.is_set()


# ── what can be done with a run ───────────────────────────────────────────────────────────────


def allowed(store, run: str, visit: Visit) -> set[str]:
    drawn = controls.draw(look(store, run, visit))
    return {key for key, update in zip(controls.ACTIONS, drawn[1:], strict=False)
            if update["visible"]}  # fmt: skip


def test_buttons_are_there_while_they_can_do_something(store):
    run = store.create_run("mine", RECIPE)
    store.enqueue(run)
    assert allowed(store, run, ANNA) == {"pause"}
    lock = hold(store, run)
    store.set_status(run, "running")
    scored(store, run, {0: [1.0, 0.0]})
    assert allowed(store, run, ANNA) == {"pause", "finish"}
    store.append(run, "enough", {})
    assert allowed(store, run, ANNA) == {"pause"}
    store.request_stop(run)
    assert allowed(store, run, ANNA) == set()
    lock.release()
    assert allowed(store, run, ANNA) == {"resume", "delete"}  # interrupted
    store.set_status(run, "finished")
    assert allowed(store, run, ANNA) == {"delete"}
    for bundled in api.bundled_runs():  # it would be back with the next start
        assert allowed(store, bundled, ANNA) == set()


def test_through_a_link_nothing_can_be_changed(store):
    run = store.create_run("mine", RECIPE)
    store.set_status(run, "stopped")
    guest = Visit(Visitor(guest=frozenset([run])), token="g" * 40)
    assert allowed(store, run, guest) == set()
    drawn = controls.draw(look(store, run, guest))
    assert "only be looked at" in "".join(part for part in drawn if isinstance(part, str))
    for action in controls.ACTIONS:
        with pytest.raises(StudioError, match="only be looked at"):
            controls._asking(action)(guest, run)
        with pytest.raises(StudioError, match="only be looked at"):
            controls.confirmed(guest, (action, run), run)
    with pytest.raises(StudioError, match="only be looked at"):
        controls.shared_link(guest, run)


def test_what_another_browser_began_asks_first(store, toasts):
    run = store.create_run("<b>hers", RECIPE)
    store.enqueue(run)
    controls.remember_starter(ANNA, run, store)
    pending, group, question, *_ = controls._asking("pause")(BEN, run)
    assert pending == ("pause", run) and group["visible"] and not store.run(run).stop
    assert "another browser" in question and run in question and "<b>hers" not in question
    pending, group, *_ = controls.confirmed(BEN, pending, run)
    assert pending is None and not group["visible"] and store.run(run).stop
    store.set_status(run, "queued")
    assert controls._asking("pause")(ANNA, run)[0] is None and store.run(run).stop
    assert len(toasts) == 2


def test_deleting_always_asks_and_only_for_the_run_that_is_seen(store):
    run, other = (store.create_run(name, RECIPE) for name in "ab")
    for one in (run, other):
        store.set_status(one, "stopped")
        controls.remember_starter(ANNA, one, store)
    pending, group, question, *_ = controls._asking("delete")(ANNA, run)
    assert group["visible"] and run in question
    assert controls.confirmed(ANNA, pending, other)[0] is None and store.run(run)
    picker = controls.confirmed(ANNA, pending, run)[3]
    assert picker["value"] == other
    with pytest.raises(StudioError, match="no run"):
        store.run(run)


def test_resume_and_finish_put_a_run_back_in_the_queue(store):
    run = store.create_run("mine", RECIPE)
    controls.remember_starter(ANNA, run, store)
    scored(store, run, {0: [1.0, 0.0]})
    for action in ("resume", "finish"):
        store.set_status(run, "stopped")
        controls._asking(action)(ANNA, run)
        assert [r.id for r in store.queue()] == [run]
    assert "enough" in [event.kind for event in store.events(run)]


def test_a_public_run_that_goes_on_is_looked_at_again(store):
    """It may have come from a file that a stranger made."""
    anna = public("anna")
    wide = RECIPE.replace("candidates: 8", "candidates: 900000")
    run = store.create_run("mine", wide, owner=anna.who.owner)
    store.set_status(run, "running")  # and no worker: interrupted
    controls.remember_starter(anna, run, store)
    with pytest.raises(StudioError, match="gives"):
        controls._asking("resume")(anna, run)
    assert not store.queue()
    small = store.create_run("mine", RECIPE, owner=anna.who.owner)
    store.set_status(small, "running")
    controls.remember_starter(anna, small, store)
    controls._asking("resume")(anna, small)
    assert [r.id for r in store.queue()] == [small]
    with pytest.raises(StudioError, match="no run"):
        controls._asking("resume")(public("benn"), small)


def test_a_recipe_is_used_again_and_repeated(store, toasts):
    run = store.create_run("mine", RECIPE)
    assert Recipe.from_yaml(controls.duplicated(ANNA, run)[1]) == Recipe.from_yaml(RECIPE)
    controls.repeated(ANNA, run, 3)
    seeds = sorted(Recipe.from_yaml(r.recipe).seed for r in store.queue())
    assert seeds == [1, 2, 3] and "3 runs" in toasts[-1]
    with pytest.raises(StudioError, match="own machine"):
        controls.repeated(public("anna"), api.bundled_runs()[0], 3)


def test_a_run_travels_as_a_file(store, tmp_path):
    run = store.create_run("mine", RECIPE)
    scored(store, run, {0: [1.0, 0.0], 1: [1.0, 1.0]})
    store.set_status(run, "stopped")
    keeping = controls.archived(ANNA, run)
    written = Path(next(keeping)["value"])
    kept = written.rename(tmp_path / "kept.sqlite")
    keeping.close()
    assert not written.parent.exists()
    anna = public("anna")
    brought = controls.brought(anna, str(kept))["value"]
    assert brought != run and store.run(brought).owner == anna.who.owner
    assert len(store.ranked(brought)) == 2
    with pytest.raises(StudioError):
        controls.brought(anna, __file__)


def test_a_link_is_made_once(store):
    run = store.create_run("mine", RECIPE)
    link = controls.shared_link(ANNA, run)["value"]
    assert link == controls.shared_link(ANNA, run)["value"]
    assert store.shared(link.removeprefix("?share=")).id == run


# ── the queue, and how the best compares ──────────────────────────────────────────────────────


def test_the_queue_has_places_and_names_nobody_elses_run(store):
    assert queue.draw(ANNA) == ""
    anna = public("anna")
    mine = store.create_run("mine", RECIPE, owner=anna.who.owner)
    hers = store.create_run("secret", RECIPE, owner="b" * 32)
    for run in (hers, mine):
        store.enqueue(run, 60.0)
    shown = queue.draw(anna)
    assert mine in shown and hers not in shown and "secret" not in shown
    assert shown.index("somebody else") < shown.index(mine)
    assert queue.waiting() == (hers, mine)


def test_the_best_stands_beside_sources_and_random_search(store):
    run = store.create_run("mine", RECIPE)
    assert standing(run, store) == [] and monitor.draw_standing(look(store, run)) == [""]
    outcomes = tuple(Outcome(f"dev-{i}", 0.0, "", {}, 3) for i in range(4))
    for name in ("bonsai-base", "bonsai-ja"):
        store.record_evaluation(
            run, Evaluation(f"model:{name}", "jmath", "dev", 0.0, 3, 1.0, "", outcomes)
        )
    assert monitor.draw_standing(look(store, run)) == [""]  # nothing to compare yet
    scored(store, run, {0: [1, 0, 0, 0], 1: [1, 1, 1, 0]})
    scored(store, run, {2: [1, 1, 0, 0]}, stage="random")
    rows = standing(run, store)
    found = {row["role"]: (row["model"], row["score"], row["n"]) for row in rows}
    assert found["evolved"] == ("#1", 0.75, 4) and found["random"] == ("#2", 0.5, 4)
    assert found["base"][0] == "bonsai-base" and found["source"][0] == "bonsai-ja"
    assert all(row["low"] <= row["score"] <= row["high"] for row in rows)
    html = monitor.draw_standing(look(store, run))[0]
    assert "random search #2" in html and "evolved merge #1" in html and "30.1 – 95.4" in html


# ── on ZeroGPU ────────────────────────────────────────────────────────────────────────────────


def test_on_zero_gpu_the_page_drives_its_run(store, tiny_recipe, monkeypatch):
    monkeypatch.setattr("studio.zero_gpu.available", lambda: True)
    recipe = tiny_recipe(budget={"candidates": 4})
    picker, ticket = evolve.begin(ANNA, None, *HERE, "yaml", recipe.to_yaml(), *values(recipe))
    run = picker["value"]
    assert ticket[0] == run and not store.queue()  # no worker may take it
    driving = lent.drive(ANNA, ticket)
    for _ in range(3):
        next(driving)
    driving.close()  # the page is gone
    assert store.run(run).status == "stopped"
    with pytest.raises(StudioError):
        next(lent.drive(public("benn"), ticket))
    again = controls._asking("resume")(ANNA, run)[-1]
    assert again[0] == run and again != ticket and not store.queue()
    list(lent.drive(ANNA, again))
    assert store.run(run).status == "finished"
    assert list(lent.drive(ANNA, None)) == []


def test_elsewhere_no_page_drives(store, tiny_recipe):
    assert lent.ticket("abc") == gr.skip()


def test_a_space_without_storage_says_so(monkeypatch):
    assert not evolve.forgets()
    monkeypatch.setenv("SPACE_ID", "owner/space")
    monkeypatch.delenv("STUDIO_PUBLIC", raising=False)
    assert evolve.forgets()
    monkeypatch.setenv("STUDIO_VOLUME", "/data")
    assert not evolve.forgets()


def test_every_preset_is_a_recipe_that_runs_here():
    kinds = {"jmath", "paths", "both", "tradeoff", "vlm", "four-bit"}
    assert kinds <= set(form.presets())
    for recipe in form.presets().values():
        assert yaml.safe_load(recipe.to_yaml())["name"] == recipe.name
