"""Races: who is dropped, what is told, and that a raced run is recorded and resumed like any other.

What races save on real models, and whether they find what whole evaluations find, is measured by
`benchmarks/racing.py`.
"""

from contextlib import contextmanager

import numpy as np
import pytest

from studio import api
from studio.errors import StudioError
from studio.evolve import executors, racing
from studio.evolve.loop import steps
from studio.evolve.spaces import first_space
from studio.recipe import Recipe
from studio.runs import Store
from studio.runs.records import Candidate, rank
from tests.conftest import SYMBOL
from tests.trajectory import trajectory

DEV, SEEN = 70, 64
SEARCH = {"population": 8, "finalists": 2, "random_baseline": False, "racing": True}


class Crash(BaseException):
    """The plug is pulled."""


@pytest.fixture(scope="module")
def raced(tiny_recipe, tmp_path_factory):
    """`raced(search={…}, …)`: the tiny recipe as a race, over more questions than usual."""
    lines = ["question,answer,split"]
    for number in range(DEV + 4):
        question = f"Tom has {7 * number + 2} apples and buys {number} more. How many?"
        lines.append(f"{question},{SYMBOL},{'dev' if number < DEV else 'test'}")
    path = tmp_path_factory.mktemp("many") / "questions.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"path": str(path), "match": "contains", "max_new_tokens": 3}
    goal = {"task": "csv", "options": options, "examples": SEEN}

    def make(**changes) -> Recipe:
        changes["search"] = SEARCH | changes.get("search", {})
        return tiny_recipe(**{"objectives": [goal], "budget": {"candidates": 24}} | changes)

    make.goal = goal
    return make


@pytest.fixture(scope="module")
def whole(raced, tmp_path_factory):
    """(store, run) of a race that was never interrupted."""
    store = Store(tmp_path_factory.mktemp("whole") / "runs.sqlite")
    yield store, api.evolve(raced(), store)
    store.close()


def asked_of(store, run: str, number: int, split: str = "dev") -> dict[str, float]:
    found = store.evaluation(run, f"candidate:{number}", "csv", split)
    return {o.example: o.score for o in found.outcomes}


