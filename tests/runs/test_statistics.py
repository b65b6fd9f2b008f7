"""Intervals: Wilson's for right and wrong, a bootstrap for graded scores."""

import numpy as np
import pytest

from studio.runs.statistics import interval


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # R: prop.test(right, n, correct = FALSE)$conf.int, as in Newcombe (1998), table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (52, 100, 0.4232, 0.6154),
    ],
)
def test_right_and_wrong_get_wilsons_interval(right, n, low, high):
    found = interval([1.0] * right + [0.0] * (n - right))
    assert found == pytest.approx((low, high), abs=5e-5)


def test_order_does_not_matter_and_one_example_says_little():
    assert interval([1, 0, 1, 0, 0]) == interval([0, 0, 0, 1, 1])
    low, high = interval([1.0])
    assert low < 0.3 and high == 1.0


def test_graded_scores_get_a_bootstrap():
    scores = np.random.default_rng(5).beta(2, 3, 400)
    low, high = interval(scores)
    assert low < scores.mean() < high
    half = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))
    assert high - low == pytest.approx(2 * half, rel=0.1)  # the central limit agrees
    np.random.seed(1)
    assert interval(scores) == (low, high)  # nothing else's draws change it
    assert interval([0.5] * 30) == (0.5, 0.5)


def test_no_scores_have_no_interval():
    with pytest.raises(ValueError, match="at least one"):
        interval([])
