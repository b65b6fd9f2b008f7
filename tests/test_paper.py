"""The miniature of Table 1: read from the bundled runs, begun and gone on with where rows lack."""

import json

import pytest

from studio import api, paper
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs.records import FINISHED, QUEUED, STOPPED


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path))
    found = api.open_store()
    yield found
    found.close()


def test_the_bundled_runs_fill_every_row(store):
    rows = {row["id"]: row for row in paper.table(store)}
    assert list(rows) == [1, 2, 3, 4, 5, 6]
    for row in rows.values():
        assert row["n"] == 250 and 0 <= row["low"] <= row["score"] <= row["high"] <= 1
    for number in (4, 5, 6):
        run = store.run(rows[number]["run"])
        recorded = store.evaluation(
            run.id, f"candidate:{rows[number]['candidate']}", "jmath", "test"
        )
        assert recorded.score == rows[number]["score"]
        assert store.best(run.id).id == rows[number]["candidate"]
    assert rows[4]["accuracy"] == 52.0 and rows[6]["accuracy"] == 55.2


def test_row_six_is_a_path_over_row_fours_winner(store):
    first = paper.run_of(paper.PS, store)
    sources = Recipe.from_yaml(paper.run_of(paper.BOTH, store).recipe).sources
    assert sources == [f"{first.id}:{store.best(first.id).id}", "bonsai-ja"]


def test_the_strip_has_the_same_250_problems_in_every_row(store):
    rows = paper.strip(store)
    assert [row["label"][0] for row in rows] == list("123456")
    asked = [[outcome.example for outcome in row["outcomes"]] for row in rows]
    assert len(asked[0]) == 250 and all(ids == asked[0] for ids in asked)


def test_the_ablations_are_recorded_and_are_no_reports(store):
    taken_out = {(row["id"], row["part"]) for row in paper.ablations(store)}
    assert taken_out == {
        (4, "bonsai-ja"), (4, "bonsai-math"), (4, "bonsai-abel"), (5, "scales"), (6, "scales"),
    }  # fmt: skip
    run = paper.run_of(paper.DFS, store).id
    assert all("without" not in row["subject"] for row in api.report(run, store))


def test_the_findings_say_what_the_rows_say(store):
    rows = {row["id"]: row for row in paper.table(store)}
    found = {row["key"]: row for row in paper.findings(store)}
    assert set(found) == set(paper.CLAIMS)
    for key, better, worse in (("both", 6, 4), ("ps_dfs", 4, 5), ("dfs", 5, 3)):
        verdict = found[key]["verdict"]
        if rows[better]["low"] > rows[worse]["high"]:
            assert verdict == paper.HELD
        elif rows[better]["score"] > rows[worse]["score"]:
            assert verdict == paper.NOISE
        else:
            assert verdict == paper.NOT
    assert found["ps"]["paper"] == "52.0 : 30.0"


def row(number, score, low, high):
    accuracy = next(line[3] for line in paper.ROWS if line[0] == number)
    return {"id": number, "accuracy": accuracy, "score": score, "low": low, "high": high}


@pytest.mark.parametrize(
    "ours, verdict",
    [((0.7, 0.6, 0.8), paper.HELD), ((0.5, 0.4, 0.6), paper.NOISE), ((0.3, 0.2, 0.4), paper.NOT)],
)
def test_a_comparison_is_held_against_our_own_best_source(ours, verdict):
    others = [row(1, 0.45, 0.35, 0.55), row(3, 0.1, 0.05, 0.2)]
    found = paper._comparison("dfs", row(5, *ours), others)
    assert found["verdict"] == verdict
    assert found["paper"] == "36.4 : 30.0" and found["here"].endswith(": 45.0")


def test_scales_count_as_mattering_from_a_fifth_on():
    whole = {"id": 5, "part": "scales", "whole": 0.5}
    assert paper._scales(whole | {"score": 0.39})["verdict"] == paper.HELD
    assert paper._scales(whole | {"score": 0.41})["verdict"] == paper.NOT
    assert paper._scales(whole | {"score": 0.0, "whole": 0.0})["verdict"] == paper.NOT


def test_nothing_is_run_again(store, monkeypatch):
    monkeypatch.setattr(api, "resume", lambda *_: pytest.fail("a finished run was resumed"))
    monkeypatch.setattr(api, "create", lambda *_: pytest.fail("a run was made anew"))
    before = {run.id: run.version for run in store.runs()}
    paper.reproduce(store)
    assert {run.id: run.version for run in store.runs()} == before


def test_a_run_that_was_told_to_finish_early_stands_for_no_row(store):
    bundled = paper.run_of(paper.PS, store)
    run = store.create_run(bundled.name, bundled.recipe)
    store.set_status(run, FINISHED)
    assert paper.run_of(paper.PS, store).id == run  # the newest
    store.append(run, "enough", {})
    assert paper.run_of(paper.PS, store).id == bundled.id


def test_a_row_that_was_interrupted_is_gone_on_with(store, monkeypatch):
    interrupted = paper.run_of(paper.DFS, store).id
    store.set_status(interrupted, STOPPED)
    resumed = []

    def resume(run, store, on_progress):
        resumed.append(run)
        store.set_status(run, FINISHED)

    monkeypatch.setattr(api, "resume", resume)
    paper.reproduce(store)
    assert resumed == [interrupted]


def test_a_stop_in_the_middle_is_a_sentence(store, monkeypatch):
    store.set_status(paper.run_of(paper.DFS, store).id, QUEUED)
    monkeypatch.setattr(api, "resume", lambda run, store, _: store.set_status(run, STOPPED))
    with pytest.raises(StudioError, match="Row 5 was stopped"):
        paper.reproduce(store)


def test_without_row_four_there_is_no_row_six(store):
    store.delete_run(paper.run_of(paper.PS, store).id)
    assert paper.run_of(paper.BOTH, store) is None
    rows = {row["id"]: row for row in paper.table(store)}
    assert rows[4]["score"] is None and rows[6]["score"] is None and rows[5]["score"] is not None
    assert {row["key"] for row in paper.findings(store)} == {"scales"}


def test_the_command_prints_table_strip_and_findings(store, monkeypatch, capsys):
    from studio import cli

    monkeypatch.setattr("sys.argv", ["studio", "paper", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["table"] == paper.table(store)
    assert [len(line["right"]) for line in document["strip"]] == [250] * 6
    monkeypatch.setattr("sys.argv", ["studio", "paper"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert "55.2 %" in said and said.count("█ right") == 5 and "What held" in said
