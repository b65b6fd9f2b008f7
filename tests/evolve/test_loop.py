"""The loop, in this process: what an evolution records, and that any interruption leaves no trace.

A crash is simulated between two writes of the store; `tests/runs/test_kill.py` kills for real.
"""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from studio import api, chat
from studio.errors import StudioError
from studio.evolve import executors
from studio.evolve.spaces import first_space
from studio.recipe import Recipe
from studio.runs import Store
from studio.runs.lock import hold
from tests.trajectory import recorded, trajectory


class Crash(BaseException):
    """The plug is pulled."""


@pytest.fixture(scope="module")
def whole(tiny_recipe, tmp_path_factory):
    """(store, run) of the tiny recipe, never interrupted."""
    store = Store(tmp_path_factory.mktemp("whole") / "runs.sqlite")
    return store, api.evolve(tiny_recipe(), store)


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


# ── what is recorded ──────────────────────────────────────────────────────────────────────────


def test_an_evolution_is_recorded_from_start_to_report(whole, tiny_recipe):
    store, run = whole
    recipe = tiny_recipe()
    record = store.run(run)
    assert record.status == "finished" and record.seconds > 0
    phases = [e.payload["name"] for e in store.events(run) if e.kind == "phase"]
    assert phases == ["sources", "cma", "selection", "random", "selection", "report"]
    session = next(e.payload for e in store.events(run) if e.kind == "session")
    assert {"torch", "transformers", "numpy", "cma", "python"} <= set(session)

    searched = store.candidates(run, "cma")
    assert len(searched) == 14 + 1  # the budget and the optimizer's favourite
    assert len(store.candidates(run, "random")) == 14
    assert [c.id for c in store.candidates(run)] == list(range(29))
    assert len({c.genome.tobytes() for c in store.candidates(run)}) == 29
    assert len({c.score for c in searched}) > 2  # they do differ
    space = first_space(recipe)
    for candidate in store.candidates(run):
        assert (candidate.genome >= space.lower).all() and (candidate.genome <= space.upper).all()
        evaluation = store.evaluation(run, f"candidate:{candidate.id}", "csv", "dev")
        assert [o.example for o in evaluation.outcomes] == [f"line-{n}" for n in range(2, 7)]
        assert candidate.score == np.mean([o.score for o in evaluation.outcomes])


def test_what_is_told_is_what_was_measured(whole):
    store, run = whole
    scores = {c.id: c.score for c in store.candidates(run)}
    told = {}
    for event in store.events(run):
        if event.kind == "tell":
            told |= {number: float.fromhex(value) for number, value in event.payload["told"]}
    assert told == {number: scores[number] for number in scores if number != 14}


def test_the_search_never_sees_the_test_split(whole):
    store, run = whole
    events = store.events(run)
    report = next(e.at for e in events if e.payload == {"name": "report"})
    times = recorded(store, run)
    on_test = {key[0] for key in times if key[2] == "test"}
    winners = {e.payload["stage"]: e.payload["id"] for e in events if e.kind == "winner"}
    models = {key for key in on_test if key.startswith("model:")}
    assert len(models) == 3  # base and two sources
    assert on_test - models == {f"candidate:{number}" for number in winners.values()}
    assert all((at >= report) == (key[2] == "test") for key, at in times.items())


def test_finalists_meet_all_of_dev(whole):
    store, run = whole
    winners = {e.payload["stage"]: e.payload["id"] for e in store.events(run) if e.kind == "winner"}
    assert set(winners) == {"cma", "random"}
    for stage, winner in winners.items():
        entered = {c.id: c for c in store.candidates(run, stage)}
        finalists = {}
        for subject, _, split in recorded(store, run):
            number = int(subject.split(":")[1]) if subject.startswith("candidate:") else -1
            if split == "selection" and number in entered:
                found = store.evaluation(run, subject, "csv", split)
                assert len(found.outcomes) == 8
                finalists[number] = found.score
        assert 2 <= len(finalists) <= 3
        best = max(c.score for c in entered.values())
        assert any(entered[number].score == best for number in finalists)
        assert finalists[winner] == max(finalists.values())
        assert store.best(run, stage).id == winner


