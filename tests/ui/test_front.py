"""The Front tab over a real store: what handlers and panels tell the page, without a browser."""

import csv
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studio import api
from studio.api.inside import Inside, ahead, asked, references
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store
from studio.ui import (
    curves,
    front,
    front_candidate,
    front_plot,
    front_table,
    shared,
    strings,
    versus,
)
from studio.ui.front_table import Order
from studio.ui.wiring import Look, Visit
from studio.visitors import Visitor

RECIPE = "base: bonsai-base\nsources: [bonsai-ja, bonsai-math]\nobjectives: [{task: jmath}]\n"


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """An empty store that the tab reads."""
    made = Store(tmp_path / "runs.sqlite")
    monkeypatch.setattr(front, "store", lambda: made)
    yield made
    made.close()


@pytest.fixture(scope="module")
def originals(tmp_path_factory, questions) -> tuple[Path, Path]:
    """Two files of a user's questions; the second asks other things."""
    folder = tmp_path_factory.mktemp("questions")
    mine, other = folder / "mine.csv", folder / "other.csv"
    shutil.copy(questions, mine)
    words = questions.read_text(encoding="utf-8").replace("apples", "pears")
    other.write_text(words, encoding="utf-8")
    return mine, other


@pytest.fixture
def questionnaires(originals) -> Iterator[tuple[Path, Path]]:
    """The same, to be spoilt by a test."""
    kept = [path.read_bytes() for path in originals]
    yield originals
    for path, content in zip(originals, kept, strict=True):
        path.write_bytes(content)


def evolved(folder: Path, recipe: Recipe) -> Path:
    """The store of a finished run."""
    made = Store(folder / "runs.sqlite")
    api.evolve(recipe, made)
    made.close()
    return folder / "runs.sqlite"


