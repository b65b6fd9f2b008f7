"""Each method against its formula written out naively, and against mergekit's own functions."""

import inspect

import pytest
import torch

from studio.merge import methods
from studio.merge.methods import METHODS

N = 5000


def tensors(seed: int = 0, sources: int = 3):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(N, generator=generator)
    deltas = [0.05 * torch.randn(N, generator=generator) for _ in range(sources)]
    keep = [(torch.rand(N, generator=generator) < 0.4).float() for _ in range(sources)]
    return base, deltas, keep


WEIGHTS, DENSITIES = (0.7, 1.3, -0.4), (0.4, 0.5, 1.0)


def naive_elect(contributions, weights, normalize):
    """Steps 2 and 3 of TIES entry by entry, in plain Python."""
    merged = []
    for column in zip(*[c.tolist() for c in contributions], strict=True):
        sign = 1 if torch.tensor(column).sum() >= 0 else -1
        agreeing = [(x, w) for x, w in zip(column, weights, strict=True) if x * sign > 0]
        total = sum(x for x, _ in agreeing)
        divisor = sum(w for _, w in agreeing) if normalize else 1
        merged.append(total / (divisor or 1))
    return torch.tensor(merged)


@pytest.mark.parametrize("normalize", [False, True])
def test_linear(normalize):
    base, deltas, _ = tensors()
    sources = [base + delta for delta in deltas]
    expected = sum(s * w for s, w in zip(sources, WEIGHTS, strict=True))
    expected = expected / sum(WEIGHTS) if normalize else expected
    torch.testing.assert_close(methods.linear(sources, WEIGHTS, normalize), expected)


@pytest.mark.parametrize("normalize", [False, True])
def test_task_arithmetic(normalize):
    base, deltas, _ = tensors()
    total = sum(d * w for d, w in zip(deltas, WEIGHTS, strict=True))
    expected = base + (total / sum(WEIGHTS) if normalize else total)
    torch.testing.assert_close(methods.task_arithmetic(base, deltas, WEIGHTS, normalize), expected)


@pytest.mark.parametrize("normalize", [False, True])
def test_dare_linear_rescales_by_the_density(normalize):
    base, deltas, keep = tensors()
    expected = base.clone()
    for delta, mask, weight, density in zip(deltas, keep, WEIGHTS, DENSITIES, strict=True):
        share = weight / sum(WEIGHTS) if normalize else weight
        expected += share * delta * mask / density
    got = methods.dare_linear(base, deltas, keep, WEIGHTS, DENSITIES, normalize)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("normalize", [False, True])
def test_ties_elects_after_trimming(normalize):
    base, deltas, keep = tensors()
    kept = [d * k * w for d, k, w in zip(deltas, keep, WEIGHTS, strict=True)]
    expected = base + naive_elect(kept, WEIGHTS, normalize)
    torch.testing.assert_close(methods.ties(base, deltas, keep, WEIGHTS, normalize), expected)


@pytest.mark.parametrize("normalize", [False, True])
def test_dare_ties_elects_after_dropping(normalize):
    base, deltas, keep = tensors()
    kept = [d * k * (w / p) for d, k, w, p in zip(deltas, keep, WEIGHTS, DENSITIES, strict=True)]
    expected = base + naive_elect(kept, WEIGHTS, normalize)
    got = methods.dare_ties(base, deltas, keep, WEIGHTS, DENSITIES, normalize)
    torch.testing.assert_close(got, expected)


def test_disagreement_goes_to_the_larger_sum_and_a_draw_to_plus():
    base, ones = torch.zeros(3), [torch.ones(3)] * 3
    deltas = [torch.tensor([1.0, 1.0, 2.0]), torch.tensor([-3.0, -1.0, -1.0]), torch.zeros(3)]
    merged = methods.ties(base, deltas, ones, (1, 1, 1))
    assert merged.tolist() == [-3.0, 1.0, 2.0]


def test_weights_that_cancel_do_not_divide_by_zero():
    base, deltas, keep = tensors(sources=2)
    for name in ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"):
        merged = METHODS[name](
            base=base, sources=deltas, deltas=deltas, keep=keep, weights=(1.0, -1.0),
            densities=(0.4, 0.4), normalize=True,
        )  # fmt: skip
        assert merged.isfinite().all(), name


def test_slerp_ends_middle_and_length():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert torch.equal(methods.slerp((a, b), 0.0), a)
    torch.testing.assert_close(methods.slerp((a, b), 1.0), b)
    middle = methods.slerp((a, b), 0.5)
    torch.testing.assert_close(middle, torch.full((2,), 0.5**0.5))  # on the circle, not the chord


def test_slerp_of_nearly_parallel_opposite_and_zero_tensors():
    a = torch.ones(8)
    torch.testing.assert_close(methods.slerp((a, 3 * a), 0.25), 1.5 * a)
    torch.testing.assert_close(methods.slerp((a, -a), 0.25), 0.5 * a)
    assert methods.slerp((torch.zeros(8), torch.zeros(8)), 0.3).tolist() == [0.0] * 8
    assert methods.slerp((a, torch.zeros(8)), 0.3).isfinite().all()


@pytest.mark.parametrize("scale", [0.5, 0.001])
def test_slerp_equals_mergekit(scale):
    from mergekit.merge_methods.slerp import slerp

    base, (delta, *_), _ = tensors()
    other = base + scale * 20 * delta
    for t in (0.0, 0.3, 1.0):
        expected = slerp(torch.tensor([t]), base[None], other[None])[0]
        torch.testing.assert_close(methods.slerp((base, other), t), expected)


@pytest.mark.parametrize("name", METHODS)
def test_methods_leave_their_arguments_alone_and_work_in_pieces(name):
    method = METHODS[name]
    base, deltas, keep = tensors(sources=method.sources or 3)
    count = len(deltas)
    given = dict(
        weights=WEIGHTS[:count], densities=DENSITIES[:count], t=0.3, normalize=True,
        cosine=methods.cosine_of([deltas[:2]]),
    )  # fmt: skip
    before = [t.clone() for t in (base, *deltas, *keep)]
    whole = method(base=base, sources=deltas, deltas=deltas, keep=keep, **given)
    assert all(torch.equal(a, b) for a, b in zip(before, (base, *deltas, *keep), strict=True))
    pieces = []
    for start in range(0, N, 777):
        piece = slice(start, start + 777)
        cut = [d[piece] for d in deltas]
        masks = [k[piece] for k in keep]
        pieces.append(method(base=base[piece], sources=cut, deltas=cut, keep=masks, **given))
    assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is(name):
    method = METHODS[name]
    parameters = inspect.signature(method.function).parameters
    assert method.name == name and method.reference and method.summary.endswith(".")
    assert ("weights" in parameters) == ("weight" in method.genes)
    assert ("t" in parameters) == ("t" in method.genes)
    assert ("keep" in parameters) == (method.masks is not None) == ("density" in method.genes)
    assert method.needs_base == (name not in ("linear", "slerp"))
