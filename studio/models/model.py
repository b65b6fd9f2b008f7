"""What every model is to the rest of the Studio: a configuration, and tensors by canonical name.

Canonical names are those of the transformers state dict: `model.embed_tokens.weight`,
`model.layers.3.mlp.up_proj.weight`, `model.norm.weight`, `lm_head.weight`. Where tensors come from
is a subclass's business: files (`Checkpoint`), an adapter on a base, another file format, another
vocabulary, a merge. This module knows what follows from them, and refuses to know any format.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from studio.errors import StudioError
from studio.models.alone import ALONE

if TYPE_CHECKING:
    import torch
    from transformers import (
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
    )

HEAD = "lm_head.weight"

#: Reads entries [start, stop) of a flattened tensor, on the CPU in the stored dtype.
Reader = Callable[[int, int], "torch.Tensor"]


class Frame(Protocol):
    """What a vision-language model has around its language model: vision tower and projector.

    Where a model has one, its tensors are those of the language model, which is what can be merged;
    loaded, and exported, it is the vision-language model. The ``vlm`` package knows how.

    Attributes:
        name: of the vision-language model.
        architecture: its transformers class.
        parameters: of the frame alone, without the language model.
    """

    name: str
    architecture: str
    parameters: int

    def skeleton(self, config: "PretrainedConfig", dtype: "torch.dtype") -> "PreTrainedModel":
        """The vision-language model around a language model of this form, nothing written yet."""
        ...

    def language(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The language model inside a resident model, its parameters under canonical names."""
        ...

    def fill(self, model: "PreTrainedModel") -> None:
        """Write the frame's own parameters into a skeleton, wherever it lies by now."""
        ...

    def tokens(self) -> int:
        """How many tokens the largest picture takes of a prompt, at most."""
        ...

    def passing(self) -> int:
        """Numbers that looking at the largest picture takes in passing, at most."""
        ...

    def processor(self, tokenizer: "PreTrainedTokenizerBase") -> "ProcessorMixin":
        """What makes inputs of pictures and text; StudioError where there is none to be read."""
        ...

    def whole(self, language: "Model") -> "Model":
        """The vision-language model around a language model, its tensors called as in files."""
        ...