@pytest.fixture(scope="module")
def narrow_store(tmp_path_factory, tiny_recipe, originals) -> Path:
    mine, other = (
        {"task": "csv", "options": {"path": str(path), "match": "contains", "max_new_tokens": 2}}
        for path in originals
    )
    recipe = tiny_recipe(
        objectives=[mine | {"examples": 5}],
        report=[other],
        budget={"candidates": 4},
        search={"population": 4, "finalists": 2, "random_baseline": False},
    )
    return evolved(tmp_path_factory.mktemp("narrow"), recipe)


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory, tiny_recipe, originals) -> Path:
    mine, other = (
        {"task": "csv", "examples": 4, "options": {"path": str(path), "match": "contains"}}
        for path in originals
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
    return evolved(tmp_path_factory.mktemp("wide"), recipe)


@pytest.fixture
def run(store, narrow_store) -> str:
    """A finished run with two tasks of one kind, of which the second is only reported."""
    return store.import_runs(narrow_store)[0]


@pytest.fixture
def wide(store, wide_store) -> str:
    """A finished run in both spaces for two tasks and the length."""
    return store.import_runs(wide_store)[0]


def look(store: Store, run: str, language: str = "en", fresh: bool = True) -> Look:
    return Look(Visit(language=language), store.run(run), api.progress(run, store), fresh)


def inside(run: str, which="best", other="", task=None, question=None, **visit) -> list:
    """What the page shows of a pick, in the order of the tab, the recipe last."""
    quick, late = front.look_inside(Visit(**visit), run, which, other, task, question)
    return [*quick[:-1], late[-1]]


HEAD, TASK, STRIP, ONLY, QUESTION, ANSWERS, INSIDE = range(7)


def scored(store: Store, run: str, scores: list[float]) -> None:
    """Candidates 0, 1, … with scores on one question."""
    store.record_ask(run, "cma", 0, [(n, np.zeros(2)) for n in range(len(scores))])
    said = (Outcome("dev-0000", 1.0, "42", {}, 3),)
    for n, score in enumerate(scores):
        store.record_evaluation(
            run, Evaluation(f"candidate:{n}", "jmath", "dev", score, 3, 1.0, "", said)
        )


def test_the_axis_of_a_finished_run_ends_where_its_searches_did(store):
    run = store.create_run("short", RECIPE)
    recipe = Recipe.from_yaml(RECIPE)
    budget = recipe.budget.candidates
    assert curves.extent(run, recipe, [7, 12], store) == budget  # it may still go on
    store.set_status(run, "finished")
    assert curves.extent(run, recipe, [7, 12], store) == 12
    assert curves.extent(run, recipe, [budget + 1], store) == budget  # and CMA-ES's mean
    assert curves.extent(run, recipe, [], store) == budget


# ── questions ─────────────────────────────────────────────────────────────────────────────────


def test_the_second_task_of_a_kind_shows_its_own_questions(run):
    shown = inside(run, task="csv (2)")
    assert shown[TASK]["choices"] == ["csv", "csv (2)"] and shown[TASK]["value"] == "csv (2)"
    assert "pears" in shown[STRIP] and "pears" in shown[ANSWERS]
    assert "apples" not in shown[STRIP]
    assert "pears" in front.read(Visit(), run, "best", "", "csv (2)", 2)
    assert "apples" in inside(run)[STRIP]


def test_a_task_file_that_is_gone_or_changed(run, questionnaires):
    mine, other = questionnaires
    mine.unlink()
    lines = other.read_text(encoding="utf-8").splitlines(keepends=True)
    other.write_text(lines[0] + "New?,1,test\n" + "".join(lines[1:]), encoding="utf-8")
    for task in ("csv", "csv (2)"):
        shown = inside(run, task=task)
        assert "gone or has changed" in shown[ANSWERS] and "pears" not in shown[STRIP]
        assert 'class="cells' in shown[STRIP] and "evolved" in shown[ANSWERS]
        assert "gone or has changed" in front.read(Visit(), run, "best", "", task, 2)


@pytest.mark.parametrize("optimizer", ["cma", "random"])
def test_the_winner_is_marked_whatever_searched_for_it(store, tiny_recipe, optimizer):
    search = {"optimizer": optimizer, "population": 4, "finalists": 2}
    found = api.evolve(tiny_recipe(search=search, budget={"candidates": 4}), store)
    seen = asked(found, "csv", store=store)
    assert seen.split == "test"
    roles = ["base", "source", "source", *(["random"] if optimizer == "cma" else []), "evolved"]
    assert [row["role"] for row in seen.rows] == roles
    strip = inside(found)[STRIP]
    assert strip.count('class="cells best"') == 1 and "test questions" in strip
    assert 'class="evolved"' in front.draw_report(look(store, found))[0]


def test_whoever_was_not_reported_shows_the_searchs_questions_and_says_so(store, run):
    best = store.best(run)
    reported = inside(run)
    assert "never seen" not in reported[HEAD] and "Reported:" in reported[HEAD]
    assert f"Candidate {best.id}" in reported[HEAD] and "best of this run" in reported[HEAD]
    other = next(c for c in store.ranked(run) if c.id != best.id)
    shown = inside(run, str(other.id))
    assert "Not reported" in shown[HEAD] and "search&#x27;s questions" in shown[STRIP]
    assert f"evolved (#{other.id})" in shown[STRIP] and "best of this run" not in shown[HEAD]
    assert shown[STRIP].count('class="cells best"') == 1
    beside = inside(run, other=str(other.id))
    assert "The other was never asked the test questions" in beside[HEAD]
    # a task that is only reported was never put to it
    assert "never asked csv (2)" in inside(run, str(other.id), task="csv (2)")[STRIP]


def test_before_the_first_candidate_the_sources_are_shown(store):
    run = store.create_run("young", RECIPE)
    assert "appears once the sources are scored" in inside(run)[STRIP]
    said = (Outcome("dev-0000", 1.0, "42", {"right": True}, 3),)
    store.record_evaluation(run, Evaluation("model:bonsai-ja", "jmath", "dev", 1, 3, 1, "", said))
    shown = inside(run)
    assert "bonsai-ja" in shown[STRIP] and shown[HEAD] == shown[INSIDE] == ""
    assert "first point appears" in front.draw_plot(look(store, run), None)[0]


def test_what_was_typed_for_a_candidate_is_a_sentence_when_there_is_none(run):
    for typed in ("<b>", "999", "-1"):
        shown = inside(run, typed)
        assert "candidate" in shown[HEAD] and "<b>" not in shown[HEAD]
        assert shown[STRIP] == "" and shown[QUESTION]["visible"] is False
        assert inside(run, typed, language="ja")[HEAD] != shown[HEAD]


def test_a_question_beyond_the_last_is_the_last(run):
    count = len(asked(run, "csv", store=front.store()).rows[0]["outcomes"])
    assert f"Question {count} of {count}" in inside(run, question=10_000)[ANSWERS]
    assert f"Question 1 of {count}" in inside(run, question=-3)[ANSWERS]


# ── one beside another ────────────────────────────────────────────────────────────────────────


def test_densities_are_compared_too():
    def made(number: int, weight: float, density: float) -> Inside:
        row = {"group": "layers 0-1", "filter": None, "source": "ja", "t": None}
        return Inside(number, "parameter", ("ja",), (row | {"weight": weight, "density": density},))

    shown = versus.recipes(made(1, 0.5, 0.25), made(2, 0.75, 0.2), "en")
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert cells == ["0.50<small>0.25</small>", "0.75<small>0.20</small>",
                     "<b>+0.25</b><small>−0.05</small>"]  # fmt: skip
    assert "densities" in shown


def test_two_candidates_side_by_side(store, run):
    first, second = (c.id for c in store.ranked(run)[:2])
    shown = inside(run, str(first), str(second))
    assert 'class="es-figure es-versus' in shown[INSIDE] and "difference" in shown[INSIDE]
    assert f">#{first}</th>" in shown[INSIDE] and f">#{second}</th>" in shown[INSIDE]
    changes = re.findall(r'class="change"><b>([+−]?\d\.\d\d)</b>', shown[INSIDE])
    weights = [float(w) for w in re.findall(r'%">(-?\d\.\d\d)<', shown[INSIDE])]
    pairs = zip(weights[::2], weights[1::2], strict=True)
    assert changes and [float(c.replace("−", "-")) for c in changes] == pytest.approx(
        [b - a for a, b in pairs], abs=0.011
    )
    assert shown[ONLY].count("<h4>") == 2 and f"#{second}" in shown[ONLY]
    rows = asked(run, "csv", first, second, store).rows
    assert [row["subject"] for row in rows[-2:]] == [f"candidate:{second}", f"candidate:{first}"]
    better = [ahead(rows, f"candidate:{a}", [f"candidate:{b}"]) for a, b in
              ((first, second), (second, first))]  # fmt: skip
    assert shown[ONLY].count("<button") == sum(map(len, better))
    assert not set(better[0]) & set(better[1])
    assert inside(run, str(first), str(first))[ONLY] == ""  # nobody is beside themselves


def test_two_are_compared_by_the_questions_that_both_were_asked(store, run):
    best = store.best(run)
    unreported = next(
        c for c in store.ranked(run)
        if store.evaluation(run, f"candidate:{c.id}", "csv", "test") is None
    )  # fmt: skip
    assert asked(run, "csv", best.id, store=store).split == "test"
    assert asked(run, "csv", best.id, unreported.id, store).split == "dev"
    # of a task that one was never asked, the other's answers remain
    assert asked(run, "csv (2)", best.id, unreported.id, store).split == "test"
    shown = inside(run, str(best.id), str(unreported.id), "csv (2)")
    assert f"#{unreported.id} was not asked" in shown[ONLY]


def test_recipes_of_two_spaces_are_each_shown_as_they_are(store, wide):
    path = store.best(wide).id
    mixed = store.ranked(wide, "parameter")[0].id
    shown = inside(wide, str(path), str(mixed))[INSIDE]
    assert 'class="lanes"' in shown and 'class="heat' in shown and "different spaces" in shown
    other = next(c.id for c in store.ranked(wide, "data_flow") if c.id != path)
    both = inside(wide, str(path), str(other))[INSIDE]
    assert both.count('class="lanes"') == 2 and "in both" in both


def test_leads_are_counted_from_one():
    def row(subject: str, scores: list[float]) -> dict:
        return {"subject": subject, "outcomes": [Outcome("x", s, "", {}, 1) for s in scores]}

    rows = [row("model:a", [0.5, 0.2, 0]), row("model:b", [0, 0.1, 1]), row("me", [0.6, 1.0, 0.5])]
    assert ahead(rows, "me", ["model:a", "model:b"]) == pytest.approx({1: 0.1, 2: 0.8})
    assert ahead(rows, "me", []) == ahead(rows, "nobody", ["model:a"]) == {}


# ── the front ─────────────────────────────────────────────────────────────────────────────────


def test_the_front_is_drawn_and_listed_first(store, wide):
    recipe = Recipe.from_yaml(store.run(wide).recipe)
    found, members = shared.front_of(recipe, store.ranked(wide))
    assert members and all(c.stage == "data_flow" for c in found)
    plot = front.draw_plot(look(store, wide), None)[0]
    assert plot.count('<button type="button" class="dot"') == len(members)
    assert plot.count('class="dot" data-c=') == len(found)
    assert 'i class="source" style' not in plot  # nobody waited for the models' lengths
    plot = front.draw_sources(look(store, wide), None)[0]
    assert plot.count('<i class="source" style') == 3
    assert plot == front.draw_plot(look(store, wide), None)[0]
    assert front.draw_sources(look(store, wide), None)[0]["__type__"] == "update"
    assert f'aria-valuemax="{len(found)}"' in plot
    table, order, which, other = front.draw_table(look(store, wide), None, None)
    assert order is None and which["value"] == "best" and other["value"] == ""
    first = [int(n) for n in re.findall(r'<tr data-c="(\d+)"', table)][: len(members)]
    assert set(first) == {c.id for c in members}
    assert table.count("<td>★</td>") == len(members)
    assert [value for _, value in which["choices"]][1] == str(members[0].id)


def test_a_pick_is_followed_by_all_of_it(store, wide):
    _, members = shared.front_of(
        Recipe.from_yaml(store.run(wide).recipe), store.ranked(wide)
    )  # fmt: skip
    chosen = members[-1].id
    quick, late = front.pick(Visit(event={"candidate": chosen}), wide, "best", "", None, None)
    assert quick[0] == late[0] == str(chosen)
    assert f"Candidate {chosen}" in quick[1 + HEAD]
    assert f"evolved (#{chosen})" in quick[1 + STRIP] and f"Candidate {chosen}:" in late[-1]
    plot = front.draw_plot(look(store, wide, fresh=False), str(chosen))[0]
    table = front.draw_table(look(store, wide, fresh=False), None, str(chosen))[0]
    pressed = re.compile(r'data-c="(\d+)"[^>]*aria-pressed="true"')
    assert pressed.findall(plot) == pressed.findall(table) == [str(chosen)]


def test_each_candidate_is_shown_as_what_it_is(store, wide):
    mixed = store.ranked(wide, "parameter")[0]
    assert 'class="heat' in inside(wide, f"#{mixed.id}")[INSIDE]
    path = inside(wide)[INSIDE]
    assert 'class="lanes"' in path and f"parameter #{store.best(wide, 'parameter').id}" in path


def test_the_winner_of_a_stage_stands_between_the_sources_and_the_result(store, wide):
    rows = asked(wide, "csv", store=store).rows
    assert [row["role"] for row in rows] == ["base", "source", "source", "stage", "evolved"]
    assert rows[-1]["subject"] == f"candidate:{store.best(wide).id}"
    assert "winner of the first search" in front.draw_report(look(store, wide))[0]


def test_a_run_for_several_objectives_without_candidates(store):
    recipe = (
        "sources: [bonsai-abel, bonsai-ja]\nspace: {type: data_flow}\n"
        "objectives: [{property: length}, {task: jmath}, {task: emath}]\n"
    )
    run = store.create_run("short", recipe)
    assert "first point appears" in front.draw_plot(look(store, run), None)[0]
    assert inside(run)[TASK]["choices"] == ["jmath", "emath"]


# ── scores over time ──────────────────────────────────────────────────────────────────────────


def test_the_sample_runs_time_shows_every_candidate_and_what_they_are_measured_by(store):
    (run,) = store.import_runs(api.SAMPLE_RUN)
    plot = front_plot.draw(store.run(run), store.ranked(run), None, store, "en")
    count = len(store.ranked(run))
    assert plot.count(' data-c="') == count and f'aria-valuemax="{count}"' in plot
    assert plot.count('class="whisker"') == 5 and "random search" in plot
    records = plot.count('<button type="button" class="dot"')
    assert 2 < records < 30 and plot.count('class="dot other"') > 200
    assert "accuracy, %" in plot and len(plot) < 250 * count
    found = {one.subject: one for one in references(run, store)}
    assert found["model:bonsai-math"].low < 0.17 < found["model:bonsai-math"].high
    assert [one.role for one in references(run, store)].count("random") == 1


def test_a_broken_candidate_is_no_record(store):
    run = store.create_run("three", RECIPE)
    scored(store, run, [0.1, 0.3])
    store.record_ask(run, "cma", 1, [(2, np.zeros(2))])
    store.record_evaluation(
        run, Evaluation("candidate:2", "jmath", "dev", 0.9, 3, 1.0, "NaN <b>", ())
    )
    plot = front_plot.draw(store.run(run), store.ranked(run), None, store, "en")
    assert re.findall(r'<button type="button" class="dot" data-c="(\d)"', plot) == ["0", "1"]
    assert "Broken: NaN &lt;b&gt;" in inside(run, "2")[HEAD]


# ── the table ─────────────────────────────────────────────────────────────────────────────────


def test_the_table_says_that_it_is_cut_and_sorts_all_before_it_cuts(store):
    run = store.create_run("many", RECIPE)
    scored(store, run, [n / 1000 for n in range(front_table.SHOWN)])
    assert "All 200 that are scored" in front.draw_table(look(store, run), None, None)[0]
    store.record_ask(run, "cma", 1, [(200, np.zeros(2))])
    store.record_evaluation(run, Evaluation("candidate:200", "jmath", "dev", 1, 3, 1, "", ()))
    table = front.draw_table(look(store, run), None, None)[0]
    assert "The first 200 of 201 by jmath %" in table
    listed = re.findall(r'<tr data-c="(\d+)"', table)
    assert len(listed) == 200 and listed[:2] == ["200", "199"] and listed[-1] == "1"
    assert 'aria-sort="descending"><button type="button" data-sort="jmath"' in table
    turn = Visit(event={"column": "jmath"})
    order, table = front.sort(turn, run, None, "best")
    assert order == Order("jmath", False) and 'aria-sort="ascending"' in table
    assert re.findall(r'<tr data-c="(\d+)"', table)[0] == "0"
    order, table = front.sort(Visit(event={"column": "id"}), run, order, "best")
    assert order == Order("id", False)
    # a panel that is drawn again keeps the order; a column that is none changes nothing
    assert front.draw_table(look(store, run, fresh=False), order, "best")[1] == order
    assert front.sort(Visit(event={"column": "<script>"}), run, order, "best")[0] == order


def test_one_row_is_the_tables_tab_stop(store):
    run = store.create_run("three", RECIPE)
    scored(store, run, [0.1, 0.3, 0.2])
    table = front.draw_table(look(store, run, fresh=False), None, "2")[0]
    assert re.findall(r'data-c="(\d)" tabindex="0"', table) == ["2"]
    assert table.count('tabindex="-1"') == 2 and table.count('<tr data-c="1" class="best"') == 1


# ── languages, files, strangers ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", strings.LANGUAGES)
def test_nothing_stays_in_english(store, language):
    (run,) = store.import_runs(api.SAMPLE_RUN)
    best, other = (c.id for c in store.ranked(run)[:2])
    shown = [
        *front.draw_plot(look(store, run, language), None),
        front.draw_table(look(store, run, language), None, None)[0],
        *front.draw_report(look(store, run, language)),
        *inside(run, str(best), str(other), language=language),
        inside(run, str(best), language=language)[INSIDE],
    ]
    text = re.sub(r"<[^>]*>", " ", " ".join(map(str, shown)))
    english = {"evolved (#", "random search", "layers 0", "embedding", " head ", "candidate"}
    found = {word for word in english if word in text}
    assert found == (english if language == "en" else set())


def test_the_file_of_all_candidates(store, run):
    rows = list(csv.reader(io.StringIO(Path(front.save(Visit(), run)).read_text("utf-8-sig"))))
    assert rows[0][:2] == ["id", "stage"] and len(rows) == 1 + len(store.candidates(run))


def test_of_a_task_that_cannot_be_made_any_more_the_metric_is_known():
    recipe = "sources: [a, b]\nbase: c\nobjectives: [{task: csv, options: {path: /gone.csv}}]\n"
    assert shared.metrics(recipe) == {"csv": "accuracy"}
    folder = recipe.replace("csv, options: {path", "vqa, options: {path").replace(".csv", "")
    assert shared.metrics(folder) == {"vqa": "rouge_l"}


def test_nobody_looks_into_somebody_elses_run(store, run):
    stranger = Visitor("f" * 32, True)
    for handler, given in (
        (front.look_inside, ("best", "", None, None)),
        (front.read, ("best", "", "csv", 1)),
        (front.sort, (None, "best")),
        (front.ask_another, ("best", "", "csv", None)),
        (front.save, ()),
    ):
        visit = replace(Visit(who=stranger), event={"column": "id", "candidate": 1})
        with pytest.raises(StudioError, match="no run"):
            result = handler(visit, run, *given)
            list(result)
    assert front_candidate.name(" #7 ") == "7"
