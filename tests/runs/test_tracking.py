"""A run's scalars, read back from the event files that TensorBoard reads."""

import builtins
import logging
import math
import struct
import sys

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from studio import api
from studio.cli import main
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store, tracking
from studio.runs.lock import try_hold
from studio.runs.scalars import Scalars
from studio.runs.statistics import interval
from studio.runs.tensorboard import TensorBoard


@pytest.fixture
def store():
    store = Store()
    yield store
    store.close()


def events(folder):
    """The records of a folder's one event file: length, its checksum, an event, its checksum."""
    (path,) = folder.glob("events.out.tfevents.*")
    rest, found = path.read_bytes(), []
    while rest:
        (length,) = struct.unpack("<Q", rest[:8])
        found.append(Event.FromString(rest[12 : 12 + length]))
        rest = rest[16 + length :]
    return found


def curves(folder) -> dict[str, list[tuple[int, float]]]:
    """A series' points, (step, value), by the name of their curve and in the order written."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def texts(folder) -> dict[str, str]:
    return {
        value.tag.removesuffix("/text_summary"): value.tensor.string_val[0].decode()
        for event in events(folder)
        for value in event.summary.value
    }


def everything(folder) -> dict[str, dict[str, list[tuple[int, float]]]]:
    return {path.name: curves(path) for path in folder.iterdir() if path.is_dir()}


def near(values) -> list:
    return pytest.approx([float(value) for value in values], rel=1e-6)  # kept as float32


@pytest.fixture(scope="module")
def tracked(tiny_recipe, tmp_path_factory):
    """A whole run with a baseline that was tracked while it went on."""
    store = Store(tmp_path_factory.mktemp("tracked") / "runs.sqlite")
    run = api.evolve(tiny_recipe(), store, track="tensorboard")
    yield store, run, tracking.folder_of(store, run)
    store.close()


def test_every_candidate_is_a_point_of_its_searchs_curves(tracked):
    store, run, folder = tracked
    for stage in ("cma", "random"):
        found, shown = store.candidates(run, stage), curves(folder / stage)
        assert len(found) >= 14
        steps = [c.id - found[0].id for c in found]
        best = np.maximum.accumulate([c.score for c in found])
        for name, values in {
            "score/csv": [c.score for c in found],
            "best/score": best,
            "candidate/tokens": [c.tokens for c in found],
            "candidate/seconds": [c.seconds for c in found],
            "candidate/examples": [c.examples for c in found],
            "candidate/broken": [bool(c.broken) for c in found],
        }.items():
            assert [step for step, _ in shown[name]] == steps == list(range(len(found)))
            assert [value for _, value in shown[name]] == near(values), name


def test_every_generation_has_its_mean(tracked):
    store, run, folder = tracked
    found = {c.id: c for c in store.candidates(run, "cma")}
    tells = [e for e in store.events(run, "tell") if e.payload["stage"] == "cma"]
    asked = [[number for number, _ in tell.payload["told"]] for tell in tells]
    shown = curves(folder / "cma")["generation/mean"]
    assert [step for step, _ in shown] == [max(those) for those in asked] == [3, 7, 11, 13]
    means = [np.mean([found[number].score for number in those]) for those in asked]
    assert [value for _, value in shown] == near(means)


def test_test_scores_have_their_intervals(tracked):
    store, run, folder = tracked
    rows = {row["role"]: row for row in api.report(run, store)}
    for role, series in (("evolved", "cma"), ("random", "random")):
        shown, row = curves(folder / series), rows[role]
        evaluation = store.evaluation(run, row["subject"], "csv", "test")
        low, high = interval([o.score for o in evaluation.outcomes])
        place = int(row["subject"].split(":")[1]) - store.candidates(run, series)[0].id
        for name, value in (("", evaluation.score), ("/low", low), ("/high", high)):
            ((step, point),) = shown[f"test/csv{name}"]
            assert step == place and [point] == near([value])
    models = [path.name for path in folder.iterdir() if path.name.startswith(("base-", "source-"))]
    assert len(models) == 3
    table = texts(folder)["report"]
    assert all(f"| {row['role']} | csv |" in table for row in rows.values())


def test_a_raced_candidate_is_a_point_once_the_optimizer_was_told(tiny_recipe, store, tmp_path):
    recipe = tiny_recipe(search={"population": 8, "racing": True, "random_baseline": False})
    run = api.create(recipe, store)
    scalars = Scalars(store, run, TensorBoard(tmp_path), list)
    shown: dict[int, float] = {}

    def look(_) -> None:
        scalars.look()
        found = curves(tmp_path / "cma") if (tmp_path / "cma").is_dir() else {}
        shown.update(found.get("candidate/examples", []))
        told = {n for e in store.events(run, "tell") for n, _ in e.payload["told"]}
        favorite = {n for e in store.events(run, "favorite") for n in e.payload["ids"]}
        assert set(shown) <= told | favorite

    api.resume(run, store, look)
    found = {c.id: c for c in store.candidates(run)}
    assert len(shown) >= 14
    assert shown == {number: found[number].examples for number in shown}


def test_the_recipe_is_there_to_read(tracked):
    store, run, folder = tracked
    assert texts(folder)["recipe"] == f"```yaml\n{store.run(run).recipe}\n```"


def test_points_bear_the_time_of_the_record(tracked):
    store, run, folder = tracked
    rows = store._rows(
        "SELECT at FROM evaluations WHERE run = ? AND subject = 'candidate:0' AND split = 'dev'",
        run,
    )
    (event,) = [e for e in events(folder / "cma") if e.summary.value and e.step == 0]
    assert math.isclose(event.wall_time, rows[0]["at"])


def test_a_resumed_run_has_no_point_twice(tiny_recipe, store):
    run = api.create(tiny_recipe(), store)
    for most in (3, 9):  # stopped within a generation, twice
        api.resume(run, store, lambda p, most=most: p.done >= most and api.pause(run, store),
                   track="tensorboard")  # fmt: skip
        shown = curves(tracking.folder_of(store, run) / "cma")["score/csv"]
        assert [step for step, _ in shown] == list(range(most))
    api.resume(run, store, track="tensorboard")
    folder = tracking.folder_of(store, run)
    whole = everything(folder)
    for curve in (curve for series in whole.values() for curve in series.values()):
        steps = [step for step, _ in curve]
        assert steps == sorted(set(steps))
    assert len(whole["cma"]["score/csv"]) == len(store.candidates(run, "cma"))
    assert api.track(run, store=store) == folder  # what it is to be is in the record alone
    assert everything(folder) == whole


def test_a_tensorboard_that_is_open_forgets_the_points_before(tracked):
    _, _, folder = tracked
    for series in (folder, *folder.iterdir()):
        if series.is_dir():
            version, start, *_ = events(series)
            assert version.file_version == "brain.Event:2"
            assert start.session_log.status == SessionLog.START and start.step == 0


def test_several_objectives_have_curves_of_their_own_and_a_hypervolume(tiny_recipe, store):
    two = [*tiny_recipe().model_dump()["objectives"], {"property": "length"}]
    two[0] = {key: value for key, value in two[0].items() if key != "property"}
    recipe = tiny_recipe(base=None, space={"type": "data_flow", "repeats": 1}, objectives=two)
    run = api.evolve(recipe, store, track="tensorboard")
    found, shown = store.candidates(run, "nsga2"), curves(tracking.folder_of(store, run) / "nsga2")
    assert [value for _, value in shown["score/length"]] == [c.scores["length"] for c in found]
    fronts = [e.payload for e in store.events(run, "front") if e.payload["stage"] == "nsga2"]
    last = {c.generation: c.id for c in found}
    for name in ("hypervolume", "size"):
        assert [value for _, value in shown[f"front/{name}"]] == near(f[name] for f in fronts)
        steps = [step for step, _ in shown[f"front/{name}"]]
        assert steps == [last[f["generation"]] for f in fronts]


def scored(store, run, number, score):
    outcome = Outcome("0", score, "", {}, 1)
    store.record_evaluation(
        run, Evaluation(f"candidate:{number}", "jmath", "dev", score, 1, 0.1, "", (outcome,))
    )


def test_a_candidate_that_is_still_out_holds_later_ones_back(store, tmp_path):
    recipe = Recipe(base="bonsai-base", sources=["bonsai-ja"], objectives=[{"task": "jmath"}])
    run = store.create_run(recipe.name, recipe.to_yaml())
    store.record_ask(run, "cma", 0, [(number, np.zeros(2)) for number in range(4)])
    scalars = Scalars(store, run, TensorBoard(tmp_path), list)
    for number, steps in ((0, [0]), (2, [0]), (3, [0]), (1, [0, 1, 2, 3])):
        scored(store, run, number, number / 4)
        scalars.look()
        shown = curves(tmp_path / "cma")["score/jmath"]
        assert [step for step, _ in shown] == steps
    store.record_ask(run, "cma", 1, [(number, np.zeros(2)) for number in (4, 5)])
    scored(store, run, 5, 1.0)
    scalars.look(last=True)  # the run ends, and candidate 4 was given up
    assert curves(tmp_path / "cma")["best/score"][-1] == (5, 1.0)


# ── who asks for it ───────────────────────────────────────────────────────────────────────────


def test_the_environment_asks_for_it_too(tiny_recipe, store, monkeypatch):
    monkeypatch.setenv("STUDIO_TRACK", "tensorboard")
    recipe = tiny_recipe(budget={"candidates": 4}, search={"random_baseline": False})
    run = api.evolve(recipe, store)
    folder = tracking.folder_of(store, run)
    assert "cma" in everything(folder)
    api.delete(run, store)
    assert not folder.exists()


def test_nobody_asks_by_default(tiny_recipe, store):
    recipe = tiny_recipe(budget={"candidates": 4}, search={"random_baseline": False})
    api.evolve(recipe, store)
    assert not (store.folder / "tracking").exists()


def test_the_terminal_tracks(tiny_recipe, store, monkeypatch, tmp_path, capsys):
    recipe = tiny_recipe(budget={"candidates": 4}, search={"random_baseline": False})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")

    def studio(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["studio", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0

    assert studio("evolve", tmp_path / "recipe.yaml", "--track", "tensorboard", "--json") == 0
    run = store.run("last").id
    folder = tracking.folder_of(store, run)
    before = everything(folder)
    tracking.forget(store, run)
    capsys.readouterr()
    assert studio("track", "last") == 0
    assert folder.name in capsys.readouterr().out.replace("\n", "")
    assert everything(folder) == before
    runs = len(store.runs())
    assert studio("evolve", tmp_path / "recipe.yaml", "--track", "paper") == 2
    assert "choose tensorboard" in capsys.readouterr().err
    assert len(store.runs()) == runs  # nothing was begun that is not tracked


def test_a_missing_library_is_named(tiny_recipe, store, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboardX")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "studio.runs.tensorboard", raising=False)
    real = builtins.__import__

    def absent(name, *rest):
        if name.startswith("tensorboardX"):
            raise ModuleNotFoundError("No module named 'tensorboardX'", name="tensorboardX")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(StudioError, match="pip install tensorboardX"):
        api.evolve(tiny_recipe(), store, track="tensorboard")
    monkeypatch.setenv("STUDIO_TRACK", "tensorboard")
    with pytest.raises(StudioError, match="pip install tensorboardX"):
        api.create(tiny_recipe(), store)
    assert store.runs() == []


def test_what_cannot_be_written_is_a_warning_and_the_run_goes_on(
    tiny_recipe, store, monkeypatch, caplog
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "scalars", full)
    recipe = tiny_recipe(budget={"candidates": 4}, search={"random_baseline": False})
    with caplog.at_level(logging.WARNING):
        run = api.evolve(recipe, store, track="tensorboard")
    assert store.run(run).status == "finished"
    assert [r.message.split(":")[0] for r in caplog.records if r.name == tracking.__name__] == [
        f"Run {run} is no longer tracked"
    ]
    with pytest.raises(StudioError, match="No space left"):
        api.track(run, store=store)
    monkeypatch.undo()
    api.track(run, store=store)  # nothing is held any more


def test_two_processes_do_not_write_the_same_scalars(tiny_recipe, store):
    run = api.create(tiny_recipe(), store)
    lock = try_hold(store, f"{run}.tracking")
    with pytest.raises(StudioError, match="Another process"):
        api.track(run, store=store)
    lock.release()
    assert api.track(run, store=store).is_dir()


def test_names_become_names_of_folders():
    assert tracking.plain("日本語の算数") == "日本語の算数"
    assert tracking.plain("../../owner/model") == "owner-model"
    assert tracking.plain("..") == "unnamed"
