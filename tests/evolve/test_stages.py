"""Runs of several stages, spaces and objectives: what they record, and that no interruption shows.

The models are random and two layers deep; a whole run takes a second or two.
"""

import gc
import sys
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from studio import api, chat
from studio.errors import StudioError
from studio.evolve import session, spaces
from studio.recipe import PROPERTIES, Recipe
from studio.runs import Store
from studio.runs.front import front, gains, hypervolume
from tests.conftest import SYMBOL, make_model, perturb, save_model
from tests.trajectory import recorded, trajectory

WEIGHTS = {"method": "task_arithmetic", "layer_granularity": "all"}
BOTH = {"type": "both", "parameter": WEIGHTS, "data_flow": {"repeats": 2}}
PATHS = {"type": "data_flow", "repeats": 2}
SEARCH = {"population": 4, "finalists": 2}
TWO_STAGES = ["parameter", "data_flow"]
FOUR_STAGES = [*TWO_STAGES, "random parameter", "random data_flow"]


class Crash(BaseException):
    """The plug is pulled."""


@pytest.fixture(autouse=True)
def quick_collection():
    """Stages collect garbage: what pytest and torch hold by now need not be looked through."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def other_questions(questions, tmp_path_factory) -> Path:
    """A second task: the same questions with another answer to them."""
    path = tmp_path_factory.mktemp("other") / "other.csv"
    text = questions.read_text(encoding="utf-8")
    path.write_text(text.replace(f",{SYMBOL},", ",e,"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def objectives(questions, other_questions):
    """`objectives(2, "length", tokens=2)`: so many tasks, and properties."""

    def make(tasks: int, *properties: str, tokens: int = 2) -> list[dict]:
        files = (questions, other_questions)[:tasks]
        options = {"match": "contains", "max_new_tokens": tokens}
        return [
            {"task": "csv", "options": options | {"path": str(path)}, "examples": 5}
            for path in files
        ] + [{"property": name} for name in properties]

    return make


@pytest.fixture(scope="module")
def both(tiny_recipe):
    """`both(budget=6, **changes)`: a recipe of the two spaces."""

    def make(budget: int = 6, **changes) -> Recipe:
        changes = {"space": BOTH, "search": SEARCH, "budget": {"candidates": budget}} | changes
        return tiny_recipe(**changes)

    return make


@pytest.fixture(scope="module")
def whole(both, tmp_path_factory):
    """(store, run) of the two spaces with their baselines, never interrupted."""
    store = Store(tmp_path_factory.mktemp("whole") / "runs.sqlite")
    return store, api.evolve(both(), store)


@pytest.fixture(scope="module")
def short(both, tmp_path_factory):
    """(recipe, store, run) of the two spaces, no baselines, never interrupted."""
    recipe = both(4, search=SEARCH | {"random_baseline": False})
    store = Store(tmp_path_factory.mktemp("short") / "runs.sqlite")
    return recipe, store, api.evolve(recipe, store)


def everything(store, run: str) -> dict:
    """All that a run decided and measured, in order; no times, no sessions."""
    kinds = ("start", "ask", "tell", "front", "favorite", "winner")
    return trajectory(store, run) | {
        "decisions": [(e.kind, e.payload) for e in store.events(run) if e.kind in kinds],
        "scores": [c.scores for c in store.candidates(run)],
    }


def phases(store, run: str) -> list[str]:
    return [e.payload["name"] for e in store.events(run) if e.kind == "phase"]


def events(store, run: str, kind: str, stage: str | None = None) -> list[dict]:
    found = [e.payload for e in store.events(run) if e.kind == kind]
    return [payload for payload in found if stage in (None, payload.get("stage"))]


def winners(store, run: str) -> dict[str, int]:
    return {payload["stage"]: payload["id"] for payload in events(store, run, "winner")}


# ── both spaces in one run ────────────────────────────────────────────────────────────────────


def test_weights_then_paths_over_their_winner_then_both_at_random(whole):
    store, run = whole
    assert store.run(run).status == "finished"
    searched = [phase for stage in FOUR_STAGES for phase in (stage, "selection")]
    assert phases(store, run) == ["sources", *searched, "report"]
    everyone = store.candidates(run)
    assert [c.id for c in everyone] == list(range(len(everyone)))
    assert [c.stage for c in everyone] == sorted(
        (c.stage for c in everyone), key=FOUR_STAGES.index
    )  # fmt: skip
    counts = {stage: len(store.candidates(run, stage)) for stage in FOUR_STAGES}
    # the budget of each; cma adds its favourite, a search of paths its start
    assert counts == dict(zip(FOUR_STAGES, (6 + 1, 6 + 2, 6, 6 + 1), strict=True))
    assert all(c.scores.keys() == {"csv"} for c in everyone)
    # the two searches of paths have one start; nothing else is asked twice
    assert len({c.genome.tobytes() for c in everyone}) == len(everyone) - 1


def test_the_winner_of_the_first_leads_the_paths_of_the_second(whole):
    store, run = whole
    for mark in ("", "random "):
        space = spaces.rebuild_space(store, run, f"{mark}data_flow")
        number = winners(store, run)[f"{mark}parameter"]
        main, *lenders = space.sources
        assert main.name == f"{mark}parameter #{number}"
        recipe = Recipe.from_yaml(store.run(run).recipe)
        assert [source.name for source in lenders] == recipe.sources
        merged = spaces.rebuild(store, run, store.candidate(run, number), "m")
        for name in main.names():
            assert torch.equal(main.get(name), merged.get(name)), name


def test_a_search_of_paths_begins_at_its_main_model(whole):
    """The start is the merge itself: what it answered in its own stage it answers here."""
    store, run = whole
    for mark in ("", "random "):
        (start,) = events(store, run, "start", f"{mark}data_flow")
        (number,) = start["ids"]
        stage = store.candidates(run, f"{mark}data_flow")
        assert stage[0].id == number
        space = spaces.rebuild_space(store, run, f"{mark}data_flow")
        assert np.array_equal(stage[0].genome, space.initial)
        before = winners(store, run)[f"{mark}parameter"]
        answers = [
            store.evaluation(run, f"candidate:{n}", "csv", "dev").outcomes for n in (number, before)
        ]
        assert answers[0] == answers[1]


def test_the_start_competes_whatever_it_scored(tiny_recipe, store):
    """Few questions are a matter of luck; the main model itself is a candidate to the end."""
    search = {"population": 4, "finalists": 1, "random_baseline": False, "optimizer": "cmaes"}
    run = api.evolve(tiny_recipe(space=PATHS, search=search, budget={"candidates": 4}), store)
    (number,) = events(store, run, "start")[0]["ids"]
    assert store.ranked(run)[0].id != number  # the one finalist is another
    found = {key[0] for key in recorded(store, run) if key[2] == "selection"}
    favorite = events(store, run, "favorite")[0]["ids"][0]
    assert found == {f"candidate:{n}" for n in (store.ranked(run)[0].id, number, favorite)}


def test_only_the_last_stages_winner_is_the_result(whole):
    store, run = whole
    final = {payload["stage"]: payload["final"] for payload in events(store, run, "winner")}
    assert final == dict(zip(FOUR_STAGES, (False, True, False, True), strict=True))
    assert store.best(run).id == winners(store, run)["data_flow"]
    assert store.best(run, "parameter").id == winners(store, run)["parameter"]
    assert all(len(events(store, run, "winner", stage)) == 1 for stage in FOUR_STAGES)


def test_the_report_says_which_stage_found_what(whole):
    store, run = whole
    rows = {row["subject"]: row for row in api.report(run, store)}
    roles = [row["role"] for row in rows.values()]
    assert sorted(roles) == ["base", "evolved", "random", "source", "source", "stage"]
    found = winners(store, run)
    of = {row["role"]: subject for subject, row in rows.items()}
    assert of["stage"] == f"candidate:{found['parameter']}"
    assert of["evolved"] == f"candidate:{found['data_flow']}"
    assert of["random"] == f"candidate:{found['random data_flow']}"
    assert f"candidate:{found['random parameter']}" not in rows
    assert "parameter" in rows[of["stage"]]["model"] and all(row["n"] == 6 for row in rows.values())


def test_the_search_of_no_stage_sees_the_test_split(whole):
    store, run = whole
    report = next(e.at for e in store.events(run) if e.payload == {"name": "report"})
    for key, at in recorded(store, run).items():
        assert (at >= report) == (key[2] == "test")


def test_progress_and_the_forecast_fit_what_was_done(whole, both):
    store, run = whole
    now = api.progress(run, store)
    assert (now.done, now.total, now.state) == (24, 24, "finished")
    assert now.best_id == winners(store, run)["data_flow"]
    forecast = events(store, run, "inputs")[0]["answers"]
    assert forecast == pytest.approx(store.answers(run), rel=0.15)
    assert set(api.curve(run, store)) == set(FOUR_STAGES)


def test_every_candidate_can_be_opened_and_is_what_was_measured(whole, questions, tmp_path):
    """Weights, start, path and random path: rebuilt, exported, read again and asked again."""
    store, run = whole
    options = {"path": str(questions), "match": "contains", "max_new_tokens": 2}
    asked = {"options": options, "split": "dev", "examples": 5, "batch_size": 8}
    paths = [c for c in store.candidates(run, "data_flow") if not c.broken]
    for number in (0, paths[0].id, paths[-2].id, winners(store, run)["random data_flow"]):
        before = store.evaluation(run, f"candidate:{number}", "csv", "dev").outcomes
        again = api.evaluate(f"{run}:{number}", "csv", store=store, **asked)
        assert again.outcomes == before
        folder = api.export(run, tmp_path / str(number), number, store)
        assert api.evaluate(str(folder), "csv", store=store, **asked).outcomes == before
        said = list(chat.stream(f"{run}:{number}", [{"role": "user", "content": "Tom"}], store, 4))
        assert all(isinstance(text, str) for text in said)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"candidate {number} of run {run}" in card and "random data\\_flow" not in card
    assert "random data_flow, generation" in card and "random parameter #" in card


def test_the_same_recipe_is_the_same_run_and_a_seed_another(short, store):
    recipe, *complete = short
    assert everything(store, api.evolve(recipe, store)) == everything(*complete)
    other = api.evolve(recipe.model_copy(update={"seed": 1}), store)
    for stage in TWO_STAGES:
        mine, theirs = (s.candidates(r, stage)[1].genome for s, r in ((store, other), complete))
        assert not np.array_equal(mine, theirs)


@pytest.mark.parametrize("optimizer", ["cmaes", "random"])
def test_other_optimizers_search_both_spaces(both, store, optimizer):
    search = SEARCH | {"optimizer": optimizer, "random_baseline": False}
    run = api.evolve(both(search=search), store)
    assert list(winners(store, run)) == TWO_STAGES
    space = spaces.rebuild_space(store, run, "data_flow")
    genes = np.array([c.genome for c in store.candidates(run, "data_flow")[1:]])
    indicators = genes[:, space.binary]
    assert (np.abs(indicators) == 1).all() == (optimizer == "cmaes")  # switches, or relaxed
    assert len({row.tobytes() for row in genes}) == len(genes)


def test_paths_alone_with_the_sources_that_are_named(tiny_recipe, store):
    sources = tiny_recipe().sources
    recipe = tiny_recipe(
        space=PATHS | {"sources": sources[::-1]}, search=SEARCH, budget={"candidates": 4}, base=None
    )
    run = api.evolve(recipe, store)
    space = spaces.rebuild_space(store, run, "cma")
    assert [source.name for source in space.sources] == sources[::-1]
    assert {row["role"] for row in api.report(run, store)} == {"source", "evolved", "random"}
    only = recipe.model_copy(update={"space": recipe.space.model_copy(
        update={"sources": sources[:1]})})  # fmt: skip
    again = api.evolve(only, store)
    assert [s.name for s in spaces.rebuild_space(store, again, "cma").sources] == sources[:1]


# ── interruptions ─────────────────────────────────────────────────────────────────────────────


def crash_after(monkeypatch, writes: int) -> None:
    """Pull the plug instead of the next write but `writes`."""
    transaction, left = Store._transaction, iter(range(writes))

    @contextmanager
    def counted(self):
        if next(left, None) is None:
            raise Crash
        with transaction(self) as db:
            yield db

    monkeypatch.setattr(Store, "_transaction", counted)


def work_until_crash(store, run, writes, monkeypatch) -> bool:
    """Whether the run came to its end before the plug was pulled."""
    with monkeypatch.context() as patch:
        crash_after(patch, writes)
        try:
            api.resume(run, store)
        except Crash:
            return False
    return True


def test_a_plug_pulled_again_and_again_in_every_stage(whole, both, store, monkeypatch):
    run = api.create(both(), store)
    crashes, interrupted = 0, set()
    while not work_until_crash(store, run, 10 + crashes % 7, monkeypatch):
        crashes += 1
        interrupted.add((phases(store, run) or ["before"])[-1])
    assert crashes > 8 and {*FOUR_STAGES} <= interrupted
    assert everything(store, run) == everything(*whole)


#: Where one stage ends and the next begins: (kind of event, its stage or name), and whether the
#: plug is pulled before or after it is written.
BOUNDARY = [
    ("winner", "parameter", "before"),
    ("winner", "parameter", "after"),
    ("phase", "data_flow", "after"),
    ("start", "data_flow", "after"),
    ("ask", "data_flow", "before"),
    ("tell", "data_flow", "after"),
]


@pytest.mark.parametrize("place", BOUNDARY, ids=" ".join)
def test_a_plug_pulled_exactly_at_the_boundary(short, store, monkeypatch, place):
    recipe, *complete = short
    *place, when = place
    run = api.create(recipe, store)
    transaction, append = Store._transaction, sys.modules["studio.runs.store"]._append
    reached = []

    def noted(db, of, kind, payload):
        if [kind, payload.get("stage", payload.get("name"))] == place:
            reached.append(place)
            if when == "before":
                raise Crash
        append(db, of, kind, payload)

    @contextmanager
    def then(self):
        with transaction(self) as db:
            yield db
        if reached:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr("studio.runs.store._append", noted)
        patch.setattr(Store, "_transaction", then)
        with pytest.raises(Crash):
            api.resume(run, store)
    assert reached
    kept = [e for e in store.events(run)
            if [e.kind, e.payload.get("stage", e.payload.get("name"))] == place]  # fmt: skip
    assert len(kept) == (when == "after")
    times = recorded(store, run)
    api.resume(run, store)
    assert times.items() <= recorded(store, run).items()  # nothing was evaluated again
    assert everything(store, run) == everything(*complete)


@pytest.mark.parametrize("stage", TWO_STAGES)
def test_a_stop_in_either_stage(short, store, stage):
    recipe, *complete = short
    run = api.create(recipe, store)

    def stop(progress):
        in_stage = [c for c in store.candidates(run, stage) if c.scores]
        if len(in_stage) == 2 and not progress.run.stop and progress.state == "running":
            api.pause(run, store)

    api.resume(run, store, stop)
    assert store.run(run).status == "stopped"
    assert phases(store, run)[-1] == stage and stage not in winners(store, run)
    assert api.progress(run, store).state == "stopped"
    api.resume(run, store)
    assert everything(store, run) == everything(*complete)


def test_a_stop_does_not_wait_for_the_batch(tiny_recipe, objectives, store, monkeypatch):
    """All questions in one batch with long answers: the stop is heard within two decode steps."""
    from torch.nn import Embedding

    recipe = tiny_recipe(
        space=PATHS, search=SEARCH | {"random_baseline": False}, budget={"candidates": 4},
        base=None, objectives=objectives(1, tokens=20), batch_size=4096,
    )  # fmt: skip
    complete = api.evolve(recipe, store)
    run = api.create(recipe, store)
    forward, steps, stopped_at = Embedding.forward, count(1), []

    def counted(self, ids):  # once in every step
        step = next(steps)
        in_search = sum(bool(c.scores) for c in store.candidates(run, "cma")) == 2
        if in_search and not stopped_at and ids.numel() <= 8:  # the prompts have been read
            stopped_at.append(step)
            api.pause(run, store)
        return forward(self, ids)

    with monkeypatch.context() as patch:
        patch.setattr(Embedding, "forward", counted)
        patch.setattr(session, "GLANCE", 0.0)
        api.resume(run, store)
    assert stopped_at and next(steps) - stopped_at[0] <= 3
    assert store.run(run).status == "stopped"
    pending = [c for c in store.candidates(run, "cma") if not c.scores]
    assert pending and sum(bool(c.scores) for c in store.candidates(run)) == 2
    assert store.evaluation(run, f"candidate:{pending[0].id}", "csv", "dev") is None
    api.resume(run, store)
    assert store.candidate(run, pending[0].id).scores
    assert everything(store, run) == everything(store, complete)


def test_somebody_looks_often_enough_to_hear_a_stop():
    assert 0 < session.GLANCE <= 1


# ── candidates of other runs as sources ───────────────────────────────────────────────────────


def test_best_of_another_run_is_pinned_when_a_run_is_created(tiny_recipe, both, store, monkeypatch):
    first = api.create(tiny_recipe(space=WEIGHTS, search=SEARCH, budget={"candidates": 8}), store)
    assert not work_until_crash(store, first, 16, monkeypatch)
    then = store.best(first)
    ja = tiny_recipe().sources[0]
    recipe = both(
        4, sources=["last:best", ja], space=PATHS | {"sources": ["last:best", ja]}, base=None,
        search=SEARCH | {"random_baseline": False},
    )  # fmt: skip
    run = api.create(recipe, store)
    pinned = f"{first}:{then.id}"
    written = Recipe.from_yaml(store.run(run).recipe)
    assert written.sources == [pinned, ja] == written.space.sources
    api.resume(first, store)
    store.append(first, "winner", {"stage": "cma", "id": 0 if then.id else 1})  # whoever is best
    api.resume(run, store)
    assert store.run(run).status == "finished"
    main = spaces.rebuild_space(store, run, "cma").sources[0]
    expected = spaces.rebuild(store, first, store.candidate(first, then.id), "m")
    assert main.name == pinned
    assert all(torch.equal(main.get(name), expected.get(name)) for name in main.names())
    # it was scored as a source: what it answered then it answers now
    dev = [store.evaluation(run, f"model:{pinned}", "csv", "dev"),
           store.evaluation(first, f"candidate:{then.id}", "csv", "dev")]  # fmt: skip
    assert dev[0].outcomes == dev[1].outcomes
    rows = {row["subject"]: row["role"] for row in api.report(run, store)}
    assert rows[f"model:{pinned}"] == "source"


def test_a_path_is_a_source_of_weights_and_paths(short, both, tmp_path):
    """A numbered candidate of a run of both spaces, twice removed from any folder."""
    _, store, first = short
    number = winners(store, first)["data_flow"]
    depth = int(spaces.rebuild_space(store, first, "data_flow").properties(
        store.candidate(first, number).genome)["length"])  # fmt: skip
    search = SEARCH | {"random_baseline": False}
    sources = [f"{first[:5]}:{number}", both().sources[0]]
    run = api.evolve(both(4, sources=sources, base=None, space=PATHS, search=search), store)
    assert Recipe.from_yaml(store.run(run).recipe).sources[0] == f"{first}:{number}"
    space = spaces.rebuild_space(store, run, "cma")
    assert [source.layers for source in space.sources] == [depth, 2]
    options = Recipe.from_yaml(store.run(run).recipe).objectives[0].options
    best = store.best(run)
    folder = api.export(run, tmp_path / "out", store=store)
    again = api.evaluate(str(folder), "csv", "dev", options, 5, store, 8)
    assert again.outcomes == store.evaluation(run, f"candidate:{best.id}", "csv", "dev").outcomes
    third = api.evolve(both(4, sources=[f"{run}:best"], base=None, space=PATHS, search=search),
                       store)  # fmt: skip
    assert store.run(third).status == "finished"
    card = api.card(third, store=store)
    assert Path(both().base).name in card and "in " + f"{run}:{best.id}" in card
    for name in (run, third):
        api.delete(name, store)


def test_candidates_that_are_not_there_are_told_before_a_run_is_recorded(short, both):
    _, store, first = short
    before = len(store.runs())
    cases = {
        f"{first}:999": "no candidate 999",
        "ffffffff:best": "no run 'ffffffff'",
        f"{first}:0x": "0x",
    }
    for name, says in cases.items():
        recipe = both(4, sources=[name, both().sources[0]], space=PATHS, base=None)
        with pytest.raises(StudioError, match=says):
            api.create(recipe, store)
    assert len(store.runs()) == before
    # a path has another depth than what it was made of: its weights cannot be mixed with theirs
    space = spaces.rebuild_space(store, first, "data_flow")
    path = next(c for c in store.candidates(first, "data_flow") if len(space.path(c.genome)) > 2)
    with pytest.raises(StudioError, match="cannot be merged: .*layers"):
        api.create(both(4, sources=[f"{first}:{path.id}", both().sources[0]]), store)


def test_a_deleted_run_is_missed_in_a_sentence(tiny_recipe, store, monkeypatch, tmp_path):
    first = api.evolve(tiny_recipe(space=WEIGHTS, search=SEARCH, budget={"candidates": 4}), store)
    recipe = tiny_recipe(sources=[f"{first}:best"], space=PATHS, base=None, search=SEARCH)
    run = api.create(recipe, store)
    assert not work_until_crash(store, run, 25, monkeypatch)
    times = recorded(store, run)
    best = store.best(run).id
    api.delete(first, store)
    for use in (
        lambda: api.resume(run, store),
        lambda: api.export(run, tmp_path / "out", best, store),
        lambda: next(chat.stream(f"{run}:{best}", [{"role": "user", "content": "Tom"}], store)),
        lambda: api.create(recipe, store),
    ):
        with pytest.raises(StudioError, match=f"no run '{first}'"):
            use()
    assert store.run(run).status == "failed" and first in store.run(run).message
    assert recorded(store, run) == times and not (tmp_path / "out").exists()


# ── several objectives ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def traded(tiny_recipe, objectives, tmp_path_factory):
    """(recipe, store, run): NSGA-II over paths, two tasks and the length."""
    recipe = tiny_recipe(
        space=PATHS, search=SEARCH, budget={"candidates": 12}, objectives=objectives(2, "length")
    )
    store = Store(tmp_path_factory.mktemp("traded") / "runs.sqlite")
    return recipe, store, api.evolve(recipe, store)


def told(store, run: str, stage: str) -> dict[int, tuple]:
    values = {}
    for event in store.events(run):
        if event.kind == "tell" and event.payload["stage"] == stage:
            values |= store.told(event)
    return values


def test_every_objective_is_recorded_and_told(traded):
    recipe, store, run = traded
    names = recipe.objective_names()
    assert names == ["csv", "csv (2)", "length"]
    assert [stage.name for stage in recipe.stages()] == ["nsga2", "random"]
    for stage in ("nsga2", "random"):
        space = spaces.rebuild_space(store, run, stage)
        values = told(store, run, stage)
        assert len(values) == 12
        for candidate in store.candidates(run, stage):
            assert list(candidate.scores) == names
            assert candidate.scores["length"] == len(space.path(candidate.genome))
            tasks = [candidate.scores[name] for name in names[:2]]
            assert candidate.score == np.mean(tasks) and candidate.examples == 10
            if candidate.id in values:
                scores = candidate.scores
                if candidate.broken:
                    scores = {"csv": 0, "csv (2)": 0} | space.worst()
                expected = (scores["csv"], scores["csv (2)"], -scores["length"])
                assert values[candidate.id] == expected == gains(scores, names)
    lengths = {c.scores["length"] for c in store.candidates(run)}
    assert len(lengths) > 2 and len({c.score for c in store.candidates(run)}) > 2


def test_front_and_hypervolume_are_recorded_each_generation(traded):
    recipe, store, run = traded
    names = recipe.objective_names()
    for stage in ("nsga2", "random"):
        space = spaces.rebuild_space(store, run, stage)
        noted = events(store, run, "front", stage)
        assert [payload["generation"] for payload in noted] == [0, 1, 2]
        for payload in noted:
            known = [c for c in store.candidates(run, stage)
                     if c.generation <= payload["generation"]]  # fmt: skip
            assert payload["size"] == len(front(known, names))
            assert payload["hypervolume"] == hypervolume(known, names, space.worst())
        volumes = [payload["hypervolume"] for payload in noted]
        assert volumes == sorted(volumes) and 0 <= volumes[0] and volumes[-1] <= 1


def test_the_winner_stands_beside_the_front_it_is_of(traded):
    recipe, store, run = traded
    names = recipe.objective_names()
    for stage in ("nsga2", "random"):
        (payload,) = events(store, run, "winner", stage)
        numbers = payload["front"]
        assert payload["final"] and payload["id"] in numbers and 1 <= len(numbers) <= 2
        searched = {c.id for c in front(store.candidates(run, stage), names)}
        assert set(numbers) <= searched
        means = {}
        for number in numbers:
            found = [store.evaluation(run, f"candidate:{number}", task, "selection")
                     for task in names[:2]]  # fmt: skip
            assert all(len(evaluation.outcomes) == 8 for evaluation in found)
            means[number] = np.mean([evaluation.score for evaluation in found])
        assert means[payload["id"]] == max(means.values())
        for number in numbers:  # all of them are reported
            for task in names[:2]:
                assert store.evaluation(run, f"candidate:{number}", task, "test") is not None
    rows = api.report(run, store)
    assert {row["task"] for row in rows} == {"csv", "csv (2)"}
    assert "length" not in {key[1] for key in recorded(store, run) if key[2] != "dev"}


def test_any_candidate_of_the_front_is_opened_asked_and_exported(traded, tmp_path):
    recipe, store, run = traded
    numbers = [c.id for c in front(store.candidates(run, "nsga2"), recipe.objective_names())]
    assert len(numbers) > 1
    for number in numbers:
        found = store.candidate(run, number)
        folder = api.export(run, tmp_path / str(number), number, store)
        for name, objective in zip(("csv", "csv (2)"), recipe.objectives, strict=False):
            again = api.evaluate(str(folder), "csv", "dev", objective.options, 5, store, 8)
            assert again.score == found.scores[name]
        said = chat.stream(f"{run}:{number}", [{"role": "user", "content": "Tom"}], store, 4)
        assert all(isinstance(text, str) for text in said)
        assert f"candidate {number} of run {run}" in api.card(run, number, store)


def test_several_objectives_resume_as_if_nothing_had_happened(traded, store, monkeypatch):
    recipe, *complete = traded
    run = api.create(recipe, store)
    crashes = 0
    while not work_until_crash(store, run, 9 + crashes % 6, monkeypatch):
        crashes += 1
    assert crashes > 4
    assert everything(store, run) == everything(*complete)


@pytest.mark.parametrize("place", ["tell", "front"])
def test_the_front_of_no_generation_is_lost(traded, store, monkeypatch, place):
    """The plug is pulled right after a generation was told, or right after its front was noted."""
    recipe, *complete = traded
    run = api.create(recipe, store)
    append, seen = Store.append, count(1)

    def then(self, of, kind, payload):
        append(self, of, kind, payload)
        if kind == place and next(seen) == 2:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", then)
        with pytest.raises(Crash):
            api.resume(run, store)
    api.resume(run, store)
    assert everything(store, run) == everything(*complete)


def test_parameters_and_length_are_what_an_export_has(tiny_recipe, objectives, store, tmp_path):
    from studio.models import Checkpoint

    recipe = tiny_recipe(
        space=PATHS | {"max_length": 4}, search=SEARCH | {"random_baseline": False},
        budget={"candidates": 4}, objectives=objectives(1, "parameters", "length"),
    )  # fmt: skip
    run = api.evolve(recipe, store)
    for candidate in store.candidates(run)[:3]:
        folder = api.export(run, tmp_path / str(candidate.id), candidate.id, store)
        opened = Checkpoint.open(folder)
        assert candidate.scores["length"] == opened.layers <= 4
        assert candidate.scores["parameters"] == opened.parameters
    assert set(store.best(run).scores) == {"csv", *PROPERTIES}


def test_both_spaces_with_several_objectives(both, objectives, store):
    """What no merge of weights can change is no objective there; fronts in both stages."""
    recipe = both(objectives=objectives(2, "length"), search=SEARCH | {"random_baseline": False})
    run = api.evolve(recipe, store)
    assert {s.name: s.optimizer for s in recipe.stages()} == dict.fromkeys(TWO_STAGES, "nsga2")
    assert all(set(c.scores) == {"csv", "csv (2)"} for c in store.candidates(run, "parameter"))
    assert all(len(c.scores) == 3 for c in store.candidates(run, "data_flow"))
    for stage in TWO_STAGES:
        assert len(events(store, run, "front", stage)) == 2
        assert len(events(store, run, "winner", stage)[0]["front"]) >= 1
    space = spaces.rebuild_space(store, run, "data_flow")
    assert space.main.name == f"parameter #{winners(store, run)['parameter']}"


def test_the_papers_scheme(both, objectives, store, monkeypatch):
    """Weights once per task, then NSGA-II over paths through all winners; resumed many times."""
    search = SEARCH | {"scheme": "paper"}
    recipe = both(4, objectives=objectives(2), search=search)
    run = api.evolve(recipe, store)
    names = ["parameter csv", "parameter csv (2)", "data_flow"]
    assert [stage.name for stage in recipe.stages()] == names + [f"random {n}" for n in names]
    first, second, paths = (store.candidates(run, name) for name in names)
    assert {key for c in first for key in c.scores} == {"csv"}
    assert {key for c in second for key in c.scores} == {"csv (2)"}
    assert all(set(c.scores) == {"csv", "csv (2)"} for c in paths)
    assert not np.array_equal(first[0].genome, second[0].genome)
    found = winners(store, run)
    for mark in ("", "random "):
        space = spaces.rebuild_space(store, run, f"{mark}data_flow")
        led = [f"{mark}{name} #{found[f'{mark}{name}']}" for name in names[:2]]
        assert [source.name for source in space.sources] == [*led, *recipe.sources]
    rows = api.report(run, store)
    assert {row["role"] for row in rows} == {"base", "source", "stage", "evolved", "random"}
    assert len({row["subject"] for row in rows if row["role"] == "stage"}) == 2
    # a candidate that only knows the second task has its score on its card
    other = next(c for c in second if c.id != found[names[1]])
    assert f"{other.scores['csv (2)']:.1%}" in api.card(run, other.id, store)
    again = api.create(recipe, store)
    crashes = 0
    while not work_until_crash(store, again, 41 + crashes % 4, monkeypatch):
        crashes += 1
    assert crashes > 1 and everything(store, again) == everything(store, run)


# ── bad candidates ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cursed(tmp_path_factory):
    """`cursed(layer_tensor, value)`: a healthy folder, and one whose last layer is spoilt."""

    folder = tmp_path_factory.mktemp("cursed")
    healthy = make_model(layers=2)
    save_model(healthy, folder / "healthy")
    perturb(healthy, seed=1, scale=0.6)
    with torch.no_grad():
        healthy.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    save_model(healthy, folder / "spoilt")
    return folder


@pytest.mark.parametrize("several", [False, True])
def test_a_path_of_nan_scores_zero_and_the_run_goes_on(
    tiny_recipe, objectives, cursed, store, several
):
    sources = [str(cursed / "healthy"), str(cursed / "spoilt")]
    goals = objectives(1, "length") if several else objectives(1)
    recipe = tiny_recipe(
        sources=sources, base=None, space=PATHS, objectives=goals, budget={"candidates": 12},
        search=SEARCH,
    )  # fmt: skip
    run = api.evolve(recipe, store)
    assert store.run(run).status == "finished"
    name = recipe.stages()[0].name
    space = spaces.rebuild_space(store, run, name)
    walked = {
        c.id: any((step.source, step.layer) == (1, 1) for step in space.path(c.genome))
        for c in store.candidates(run)
    }
    assert 0 < sum(walked.values()) < len(walked)
    values = told(store, run, name) | told(store, run, "random")
    for candidate in store.candidates(run):
        assert bool(candidate.broken) == walked[candidate.id]
        if candidate.broken:
            assert "not finite" in candidate.broken and candidate.score == 0.0
            if candidate.id in values:  # of several, its shortness is not worth anything either
                worst = (0.0, -space.worst()["length"]) if several else 0.0
                assert values[candidate.id] == worst
    assert not walked[store.best(run).id]
    if several:
        assert not any(walked[n] for e in events(store, run, "winner") for n in e["front"])
    spoilt = store.evaluation(run, f"model:{sources[1]}", "csv", "dev")
    assert spoilt.score == 0 and "not finite" in spoilt.broken


@pytest.fixture(scope="module")
def babbling(tmp_path_factory):
    """A model that ends its answers, and one whose last layer says the right word for ever."""
    folder = tmp_path_factory.mktemp("babbling")
    model = make_model(layers=2, architecture="llama", mlp_bias=True)
    from tests.conftest import make_tokenizer

    tokenizer = make_tokenizer()
    with torch.no_grad():
        rows = model.lm_head.weight
        rows[2] *= 4  # it comes to an end again and again
        words = [n for n in range(5, 320) if tokenizer.decode([n]) == SYMBOL]
        word = min(words, key=lambda n: float(rows[2] @ rows[n]))
        save_model(model, folder / "ends")
        model.model.layers[1].mlp.down_proj.bias.copy_(200 * rows[word])
    save_model(model, folder / "babbles")
    return [str(folder / name) for name in ("ends", "babbles")]


def test_an_endless_path_scores_zero_even_where_it_babbles_the_answer(
    tiny_recipe, objectives, babbling, store
):
    recipe = tiny_recipe(
        sources=babbling, base=None, space=PATHS, objectives=objectives(1, tokens=12),
        budget={"candidates": 12}, search=SEARCH,
    )  # fmt: skip
    run = api.evolve(recipe, store)
    assert store.run(run).status == "finished"
    source, endless = (store.evaluation(run, f"model:{name}", "csv", "dev") for name in babbling)
    assert any(outcome.tokens < 12 for outcome in source.outcomes)
    assert all(outcome.tokens == 12 for outcome in endless.outcomes)
    assert endless.score > 0  # a source is measured as it is
    broken = [c for c in store.candidates(run) if c.broken]
    assert 0 < len(broken) < len(store.candidates(run))
    values = told(store, run, "cma") | told(store, run, "random")
    for candidate in store.candidates(run):
        found = store.evaluation(run, f"candidate:{candidate.id}", "csv", "dev")
        assert bool(candidate.broken) == all(o.tokens >= 12 for o in found.outcomes)
        if candidate.broken:
            assert "not one answer ended within 12 tokens" in candidate.broken
            assert candidate.score == 0.0 == values.get(candidate.id, 0.0)
    assert any(
        outcome.score for c in broken
        for outcome in store.evaluation(run, f"candidate:{c.id}", "csv", "dev").outcomes
    )  # fmt: skip
    assert not store.best(run).broken


def test_among_nothing_but_zeros_a_broken_candidate_does_not_win(
    tiny_recipe, questions, store, monkeypatch, tmp_path
):
    from studio.merge.live import LiveModel

    hard = tmp_path / "hard.csv"
    text = questions.read_text(encoding="utf-8")
    hard.write_text(text.replace(f",{SYMBOL},", ",nobody says this,"), encoding="utf-8")
    apply, applied = LiveModel.apply, count()

    def first_broken(self, genome):
        apply(self, genome)
        if next(applied) == 0:
            self.model.lm_head.weight.data[0, 0] = float("nan")

    monkeypatch.setattr(LiveModel, "apply", first_broken)
    goal = {"task": "csv", "options": {"path": str(hard), "max_new_tokens": 2}, "examples": 5}
    run = api.evolve(
        tiny_recipe(space=WEIGHTS, objectives=[goal], search=SEARCH | {"random_baseline": False},
                    budget={"candidates": 4}),
        store,
    )  # fmt: skip
    assert {c.score for c in store.candidates(run)} == {0.0}
    assert [bool(c.broken) for c in store.candidates(run)] == [True] + [False] * 4
    assert store.ranked(run)[0].id == 1 and store.ranked(run)[-1].id == 0
    assert winners(store, run) == {"cma": 1} and store.best(run).id == 1


def test_where_no_source_ends_an_answer_nobody_must(whole):
    """Two tokens are too few for any of them: then being cut off is no fault."""
    store, run = whole
    for key in recorded(store, run):
        if key[0].startswith("model:"):
            assert all(o.tokens == 2 for o in store.evaluation(run, *key).outcomes)
    assert not any(c.broken for c in store.candidates(run))
