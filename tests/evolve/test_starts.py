"""Where a search begins: the best uniform merge, or where another run ended."""

import numpy as np
import pytest

from studio import api
from studio.errors import StudioError
from studio.evolve import optimizers, starts
from studio.evolve.spaces import first_space
from studio.merge.data_flow import SURE, DataFlowSpace
from studio.merge.parameter_space import ParameterSpace
from studio.models import Checkpoint
from studio.recipe import Recipe
from studio.runs import Store
from tests.trajectory import trajectory

QUIET = {"population": 4, "finalists": 2, "random_baseline": False}


@pytest.fixture
def store():
    store = Store()
    yield store
    store.close()


@pytest.fixture(scope="module")
def family(family_factory):
    return {name: Checkpoint.open(path) for name, path in family_factory(layers=6).items()}


def mix(family, names=("ja", "math"), **options) -> ParameterSpace:
    options = {"method": "ties", "layer_granularity": 2} | options
    return ParameterSpace(family["base"], [family[name] for name in names], **options)


def meant(space, genome, layer: int):
    """What a genome says for a tensor of a layer."""
    return space.settings(genome)[f"model.layers.{layer}.mlp.up_proj.weight"]


# ── uniform merges ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["ties", "task_arithmetic", "dare_linear"])
def test_uniform_merges_treat_all_layers_alike(family, method):
    space = mix(family, ("ja", "math", "abel"), method=method)
    found = starts.uniform(space, 100)
    said = []
    for genome in found:
        settings = set(space.settings(genome).values())
        assert len(settings) == 1
        said.append(settings.pop())
    assert len(set(said)) == len(said) == (9 if method == "task_arithmetic" else 15)
    assert {s.weights for s in said} >= {(1.0, 1.0, 1.0), (1 / 3, 1.0, 1 / 3)}
    assert len(starts.uniform(space, 4)) == 4


def test_uniform_merges_of_slerp_are_ts(family):
    space = ParameterSpace(None, [family["ja"], family["math"]], method="slerp")
    ts = [{s.t for s in space.settings(g).values()} for g in starts.uniform(space, 9)]
    assert ts == [{0.5}, {0.25}, {0.75}]


def test_no_two_uniform_merges_are_the_same_model(family):
    space = mix(family, ("ja",), method="task_arithmetic")
    assert len(starts.uniform(space, 9)) == 3  # nobody leads where there is one


# ── from one space to another ─────────────────────────────────────────────────────────────────


def test_a_group_takes_the_setting_of_its_middle_layer(family):
    old, new = mix(family, layer_granularity=2), mix(family, layer_granularity=3)
    genome = np.random.default_rng(0).uniform(old.lower, old.upper)
    found = starts.translated(old, genome, new)
    for first, middle in ((0, 1), (3, 4)):
        for layer in range(first, first + 3):
            assert meant(new, found, layer) == meant(old, genome, middle)
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert new.settings(found)[name] == old.settings(genome)[name]


def test_the_same_space_takes_the_genome_as_it_is(family):
    space = mix(family, filters=["self_attn"])
    genome = np.random.default_rng(0).uniform(space.lower, space.upper)
    assert starts.translated(space, genome, mix(family, filters=["self_attn"])).tobytes() == (
        genome.tobytes()
    )


def test_sources_go_by_name_and_a_new_one_begins_as_it_would(family):
    old, new = mix(family), mix(family, ("abel", "ja"))
    genome = np.random.default_rng(0).uniform(old.lower, old.upper)
    found = starts.translated(old, genome, new)
    before, after, default = meant(old, genome, 3), meant(new, found, 3), meant(new, new.initial, 3)
    assert after.weights == (default.weights[0], before.weights[0])
    assert after.densities == (default.densities[0], before.densities[0])


def test_what_the_new_space_does_not_allow_is_at_its_bound(family):
    old, new = mix(family, negative_weights=True), mix(family)
    found = starts.translated(old, old.lower, new)
    assert meant(new, found, 0).weights == (0.0, 0.0)


