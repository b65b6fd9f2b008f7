"""Fronts, gains and hypervolumes small enough to be worked out by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studio.runs.front import front, gains, hypervolume
from studio.runs.records import Candidate

ROOT = Path(__file__).resolve().parents[2]


def candidate(number: int, broken: str = "", **scores: float) -> Candidate:
    return Candidate(number, "nsga2", 0, np.zeros(1), scores, 5, 10, 0.1, broken)


def ids(found: list[Candidate]) -> list[int]:
    return [c.id for c in found]


def test_what_is_to_be_small_is_negated_and_the_order_is_the_objectives():
    scores = {"parameters": 3e6, "jmath": 0.5, "length": 7.0}
    assert gains(scores, ("jmath", "length", "parameters")) == (0.5, -7.0, -3e6)
    assert gains(scores, ["length", "jmath"]) == (-7.0, 0.5)
    assert gains(scores, ()) == ()
    with pytest.raises(KeyError):
        gains(scores, ("emath",))


def test_the_front_is_what_nobody_beats_in_everything():
    found = [
        candidate(0, a=0.2, b=0.2),  # beaten by 3 in both
        candidate(1, a=0.9, b=0.1),
        candidate(2, a=0.1, b=0.8),
        candidate(3, a=0.5, b=0.5),
        candidate(4, a=0.5, b=0.4),  # beaten by 3 in one, equal in the other
        candidate(5, a=0.9, b=0.0),  # beaten by 1
        candidate(6, a=0.0, b=0.8),  # beaten by 2
        candidate(7, a=0.6, b=0.3),
    ]
    assert ids(front(found, ("a", "b"))) == [1, 7, 3, 2]  # best in the first objective first
    assert ids(front(found, ("b", "a"))) == [2, 3, 7, 1]
    assert ids(front(found[::-1], ("a", "b"))) == [1, 7, 3, 2]
    assert ids(front(found, ("a",))) == [1]


def test_of_equals_the_first_stands_for_all():
    found = [candidate(n, a=0.5, b=0.5) for n in (4, 2, 9)]
    assert ids(front(found, ("a", "b"))) == [4]
    assert ids(front([*found, candidate(1, a=0.4, b=0.6)], ("a", "b"))) == [4, 1]
    nothing = [candidate(n, a=0.0, b=0.0) for n in range(3)]
    assert ids(front(nothing, ("a", "b"))) == [0]


def test_properties_are_better_small():
    found = [
        candidate(0, a=0.5, length=8.0),
        candidate(1, a=0.5, length=6.0),
        candidate(2, a=0.4, length=6.0),
        candidate(3, a=0.1, length=2.0),
        candidate(4, a=0.9, length=30.0),
    ]
    assert ids(front(found, ("a", "length"))) == [4, 1, 3]
    assert ids(front(found, ("length", "a"))) == [3, 1, 4]


def test_broken_pending_and_half_scored_candidates_are_on_no_front():
    found = [
        candidate(0, "the model's logits are not finite", a=0.9, b=0.9),
        candidate(1),
        candidate(2, a=1.0),
        candidate(3, a=0.1, b=0.1),
    ]
    assert ids(front(found, ("a", "b"))) == [3]
    assert front(found[:3], ("a", "b")) == [] == front([], ("a", "b"))
    assert hypervolume(found, ("a", "b"), {}) == pytest.approx(0.01)
    assert hypervolume(found[:3], ("a", "b"), {}) == 0.0 == hypervolume([], ("a", "b"), {})


def test_hypervolume_in_two_dimensions():
    corner = [candidate(0, a=0.5, b=0.5)]
    assert hypervolume(corner, ("a", "b"), {}) == pytest.approx(0.25)
    two = [candidate(0, a=0.8, b=0.2), candidate(1, a=0.2, b=0.8)]
    assert hypervolume(two, ("a", "b"), {}) == pytest.approx(0.16 + 0.16 - 0.04)
    stairs = [*two, candidate(2, a=0.5, b=0.5)]
    assert hypervolume(stairs, ("a", "b"), {}) == pytest.approx(0.2 * 0.8 + 0.3 * 0.5 + 0.3 * 0.2)
    assert hypervolume(stairs, ("b", "a"), {}) == hypervolume(stairs, ("a", "b"), {})
    beaten = [*stairs, candidate(3, a=0.4, b=0.4), candidate(4, a=0.5, b=0.5)]
    assert hypervolume(beaten, ("a", "b"), {}) == hypervolume(stairs, ("a", "b"), {})


def test_hypervolume_goes_from_nothing_to_all():
    assert hypervolume([candidate(0, a=1.0, b=1.0)], ("a", "b"), {}) == 1.0
    assert hypervolume([candidate(0, a=0.0, b=0.0)], ("a", "b"), {}) == 0.0
    assert hypervolume([candidate(0, a=0.0, b=1.0)], ("a", "b"), {}) == 0.0


def test_a_property_counts_as_its_share_of_the_worst():
    worst = {"length": 20.0, "parameters": 4e6}
    found = [candidate(0, a=0.6, length=5.0, parameters=1e6)]
    assert hypervolume(found, ("a", "length"), worst) == pytest.approx(0.6 * 0.75)
    assert hypervolume(found, ("parameters", "a"), worst) == pytest.approx(0.6 * 0.75)
    assert hypervolume(found, ("a", "length", "parameters"), worst) == pytest.approx(
        0.6 * 0.75 * 0.75
    )
    longest = [candidate(0, a=0.9, length=20.0)]
    assert hypervolume(longest, ("a", "length"), worst) == 0.0
    both = [*found, candidate(1, a=0.9, length=15.0)]
    assert hypervolume(both, ("a", "length"), worst) == pytest.approx(0.6 * 0.75 + 0.3 * 0.25)


def test_hypervolume_in_three_dimensions():
    """Two boxes, less what they share."""
    found = [candidate(0, a=0.5, b=0.4, c=0.3), candidate(1, a=0.2, b=0.6, c=0.5)]
    shared = 0.2 * 0.4 * 0.3
    expected = 0.5 * 0.4 * 0.3 + 0.2 * 0.6 * 0.5 - shared
    assert hypervolume(found, ("a", "b", "c"), {}) == pytest.approx(expected)


def test_more_candidates_never_lower_it():
    random = np.random.default_rng(0)
    found, before = [], 0.0
    for number in range(30):
        a, b, length = random.random(3)
        found.append(candidate(number, a=a, b=b, length=1 + 19 * length))
        now = hypervolume(found, ("a", "b", "length"), {"length": 20.0})
        assert now >= before - 1e-12 and 0 <= now <= 1
        before = now
    assert before > 0.3


def test_it_says_nothing_while_it_computes():
    """pymoo prints a notice where its compiled parts are missing."""
    program = (
        "import numpy as np\n"
        "from studio.runs.front import hypervolume\n"
        "from studio.runs.records import Candidate\n"
        "one = Candidate(0, 's', 0, np.zeros(1), {'a': .5, 'b': .5}, 1, 1, 1.0, '')\n"
        "assert hypervolume([one], ('a', 'b'), {}) == 0.25\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
