"""Ask and tell: private draws, bounds, replay to the bit, and searches that find something."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.evolve.optimizers import CMA, NSGA2, CMAwM, RandomAround, RandomSearch, make

D = 12
LOWER = np.array([0.0, 0.05] * (D // 2))
UPPER = np.array([2.0, 1.0] * (D // 2))
INITIAL = np.full(D, 0.5)
TARGET = LOWER + (UPPER - LOWER) * np.linspace(0.15, 0.85, D)
BINARY = np.arange(D) % 3 == 0

KINDS = ["cma", "cmaes", "nsga2", "random", "around"]
LEARNING = ["cma", "cmaes", "nsga2"]


def search(kind, seed=0, **changes):
    """An optimizer of that kind; *changes* are to the space of this file or to the settings."""
    space = {"lower": LOWER, "upper": UPPER, "initial": INITIAL, "binary": BINARY}
    usual = {"population": 8, "sigma": 0.2, "seed": seed, "objectives": objectives(kind)}
    name = "random" if kind == "around" else kind
    return make(name, **{**space, **usual, **changes}, around=kind == "around")


def objectives(kind):
    return 2 if kind == "nsga2" else 1


def cma(seed=0, **changes):
    return search("cma", seed, **changes)


def score(genome) -> float:
    return 1 - float((((genome - TARGET) / (UPPER - LOWER)) ** 2).mean())


def judge(kind, genome):
    """What that kind of optimizer is told: a score, or two in conflict."""
    if objectives(kind) == 1:
        return score(genome)
    return score(genome), score(LOWER + UPPER - genome)


def drive(kind, optimizer, generations=6, population=8, disturb=lambda: None):
    """The genomes asked (bytes, in order), each generation told its scores."""
    asked = []
    for _ in range(generations):
        disturb()
        proposed = optimizer.ask(population)
        disturb()
        asked += in_bytes(proposed)
        optimizer.tell({number: judge(kind, genome) for number, genome in proposed})
    return asked


def in_bytes(proposed):
    return [(number, genome.tobytes()) for number, genome in proposed]


def best(kind, optimizer, value, generations, population) -> float:
    """The best value met while the optimizer is told it."""
    found = -np.inf
    for _ in range(generations):
        told = {number: value(genome) for number, genome in optimizer.ask(population)}
        optimizer.tell(told)
        found = max(found, *told.values())
    return found


# ── what all of them promise ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_foreign_draws_change_nothing(kind):
    calm = drive(kind, search(kind))
    noise = np.random.default_rng()

    def disturb():
        np.random.seed(int(noise.integers(2**31)))
        np.random.standard_normal(7)

    assert drive(kind, search(kind), disturb=disturb) == calm


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_leaves_the_global_generator_alone(kind):
    np.random.seed(3)
    expected = np.random.standard_normal(4)
    np.random.seed(3)
    drive(kind, search(kind, seed=4))
    assert np.array_equal(np.random.standard_normal(4), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_seed_is_its_own_search_and_0_is_one(kind):
    runs = [drive(kind, search(kind, seed)) for seed in (0, 0, 1, 2**32 - 1)]
    assert runs[0] == runs[1]
    assert len({run[1][1] for run in runs}) == 3  # NSGA-II's first candidate is always `initial`


@pytest.mark.parametrize("kind", KINDS)
def test_two_searches_at_a_time_do_not_meet(kind):
    alone = drive(kind, search(kind))
    one, other = search(kind), search(kind, seed=1)
    together = []
    for _ in range(6):
        together += drive(kind, one, generations=1)
        drive(kind, other, generations=1)
    assert together == alone


@pytest.mark.parametrize("kind", KINDS)
def test_ids_count_up_and_genomes_keep_the_bounds(kind):
    optimizer = search(kind, 4, sigma=1.0)  # wide steps push against the bounds
    seen = []
    for _ in range(10):
        proposed = optimizer.ask(8)
        for number, genome in proposed:
            seen.append(number)
            assert genome.dtype == np.float64 and genome.shape == (D,)
            assert (genome >= LOWER).all() and (genome <= UPPER).all()
        sums = {number: -float(genome.sum()) for number, genome in proposed}
        if kind == "nsga2":
            sums = {number: (-value, value) for number, value in sums.items()}
        optimizer.tell(sums)
    assert seen == list(range(80))


@pytest.mark.parametrize("kind", ["cmaes", "nsga2"])
def test_binary_genes_are_exactly_at_a_bound_and_take_both(kind):
    asked = drive(kind, search(kind), generations=20)
    genomes = np.array([np.frombuffer(genome) for _, genome in asked])
    low, high = genomes == LOWER, genomes == UPPER
    assert (low | high)[:, BINARY].all()
    assert low[:, BINARY].any(axis=0).all() and high[:, BINARY].any(axis=0).all()
    assert not (low | high)[:, ~BINARY].all(axis=0).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("switches", [False, True])
def test_a_space_may_be_all_binary_or_all_continuous(kind, switches):
    asked = drive(kind, search(kind, binary=np.full(D, switches)), generations=10)
    genomes = np.array([np.frombuffer(genome) for _, genome in asked])
    at_a_bound = (genomes == LOWER) | (genomes == UPPER)
    assert at_a_bound.all() == (switches and kind in ("cmaes", "nsga2"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("switch", [False, True])
def test_a_space_may_have_a_single_gene(kind, switch):
    one = np.ones(1)
    space = {"lower": -one, "upper": one, "initial": 0.5 * one, "binary": np.array([switch])}
    optimizer = search(kind, **space)
    for _ in range(25):
        proposed = optimizer.ask(8)
        assert all(genome.shape == (1,) and abs(genome[0]) <= 1 for _, genome in proposed)
        loss = {number: abs(float(genome[0]) + 0.8) for number, genome in proposed}
        if kind == "nsga2":
            optimizer.tell({number: (-value, -value) for number, value in loss.items()})
        else:
            optimizer.tell({number: -value for number, value in loss.items()})
    if kind in ("cma", "cmaes"):
        expected = -1.0 if kind == "cmaes" and switch else -0.8
        assert optimizer.favorite() == pytest.approx([expected], abs=0.01)
    elif kind == "nsga2":
        good = [number for number, value in loss.items() if value < 0.21]
        assert len(good) >= (2 if switch else 6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_caller_does_to_a_genome_is_its_own_affair(kind):
    calm, meddled = search(kind), search(kind)
    for _ in range(4):
        proposed, mine = calm.ask(8), meddled.ask(8)
        assert in_bytes(proposed) == in_bytes(mine)
        told = {number: judge(kind, genome) for number, genome in proposed}
        for _, genome in mine:
            genome[:] = np.nan
        calm.tell(told)
        meddled.tell(told)
    if calm.favorite() is not None:
        calm.favorite()[:] = np.nan
        assert np.array_equal(calm.favorite(), meddled.favorite())


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(LEARNING), data=st.data())
def test_told_in_pieces_and_in_any_order_it_is_the_same_search(kind, data):
    whole, pieces = search(kind), search(kind)
    for _ in range(4):
        proposed = whole.ask(8)
        scores = {number: judge(kind, genome) for number, genome in proposed}
        whole.tell(scores)
        assert in_bytes(pieces.ask(8)) == in_bytes(proposed)
        order = data.draw(st.permutations(list(scores)))
        cuts = sorted(data.draw(st.sets(st.integers(1, 7))))
        for first, last in zip([0, *cuts], [*cuts, 8], strict=True):
            pieces.tell({number: scores[number] for number in order[first:last]})
    assert in_bytes(pieces.ask(8)) == in_bytes(whole.ask(8))
    assert np.array_equal(whole.favorite(), pieces.favorite())


@pytest.mark.parametrize("kind", ["cmaes", "nsga2", "random", "around"])
def test_asked_in_pieces_it_is_the_same_search(kind):
    whole, pieces = search(kind), search(kind)
    for _ in range(4):
        proposed, told = [], {}
        for n in (3, 1, 4):
            mine = pieces.ask(n)
            proposed += mine
            told.update((number, judge(kind, genome)) for number, genome in mine)
        assert in_bytes(whole.ask(8)) == in_bytes(proposed)
        whole.tell(told)
        pieces.tell(told)


@pytest.mark.parametrize("kind", ["cma", "cmaes", "random", "around"])
@pytest.mark.parametrize("population", [4, 8])
@pytest.mark.parametrize("at_once", [1, 3])
def test_asked_one_by_one_and_told_as_scores_come_it_goes_on_searching(kind, population, at_once):
    optimizer = search(kind, population=population)
    order, asked, values = np.random.default_rng(0), [], []
    for _ in range(12 * population):
        while len(asked) < at_once:
            asked += optimizer.ask(1)
        number, genome = asked.pop(order.integers(len(asked)))
        values.append(score(genome))
        optimizer.tell({number: values[-1]})
    if kind in LEARNING:
        assert np.mean(values[-population:]) > np.mean(values[:population])


@pytest.mark.parametrize("kind", KINDS)
def test_replay_after_an_interruption_anywhere_is_bit_equal(kind):
    log = []
    first = search(kind, seed=7)
    for _ in range(8):
        proposed = first.ask(8)
        told = {number: judge(kind, genome) for number, genome in proposed}
        first.tell(told)
        log.append((in_bytes(proposed), told))
    for interrupted in range(8):
        again = search(kind, seed=7)
        np.random.seed(99)
        for asked, told in log[:interrupted]:
            assert in_bytes(again.ask(8)) == asked
            again.tell(told)
        # half of the next generation was told when the plug was pulled
        asked, told = log[interrupted]
        assert in_bytes(again.ask(8)) == asked
        again.tell(dict(list(told.items())[:4]))
        again.tell(dict(list(told.items())[4:]))
        for asked, told in log[interrupted + 1 :]:
            assert in_bytes(again.ask(8)) == asked
            again.tell(told)
        assert np.array_equal(again.favorite(), first.favorite())


@pytest.mark.parametrize("kind", ["cma", "cmaes"])
def test_a_last_generation_cut_short_waits(kind):
    optimizer = search(kind)
    drive(kind, optimizer, generations=3)
    before = optimizer.favorite()
    proposed = optimizer.ask(3)
    assert [number for number, _ in proposed] == [24, 25, 26]
    optimizer.tell({number: 1.0 for number, _ in proposed})
    assert np.array_equal(optimizer.favorite(), before)


@pytest.mark.parametrize("kind", LEARNING)
def test_a_score_that_is_told_changes_what_is_asked_next(kind):
    """Else every test of replay above would pass for an optimizer that never learns."""
    one, other = search(kind), search(kind)
    proposed = one.ask(8)
    other.ask(8)
    told = {number: judge(kind, genome) for number, genome in proposed}
    one.tell(told)
    reverse = dict(zip(told, reversed(told.values()), strict=True))
    other.tell(reverse)
    assert in_bytes(one.ask(8)) != in_bytes(other.ask(8))


@pytest.mark.parametrize("kind", LEARNING)
def test_equal_scores_do_no_harm(kind):
    optimizer = search(kind)
    for _ in range(100):
        proposed = optimizer.ask(8)
        optimizer.tell({n: (0.0, 0.0) if kind == "nsga2" else 0.0 for n, _ in proposed})
        assert all(np.isfinite(genome).all() for _, genome in proposed)


@pytest.mark.parametrize("kind", ["cma", "cmaes"])
def test_scores_are_maximised_and_negative_ones_are_fine(kind):
    optimizer = search(kind, binary=np.zeros(D, bool))
    for _ in range(60):
        proposed = optimizer.ask(8)
        optimizer.tell({n: -1000 + 100 * score(g) for n, g in proposed})
    assert score(optimizer.favorite()) > 0.99


@pytest.mark.parametrize("kind", ["cma", "cmaes"])
def test_the_favourite_is_near_the_optimum(kind):
    optimizer = search(kind, binary=np.zeros(D, bool))
    drive(kind, optimizer, generations=80)
    favourite = optimizer.favorite()
    assert (favourite >= LOWER).all() and (favourite <= UPPER).all()
    assert score(favourite) > 0.999


@pytest.mark.parametrize("kind", ["nsga2", "random", "around"])
def test_the_others_have_no_favourite(kind):
    optimizer = search(kind)
    drive(kind, optimizer, generations=2)
    assert optimizer.favorite() is None


# ── random search ─────────────────────────────────────────────────────────────────────────────────


def test_recorded_random_searches_replay_their_uniform_draws():
    plain = np.random.default_rng(5)
    for _, genome in RandomSearch(LOWER, UPPER, seed=5).ask(20):
        assert genome.tobytes() == plain.uniform(LOWER, UPPER).tobytes()


def test_random_draws_around_a_genome_spread_by_sigma():
    middle = (LOWER + UPPER) / 2
    search = RandomAround(LOWER, UPPER, middle, sigma=0.1, seed=0)
    genomes = np.array([genome for _, genome in search.ask(4000)])
    reach = UPPER - LOWER
    assert np.allclose(genomes.mean(axis=0), middle, atol=0.01 * reach.max())
    assert genomes.std(axis=0) == pytest.approx(0.1 * reach, rel=0.05)
    correlation = np.corrcoef(genomes.T) - np.eye(D)
    assert np.abs(correlation).max() < 0.1


def test_random_draws_beyond_a_bound_are_reflected():
    zero, one = np.zeros(1), np.ones(1)
    for bound in (zero, one):
        near = RandomAround(zero, one, bound, sigma=0.2, seed=0).ask(4000)
        within = np.array([abs(genome[0] - bound[0]) for _, genome in near])
        # half a normal distribution: nothing piles up on the bound it was thrown back from
        assert not (within == 0).any()
        assert within.mean() == pytest.approx(0.2 * np.sqrt(2 / np.pi), rel=0.05)
    far = RandomAround(zero, one, zero, sigma=3.0, seed=0).ask(100)
    assert all(0 <= genome[0] <= 1 for _, genome in far)


# ── CMA-ES ────────────────────────────────────────────────────────────────────────────────────────


def test_cma_starts_at_the_initial_genome():
    proposed = cma(sigma=1e-6).ask(8)
    for _, genome in proposed:
        assert np.allclose(genome, INITIAL, atol=1e-4)


@pytest.mark.parametrize("kind", ["cma", "cmaes"])
def test_sigma_is_a_fraction_of_each_genes_range(kind):
    lower, upper = np.array([0.0, 0.05]), np.array([2.0, 1.0])
    space = {"lower": lower, "upper": upper, "binary": np.zeros(2, bool)}
    optimizer = search(kind, **space, initial=(lower + upper) / 2, population=400, sigma=0.15)
    spread = np.std([genome for _, genome in optimizer.ask(400)], axis=0)
    assert spread == pytest.approx(0.15 * (upper - lower), rel=0.15)


def test_cma_beats_random_search_with_the_same_budget():
    for seed in range(3):
        found = best("cma", cma(seed), score, 30, 8)
        chance = best("random", search("random", seed), score, 30, 8)
        assert 1 - found < 0.1 * (1 - chance)


# ── CMA-ES with margin ────────────────────────────────────────────────────────────────────────────

# Half switches, all of which should be on, half continuous genes: OneMax plus a sphere.
MIXED = 20
SWITCHES = np.arange(MIXED) % 2 == 0
MIXED_SPACE = {
    "lower": np.where(SWITCHES, -1.0, 0.5),
    "upper": np.where(SWITCHES, 1.0, 2.0),
    "initial": np.where(SWITCHES, -0.5, 1.0),
}


def onemax_and_sphere(genome) -> float:
    on = (genome[SWITCHES] > 0).sum()
    return float(on - 10 * ((genome[~SWITCHES] - 1.7) ** 2).sum())


def test_the_margin_finds_switches_that_plain_cma_and_chance_miss():
    found = {"cmaes": [], "cma": [], "random": []}
    for seed in range(4):
        for kind, values in found.items():
            optimizer = search(kind, seed, **MIXED_SPACE, binary=SWITCHES, population=12, sigma=0.1)
            values.append(best(kind, optimizer, onemax_and_sphere, 60, 12))
    assert min(found["cmaes"]) > 9.3  # of 10
    assert np.mean(found["cmaes"]) > np.mean(found["cma"]) + 1
    assert np.mean(found["cma"]) > np.mean(found["random"])


def test_a_favourites_switches_are_at_the_nearer_bound():
    optimizer = search("cmaes", **MIXED_SPACE, binary=SWITCHES, population=12, sigma=0.2)
    before = optimizer.favorite()
    assert np.array_equal(before[SWITCHES], np.full(10, -1.0))
    assert before[~SWITCHES] == pytest.approx(np.full(10, 1.0))
    best("cmaes", optimizer, onemax_and_sphere, 80, 12)
    favourite = optimizer.favorite()
    assert np.array_equal(favourite[SWITCHES], np.full(10, 1.0))
    assert favourite[~SWITCHES] == pytest.approx(np.full(10, 1.7), abs=0.1)


def test_a_relaxed_mean_sets_the_odds_of_a_switch():
    one = np.ones(200)
    counts = []
    for mean in (-0.5, 0.0, 0.5):
        optimizer = CMAwM(-one, one, mean * one, binary=one > 0, population=8, sigma=0.25, seed=0)
        counts.append(np.mean([genome > 0 for _, genome in optimizer.ask(20)]))
    # one standard deviation from the middle: 16 %, 50 %, 84 %
    assert counts == pytest.approx([0.159, 0.5, 0.841], abs=0.03)


def test_a_mean_may_start_on_a_bound():
    optimizer = search("cmaes", initial=np.where(BINARY, 1.0, LOWER))
    drive("cmaes", optimizer)
    optimizer = search("cmaes", lower=-UPPER, initial=UPPER)
    assert all((genome <= UPPER).all() for _, genome in optimizer.ask(8))


def test_bounds_hold_to_the_last_bit():
    lower, upper = np.full(D, 0.3), np.full(D, 0.9)
    assert (lower + (upper - lower) > upper).all()  # as floats: the naive way back overshoots
    optimizer = search("cmaes", lower=lower, upper=upper, binary=np.zeros(D, bool), sigma=1.0)
    genomes = np.array([genome for _, genome in optimizer.ask(40)])
    assert (genomes == upper).any()
    assert (genomes >= lower).all() and (genomes <= upper).all()


# ── NSGA-II ───────────────────────────────────────────────────────────────────────────────────────


def hypervolume(points) -> float:
    """The area that two scores dominate above (0, 0)."""
    area, height = 0.0, 0.0
    for first, second in sorted(points, reverse=True):
        if second > height:
            area, height = area + first * (second - height), second
    return area


def conflict(genome) -> tuple[float, float]:
    """Two objectives that want opposite switches and opposite ends of the continuous genes."""
    on = (genome[SWITCHES] > 0).mean()
    spread = [np.mean((genome[~SWITCHES] - x) ** 2) / 1.44 for x in (1.7, 0.8)]
    first, second = 0.5 + 0.5 * on - 0.5 * spread[0], 1 - 0.5 * on - 0.5 * spread[1]
    return max(0.0, float(first)), max(0.0, float(second))


def test_nsga2_covers_more_of_the_front_than_chance_with_the_same_budget():
    for seed in range(5):
        found = {}
        for kind in ("nsga2", "random", "around"):
            optimizer = search(kind, seed, **MIXED_SPACE, binary=SWITCHES, population=16)
            points = []
            for _ in range(60):
                told = {number: conflict(genome) for number, genome in optimizer.ask(16)}
                optimizer.tell(told)
                points += told.values()
            found[kind] = hypervolume(points)
        assert found["nsga2"] > found["random"] + 0.02
        assert found["nsga2"] > found["around"] + 0.1


def test_nsga2_keeps_both_ends_and_what_lies_between():
    optimizer = search("nsga2", binary=np.zeros(D, bool), population=16)
    drive("nsga2", optimizer, generations=60, population=16)
    points = [judge("nsga2", genome) for _, genome in optimizer.ask(16)]
    first, second = np.array(points).T
    assert np.corrcoef(first, second)[0, 1] < -0.8
    assert np.ptp(first) > 0.05 and np.ptp(second) > 0.05


def test_nsga2_starts_with_the_initial_genome_and_draws_around_it():
    optimizer = search("nsga2", population=400, sigma=0.1)
    genomes = np.array([genome for _, genome in optimizer.ask(400)])
    middle = (LOWER + UPPER) / 2
    rounded = np.where(INITIAL > middle, UPPER, LOWER)
    assert np.array_equal(genomes[0], np.where(BINARY, rounded, INITIAL))
    spread = genomes.std(axis=0)[~BINARY]
    # genes that start in the middle of their range: reflection does not narrow them
    central = np.isclose(INITIAL, middle, atol=0.05)[~BINARY]
    assert spread[central] == pytest.approx(0.1 * (UPPER - LOWER)[~BINARY][central], rel=0.15)


def test_nsga2_takes_any_number_of_objectives():
    optimizer = search("nsga2", objectives=3)
    for _ in range(5):
        proposed = optimizer.ask(8)
        optimizer.tell({number: genome[:3] for number, genome in proposed})
    assert len(optimizer.ask(8)) == 8


@pytest.mark.parametrize("population", [4, 7, 16])
@pytest.mark.parametrize("genes", [1, 2])
def test_a_space_smaller_than_the_population_still_fills_it(genes, population):
    one = np.ones(genes)
    optimizer = NSGA2(
        -one, one, 0.2 * one, binary=one > 0, population=population, sigma=0.3, seed=0
    )
    seen = set()
    for generation in range(10):
        proposed = optimizer.ask(population)
        first = generation * population
        assert [number for number, _ in proposed] == list(range(first, first + population))
        seen |= {tuple(genome) for _, genome in proposed}
        optimizer.tell({number: (genome.sum(), -genome[0]) for number, genome in proposed})
    assert len(seen) == 2**genes


def test_nsga2_does_not_ask_a_second_time_what_it_keeps():
    optimizer = search("nsga2", binary=np.ones(D, bool))
    kept = set(drive("nsga2", optimizer, generations=1))
    offspring = in_bytes(optimizer.ask(8))
    genomes = {genome for _, genome in offspring}
    assert len(genomes) == 8
    assert not genomes & {genome for _, genome in kept}


def test_switches_are_inherited_from_both_parents_and_some_are_flipped():
    one = np.ones(400)
    optimizer = NSGA2(-one, one, 0 * one, binary=one > 0, population=20, sigma=0.5, seed=0)
    parents = np.array([genome for _, genome in optimizer.ask(20)])
    optimizer.tell({number: (number, -number) for number in range(20)})
    children = np.array([genome for _, genome in optimizer.ask(20)])
    distances = (children[:, None] != parents[None]).sum(axis=2)
    nearest = distances.min(axis=1)
    # two random parents differ in about 200 switches, of which a child takes half from either
    assert ((80 < nearest) & (nearest < 120)).sum() > 10
    # one pair in ten does not cross; one switch in 400 is flipped
    explained = [
        min((child != np.where(child == a, a, b)).sum() for a in parents for b in parents)
        for child in children
    ]
    assert 0 < np.mean(explained) < 5


def test_a_generation_is_not_asked_beyond():
    optimizer = search("nsga2")
    asked = optimizer.ask(5)
    with pytest.raises(ValueError, match="only 3 left"):
        optimizer.ask(4)
    asked += optimizer.ask(3)
    told = {number: judge("nsga2", genome) for number, genome in asked}
    optimizer.tell({number: told[number] for number in range(7)})
    with pytest.raises(ValueError, match="only 0 left"):
        optimizer.ask(1)
    optimizer.tell({7: told[7]})
    # the refusals left no trace
    calm = search("nsga2")
    drive("nsga2", calm, generations=1)
    assert in_bytes(optimizer.ask(8)) == in_bytes(calm.ask(8))


# ── by name ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cma", CMA),
        ("cmaes", CMAwM),
        ("nsga2", NSGA2),
        ("random", RandomSearch),
        ("around", RandomAround),
    ],
)
def test_a_name_makes_its_optimizer(kind, expected):
    assert type(search(kind)) is expected


@pytest.mark.parametrize(
    ("name", "number", "sentence"),
    [
        ("cma", 2, "'cma' searches exactly one objective, not 2"),
        ("cmaes", 3, "'cmaes' searches exactly one objective, not 3"),
        ("nsga2", 1, "'nsga2' searches two objectives or more, not 1"),
        ("adam", 1, "no optimizer 'adam': choose one of cma, cmaes, nsga2, random"),
    ],
)
def test_a_name_that_does_not_fit_is_refused_in_a_sentence(name, number, sentence):
    with pytest.raises(StudioError, match=sentence):
        search(name, objectives=number)


@pytest.mark.parametrize("kind", ["random", "around"])
def test_chance_takes_any_number_of_objectives(kind):
    optimizer = search(kind, objectives=2)
    optimizer.tell({number: (0.0, 1.0) for number, _ in optimizer.ask(8)})
    assert len(optimizer.ask(3)) == 3


def test_libraries_are_imported_when_needed_and_quietly():
    program = """
import sys
import numpy as np
from studio.evolve.optimizers import make
assert not {"pymoo", "cmaes", "cma"} & set(sys.modules)
sys.modules["pymoo.functions.compiled.info"] = None  # as where pymoo comes without its C parts
one = np.ones(2)
for name, objectives in [("cmaes", 1), ("nsga2", 2)]:
    search = make(name, lower=-one, upper=one, initial=0 * one, binary=one > 0, population=4,
                  sigma=0.2, seed=0, objectives=objectives)
    for _ in range(3):
        told = {n: genome if objectives == 2 else genome[0] for n, genome in search.ask(4)}
        search.tell(told)
assert {"pymoo", "cmaes"} < set(sys.modules)
assert "matplotlib" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