def test_another_method_takes_what_both_have(family):
    old, new = mix(family, method="task_arithmetic"), mix(family, method="dare_ties")
    genome = np.random.default_rng(0).uniform(old.lower, old.upper)
    found = starts.translated(old, genome, new)
    assert meant(new, found, 2).weights == meant(old, genome, 2).weights
    assert meant(new, found, 2).densities == meant(new, new.initial, 2).densities


def test_what_says_nothing_is_refused(family, family_factory):
    old = mix(family, ("ja",))
    with pytest.raises(StudioError, match="says nothing about these sources"):
        starts.translated(old, old.initial, mix(family, ("math",)))
    slerp = ParameterSpace(None, [family["ja"], family["math"]], method="slerp")
    with pytest.raises(StudioError, match="mixed .* with slerp"):
        starts.translated(slerp, slerp.initial, mix(family))
    short = {n: Checkpoint.open(p) for n, p in family_factory(layers=2).items()}
    old = ParameterSpace(short["base"], [short["ja"]], method="ties", layer_granularity=1)
    new = mix(family, ("ja",))
    new.sources[0].name, before = old.sources[0].name, new.sources[0].name  # of the same name
    try:
        with pytest.raises(StudioError, match="nothing like layers 2-3"):
            starts.translated(old, old.initial, new)
    finally:
        new.sources[0].name = before


def test_a_path_is_laid_again(family):
    lenders = [family["ja"], family["math"]]
    old = DataFlowSpace(lenders, repeats=2)
    genome = np.random.default_rng(1).uniform(-1, 1, len(old.lower))
    new = DataFlowSpace(lenders, repeats=2)
    found = starts.translated(old, genome, new)
    assert new.phenotype(found) == old.phenotype(genome)
    assert set(np.abs(found[new.binary])) == {SURE}
    # every optimizer can begin there
    cmaes = optimizers.make("cmaes", lower=new.lower, upper=new.upper, initial=found,
                            binary=new.binary, population=4, sigma=0.1, seed=0)  # fmt: skip
    assert len(cmaes.ask(4)) == 4
    with pytest.raises(StudioError, match="2 repeats"):
        starts.translated(old, genome, DataFlowSpace(lenders, repeats=3))
    with pytest.raises(StudioError, match="lead through"):
        starts.translated(old, genome, DataFlowSpace(lenders[::-1], repeats=2))
    with pytest.raises(StudioError, match="layers; start with"):
        starts.translated(old, genome, DataFlowSpace(lenders, repeats=2, max_length=3))


# ── the optimizers ────────────────────────────────────────────────────────────────────────────


def test_nsga2_begins_with_a_front():
    space = {"lower": np.zeros(3), "upper": np.ones(3), "binary": np.zeros(3, bool)}
    known = [np.full(3, value) for value in np.linspace(0.1, 0.9, 9)]
    few = {"population": 6, "sigma": 0.1, "seed": 0, "objectives": 2}
    search = optimizers.make("nsga2", **space, **few, initial=known[0], others=known[1:3])
    asked = [genome for _, genome in search.ask(6)]
    assert [genome.tolist() for genome in asked[:3]] == [genome.tolist() for genome in known[:3]]
    assert all(abs(genome - known[0]).max() > 0 for genome in asked[3:])
    search = optimizers.make("nsga2", **space, **few, initial=known[0], others=known[1:])
    asked = [genome[0] for _, genome in search.ask(6)]  # too many: both ends, and in between
    assert asked[0] == 0.1 and asked[1] == 0.2 and asked[-1] == 0.9
    assert len(set(asked)) == 6


@pytest.mark.parametrize("name", ["cma", "cmaes"])
def test_an_optimizer_can_begin_at_a_bound(name):
    bounds = {"lower": np.zeros(4), "upper": np.ones(4), "binary": np.zeros(4, bool)}
    search = optimizers.make(name, **bounds, initial=np.array([0.0, 1.0, 0.5, 0.0]), population=8,
                             sigma=0.1, seed=0)  # fmt: skip
    asked = np.array([genome for _, genome in search.ask(8)])
    assert (asked >= 0).all() and (asked <= 1).all() and len(np.unique(asked, axis=0)) == 8
    assert abs(asked.mean(0) - [0, 1, 0.5, 0]).max() < 0.2


