"""The merge methods, as plain functions of tensors.

Each works entry by entry on equally shaped float tensors, one per source, so a tensor may be given
whole or in pieces. Masks and coefficients come ready made: nothing here knows of models, layers,
genomes or random numbers, and no argument is modified. Sources are added one after the other, and
products and sums are separate steps, so that every device rounds alike and elects the same signs.

*Deltas* are task vectors, source − base; ``keep`` are masks of their shape and dtype, 1 to keep and
0 to drop; ``weights`` and ``densities`` are plain numbers, one per source.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, empty_like, eq, ge, gt

#: |cosine| above which slerp is numerically a straight line (mergekit's threshold).
NEARLY_PARALLEL = 0.9995


@dataclass(frozen=True)
class Method:
    """A merge method: its function, where it comes from, and which genes it has.

    Attributes:
        name: as in recipes.
        reference: arXiv id and equation.
        genes: which of "weight", "density" (per source) and "t" (per group) have an effect.
        masks: "random" (DARE), "magnitude" (TIES) or None.
        needs_base: merges task vectors onto a base; otherwise the sources themselves.
        elects: whether a sign is elected for every entry (TIES).
        sources: the exact number of sources it takes, or None for one or more.
    """

    name: str
    reference: str
    genes: tuple[str, ...]
    masks: str | None
    elects: bool
    needs_base: bool
    sources: int | None
    function: Callable[..., Tensor]

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return inspect.getdoc(self.function).splitlines()[0]

    def __call__(self, **ingredients) -> Tensor:
        """Call the function with those of ``ingredients`` that its signature names."""
        wanted = inspect.signature(self.function).parameters
        return self.function(**{name: ingredients[name] for name in wanted if name in ingredients})


#: Every method by name.
METHODS: dict[str, Method] = {}


def merge_method(
    reference: str,
    genes: tuple[str, ...],
    *,
    masks: str | None = None,
    elects: bool = False,
    sources: int | None = None,
):
    """Enter a function into `METHODS`; its signature says whether it needs a base."""

    def enter(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        needs_base = "base" in inspect.signature(function).parameters
        METHODS[function.__name__] = Method(
            function.__name__, reference, genes, masks, elects, needs_base, sources, function
        )
        return function

    return enter


def truth(compare: Callable[..., Tensor], tensor: Tensor, number: float) -> Tensor:
    """``compare(tensor, number)`` as 1 and 0 in the tensor's own dtype.

    On a CPU this and the product with it take a third of the time that bool masks take.
    """
    return compare(tensor, number, out=empty_like(tensor))


def divisor(weights: Sequence[float]) -> float:
    """What ``normalize`` divides by: the summed weights, or 1 where they cancel."""
    total = sum(weights)
    return total if abs(total) >= 1e-8 else 1.0


def _combine(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total += tensor * weight
    return total


def _elect(base: Tensor, deltas: list[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Elect a sign per entry, merge the weighted deltas that agree with it (TIES, steps 2 and 3).

    The elected sign is that of the sum, plus where it is zero; entries trimmed to zero agree with
    no sign. ``normalize`` divides by the summed weights of those that agree.
    """
    total = deltas[0]
    for delta in deltas[1:]:
        total = total + delta
    sign = truth(ge, total, 0).mul_(2).sub_(1)
    merged = divisor = None
    for delta, weight in zip(deltas, weights, strict=True):
        agreeing = (delta * sign).relu_()  # multiplying by ±1 is exact
        if normalize:
            share = truth(gt, agreeing, 0).mul_(weight)
            divisor = share if divisor is None else divisor.add_(share)
        merged = agreeing if merged is None else merged.add_(agreeing)
    merged *= sign
    if normalize:
        merged /= divisor + truth(eq, divisor, 0)
    return merged.add_(base)


@merge_method("arXiv:2203.05482, section 2 (model soups)", ("weight",))
def linear(sources: Sequence[Tensor], weights: Sequence[float], normalize: bool = False) -> Tensor:
    """Weighted sum of the sources; with ``normalize`` their weighted average."""
    total = _combine(sources, weights)
    return total / divisor(weights) if normalize else total


