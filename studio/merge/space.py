"""What a space is to everything outside this room: bounds for a search, and models to score.

Knows the protocol that `ParameterSpace` and `DataFlowSpace` fulfil, and what all spaces ask of a
genome. Refuses to know what a gene means.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from studio.errors import StudioError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from studio.merge.virtual import Virtual
    from studio.models.model import Frame, Model


class Live(Protocol):
    """A resident model that takes on one candidate after another, without the disk."""

    space: "Space"
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    processor: "ProcessorMixin | None"

    def apply(self, genome: np.ndarray) -> None:
        """Become what the genome (float64 ``[d]``) describes; raises as `Space.check`."""
        ...


class Space(Protocol):
    """Genome (float64 ``[d]``) ↔ model.

    Attributes:
        kind: "parameter" or "data_flow".
        models: those that take part; sources: those of them that are sources.
        frame: what the model sees with, or None: see `studio.models.model.Frame`.
        names: one per gene; lower, upper, initial: float64 ``[d]``.
        binary: bool ``[d]``: genes of which only the half of their range matters.
    """

    kind: str
    sources: "list[Model]"
    frame: "Frame | None"
    names: list[str]
    lower: np.ndarray
    upper: np.ndarray
    initial: np.ndarray
    binary: np.ndarray

    @property
    def models(self) -> "Sequence[Model]": ...

    def check(self, genome: np.ndarray) -> np.ndarray:
        """The genome as float64; StudioError for a wrong length, NaN, or a gene out of bounds."""
        ...

    def table(self, genome: np.ndarray) -> list[dict[str, Any]]:
        """What the genome means, as rows to show; raises as `check`."""
        ...

    def phenotype(self, genome: np.ndarray) -> Hashable:
        """Two genomes with the same one are the same model; raises as `check`."""
        ...

    def properties(self, genome: np.ndarray) -> dict[str, float]:
        """``length`` in layers and ``parameters`` of the model; raises as `check`."""
        ...

    def worst(self) -> dict[str, float]:
        """The largest value that each of the `properties` can take."""
        ...

    def memory(
        self, precision: str, base: str = "packed", device: "torch.device | str | None" = None
    ) -> int:
        """Bytes of the device's memory that `live` takes."""
        ...

    def live(
        self, precision: str, base: str = "packed", device: "torch.device | str | None" = None
    ) -> Live:
        """A resident model; raises StudioError where it does not fit the memory.

        Args:
            precision: of `studio.models.precision.PRECISIONS`.
            base: how a quantized model holds the base, where it has one (see `LiveModel`).
            device: default CUDA, then Apple GPU, then CPU.
        """
        ...

    def checkpoint(self, genome: np.ndarray, precision: str, name: str) -> "Virtual":
        """The ordinary checkpoint that a genome stands for; raises as `check`."""
        ...


def checked(space: Space, genome: np.ndarray) -> np.ndarray:
    """The genome as float64 ``[d]``.

    Raises:
        StudioError: wrong length, not a finite number, or outside its bounds.
    """
    try:
        genome = np.asarray(genome, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StudioError("A genome is a list of numbers; this one is not.") from error
    if genome.shape != (len(space.names),):
        words = space.kind.replace("_", "-")
        raise StudioError(
            f"This genome has shape {genome.shape}, but the recipe's {words} space has "
            f"{len(space.names)} genes; use a genome of the same recipe."
        )
    # Written so that NaN, which compares false with everything, counts as outside too.
    outside = np.flatnonzero(~((genome >= space.lower) & (genome <= space.upper)))
    if outside.size:
        at = outside[0]
        raise StudioError(
            f"The gene {space.names[at]} is {genome[at]:g}; it must lie between "
            f"{space.lower[at]:g} and {space.upper[at]:g}."
        )
    return genome
