"""Spaces over the tiny families, opened from disk as a user would."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def make_space(family_factory) -> Callable:
    """`make_space(method="ties", sources=("ja",), tied=True, …)`: family options and space options.

    `mixed` names sources taken from a tied twin of the family.
    """
    from studio.merge.parameter_space import ParameterSpace
    from studio.models import Checkpoint

    def make(sources=("ja", "math", "abel"), mixed=(), base=True, **options) -> ParameterSpace:
        own = inspect.signature(ParameterSpace).parameters
        family = {name: options.pop(name) for name in list(options) if name not in own}
        folders = dict(family_factory(**family))
        for name in mixed:
            folders[name] = family_factory(**(family | {"tied": not family.get("tied", False)}))[
                name
            ]
        opened = [Checkpoint.open(folders[name]) for name in sources]
        return ParameterSpace(Checkpoint.open(folders["base"]) if base else None, opened, **options)

    return make


@pytest.fixture
def random_genome() -> Callable:
    """`random_genome(space, seed=0)`: uniform within the bounds."""
    return lambda space, seed=0: np.random.default_rng(seed).uniform(space.lower, space.upper)