# ── blocks and bounds ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [1, 3, 4, 5, 9, 100, 257])
def test_blocks_have_every_example_once_and_grow(n):
    blocks = racing.blocks(n, (3, 1))
    assert sorted(place for block in blocks for place in block) == list(range(n))
    assert len(blocks[0]) == min(n, max(racing.FIRST, n // racing.PART)) and all(blocks)
    done = np.cumsum([len(block) for block in blocks])
    assert all(after <= 2 * before for before, after in zip(done, done[1:], strict=False))
    assert blocks == racing.blocks(n, (3, 1))
    if n > 5:
        assert blocks != racing.blocks(n, (3, 2)) != racing.blocks(n, (4, 2))


def test_nobody_is_beaten_by_one_that_he_beats_and_the_best_stay():
    random = np.random.default_rng(0)
    for _ in range(200):
        count, n = random.integers(2, 20), random.integers(1, 40)
        scores = [(random.random((count, n)) < random.random((count, 1))).astype(float)]
        beaten = racing.beaten(scores, [40])
        assert not (beaten & beaten.T).any() and not beaten.diagonal().any()
        for keep in (1, 2, 5):
            alive = racing.survivors(scores, [40], keep)
            means = scores[0].mean(1)
            order = sorted(range(count), key=lambda i: (-means[i], i))
            assert alive[order[:keep]].all()  # whoever leads now goes on


def test_a_clear_loser_is_dropped_at_once_and_a_close_one_is_not():
    leader, close, lost = np.ones(16), np.ones(16), np.zeros(16)
    scores = [np.array([leader, close, lost])]
    beaten = racing.beaten(scores, [2000])
    assert beaten[2, 0] and beaten[2, 1] and not beaten[1, 0]
    # all of them asked: the order is what it is
    assert racing.beaten(scores, [16])[1, 0]


def test_twins_stop_when_no_number_of_examples_would_tell_them_apart():
    twins = [np.tile(np.arange(64) % 2.0, (2, 1))]
    assert not racing.beaten([twins[0][:, :4]], [100])[1, 0]
    assert racing.beaten(twins, [100])[1, 0] and not racing.beaten(twins, [100])[0, 1]


def test_a_choice_is_made_later_than_a_ranking():
    """Planted skills that are hardly apart: who is reported is nearer the best than who leads."""
    random = np.random.default_rng(2)
    chosen, asked = {racing.RANKING: [], racing.CHOICE: []}, {}
    for number in range(60):
        skill = np.linspace(0.6, 0.74, 6)[random.permutation(6), None]
        scores = (random.random((6, 500)) < skill).astype(float)
        for rule, found in chosen.items():
            alive, places = np.ones(6, bool), []
            for block in racing.blocks(500, (0, number)):
                places += block
                asked[rule] = asked.get(rule, 0) + alive.sum() * len(block)
                shown = [scores[alive][:, places]]
                alive[alive] = racing.survivors(shown, [500], 1, rule=rule)
            best = max(np.flatnonzero(alive), key=lambda who: scores[who].mean())
            found.append(scores.mean(1).max() - scores[best].mean())
    assert np.mean(chosen[racing.CHOICE]) < 0.5 * np.mean(chosen[racing.RANKING])
    assert asked[racing.RANKING] < asked[racing.CHOICE] < 60 * 6 * 300


def test_of_several_objectives_one_is_beaten_that_leads_in_none():
    good, bad = np.ones(16), np.zeros(16)
    first, second = np.array([good, bad, bad]), np.array([bad, good, bad])
    beaten = racing.beaten([first, second], [100, 100])
    assert beaten.tolist() == [[False] * 3, [False] * 3, [True, True, False]]
    # shorter is a lead as well
    length = np.array([-9.0, -9.0, -4.0])
    assert not racing.beaten([first, second], [100, 100], [length]).any()


def test_races_keep_the_best_for_a_part_of_the_questions():
    """Planted skills: who the first quarter is by all the examples hardly changes by racing."""
    random, kept, asked = np.random.default_rng(1), [], []
    for number in range(100):
        skill, ease = random.normal(0, 1, (16, 1)), random.normal(0, 1, 100)
        scores = (skill + ease + 0.5 * random.normal(size=(16, 100)) > 0).astype(float)
        alive, places, count = np.ones(16, bool), [], np.zeros(16)
        for block in racing.blocks(100, (0, number)):
            places += block
            count[alive] = len(places)
            alive[alive] = racing.survivors([scores[alive][:, places]], [100], 4)
            if alive.sum() <= 4:
                break
        best = np.argsort(-scores.mean(1), kind="stable")[:4]
        kept.append(scores[alive].mean(1).max() / scores[best[0]].mean())
        asked.append(count.mean())
    assert np.mean(asked) < 40 and np.mean(kept) > 0.95


def test_the_told_ranking_is_complete_and_the_dropped_are_behind():
    means = np.array([[0.5], [0.9], [0.4], [0.5]])
    alive = np.array([True, False, False, True])
    told = racing.told(means, alive).ravel()
    assert told[0] == told[3] == 0.5 and 0.499 < told[1] < 0.5 and told[2] == 0.4
    assert np.isfinite(told).all()


def test_few_answers_do_not_outrank_many():
    def candidate(number, score, examples):
        return Candidate(number, "cma", 0, np.zeros(1), {"t": score}, examples, 0, 0.0, "")

    lucky, sure, worse = candidate(0, 1.0, 4), candidate(1, 0.8, 100), candidate(2, 0.7, 100)
    assert sorted([lucky, worse, sure], key=rank) == [sure, worse, lucky]


# ── runs ──────────────────────────────────────────────────────────────────────────────────────


def test_a_race_asks_everybody_the_same_and_the_losers_less(whole):
    store, run = whole
    assert store.run(run).status == "finished"
    searched = [c for c in store.candidates(run, "cma") if c.generation < 3]
    assert len(searched) == 24
    counts = [c.examples for c in searched]
    assert min(counts) == racing.FIRST and sum(counts) < 24 * SEEN
    asked = [asked_of(store, run, c.id) for c in searched]
    firsts = set()
    for generation in range(3):
        of = [asked[c.id] for c in searched if c.generation == generation]
        shared = set.intersection(*map(set, of))
        assert len(shared) >= racing.FIRST
        for some in of:  # whoever was asked more was asked what the others were
            assert all(set(some) <= set(other) or set(other) <= set(some) for other in of)
        firsts.add(frozenset(min(of, key=len)))
    assert len(firsts) == 3  # every generation has its own first block
    dev = [f"line-{n}" for n in range(2, SEEN + 2)]
    assert all(list(some) == [name for name in dev if name in some] for some in asked)


def test_a_race_tells_a_ranking_of_all_its_candidates(whole):
    store, run = whole
    tells = [store.told(e) for e in store.events(run) if e.kind == "tell"]
    assert [len(told) for told in tells] == [8, 8, 8]
    scores = {c.id: c.score for c in store.candidates(run)}
    examples = {c.id: c.examples for c in store.candidates(run)}
    for told in tells:
        most = max(examples[number] for number in told)
        best = sorted(told, key=told.get)[-2:]  # a quarter of a generation is fought for
        for number, value in told.items():
            assert value <= scores[number]
            if examples[number] < most:
                assert all(value < told[other] == scores[other] for other in best)
    assert any(len({examples[number] for number in told}) > 1 for told in tells)


def test_the_reported_one_was_asked_all_of_dev_and_nothing_twice(whole):
    store, run = whole
    winner = next(e.payload["id"] for e in store.events(run) if e.kind == "winner")
    found = store.evaluation(run, f"candidate:{winner}", "csv", "selection")
    assert len(found.outcomes) == DEV
    before = asked_of(store, run, winner)
    new = [o for o in found.outcomes if o.example not in before]
    assert found.tokens == sum(o.tokens for o in new) and new
    assert len(store.evaluation(run, f"candidate:{winner}", "csv", "test").outcomes) == 4


def test_a_plug_pulled_in_the_middle_of_a_race_leaves_no_trace(whole, raced, store, monkeypatch):
    run, asked, crashes = api.create(raced(), store), [], 0
    evaluate = executors.evaluate

    def counted(model, tokenizer, task, examples, *, subject, split, **options):
        asked.append((subject, split, tuple(example.id for example in examples)))
        return evaluate(model, tokenizer, task, examples, subject=subject, split=split, **options)

    monkeypatch.setattr(executors, "evaluate", counted)
    transaction = Store._transaction
    for writes in [*range(7, 15)] * 20:
        left = iter(range(writes))

        @contextmanager
        def unplugged(self, left=left):
            if next(left, None) is None:
                raise Crash
            with transaction(self) as db:
                yield db

        with monkeypatch.context() as patch:
            patch.setattr(Store, "_transaction", unplugged)
            try:
                api.resume(run, store)
                break
            except Crash:
                crashes += 1
    assert crashes > 5 and store.run(run).status == "finished"
    assert trajectory(store, run) == trajectory(*whole)
    assert len(asked) <= len(set(asked)) + crashes  # again only what was in flight


def test_the_random_baseline_races_for_the_first_place_alone(raced, store):
    run = api.evolve(raced(search={"random_baseline": True}, budget={"candidates": 16}), store)
    own, random = store.candidates(run, "cma")[:16], store.candidates(run, "random")
    assert len(random) == 16
    assert all(c.score is not None for c in [*own, *random])


def test_two_tasks_and_a_property_race(raced, store):
    other = raced.goal | {"examples": 9}
    objectives = [raced.goal, other, {"property": "length"}]
    search = {"optimizer": "nsga2"}
    paths = {"type": "data_flow", "repeats": 2}
    recipe = raced(objectives=objectives, search=search, space=paths, budget={"candidates": 16})
    run = api.evolve(recipe, store)
    assert store.run(run).status == "finished"
    space = first_space(recipe)
    for candidate in store.candidates(run, "nsga2"):
        assert list(candidate.scores) == ["csv", "csv (2)", "length"]
        assert candidate.scores["length"] == space.properties(candidate.genome)["length"]
    for event in store.events(run):
        if event.kind == "tell":
            told = store.told(event)
            lengths = {n: store.candidate(run, n).scores["length"] for n in told}
            broken = {n for n in told if store.candidate(run, n).broken}
            assert all(-told[n][2] == lengths[n] for n in told if n not in broken)


def test_broken_candidates_are_asked_one_block_only(raced, store, monkeypatch):
    import torch

    from studio.merge.live import LiveModel

    apply, broken = LiveModel.apply, set()

    def sometimes_broken(self, genome):
        apply(self, genome)
        if genome.tobytes()[0] % 3 == 0:
            broken.add(genome.tobytes())
            with torch.no_grad():
                self.model.model.norm.weight.fill_(torch.nan)

    monkeypatch.setattr(LiveModel, "apply", sometimes_broken)
    run = api.evolve(raced(), store)
    found = [c for c in store.candidates(run, "cma") if c.broken]
    assert found and {c.genome.tobytes() for c in found} == broken
    assert all(c.score == 0 for c in found)
    assert all(c.examples == racing.FIRST for c in found if c.generation < 3)


def test_one_model_under_two_numbers_is_asked_once(raced, store, monkeypatch):
    """Paths without scales: many genomes are the same path."""
    paths = {"type": "data_flow", "repeats": 1, "scaling": "off"}
    search = {"optimizer": "random", "racing": False}
    recipe = raced(space=paths, search=search, budget={"candidates": 24})
    evaluate, asked = executors.evaluate, []

    def counted(*arguments, subject, split, **options):
        asked.append((subject, split))
        return evaluate(*arguments, subject=subject, split=split, **options)

    monkeypatch.setattr(executors, "evaluate", counted)
    run = api.evolve(recipe, store)
    space = first_space(recipe)
    candidates = store.candidates(run, "random")
    groups: dict = {}
    for candidate in candidates:
        groups.setdefault(space.phenotype(candidate.genome), []).append(candidate)
    assert len(groups) < len(candidates)
    searched = {subject for subject, split in asked if split == "dev"}
    assert len([s for s in searched if s.startswith("candidate")]) == len(groups)
    for first, *others in groups.values():
        for other in others:
            assert other.scores == first.scores and other.tokens == 0
            assert asked_of(store, run, other.id) == asked_of(store, run, first.id)


def test_answers_that_repeat_themselves_are_cut_in_races_and_not_on_test(raced, store, monkeypatch):
    evaluate, seen = executors.evaluate, {}

    def watched(*arguments, subject, split, cut_loops, **options):
        seen.setdefault((subject.partition(":")[0], split), set()).add(cut_loops)
        return evaluate(*arguments, subject=subject, split=split, cut_loops=cut_loops, **options)

    monkeypatch.setattr(executors, "evaluate", watched)
    api.evolve(raced(budget={"candidates": 8}), store)
    assert seen["candidate", "selection"] == {True} and True in seen["candidate", "dev"]
    assert seen["candidate", "test"] == seen["model", "test"] == seen["model", "dev"] == {False}


# ── scores told as they come ──────────────────────────────────────────────────────────────────

STEADY = {"racing": False, "asynchronous": True}


@pytest.mark.parametrize("optimizer", ["cma", "cmaes", "random"])
def test_scores_are_told_one_by_one(raced, store, optimizer):
    search = STEADY | {"optimizer": optimizer}
    run = api.evolve(raced(search=search, budget={"candidates": 20}), store)
    log = [e for e in store.events(run) if e.kind in ("ask", "tell")]
    assert [e.kind for e in log] == ["ask", "tell"] * 20
    assert [e.payload["ids"] for e in log[::2]] == [[n] for n in range(20)]
    scores = {c.id: c.score for c in store.candidates(run)}
    assert all(store.told(e) == {n: scores[n]} for n, e in enumerate(log[1::2]))
    assert [c.generation for c in store.candidates(run)[:20]] == [n // 8 for n in range(20)]


def test_a_steady_search_goes_on_where_it_was_interrupted(raced, store):
    recipe = raced(search=STEADY, budget={"candidates": 20})
    whole = api.evolve(recipe, store)
    run = api.create(recipe, store)
    for wait in (7, 11, 9):
        going = steps(store, run)
        for _ in range(wait):
            next(going)
        going.close()
    api.resume(run, store)
    assert trajectory(store, run) == trajectory(store, whole)


def test_races_wait_for_whole_generations(raced):
    with pytest.raises(StudioError, match=r"search\.asynchronous: in a race"):
        raced(search={"asynchronous": True})