class Model(ABC):
    """A source, a base, or what was made of them.

    Attributes:
        name: what the user wrote.
        path: what tells models apart; of one that lies on disk, where.
        config: the transformers configuration; `tie_word_embeddings` says what the weights do.
        architecture: the transformers class, such as "MistralForCausalLM".
        licence: what its card says, or None where there is no card or it names none.
        dtype: torch dtype that most parameters have.
        frame: of a vision-language model, what is around its language model; else None.
    """

    name: str
    path: Path
    config: "PretrainedConfig"
    architecture: str
    licence: str | None
    dtype: "torch.dtype"
    frame: "Frame | None" = None

    @abstractmethod
    def names(self) -> list[str]:
        """Canonical names of all tensors in the model's order, the input embedding first; a tied
        head is not listed."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it. KeyError where there is no such tensor."""

    @abstractmethod
    def get(self, name: str) -> "torch.Tensor":
        """A tensor on the CPU, to be treated as read-only: it may be a view of a file.

        The head of a tied model is its embedding. KeyError where there is no such tensor.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """32 hex digits that change when a tensor, the settings or the tokenizer do."""

    @abstractmethod
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer; StudioError where there is none, or it cannot be read."""

    @abstractmethod
    def generation_config(self) -> "GenerationConfig":
        """The generation config, or the one that the configuration implies.

        Raises:
            StudioError: there is one, and it cannot be read.
        """

    def processor(self) -> "ProcessorMixin | None":
        """What makes inputs of pictures and text, None of a model that sees none.

        Raises:
            StudioError: it cannot be read.
        """
        return None if self.frame is None else self.frame.processor(self.tokenizer())

    def framed(self, frame: "Frame | None") -> "Model":
        """The same language model with a vision-language model's frame around it."""
        if frame is self.frame:
            return self
        twin = copy.copy(self)
        twin.frame = frame
        return twin

    def language(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The language model inside what `load` or `skeleton` made; usually all of it."""
        return model if self.frame is None else self.frame.language(model)

    def dtype_of(self, name: str) -> "torch.dtype":
        """The dtype that a tensor is written in."""
        return self.dtype

    def reader(self, name: str) -> Reader:
        """A function that reads a tensor piece by piece, for those who cannot hold it whole.

        Here it holds the whole tensor, once; where files allow, only the piece asked for.
        KeyError where there is no such tensor.
        """
        flat = self.get(name).flatten()
        return lambda start, stop: flat[start:stop]

    def pieces(self, name: str) -> "Iterator[torch.Tensor]":
        """The flattened tensor as consecutive pieces, for a file; KeyError as `get`."""
        yield self.get(name).flatten()

    def shares(self, name: str, other: "Model") -> bool:
        """Whether a tensor is known, without reading it, to be another model's."""
        return other is self

    @property
    def stored(self) -> "torch.dtype":
        """The dtype to write or load such a model in: what its weights lie in on disk.

        Tensors made on demand may be more exact than that.
        """
        return self.dtype

    @property
    def tied(self) -> bool:
        """Whether the output head is the input embedding."""
        return self.config.tie_word_embeddings

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        return self.config.num_hidden_layers

    @property
    def parameters(self) -> int:
        """Number of parameters, a tied head counted once."""
        return sum(math.prod(self.shape(name)) for name in self.names())

    @property
    def size(self) -> int:
        """Bytes of all tensors, were they written; of a model on disk, of its files."""
        return self.parameters * self.dtype.itemsize

    def load(
        self, dtype: "torch.dtype | None" = None, device: "torch.device | str" = "cpu"
    ) -> "PreTrainedModel":
        """The whole model in memory, in eval mode; its tensors are made one at a time.

        Args:
            dtype: of the model, default `dtype`; any other is rounded to from that.

        Raises:
            StudioError: it does not fit the device's memory, or configuration and tensors disagree.
        """
        import torch

        try:
            model = self.skeleton(dtype or self.dtype).to(device)
            self.fill(model)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise StudioError(
                f"{self.name} does not fit the memory of {device}; use a smaller dtype (bf16) or "
                "another device."
            ) from error
        return model

    def fill(self, model: "PreTrainedModel") -> None:
        """Write the parameters of a `skeleton`, wherever it lies by now, one after another."""
        import torch

        with torch.no_grad():
            for name, parameter in self.language(model).named_parameters():
                parameter.copy_(self.get(name))
            if self.frame is not None:
                self.frame.fill(model)

    def skeleton(self, dtype: "torch.dtype") -> "PreTrainedModel":
        """The transformers model on the CPU in eval mode, with parameters that nobody wrote yet.

        They take no memory until they are written. Buffers that are stored nowhere (rotary
        frequencies) have their values.

        Raises:
            StudioError: configuration and tensors disagree.
        """
        from transformers import AutoModelForCausalLM
        from transformers.initialization import no_init_weights

        if self.frame is not None:
            model = self.frame.skeleton(self.config, dtype)
        else:
            with ALONE, no_init_weights():
                model = AutoModelForCausalLM.from_config(copy.deepcopy(self.config), dtype=dtype)
            model.tie_weights()
        if missing := set(dict(self.language(model).named_parameters())) ^ set(self.names()):
            raise StudioError(
                f"{self.name} cannot be loaded: its tensors and its configuration disagree "
                f"about {min(missing)}; use models that transformers' save_pretrained wrote."
            )
        model.generation_config = self.generation_config()
        return model.eval()

    def _stored(self, name: str) -> str:
        """The name in `names` that a tensor goes by: a tied head goes by the embedding's."""
        return self.names()[0] if self.tied and name == HEAD else name


def frame_of(models: "Iterable[Model]") -> "Frame | None":
    """The frame of the first of these models that has one: what a merge of them sees with."""
    return next((model.frame for model in models if model.frame is not None), None)