# ── whole runs ────────────────────────────────────────────────────────────────────────────────


def test_a_search_begins_at_the_best_uniform_merge(tiny_recipe, store):
    recipe = tiny_recipe(
        space={"method": "ties", "layer_granularity": 1},
        search={"population": 4, "finalists": 2, "start": "uniform"},
        budget={"candidates": 16},
    )
    run = api.evolve(recipe, store)
    (event,) = [e for e in store.events(run) if e.kind == "uniform"]
    (origin,) = [e for e in store.events(run) if e.kind == starts.ORIGIN]
    found = {c.id: c for c in store.candidates(run, "cma")}
    tried = [found[number] for number in event.payload["ids"]]
    assert 0 < len(tried) <= 8  # half the budget at most
    space = first_space(recipe)
    for candidate in tried:
        assert len(set(space.settings(candidate.genome).values())) == 1
    best = max(tried, key=lambda c: (c.score, -c.id))
    assert origin.payload["candidates"] == [best.id]
    (genome,) = starts.recorded(origin)
    assert genome.tobytes() == best.genome.tobytes()
    own = [e.payload["ids"] for e in store.events(run, "ask") if e.payload["stage"] == "cma"]
    search = optimizers.make("cma", lower=space.lower, upper=space.upper, binary=space.binary,
                             initial=genome, population=4, sigma=0.2, seed=0)  # fmt: skip
    begun = [g.tobytes() for _, g in search.ask(4)]
    assert begun == [found[number].genome.tobytes() for number in own[0]]
    # what it took is part of the budget, and the baseline has as many at random
    asked = sum(map(len, own))
    assert len(tried) + asked == 16
    assert len(store.candidates(run, "random")) == 16
    assert api.progress(run, store).done == 32


def ended(tiny_recipe, store, **changes) -> str:
    """A run of a few candidates, to start from."""
    settings = {"search": QUIET, "budget": {"candidates": 8}} | changes
    return api.evolve(tiny_recipe(**settings), store)


def stopping(run, store, most):
    return lambda p: p.done >= most and api.pause(run, store)


def test_a_search_begins_where_another_run_ended(tiny_recipe, store):
    before = ended(tiny_recipe, store)
    search = {"population": 4, "finalists": 2, "start": before[:5]}
    recipe = tiny_recipe(
        space={"method": "dare_ties", "layer_granularity": 1}, search=search,
        budget={"candidates": 4},
    )  # fmt: skip
    run = api.create(recipe, store)
    assert Recipe.from_yaml(store.run(run).recipe).search.start == before
    best = store.best(before)
    whole = meant_everywhere(first_space(tiny_recipe()), best.genome)
    api.delete(before, store)  # it is not needed any more
    api.resume(run, store)
    origin = next(e for e in store.events(run) if e.kind == starts.ORIGIN)
    assert origin.payload["run"] == before and origin.payload["candidates"] == [best.id]
    space = first_space(recipe)
    starting = store.candidate(run, 0)
    assert set(space.settings(starting.genome).values()) == whole
    assert starting.scores  # where it began competes with what it found
    # the baseline begins there, too, and goes anywhere around it
    baseline = store.candidates(run, "random")
    assert baseline[0].genome.tobytes() == starting.genome.tobytes()
    assert len(baseline) == 5
    reach = np.abs(np.array([c.genome for c in baseline]) - starting.genome).mean()
    assert 0 < reach < 0.2 * (space.upper - space.lower).mean()


def meant_everywhere(space, genome) -> set:
    return set(space.settings(genome).values())


def test_an_interrupted_run_begins_at_the_same_place(tiny_recipe, store):
    before = ended(tiny_recipe, store)
    for start in ("uniform", before):
        search = {"population": 4, "finalists": 2, "start": start}
        recipe = tiny_recipe(search=search, budget={"candidates": 8})
        whole = api.evolve(recipe, store)
        run = api.create(recipe, store)
        for most in (1, 2, 6):
            api.resume(run, store, stopping(run, store, most))
        if start == before:
            api.delete(before, store)
        api.resume(run, store)
        assert store.run(run).status == "finished"
        assert trajectory(store, run) == trajectory(store, whole)


