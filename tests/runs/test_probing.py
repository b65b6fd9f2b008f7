"""Estimates: what a probe of seconds says of a run of minutes, in a process that can be killed."""

import threading
import time

import pytest

from studio import api
from studio.api import probing
from studio.errors import StudioError


def test_a_process_says_what_a_run_takes(tiny_recipe, store):
    found = api.estimate(tiny_recipe(), store)
    assert found.measured and 0 < found.candidate_seconds < found.seconds
    assert found.batch == 8 and store.runs() == []
    # three models and two reported on 6 test questions, 28 candidates and three models on 5 of dev;
    # two finalists of either search on all 8
    assert found.answers == 5 * 6 + (28 + 3) * 5 + 4 * 8
    run = api.create(tiny_recipe(), store)
    api.resume(run, store)
    (inputs,) = (event for event in store.events(run) if event.kind == "inputs")
    assert found.answers == inputs.payload["answers"]
    size = sum(path.stat().st_size for path in api.export(
        run, store.folder / "out", store=store).iterdir())  # fmt: skip
    assert found.disk == pytest.approx(size + 400 * found.answers, rel=0.3)
    assert found.memory == api.plan(tiny_recipe())["fp32"].peak


def test_the_probe_measures_every_search(tiny_recipe, store):
    """Weights, then paths over the merge: the second is laid out over where the first begins."""
    space = {
        "type": "both",
        "parameter": {"method": "linear", "layer_granularity": "all"},
        "data_flow": {"repeats": 1},
    }
    recipe = tiny_recipe(space=space)
    first, second = (probing.Estimate(**found) for found in api.probe(recipe, store, seconds=0.5))
    assert not first.measured and first.seconds is first.candidate_seconds is None
    assert second.measured and second.answers == first.answers
    assert second.seconds > second.candidate_seconds * 4 * 14


def test_what_could_not_be_started_is_the_same_sentence(tiny_recipe, store):
    with pytest.raises(StudioError, match="no-such-model"):
        api.estimate(tiny_recipe(sources=["no-such-model"]), store)


def test_who_leaves_or_waits_too_long_keeps_no_process(tiny_recipe, store, monkeypatch):
    started = []
    begin = probing.subprocess.Popen

    def remember(*arguments, **options):
        started.append(begin(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(probing.subprocess, "Popen", remember)
    left = threading.Event()
    left.set()
    begun = time.monotonic()
    with pytest.raises(StudioError, match="could not be estimated"):
        api.estimate(tiny_recipe(), store, left=left)
    with pytest.raises(StudioError, match="within 0 seconds"):
        api.estimate(tiny_recipe(), store, limit=0.2)
    assert time.monotonic() - begun < 20
    assert len(started) == 2 and all(process.poll() is not None for process in started)


@pytest.mark.parametrize(
    ("points", "questions", "batch", "seconds"),
    [
        ({4: 1.0}, 8, 8, 2.0),  # one measurement: in proportion
        ({2: 1.0, 8: 1.6}, 32, 128, 4.0),  # a line through the two
        ({2: 1.0, 8: 1.6}, 64, 32, 8.0),  # two batches of it
        ({2: 1.0, 8: 1.6}, 40, 32, 5.6),  # the last one smaller
        ({2: 1.0, 8: 0.9}, 8, 128, 0.9),  # noise
    ],
)
def test_batches_are_extrapolated(points, questions, batch, seconds):
    timing = probing.Timing()
    for count, taken in points.items():
        timing.note(count, taken)
    assert timing.seconds(questions, batch) == pytest.approx(seconds)


def test_slow_models_are_timed_by_the_token(tiny_recipe, store, monkeypatch):
    """Where not one answer ends in time, all are taken to be as long as they may be."""
    pace = 0.1  # ten tokens in the time there is, fewer than the first answer has
    answers = probing.ANSWERING
    from studio.evolve import evaluate as module

    real = module.evaluate

    def dragging(*arguments, on_token, **options):
        def wait():
            time.sleep(pace)
            on_token()

        return real(*arguments, on_token=wait, **options)

    monkeypatch.setattr(module, "evaluate", dragging)
    options = {"path": str(tiny_recipe().objectives[0].options["path"]), "max_new_tokens": 400}
    recipe = tiny_recipe(
        objectives=[{"task": "csv", "options": options}], search={"random_baseline": False}
    )
    *_, found = api.probe(recipe, store, seconds=answers / 20)
    assert found["measured"] and found["candidate_seconds"] > 400 * pace * 0.8
