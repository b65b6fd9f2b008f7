"""A resident model that takes on a candidate in place: no disk, no reload (DESIGN.md, contract 2).

Knows the model's parameters and how to overwrite them; refuses to know where genomes come from or
what the model is asked. Contract 6 holds for its users: one live model, one user at a time.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from studio.errors import StudioError
from studio.merge.ingredients import Ingredients
from studio.merge.parameter_space import ParameterSpace
from studio.models.precision import default_device, dtype_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from studio.models.model import Model


def speaker(space: ParameterSpace) -> "Model":
    """The model whose tokenizer, chat template and generation config the merge takes.

    The first source with a chat template, else the first source: a common base is often a
    plain language model that was never taught where a turn ends.
    """
    with_template = (s for s in space.sources if s.tokenizer().chat_template)
    return next(with_template, space.sources[0])


class LiveModel:
    """A transformers model whose parameters become those of one candidate after another.

    Holds, beside the model's own parameters, the base and the task vectors (4 bytes an entry with
    "fp32", 2 with "bf16") and 4 bytes per entry and source for the masks of DARE or TIES, prepared
    once. Merging is deterministic: a genome always gives the same parameters.

    Args:
        space: what a genome means.
        precision: "fp32" or "bf16": of the resident model and what it is merged from.
        device: default CUDA, then Apple GPU, then CPU.

    Attributes:
        model: the transformers model, in eval mode. Before the first `apply` its weights are those
            of the space's template.
        tokenizer: of the `speaker`.
        genome: what is applied now, or None.

    Raises:
        StudioError: unknown precision, a model that cannot be loaded, or not enough memory.

    Example:
        >>> live = LiveModel(space)  # doctest: +SKIP
        >>> live.apply(space.initial)  # doctest: +SKIP
        >>> live.model.generate(...)  # doctest: +SKIP
    """

    def __init__(
        self,
        space: ParameterSpace,
        *,
        precision: str = "fp32",
        device: torch.device | str | None = None,
    ):
        dtype = dtype_of(precision)
        self.space = space
        self.precision = precision
        self.device = torch.device(device) if device else default_device()
        self.genome: np.ndarray | None = None
        self.model: PreTrainedModel = space.template.load(dtype, self.device)
        voice = speaker(space)
        self.tokenizer: PreTrainedTokenizerBase = voice.tokenizer()
        self.model.generation_config = voice.generation_config()
        parameters = dict(self.model.named_parameters())
        if missing := set(parameters) ^ set(space.tensors):
            raise StudioError(
                f"{space.template.name} cannot be merged: weights and layout disagree about "
                f"{min(missing)}; use a checkpoint that transformers' save_pretrained wrote."
            )
        try:
            self._tensors = {
                name: (Ingredients.prepare(space, name, dtype, self.device), parameters[name])
                for name in space.tensors
            }
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise StudioError(
                f"The base and {len(space.sources)} task vectors do not fit the memory of "
                f"{self.device}; use fewer sources or precision bf16."
            ) from error

    @torch.no_grad()
    def apply(self, genome: np.ndarray) -> None:
        """Merge ``genome`` (float64 ``[d]``) into the resident parameters.

        Raises:
            StudioError: wrong length, NaN or outside the bounds; the model is left as it was.
        """
        settings = self.space.settings(genome)
        self.genome = None  # a half-applied genome is nobody's
        for name, (ingredients, parameter) in self._tensors.items():
            ingredients.merge(settings[name], self.space.normalize, parameter.view(-1))
        self.genome = np.array(genome, dtype=np.float64)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The resident parameters by canonical name, a tied head once; not copies."""
        return {name: parameter.detach() for name, (_, parameter) in self._tensors.items()}