def test_a_recorded_score_is_what_the_genome_gives_again(whole, tiny_recipe):
    from studio.evolve.evaluate import evaluate
    from studio.merge.live import LiveModel

    store, run = whole
    recipe = tiny_recipe()
    task = recipe.build_tasks()[0]
    live = LiveModel(first_space(recipe))
    for number in (20, 3, 14):  # in another order, on a fresh live model
        live.apply(store.candidate(run, number).genome)
        found = evaluate(
            live.model,
            live.tokenizer,
            task,
            task.examples("dev")[:5],
            subject="",
            split="dev",
            batch_size=8,
        )
        before = store.evaluation(run, f"candidate:{number}", "csv", "dev")
        assert found.outcomes == before.outcomes


def test_the_same_recipe_is_the_same_run_and_a_seed_another(whole, tiny_recipe, store):
    again = api.evolve(tiny_recipe(), store)
    assert trajectory(store, again) == trajectory(*whole)
    other = api.create(tiny_recipe(seed=1), store)
    api.resume(other, store)
    ours, theirs = (s.candidates(r)[0].genome for s, r in ((store, other), whole))
    assert not np.array_equal(ours, theirs)


def test_random_search_alone_needs_no_baseline(tiny_recipe, store):
    run = api.evolve(
        tiny_recipe(search={"optimizer": "random", "population": 4}, budget={"candidates": 6}),
        store,
    )
    assert [c.stage for c in store.candidates(run)] == ["random"] * 6
    assert {row["role"] for row in api.report(run, store)} == {"base", "source", "evolved"}


def test_one_gene_and_no_base(tiny_recipe, store):
    """slerp with one t for the whole model: a search of a single dimension."""
    run = api.evolve(
        tiny_recipe(
            base=None,
            space={"method": "slerp", "layer_granularity": "all"},
            budget={"candidates": 8},
        ),
        store,
    )
    assert store.best(run).genome.shape == (1,)
    assert store.run(run).status == "finished"


