"""The run monitor: a worker's run is watched, stopped and resumed from a notebook."""

import time

import pytest

from studio import api
from studio.runs.store import Store
from studio.widgets import Monitor, figures

PATIENCE = 240


def test_a_run_is_stopped_resumed_and_watched_to_its_end(tiny_recipe):
    store = Store()
    run = api.start(tiny_recipe(budget={"candidates": 30}), store)
    watch = Monitor(run, store=store, language="ja")
    until = time.monotonic() + PATIENCE
    while api.progress(run, store).done < 2 and time.monotonic() < until:
        time.sleep(0.1)
    watch.stop_button.click()
    assert watch.wait(PATIENCE) == "stopped"
    assert watch.stop_button.disabled and not watch.resume_button.disabled
    assert "一時停止中" in watch._status.value
    done = api.progress(run, store).done
    assert 0 < done < 60

    watch.resume_button.click()
    assert watch.wait(PATIENCE) == "finished"
    assert watch.stop_button.disabled and watch.resume_button.disabled
    assert api.progress(run, store).done == 60
    assert "<path" in watch._curve.value and "es-heat" in watch._inside.value
    watch.resume()  # as code may; the button is off
    assert "finished" in watch._problem.value


@pytest.fixture(scope="module")
def finished(tiny_recipe_of_module, tmp_path_factory) -> tuple[Store, str]:
    store = Store(tmp_path_factory.mktemp("finished") / "runs.sqlite")
    return store, api.evolve(tiny_recipe_of_module, store)


@pytest.fixture(scope="module")
def tiny_recipe_of_module(tiny_recipe):
    return tiny_recipe(
        base=None,
        space={"type": "data_flow", "repeats": 1},
        objectives=[*tiny_recipe().model_dump()["objectives"], {"property": "length"}],
        budget={"candidates": 8},
    )


def test_a_finished_run_is_drawn_at_once(finished):
    store, run = finished
    watch = Monitor(run, store=store)
    assert watch.wait(0) == "finished"
    assert "es-path" in watch._inside.value and "es-scatter" in watch._front.value


@pytest.mark.parametrize("language", ["en", "ja", "zh"])
def test_every_picture_of_a_run_is_drawn_in_every_language(finished, language):
    store, run = finished
    drawn = {
        name: getattr(figures, name)(run, store, language)
        for name in ("status", "curve", "front", "report", "strip", "inside")
    }
    assert all("es-" in html for html in drawn.values())
    member = api.front(run, store)[0]
    assert f'data-c="{member.id}"' in drawn["front"]
    best = max(row["score"] for row in api.report(run, store))
    assert f"{100 * best:.1f}" in drawn["report"]
    bundle = figures.show(drawn["inside"])._repr_mimebundle_()
    assert "<style>" in bundle["text/html"] and bundle["text/plain"] in drawn["inside"]