@merge_method("arXiv:2212.04089, section 2", ("weight",))
def task_arithmetic(
    base: Tensor, deltas: Sequence[Tensor], weights: Sequence[float], normalize: bool = False
) -> Tensor:
    """The base plus a weighted sum of task vectors."""
    total = _combine(deltas, weights)
    if normalize:
        total /= divisor(weights)
    return total.add_(base)


@merge_method(
    "arXiv:2306.01708, algorithm 1", ("weight", "density"), masks="magnitude", elects=True
)
def ties(
    base: Tensor,
    deltas: Sequence[Tensor],
    keep: Sequence[Tensor],
    weights: Sequence[float],
    normalize: bool = False,
) -> Tensor:
    """Trim each task vector to its largest entries, elect a sign per entry, merge what agrees."""
    kept = [(d * k).mul_(w) for d, k, w in zip(deltas, keep, weights, strict=True)]
    return _elect(base, kept, weights, normalize)


@merge_method("arXiv:2311.03099, equation 3", ("weight", "density"), masks="random")
def dare_linear(
    base: Tensor,
    deltas: Sequence[Tensor],
    keep: Sequence[Tensor],
    weights: Sequence[float],
    densities: Sequence[float],
    normalize: bool = False,
) -> Tensor:
    """Drop random entries, rescale the rest by 1/density, add a weighted sum to the base."""
    kept = [d * k for d, k in zip(deltas, keep, strict=True)]
    total = _combine(kept, [w / p for w, p in zip(weights, densities, strict=True)])
    if normalize:
        total /= divisor(weights)
    return total.add_(base)


@merge_method(
    "arXiv:2311.03099, section 3.2, on 2306.01708",
    ("weight", "density"),
    masks="random",
    elects=True,
)
def dare_ties(
    base: Tensor,
    deltas: Sequence[Tensor],
    keep: Sequence[Tensor],
    weights: Sequence[float],
    densities: Sequence[float],
    normalize: bool = False,
) -> Tensor:
    """Drop random entries and rescale the rest by 1/density, then elect signs as TIES does."""
    scales = [w / p for w, p in zip(weights, densities, strict=True)]
    kept = [(d * k).mul_(s) for d, k, s in zip(deltas, keep, scales, strict=True)]
    return _elect(base, kept, weights, normalize)


@merge_method("Shoemake 1985, doi:10.1145/325165.325242, equation 6", ("t",), sources=2)
def slerp(sources: Sequence[Tensor], t: float, cosine: float | None = None) -> Tensor:
    """Spherical interpolation: the first source at ``t`` = 0, the second at 1.

    ``cosine`` is that of the angle between the two whole tensors (`cosine_of` computes it); give it
    when ``sources`` are pieces. Nearly parallel or opposite tensors are interpolated linearly.
    """
    first, second = sources
    if cosine is None:
        cosine = cosine_of([(first, second)])
    return _combine(sources, slerp_weights(t, cosine))


def slerp_weights(t: float, cosine: float) -> tuple[float, float]:
    """How much of the first and of the second source a spherical interpolation takes."""
    if abs(cosine) > NEARLY_PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    first, second = (math.sin(share * angle) / math.sin(angle) for share in (1 - t, t))
    return first, second


def cosine_of(pieces: Iterable[Sequence[Tensor]]) -> float:
    """Cosine of the angle between two tensors read as vectors; 0 where one of them vanishes.

    Args:
        pieces: the two, side by side, whole or piece after piece.
    """
    product, squares = 0.0, [0.0, 0.0]
    for pair in pieces:
        a, b = (tensor.reshape(-1).cpu().double() for tensor in pair)
        product += float(a @ b)
        squares = [squares[0] + float(a @ a), squares[1] + float(b @ b)]
    norms = [norm if norm > 1e-8 else 1.0 for norm in map(math.sqrt, squares)]
    return max(-1.0, min(1.0, product / norms[0] / norms[1]))