def test_races_begin_at_the_best_uniform_merge_too(tiny_recipe, store):
    search = QUIET | {"start": "uniform", "racing": True}
    run = api.evolve(tiny_recipe(search=search, budget={"candidates": 14}), store)
    (origin,) = [e for e in store.events(run) if e.kind == starts.ORIGIN]
    (event,) = [e for e in store.events(run) if e.kind == "uniform"]
    assert set(origin.payload["candidates"]) <= set(event.payload["ids"])


def test_a_front_goes_on_from_a_front(tiny_recipe, store):
    base = tiny_recipe()
    tasks = [o.model_dump(exclude={"property"}) for o in base.objectives] * 2
    tasks[1] = {**tasks[1], "options": {**tasks[1]["options"], "match": "exact"}}
    before = ended(tiny_recipe, store, objectives=tasks, search=QUIET, budget={"candidates": 12})
    search = QUIET | {"start": before}
    run = api.evolve(tiny_recipe(objectives=tasks, search=search, budget={"candidates": 4}), store)
    (origin,) = [e for e in store.events(run) if e.kind == starts.ORIGIN]
    known = [genome.tobytes() for genome in starts.recorded(origin)]
    front = {c.genome.tobytes() for c in api.front(before, store)}
    assert set(known) >= front and known[0] == store.best(before).genome.tobytes()
    asked = [c.genome.tobytes() for c in store.candidates(run, "nsga2")][1:]  # after the start
    assert asked[: len(known)] == known[:4]


def test_paths_go_on_from_paths(tiny_recipe, store):
    space = {"type": "data_flow", "repeats": 1}
    before = ended(tiny_recipe, store, base=None, space=space, search=QUIET,
                   budget={"candidates": 8})  # fmt: skip
    search = {"population": 4, "finalists": 2, "start": "last"}
    recipe = tiny_recipe(base=None, space=space, search=search, budget={"candidates": 4})
    run = api.evolve(recipe, store)
    paths = first_space(recipe)
    best = paths.phenotype(store.best(before).genome)
    for stage in ("cma", "random"):
        assert paths.phenotype(store.candidates(run, stage)[0].genome) == best


def test_what_cannot_be_started_from_is_refused_before_anything_is_recorded(tiny_recipe, store):
    empty = api.create(tiny_recipe(), store)
    runs = len(store.runs())

    def refused(match, **changes):
        with pytest.raises(StudioError, match=match):
            api.create(tiny_recipe(**changes), store)
        assert len(store.runs()) == runs

    refused("There is no run 'abcdef0'", search={"start": "abcdef0"})
    refused("no scored candidate yet to start from", search={"start": empty})
    before = ended(tiny_recipe, store)
    runs += 1
    refused("searched no data-flow space", base=None, space={"type": "data_flow"},
            search={"start": before})  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"search": {"start": "yesterday"}}, "'default', 'uniform'"),
        ({"search": {"start": "uniform"}, "space": {"type": "data_flow"}}, "mixes no weights"),
        ({"search": {"start": "uniform", "optimizer": "random"}}, "does not go on"),
    ],
)
def test_a_recipe_that_cannot_start_so_is_refused(tiny_recipe, changes, says):
    with pytest.raises(StudioError, match=f"search.start: .*{says}"):
        tiny_recipe(**changes)


def test_a_run_begun_elsewhere_goes_on_without_the_other(tiny_recipe, store, tmp_path):
    before = ended(tiny_recipe, store)
    search = QUIET | {"start": before}
    run = api.create(tiny_recipe(search=search, budget={"candidates": 4}), store)
    api.resume(run, store, stopping(run, store, 1))
    file = api.archive(run, tmp_path / "run.sqlite", store)
    (tmp_path / "other").mkdir()
    other = Store(tmp_path / "other" / "runs.sqlite")
    try:
        assert api.unarchive(file, store=other) == [run]
        api.resume(run, other)
        api.resume(run, store)
        assert trajectory(other, run) == trajectory(store, run)
    finally:
        other.close()
