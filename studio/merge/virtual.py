"""The ordinary checkpoint that a genome stands for, without the files: tensors made on demand.

Knows how to pass for a `studio.models.Checkpoint`, so that what was evolved can be exported, loaded
or be a source again without ever having been written. Each tensor is made with the live model's own
arithmetic (DESIGN.md, contract 5) and forgotten. Refuses to know about runs and files.
"""

import copy
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.merge.card import licence_of_merge
from studio.merge.ingredients import Ingredients, dtype_of
from studio.merge.live import speaker
from studio.merge.mergekit_config import mergekit_yaml
from studio.merge.parameter_space import ParameterSpace, exact
from studio.models.checkpoint import HEAD

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from studio.models import Checkpoint


class Virtual(ABC):
    """What every virtual checkpoint can say and do, given its configuration, names and tensors.

    Has the attributes and methods of a `Checkpoint`, with the same meaning; where one can be a
    source, so can the other.

    Args:
        name: what to call it.
        template: whose configuration it takes, a copy; a subclass may change that copy.
        parents: what it is made of, real or virtual.
        precision: "fp32" or "bf16", of its tensors.

    Attributes:
        config: the transformers configuration.
        architecture: the transformers class, such as "MistralForCausalLM".
        dtype: torch dtype of every tensor.
        models: the real checkpoints behind it, each once.
        licence: what their licences make of it, or None where one of them states none.

    Raises:
        StudioError: unknown precision.
    """

    def __init__(
        self,
        name: str,
        template: "Checkpoint | Virtual",
        parents: "Sequence[Checkpoint | Virtual]",
        precision: str,
    ):
        self.name = name
        self.dtype = dtype_of(precision)
        self.architecture = template.architecture
        self.config = copy.deepcopy(template.config)
        self.config.dtype = self.dtype
        self.config.architectures = [self.architecture]
        real = [
            model
            for parent in parents
            for model in (parent.models if isinstance(parent, Virtual) else [parent])
        ]
        self.models: list[Checkpoint] = list({m.path.resolve(): m for m in real}.values())
        front, _ = licence_of_merge(self.models)
        licence = front.get("license_name", front["license"])
        self.licence = None if licence == "unknown" else licence

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, {self.architecture}, "
            f"{self.parameters:,} parameters)"
        )

    # ── what a subclass knows ────────────────────────────────────────────────────────────────────

    @abstractmethod
    def names(self) -> list[str]:
        """Canonical names of all tensors in the model's order, the input embedding first; a tied
        head is not listed."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. KeyError where there is no such tensor."""

    @abstractmethod
    def get(self, name: str) -> Tensor:
        """A tensor on the CPU in `dtype`, contiguous, made for the caller, who may keep it.

        The head of a tied checkpoint is its embedding. KeyError where there is no such tensor.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """32 hex digits that change when a tensor, the settings or the tokenizer do."""

    @abstractmethod
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer; raises as `Checkpoint.tokenizer`."""

    @abstractmethod
    def generation_config(self) -> "GenerationConfig":
        """The generation config; raises as `Checkpoint.generation_config`."""

    @abstractmethod
    def documents(self) -> dict[str, str]:
        """Text by file name that goes with an export: the genome, exactly, and the like."""

    # ── what follows from it ─────────────────────────────────────────────────────────────────────

    @property
    def path(self) -> Path:
        """Not a folder, but what tells checkpoints apart as a folder's path does.

        Two virtual checkpoints have one path exactly if they are the same model, whatever they are
        called.
        """
        return Path("virtual", self.fingerprint())

    @property
    def tied(self) -> bool:
        return self.config.tie_word_embeddings

    @property
    def layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def parameters(self) -> int:
        return sum(math.prod(self.shape(name)) for name in self.names())

    @property
    def size(self) -> int:
        """Bytes of all tensors, were they written."""
        return self.parameters * self.dtype.itemsize

    @torch.no_grad()
    def load(
        self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> "PreTrainedModel":
        """The whole model in memory, in eval mode; its tensors are made one at a time.

        Args:
            dtype: of the model, default `dtype`; any other is rounded to from that.

        Raises:
            StudioError: it does not fit the device's memory, or configuration and tensors disagree.
        """
        from transformers import AutoModelForCausalLM
        from transformers.initialization import no_init_weights

        try:
            # Built on the CPU, as from_pretrained does: there the buffers that are stored nowhere
            # (rotary frequencies) get their values. Parameters that nobody wrote take no memory.
            with no_init_weights():
                model = AutoModelForCausalLM.from_config(
                    copy.deepcopy(self.config), dtype=dtype or self.dtype
                )
            model.tie_weights()
            model = model.to(device).eval()
            parameters = dict(model.named_parameters())
            if missing := set(parameters) ^ set(self.names()):
                raise StudioError(
                    f"{self.name} cannot be loaded: its tensors and its configuration disagree "
                    f"about {min(missing)}; use models that transformers' save_pretrained wrote."
                )
            for name, parameter in parameters.items():
                parameter.copy_(self.get(name))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise StudioError(
                f"{self.name} does not fit the memory of {device}; use a smaller dtype (bf16) or "
                "another device."
            ) from error
        model.generation_config = self.generation_config()
        return model

    def _stored(self, name: str) -> str:
        """The name in `names` that a tensor goes by: a tied head goes by the embedding's."""
        return self.names()[0] if self.tied and name == HEAD else name


class Merged(Virtual):
    """The merge that a genome of a parameter space describes.

    To the bit what `LiveModel` holds after applying the genome in the same precision.

    Args:
        space: what the genome means.
        genome: float64 ``[d]``.
        precision: "fp32" or "bf16".
        name: what to call it.

    Raises:
        StudioError: the genome does not belong to the space, or unknown precision.

    Example:
        >>> merged = Merged(space, space.initial, name="half of each")  # doctest: +SKIP
        >>> merged.get("model.norm.weight").shape  # doctest: +SKIP
        torch.Size([192])
    """

    def __init__(
        self, space: ParameterSpace, genome: np.ndarray, *, precision: str = "fp32", name: str
    ):
        super().__init__(name, space.template, space.models, precision)
        self.space = space
        self.genome = np.array(space.check(genome))
        self._settings = space.settings(genome)

    def names(self) -> list[str]:
        return list(self.space.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.space.tensors[self._stored(name)]

    def get(self, name: str) -> Tensor:
        name = self._stored(name)
        merged = torch.empty(self.space.tensors[name], dtype=self.dtype)
        ingredients = Ingredients.prepare(self.space, name, self.dtype)
        ingredients.merge(self._settings[name], self.space.normalize, merged.view(-1))
        return merged

    def fingerprint(self) -> str:
        space = self.space
        options = [
            [model.fingerprint() for model in space.models],
            space.method.name,
            space.layer_granularity,
            space.normalize,
            space.negative_weights,
            space.filters,
            space.seed,
            str(self.dtype),
        ]
        digest = hashlib.blake2b(json.dumps(options).encode(), digest_size=16)
        digest.update(self.genome.tobytes())
        return digest.hexdigest()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        return speaker(self.space).tokenizer()

    def generation_config(self) -> "GenerationConfig":
        return speaker(self.space).generation_config()

    def documents(self) -> dict[str, str]:
        """``genome.json`` and, where mergekit can express the merge, ``mergekit.yaml``."""
        documents = {"genome.json": exact(self.space, self.genome)}
        mergekit = mergekit_yaml(self.space, self.genome, str(self.dtype).removeprefix("torch."))
        if mergekit is not None:
            documents["mergekit.yaml"] = mergekit
        return documents
