"""What all spaces ask of a genome: the right length, finite, within its bounds."""

from typing import TYPE_CHECKING

import numpy as np

from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.merge.data_flow import DataFlowSpace
    from studio.merge.parameter_space import ParameterSpace


def checked(space: "ParameterSpace | DataFlowSpace", genome: np.ndarray) -> np.ndarray:
    """The genome as float64 ``[d]``.

    Raises:
        StudioError: wrong length, not a finite number, or outside its bounds.
    """
    try:
        genome = np.asarray(genome, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StudioError("A genome is a list of numbers; this one is not.") from error
    if genome.shape != (len(space.names),):
        raise StudioError(
            f"This genome has shape {genome.shape}, but the recipe's {space.kind.replace('_', '-')} "
            f"space has {len(space.names)} genes; use a genome of the same recipe."
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
