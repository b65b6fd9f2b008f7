"""The ordinary checkpoint that a genome stands for, without the files: tensors made on demand.

A `studio.models.Model` like any other, so that what was evolved can be exported, loaded or be a
source again without ever having been written. Each tensor is made with the live model's own
arithmetic (DESIGN.md, contract 5) and forgotten. Refuses to know about runs and files.
"""

import copy
import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from studio.merge.ingredients import Ingredients
from studio.merge.live import speaker
from studio.merge.mergekit_config import mergekit_yaml
from studio.merge.parameter_space import ParameterSpace, exact
from studio.models.licences import licence_of_merge
from studio.models.model import Model, frame_of
from studio.models.precision import dtype_of
from studio.models.vocabulary import unaligned

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


class Virtual(Model):
    """What every model that was made here can say, given its configuration, names and tensors.

    Args:
        name: what to call it.
        template: whose configuration it takes, a copy; a subclass may change that copy.
        parents: what it is made of, real or virtual.
        precision: "fp32" or "bf16", of its tensors.

    Attributes:
        dtype: torch dtype of every tensor.
        models: the real models behind it, each once.
        licence: what their licences make of it, or None where one of them states none.

    Raises:
        StudioError: unknown precision.
    """

    def __init__(self, name: str, template: Model, parents: Sequence[Model], precision: str):
        self.name = name
        self.dtype = dtype_of(precision)
        self.architecture = template.architecture
        self.frame = frame_of([template, *parents])
        self.config = copy.deepcopy(template.config)
        self.config.dtype = self.dtype
        self.config.architectures = [self.architecture]
        real = [
            model
            for parent in map(unaligned, parents)
            for model in (parent.models if isinstance(parent, Virtual) else [parent])
        ]
        self.models: list[Model] = list({m.path.resolve(): m for m in real}.values())
        front, _ = licence_of_merge(self.models)
        licence = front.get("license_name", front["license"])
        self.licence = None if licence == "unknown" else licence

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, {self.architecture}, "
            f"{self.parameters:,} parameters)"
        )

    @abstractmethod
    def pieces(self, name: str) -> Iterator[Tensor]: ...

    def get(self, name: str) -> Tensor:
        whole = torch.empty(self.shape(name), dtype=self.dtype)
        flat = whole.view(-1)
        start = 0
        for piece in self.pieces(name):
            flat[start : start + piece.numel()] = piece
            start += piece.numel()
        return whole

    @abstractmethod
    def documents(self) -> dict[str, str]:
        """Text by file name that goes with an export: the genome, exactly, and the like."""

    @property
    def path(self) -> Path:
        """Not a folder, but what tells models apart as a folder's path does.

        Two virtual models have one path exactly if they are the same model, whatever they are
        called.
        """
        return Path("virtual", self.fingerprint())


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

    def pieces(self, name: str) -> Iterator[Tensor]:
        name, space = self._stored(name), self.space
        ingredients = Ingredients.streamed(
            space.method,
            space.seed,
            name,
            space.base.reader(name) if space.base else None,
            [source.reader(name) for source in space.sources],
            math.prod(space.tensors[name]),
            self.dtype,
        )
        for _, piece in ingredients.merge(self._settings[name], space.normalize):
            yield piece.to(self.dtype)

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
