"""A lazy view of one model's tensors under canonical names.

Canonical names are those of the transformers state dict: `model.embed_tokens.weight`,
`model.layers.3.mlp.up_proj.weight`, `model.norm.weight`, `lm_head.weight`. Opening reads the
configuration and the files' headers, never a tensor; everything that could fail later (truncated
files, a config that does not fit the weights, code from strangers) fails here, in a sentence.
It knows nothing about other checkpoints: whether two fit together is `studio.models.compatibility`.
"""

import copy
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.models import documents, values
from studio.models.alone import ALONE
from studio.models.documents import by, reason
from studio.models.headers import StoredTensor, read_folder
from studio.models.model import HEAD, Model, Reader
from studio.models.sources import resolve
from studio.models.values import FLOATS, Values

if TYPE_CHECKING:
    import torch
    from transformers import (
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )


@dataclass(repr=False)
class Checkpoint(Model):
    """A model of safetensors files; make it with `Checkpoint.open`.

    ``path`` is the folder it was found in, ``size`` the bytes of the weight files.
    """

    name: str
    path: Path
    config: "PretrainedConfig"
    architecture: str
    licence: str | None
    _tensors: dict[str, StoredTensor]
    _aliases: dict[str, str]
    _values: Values = field(default_factory=Values)

    @classmethod
    def open(cls, name: str | Path, revision: str | None = None) -> "Checkpoint":
        """Open a bundled model, a local folder or a hub repository (see `resolve`).

        >>> Checkpoint.open("bonsai-ja").layers  # doctest: +SKIP
        8

        Raises:
            StudioError: the model cannot be found, or it is one the Studio cannot or will not use:
                pickled, quantized, truncated or incomplete weights, remote code, an architecture
                unknown to transformers, tensors that do not fit config.json.
        """
        return cls.of_folder(str(name), resolve(str(name), revision))

    @classmethod
    def of_folder(cls, name: str, path: Path) -> "Checkpoint":
        """Open a folder of safetensors under a name of its own; raises as `open`."""
        settings = read_config(path)
        stored = read_folder(path)
        config, model = build_skeleton(path, settings, len(stored))
        expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        tensors = _canonical(path, model, stored, expected)
        ordered, aliases = settle(path, model, tensors, expected)
        config.tie_word_embeddings = HEAD in aliases
        return cls(
            name=name,
            path=path,
            config=config,
            architecture=type(model).__name__,
            licence=documents.licence(path),
            _tensors=ordered,
            _aliases=aliases,
        )

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r}, {self.architecture}, {self.parameters:,} parameters)"

    def names(self) -> list[str]:
        """Canonical names of all stored tensors in the model's order; a tied head is not listed."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from the header. KeyError where the model has no such tensor."""
        return self._find(name).shape

    def get(self, name: str) -> "torch.Tensor":
        """A tensor on the CPU in its stored dtype, backed by the memory-mapped file.

        The head of a tied checkpoint is its embedding. Pages are read as they are touched; treat
        the tensor as read-only: a value written into it would be seen by the next `get`.
        KeyError where the model has no such tensor.
        """
        return self._values.get(self._find(name))

    def reader(self, name: str) -> Reader:
        """Reads from the file, not through a memory map: what was read does not stay resident."""
        return values.reader(self._find(name))

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        counts: dict[str, int] = {}
        for tensor in self._tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + math.prod(tensor.shape)
        return getattr(torch, FLOATS[max(counts, key=counts.__getitem__)])

    @property
    def size(self) -> int:
        return sum(file.stat().st_size for file in {t.file for t in self._tensors.values()})

    def fingerprint(self) -> str:
        """Of the folder: see `studio.models.values.fingerprint`."""
        return values.fingerprint(self.path, {t.file for t in self._tensors.values()})

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer of the folder.

        Raises:
            StudioError: there is none, it cannot be read, or it needs code of its own.
        """
        return documents.tokenizer(self.path, self.name)

    def generation_config(self) -> "GenerationConfig":
        """The folder's generation config, or the one that the configuration implies.

        Raises:
            StudioError: there is one, and it cannot be read.
        """
        from transformers import GenerationConfig

        if (self.path / "generation_config.json").is_file():
            try:
                return GenerationConfig.from_pretrained(self.path)
            except (OSError, ValueError) as error:
                raise StudioError(
                    f"The generation_config.json of {self.name} cannot be read; delete or repair "
                    "it."
                ) from error
        return GenerationConfig.from_model_config(self.config)

    def load(
        self, dtype: "torch.dtype | None" = None, device: "torch.device | str" = "cpu"
    ) -> "PreTrainedModel":
        """The whole model in memory, in eval mode; `dtype` defaults to the stored one.

        Raises:
            StudioError: transformers cannot build it, or it does not fit the device's memory.
        """
        import torch
        from transformers import AutoModelForCausalLM

        if self.frame is not None:
            return super().load(dtype, device)
        try:
            with ALONE, _quiet():
                model = AutoModelForCausalLM.from_pretrained(
                    self.path,
                    config=copy.deepcopy(self.config),
                    dtype=dtype or self.dtype,
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                )
            return model.to(device).eval()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise StudioError(
                f"{self.name} does not fit the memory of {device}; use a smaller dtype (bf16) or "
                "another device."
            ) from error
        except (OSError, ValueError) as error:
            raise StudioError(
                f"{self.name} cannot be loaded ({reason(error)}); check its files in {self.path}."
            ) from error

    def _find(self, name: str) -> StoredTensor:
        return self._tensors[self._aliases.get(name, name)]


def read_config(path: Path) -> dict:
    """config.json as written, after refusing what may not be opened at all.

    Raises:
        StudioError: there is none, it is no model's, asks for code, or is of a quantized model.
    """
    file = path / "config.json"
    if not file.is_file():
        raise StudioError(
            f"{path} has no config.json, so it is not a model folder; give the folder that "
            "transformers' save_pretrained wrote."
        )
    settings = documents.read_json(file)
    if not isinstance(settings.get("model_type"), str):
        raise StudioError(
            f"{file} names no model_type; use the config.json that belongs to the weights."
        )
    documents.refuse_code(path, ("config.json", "tokenizer_config.json"))
    if settings.get("quantization_config"):
        raise StudioError(
            f"{path.name} is a quantized checkpoint; use the model's bf16, fp16 or fp32 version."
        )
    return settings


def build_skeleton(
    path: Path, settings: dict, tensors: int, auto: str = documents.LANGUAGE
) -> "tuple[PretrainedConfig, PreTrainedModel]":
    """The configuration, and its model without any memory behind the tensors (meta device).

    Args:
        settings: of `read_config`.
        tensors, auto: as in `documents.skeleton`.

    Raises:
        StudioError: transformers does not know such a model, or cannot build it.
    """
    import transformers

    version = transformers.__version__
    architectures = settings.get("architectures") or []
    if not isinstance(architectures, list):
        raise documents.bad_config(path / "config.json", "its architectures are no list")
    for architecture in architectures:
        if not hasattr(transformers, str(architecture)):
            raise StudioError(
                f"{path.name} is a {architecture!s:.80}, which transformers {version} does not "
                "know; code that comes with a model is refused, so use another model or a newer "
                "transformers."
            )
    try:
        config = transformers.AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a stranger's settings: transformers raises whatever it meets
        if settings["model_type"] not in transformers.CONFIG_MAPPING:
            raise StudioError(
                f"{path.name} has the model_type {settings['model_type'][:80]!r}, which "
                f"transformers {version} does not know; code that comes with a model is refused, "
                "so use another model or a newer transformers."
            ) from error
        raise documents.bad_config(path / "config.json", reason(error)) from error
    return config, documents.skeleton(config, path / "config.json", tensors, auto)


def settle(
    path: Path, model: "PreTrainedModel", tensors: dict[str, StoredTensor], expected: dict
) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """A model's tensors in its own order, and which names are tied to which.

    Args:
        tensors: by canonical name; expected: shapes by canonical name.

    Raises:
        StudioError: one is missing, has another shape, or is stored in a quantized form.
    """
    # transformers ties what the config says is tied unless the file holds two different values.
    aliases = {}
    for target, source in model.all_tied_weights_keys.items():
        if source not in tensors and target in tensors:
            tensors[source] = tensors.pop(target)
        if target not in tensors or values.equal(tensors[target], tensors[source]):
            aliases[target] = source
    _check_tensors(path, tensors, expected, aliases)
    return {key: tensors[key] for key in expected if key not in aliases}, aliases


def _canonical(path: Path, model, stored: dict, expected: dict) -> dict[str, StoredTensor]:
    """Stored tensors under canonical names; those that the model is free to ignore left out."""
    prefix = model.base_model_prefix + "."
    ignored = [re.compile(p) for p in model._keys_to_ignore_on_load_unexpected or ()]
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        # A model saved without its head (LlamaModel, not LlamaForCausalLM) lacks the prefix.
        canonical = name if name in expected else prefix + name
        if canonical in expected:
            if canonical in tensors:
                raise StudioError(
                    f"{path} stores {canonical} twice, with and without the prefix {prefix!r}; use "
                    "the folder that transformers' save_pretrained wrote."
                )
            tensors[canonical] = tensor
        elif not name.endswith("rotary_emb.inv_freq") and not any(p.search(name) for p in ignored):
            raise StudioError(
                f"{path} stores a tensor {name[:120]!r} that a {type(model).__name__} of its "
                "config.json does not have; config.json and weights do not belong together, or "
                "this kind of model is not supported."
            )
    return tensors


def _check_tensors(path: Path, tensors: dict, expected: dict, aliases: dict) -> None:
    for name, shape in expected.items():
        if name in aliases:
            continue
        if name not in tensors:
            raise StudioError(
                f"{path} lacks the tensor {name}; the checkpoint is incomplete, or its config.json "
                "belongs to other weights: download the model again."
            )
        if tensors[name].shape != shape:
            raise StudioError(
                f"{path} stores {name} as {by(tensors[name].shape)} where its config.json says "
                f"{by(shape)}; use the config.json that belongs to the weights."
            )
        if tensors[name].dtype not in FLOATS:
            raise StudioError(
                f"{path} stores {name} as {tensors[name].dtype}, a quantized form; use the model's "
                "bf16, fp16 or fp32 version."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers' progress bar off for a moment: the faces of the Studio show their own."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
