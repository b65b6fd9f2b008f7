"""What it takes to have a source, or a candidate, speak.

Knows how a model is brought into memory, and how many bytes of it that takes. Refuses to know who
holds it then (`studio.voices`), and databases: a candidate comes as its space and its genome.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from studio.merge.space import Space
    from studio.recipe import Recipe
    from studio.voices import Speaker

    #: Bytes that it takes, and what does it.
    Loading = tuple[int, Callable[[], Speaker]]


def source(name: str) -> "Loading":
    """A source by name, in the numbers that runs score it in.

    Raises:
        StudioError: there is none of that name, or it cannot be used.
    """
    # Imported here and below: torch comes along, and a page must open before torch is there.
    import torch

    from studio.models import open_source
    from studio.models.precision import default_device

    model, device = open_source(name), default_device()
    # A CPU computes in float32 anyway, slower from bf16.
    dtype = torch.float32 if device.type == "cpu" else model.stored
    return (
        model.parameters * dtype.itemsize,
        lambda: (model.load(dtype, device), model.tokenizer(), model.processor()),
    )


def candidate(space: "Space", recipe: "Recipe", genome: np.ndarray, name: str) -> "Loading":
    """A candidate as its run measured it: in the recipe's precision."""
    from studio.models.precision import QUANTIZED, default_device, dtype_of

    if recipe.precision not in QUANTIZED and space.frame is None:
        # What an export would hold, made tensor by tensor: nothing else is ever in memory.
        merged = space.checkpoint(genome, recipe.precision, name)
        dtype = dtype_of(recipe.precision)
        return (
            merged.parameters * dtype.itemsize,
            lambda: (merged.load(dtype, default_device()), merged.tokenizer(), None),
        )

    def load() -> "Speaker":
        live = space.live(recipe.precision, recipe.base_storage)
        live.apply(genome)
        # Only the model stays: task vectors, or layers that are not on the path, go with `live`.
        return live.model, live.tokenizer, live.processor

    return space.memory(recipe.precision, recipe.base_storage), load