def test_reported_tasks_are_scored_on_their_own_examples(tiny_recipe, store, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("question,answer,split\nHow many?,2,dev\nHow far?,3,test\n")
    run = api.evolve(
        tiny_recipe(
            report=[{"task": "csv", "options": {"path": str(other), "max_new_tokens": 2}}],
            budget={"candidates": 4},
        ),
        store,
    )
    sizes = {(row["task"], row["n"]) for row in api.report(run, store)}
    assert sizes == {("csv", 6), ("csv (2)", 1)}


# ── interruptions ─────────────────────────────────────────────────────────────────────────────


def test_a_plug_pulled_again_and_again_leaves_no_trace(whole, tiny_recipe, store, monkeypatch):
    run = api.create(tiny_recipe(), store)
    evaluate, asked = executors.evaluate, []

    def counted(*arguments, subject, split, **options):
        assert store.evaluation(run, subject, "csv", split) is None  # never twice
        asked.append((subject, split))
        return evaluate(*arguments, subject=subject, split=split, **options)

    monkeypatch.setattr(executors, "evaluate", counted)
    times, crashes = {}, 0
    while not work_until_crash(store, run, 9 + crashes % 6, monkeypatch):
        crashes += 1
        now = recorded(store, run)
        assert times.items() <= now.items()
        times = now
        assert api.progress(run, store).state == "interrupted"
    assert crashes > 8
    assert trajectory(store, run) == trajectory(*whole)
    assert len(asked) <= len(recorded(store, run)) + crashes  # only what was in flight


def test_a_finished_run_is_left_as_it_is(whole, monkeypatch):
    store, run = whole
    before = store.run(run), store.events(run), recorded(store, run)
    monkeypatch.setattr(executors, "evaluate", None)
    api.resume(run, store)
    assert (store.run(run), store.events(run), recorded(store, run)) == before


@pytest.mark.parametrize("what", ["genome", "tell", "missing", "seed"])
def test_a_record_that_does_not_replay_is_told(tiny_recipe, store, monkeypatch, what):
    run = api.create(tiny_recipe(), store)
    assert not work_until_crash(store, run, 34, monkeypatch)
    scored = [c for c in store.candidates(run) if c.score is not None]
    assert len(scored) > 8
    times = recorded(store, run)
    if what == "genome":
        genome = scored[5].genome.copy()
        genome[0] = np.nextafter(genome[0], 0)  # by a single bit
        change = "UPDATE candidates SET genome = ? WHERE id = 5", (genome.tobytes(),)
    elif what == "tell":
        event = next(e for e in store.events(run) if e.kind == "tell")
        (number, _), *others = event.payload["told"]
        forged = {**event.payload, "told": [[number, (-1.0).hex()], *others]}
        change = "UPDATE events SET payload = ? WHERE seq = ?", (json.dumps(forged), event.seq)
    elif what == "missing":
        change = "DELETE FROM candidates WHERE id = 5", ()
    else:
        recipe = Recipe.from_yaml(store.run(run).recipe).model_copy(update={"seed": 9})
        change = "UPDATE runs SET recipe = ?", (recipe.to_yaml(),)
    store._db.execute(*change)
    with pytest.raises(StudioError, match="does not replay: candidate [0-9]+"):
        api.resume(run, store)
    assert store.run(run).status == "failed"
    assert "does not replay" in store.run(run).message
    assert recorded(store, run) == times


def test_one_worker_at_a_time(tiny_recipe, store):
    run = api.create(tiny_recipe(), store)
    lock = hold(store, run)
    try:
        with pytest.raises(StudioError, match="worked on by another process"):
            api.resume(run, store)
        assert store.run(run).status == "queued" and store.events(run) == []
        with pytest.raises(StudioError, match="stop it before deleting"):
            api.delete(run, store)
        with pytest.raises(StudioError, match="worked on already"):
            api.restart(run, store)
    finally:
        lock.release()
    api.delete(run, store)
    assert store.runs() == []


def test_a_stop_is_heard_after_the_candidate_in_flight(whole, tiny_recipe, store):
    run = api.create(tiny_recipe(), store)

    def stop_at_7(progress):
        if progress.done == 7 and not progress.run.stop and progress.state == "running":
            api.pause(run, store)
            assert api.progress(run, store).state == "stopping"

    api.resume(run, store, stop_at_7)
    assert store.run(run).status == "stopped"
    assert api.progress(run, store).done == 7
    api.resume(run, store)
    assert trajectory(store, run) == trajectory(*whole)


def test_ctrl_c_stops_and_resume_goes_on(whole, tiny_recipe, store):
    run = api.create(tiny_recipe(), store)

    def interrupt(progress):
        if progress.done == 5 and progress.state == "running":
            raise KeyboardInterrupt

    api.resume(run, store, interrupt)
    assert store.run(run).status == "stopped"
    api.resume(run, store)
    assert trajectory(store, run) == trajectory(*whole)


# ── bad candidates and bad days ───────────────────────────────────────────────────────────────


def test_a_broken_candidate_scores_zero_and_the_search_goes_on(tiny_recipe, store, monkeypatch):
    from studio.merge.live import LiveModel

    apply = LiveModel.apply
    applied = []

    def sometimes_broken(self, genome):
        apply(self, genome)
        applied.append(genome)
        if len(applied) == 3:
            self.model.lm_head.weight.data[0, 0] = float("nan")

    monkeypatch.setattr(LiveModel, "apply", sometimes_broken)
    run = api.evolve(tiny_recipe(), store)
    candidates = store.candidates(run)
    assert candidates[2].score == 0.0 and "not finite" in candidates[2].broken
    assert [c.id for c in candidates if c.broken] == [2]
    assert store.run(run).status == "finished" and store.best(run).id != 2


def cramped(monkeypatch, most):
    """Every model runs out of memory on a batch of more than `most`."""
    from studio.evolve import unpadded

    decode = unpadded.decode

    def wrapped(*arguments, slots, **options):
        if slots > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(*arguments, slots=slots, **options)

    monkeypatch.setattr(unpadded, "decode", wrapped)


def test_out_of_memory_halves_the_batch_for_good(whole, tiny_recipe, store, monkeypatch):
    run = api.create(tiny_recipe(batch_size=64), store)
    with monkeypatch.context() as patch:
        cramped(patch, 2)
        assert not work_until_crash(store, run, 20, monkeypatch)
        halvings = [e.payload for e in store.events(run) if e.kind == "halving"]
        assert halvings == [{"batch_size": size} for size in (32, 16, 8, 4, 2)]
        api.resume(run, store)  # the next session knows
    assert sum(e.kind == "halving" for e in store.events(run)) == 5
    assert store.run(run).status == "finished"
    assert trajectory(store, run) == trajectory(*whole)


def test_no_memory_at_all_is_a_failed_run_with_a_sentence(tiny_recipe, store, monkeypatch):
    run = api.create(tiny_recipe(), store)
    with monkeypatch.context() as patch:
        cramped(patch, 0)
        with pytest.raises(StudioError, match="does not fit the memory"):
            api.resume(run, store)
    assert store.run(run).status == "failed"
    assert "does not fit the memory" in store.run(run).message
    assert recorded(store, run) == {}


def test_no_memory_to_merge_in_is_a_failed_run_with_the_numbers(tiny_recipe, store, monkeypatch):
    from studio.merge.live import LiveModel

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    run = api.create(tiny_recipe(), store)
    with monkeypatch.context() as patch:
        patch.setattr(LiveModel, "apply", full)
        with pytest.raises(StudioError, match=r"merge of candidate 0 .* [\d.]+ GB are free"):
            api.resume(run, store)
    assert store.run(run).status == "failed"
    api.resume(run, store)
    assert store.run(run).status == "finished"


def test_models_that_vanish_are_told_and_the_record_stays(
    tiny_recipe, store, monkeypatch, tmp_path
):
    recipe = tiny_recipe()
    moved = shutil.copytree(recipe.sources[0], tmp_path / "moved")
    run = api.create(tiny_recipe(sources=[str(moved), recipe.sources[1]]), store)
    assert not work_until_crash(store, run, 20, monkeypatch)
    times = recorded(store, run)
    shutil.rmtree(moved)
    with pytest.raises(StudioError, match="moved"):
        api.resume(run, store)
    assert store.run(run).status == "failed" and recorded(store, run) == times
    shutil.copytree(recipe.sources[0], moved)
    api.resume(run, store)
    assert store.run(run).status == "finished" and times.items() <= recorded(store, run).items()


# ── what a run was begun with ─────────────────────────────────────────────────────────────────


def interrupted(recipe, store, monkeypatch) -> str:
    """A run of the recipe whose plug was pulled after a few candidates."""
    run = api.create(recipe, store)
    assert not work_until_crash(store, run, 20, monkeypatch)
    assert store.candidates(run)
    return run


@pytest.mark.parametrize("split", ["dev", "test"])
def test_other_questions_are_not_mixed_into_a_run(
    tiny_recipe, questions, store, tmp_path, monkeypatch, split
):
    mine = shutil.copy(questions, tmp_path / "mine.csv")
    options = {"path": str(mine), "match": "contains", "max_new_tokens": 2}
    objectives = [{"task": "csv", "options": options, "examples": 5}]
    run = interrupted(tiny_recipe(objectives=objectives), store, monkeypatch)
    before = recorded(store, run)
    lines = mine.read_text(encoding="utf-8").splitlines()
    changed = next(n for n, line in enumerate(lines) if line.endswith(split))
    lines[changed] = lines[changed].replace("Tom", "Tim")
    mine.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(StudioError, match=f"{split} examples of the task csv changed"):
        api.resume(run, store)
    assert recorded(store, run) == before
    shutil.copy(questions, mine)
    api.resume(run, store)
    assert store.run(run).status == "finished"


def test_another_model_of_the_same_name_is_not_taken_for_the_first(
    tiny_recipe, tiny_family, family_factory, store, tmp_path, monkeypatch
):
    family = family_factory(layers=2, scale=0.6)
    mine = shutil.copytree(family["ja"], tmp_path / "ja")
    run = interrupted(tiny_recipe(sources=[str(mine), str(family["math"])]), store, monkeypatch)
    shutil.rmtree(mine)
    shutil.copytree(family["abel"], mine)  # same shape, trained to something else
    for use in (
        lambda: api.resume(run, store),
        lambda: api.export(run, tmp_path / "out", store=store),
        lambda: api.evaluate(f"{run}:0", "emath", store=store),
        lambda: next(chat.stream(f"{run}:0", [{"role": "user", "content": "Tom"}], store)),
    ):
        with pytest.raises(StudioError, match="model .*ja changed since run"):
            use()
    assert not (tmp_path / "out").exists()


def test_a_base_the_method_does_not_use_is_scored_all_the_same(tiny_recipe, store):
    space = {"method": "linear", "layer_granularity": "all"}
    run = api.evolve(tiny_recipe(space=space, budget={"candidates": 4}), store)
    assert [row["role"] for row in api.report(run, store)][:3] == ["base", "source", "source"]
