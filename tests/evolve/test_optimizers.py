"""Ask and tell: private draws, bounds, replay to the bit, and a search that finds something."""

import numpy as np
import pytest

from studio.evolve.optimizers import CMA, RandomSearch

D = 12
LOWER = np.array([0.0, 0.05] * (D // 2))
UPPER = np.array([2.0, 1.0] * (D // 2))
INITIAL = np.full(D, 0.5)
TARGET = LOWER + (UPPER - LOWER) * np.linspace(0.15, 0.85, D)


def cma(seed=0, population=8, sigma=0.2, lower=LOWER, upper=UPPER, initial=INITIAL):
    return CMA(lower, upper, initial, population=population, sigma=sigma, seed=seed)


def both(seed=0):
    return {"cma": cma(seed), "random": RandomSearch(LOWER, UPPER, seed=seed)}


def score(genome) -> float:
    return 1 - float((((genome - TARGET) / (UPPER - LOWER)) ** 2).mean())


def drive(optimizer, generations=6, population=8, disturb=lambda: None):
    """The genomes asked (bytes, in order), each generation told its scores."""
    asked = []
    for _ in range(generations):
        disturb()
        proposed = optimizer.ask(population)
        disturb()
        asked += [(number, genome.tobytes()) for number, genome in proposed]
        optimizer.tell({number: score(genome) for number, genome in proposed})
    return asked


@pytest.mark.parametrize("kind", ["cma", "random"])
def test_foreign_draws_change_nothing(kind):
    calm = drive(both()[kind])
    noise = np.random.default_rng()

    def disturb():
        np.random.seed(int(noise.integers(2**31)))
        np.random.standard_normal(7)

    assert drive(both()[kind], disturb=disturb) == calm


@pytest.mark.parametrize("kind", ["cma", "random"])
def test_a_search_leaves_the_global_generator_alone(kind):
    np.random.seed(3)
    expected = np.random.standard_normal(4)
    np.random.seed(3)
    drive(both()[kind])
    assert np.array_equal(np.random.standard_normal(4), expected)


@pytest.mark.parametrize("kind", ["cma", "random"])
def test_every_seed_is_its_own_search_and_0_is_one(kind):
    runs = [drive(both(seed)[kind]) for seed in (0, 0, 1, 2**32 - 1)]
    assert runs[0] == runs[1]
    assert len({run[0][1] for run in runs}) == 3


@pytest.mark.parametrize("kind", ["cma", "random"])
def test_ids_count_up_and_genomes_keep_the_bounds(kind):
    optimizer = both(4)[kind]
    if kind == "cma":
        optimizer = cma(4, sigma=1.0)  # wide steps push against the bounds
    seen = []
    for _ in range(10):
        proposed = optimizer.ask(8)
        for number, genome in proposed:
            seen.append(number)
            assert genome.dtype == np.float64 and genome.shape == (D,)
            assert (genome >= LOWER).all() and (genome <= UPPER).all()
        optimizer.tell({number: -float(genome.sum()) for number, genome in proposed})
    assert seen == list(range(80))


def test_cma_starts_at_the_initial_genome():
    proposed = cma(sigma=1e-6).ask(8)
    for _, genome in proposed:
        assert np.allclose(genome, INITIAL, atol=1e-4)


def test_sigma_is_a_fraction_of_each_genes_range():
    lower, upper = np.array([0.0, 0.05]), np.array([2.0, 1.0])
    asked = cma(lower=lower, upper=upper, initial=(lower + upper) / 2, population=400).ask(400)
    spread = np.std([genome for _, genome in asked], axis=0)
    assert spread == pytest.approx(0.2 * (upper - lower), rel=0.15)


def test_cma_beats_random_search_with_the_same_budget():
    for seed in range(3):
        best = {}
        for kind, optimizer in both(seed).items():
            asked = [np.frombuffer(g) for _, g in drive(optimizer, generations=30)]
            best[kind] = max(map(score, asked))
        assert 1 - best["cma"] < 0.1 * (1 - best["random"])


def test_the_favourite_is_near_the_optimum_and_random_has_none():
    optimizer = cma()
    drive(optimizer, generations=60)
    favourite = optimizer.favorite()
    assert (favourite >= LOWER).all() and (favourite <= UPPER).all()
    assert score(favourite) > 0.999
    assert both()["random"].favorite() is None


def test_scores_are_maximised_and_negative_ones_are_fine():
    optimizer = cma()
    for _ in range(40):
        proposed = optimizer.ask(8)
        optimizer.tell({n: -1000 + 100 * score(g) for n, g in proposed})
    assert score(optimizer.favorite()) > 0.99


def test_told_in_pieces_and_in_any_order_it_is_the_same_search():
    whole, pieces = cma(), cma()
    random = np.random.default_rng(0)
    for _ in range(6):
        proposed = whole.ask(8)
        scores = {number: score(genome) for number, genome in proposed}
        whole.tell(scores)
        mine = pieces.ask(8)
        assert [g.tobytes() for _, g in mine] == [g.tobytes() for _, g in proposed]
        for number in random.permutation([n for n, _ in mine]):
            pieces.tell({int(number): scores[int(number)]})
    assert np.array_equal(whole.favorite(), pieces.favorite())


def test_a_last_generation_cut_short_waits():
    optimizer = cma()
    drive(optimizer, generations=3)
    before = optimizer.favorite()
    proposed = optimizer.ask(3)
    optimizer.tell({number: 1.0 for number, _ in proposed})
    assert np.array_equal(optimizer.favorite(), before)


def test_replay_from_a_record_is_bit_equal():
    first = cma(seed=7)
    log = []
    for _ in range(8):
        proposed = first.ask(8)
        told = {number: score(genome) for number, genome in proposed}
        first.tell(told)
        log.append((proposed, {n: float.fromhex(v.hex()) for n, v in told.items()}))
    second = cma(seed=7)
    np.random.seed(99)
    for proposed, told in log:
        again = second.ask(len(proposed))
        assert [(n, g.tobytes()) for n, g in again] == [(n, g.tobytes()) for n, g in proposed]
        second.tell(told)
    assert second.favorite().tobytes() == first.favorite().tobytes()


def test_equal_scores_do_no_harm():
    optimizer = cma()
    for _ in range(30):
        proposed = optimizer.ask(8)
        optimizer.tell({number: 0.0 for number, _ in proposed})
        assert all(np.isfinite(genome).all() for _, genome in proposed)


def test_a_single_gene_can_be_searched():
    one = np.ones(1)
    optimizer = cma(lower=0 * one, upper=one, initial=0.5 * one)
    for _ in range(25):
        proposed = optimizer.ask(8)
        assert all(genome.shape == (1,) for _, genome in proposed)
        optimizer.tell({number: -abs(float(genome[0]) - 0.8) for number, genome in proposed})
    assert optimizer.favorite() == pytest.approx([0.8], abs=0.01)
