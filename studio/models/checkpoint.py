"""A lazy view of one model's tensors under canonical names.

Canonical names are those of the transformers state dict: `model.embed_tokens.weight`,
`model.layers.3.mlp.up_proj.weight`, `model.norm.weight`, `lm_head.weight`. Opening reads the
configuration and the files' headers, never a tensor; everything that could fail later (truncated
files, a config that does not fit the weights, code from strangers) fails here, in a sentence.
It knows nothing about other checkpoints: whether two fit together is `studio.models.compatibility`.
"""

import copy
import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from studio.errors import StudioError
from studio.models.headers import StoredTensor, gguf_sentence, read_folder
from studio.models.model import HEAD, Model, Reader
from studio.models.sources import resolve

if TYPE_CHECKING:
    import torch
    from transformers import (
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

#: Stored dtypes a merge can start from, as torch names; anything else is a quantized checkpoint.
_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}

#: What else of a model's folder decides how it answers.
_SETTINGS = (".json", ".jinja", ".model", ".txt", ".tiktoken")

#: Configuration keys through which a checkpoint can have transformers fetch and run code.
_CODE_KEYS = ("attn_implementation", "experts_implementation", "kernel_config")


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
    _files: dict[Path, object] = field(default_factory=dict)

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
        name = str(name)
        path = resolve(name, revision)
        settings = _read_config(path)
        stored = read_folder(path)
        config, model = _skeleton(path, settings, stored)
        expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        tensors = _canonical(path, model, stored, expected)

        # transformers ties what the config says is tied unless the file holds two different values.
        aliases = {}
        for target, source in model.all_tied_weights_keys.items():
            if source not in tensors and target in tensors:
                tensors[source] = tensors.pop(target)
            if target not in tensors or _equal(tensors[target], tensors[source]):
                aliases[target] = source
        _check_tensors(path, tensors, expected, aliases)
        config.tie_word_embeddings = HEAD in aliases
        ordered = {key: tensors[key] for key in expected if key not in aliases}
        return cls(
            name=name,
            path=path,
            config=config,
            architecture=type(model).__name__,
            licence=_licence(path),
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
        tensor = self._find(name)
        return self._open(tensor.file).get_tensor(tensor.name)

    def reader(self, name: str) -> Reader:
        """Reads from the file, not through a memory map: what was read does not stay resident."""
        import torch

        tensor = self._find(name)
        dtype = getattr(torch, _FLOATS[tensor.dtype])
        stream = tensor.file.open("rb")

        def read(start: int, stop: int) -> torch.Tensor:
            buffer = bytearray((stop - start) * dtype.itemsize)
            stream.seek(tensor.offset + start * dtype.itemsize)
            if stream.readinto(buffer) < len(buffer):
                raise _changed(tensor.file, "it became shorter")
            return torch.frombuffer(buffer, dtype=dtype)

        return read

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        counts: dict[str, int] = {}
        for tensor in self._tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + math.prod(tensor.shape)
        return getattr(torch, _FLOATS[max(counts, key=counts.__getitem__)])

    @property
    def size(self) -> int:
        return sum(file.stat().st_size for file in {t.file for t in self._tensors.values()})

    def fingerprint(self) -> str:
        """32 hex digits that change when the model does: its weights, settings or tokenizer.

        Settings and tokenizer are read whole; of each weight file the size, the beginning and a
        few pages spread over the rest, so that 14 GB take no longer than 14 MB. Weights trained
        further differ nearly everywhere, and are noticed; one tensor edited by hand may not be.
        """
        digest = hashlib.blake2b(digest_size=16)
        weights = {tensor.file for tensor in self._tensors.values()}
        for file in sorted(self.path.iterdir()):
            if file in weights:
                digest.update(f"{file.name} {file.stat().st_size}".encode())
                for page in _pages(file):
                    digest.update(page)
            elif file.suffix in _SETTINGS and file.is_file():
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer of the folder.

        Raises:
            StudioError: there is none, it cannot be read, or it needs code of its own.
        """
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # a stranger's files: transformers raises whatever it meets
            raise StudioError(
                f"The tokenizer of {self.name} is missing or cannot be read ({_reason(error)}); "
                "put the model's tokenizer files (tokenizer.json, tokenizer_config.json) beside "
                "its weights."
            ) from error

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

        try:
            with _quiet():
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
                f"{self.name} cannot be loaded ({_reason(error)}); check its files in {self.path}."
            ) from error

    def _find(self, name: str) -> StoredTensor:
        return self._tensors[self._aliases.get(name, name)]

    def _open(self, file: Path):
        if file not in self._files:
            self._files[file] = _map(file)
        return self._files[file]


def _pages(file: Path) -> Iterator[bytes]:
    """The first 64 KiB of a file, then up to 256 pages of 4 KiB at even distances."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        yield stream.read(1 << 16)
        for offset in range(1 << 16, size, max(1 << 12, size // 256)):
            stream.seek(offset)
            yield stream.read(1 << 12)


def describe(name: str | Path, revision: str | None = None) -> dict:
    """What a card shows of a model; JSON-able. Reads headers only.

    Raises:
        StudioError: as `Checkpoint.open`.
    """
    checkpoint = Checkpoint.open(name, revision)
    config = checkpoint.config
    return {
        "name": checkpoint.name,
        "architecture": checkpoint.architecture,
        "layers": checkpoint.layers,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "vocab": config.vocab_size,
        "tied": checkpoint.tied,
        "dtype": str(checkpoint.dtype).removeprefix("torch."),
        "parameters": checkpoint.parameters,
        "size": checkpoint.size,
        "licence": checkpoint.licence,
        "path": str(checkpoint.path),
    }


def _read_config(path: Path) -> dict:
    """config.json as written, after refusing what may not be opened at all."""
    file = path / "config.json"
    if (path / "adapter_config.json").is_file():
        raise StudioError(
            f"{path} is a LoRA adapter, which is not supported yet; merge it into its base "
            "(peft's merge_and_unload) and use that folder."
        )
    if not file.is_file():
        if any(path.glob("*.gguf")):
            raise StudioError(gguf_sentence(path))
        raise StudioError(
            f"{path} has no config.json, so it is not a model folder; give the folder that "
            "transformers' save_pretrained wrote."
        )
    settings = _read_json(file)
    if not isinstance(settings.get("model_type"), str):
        raise StudioError(
            f"{file} names no model_type; use the config.json that belongs to the weights."
        )
    for place in (file, path / "tokenizer_config.json"):
        if place.is_file() and (key := _remote_code(_read_json(place))):
            raise StudioError(
                f"{path.name} asks for code of its own ({key} in {place.name}), which is refused; "
                "use a version of the model that plain transformers can load."
            )
    if settings.get("quantization_config"):
        raise StudioError(
            f"{path.name} is a quantized checkpoint; use the model's bf16, fp16 or fp32 version."
        )
    return settings


def _read_json(file: Path) -> dict:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudioError(
            f"{file} cannot be read as JSON ({_reason(error)}); download or copy it again."
        ) from error
    if not isinstance(settings, dict):
        raise StudioError(f"{file} is not a JSON object; download or copy it again.")
    return settings


def _remote_code(settings: object) -> str | None:
    """The first key, at any depth, that would have transformers fetch code and run it."""
    for key, value in _pairs(settings):
        if key == "auto_map" and value:
            return key
        # "sdpa" is an implementation inside transformers, "owner/kernel" is code on the hub.
        if key.removeprefix("_").removesuffix("_internal") in _CODE_KEYS and "/" in str(value):
            return key
    return None


def _pairs(settings: object) -> Iterator[tuple[str, object]]:
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield key, value
            yield from _pairs(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _pairs(value)


def _skeleton(path: Path, settings: dict, stored: dict) -> "tuple[PretrainedConfig, object]":
    """The configuration, and its model without any memory behind the tensors (meta device)."""
    import torch
    import transformers

    version = transformers.__version__
    for architecture in settings.get("architectures") or []:
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
        raise _bad_config(path, _reason(error)) from error
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise StudioError(
            f"{path.name} ({config.model_type}) is not a text-generating language model; pick one "
            "such as a Llama, Mistral, Qwen or Gemma."
        )
    layers = getattr(config, "num_hidden_layers", None)
    # Before building anything: a forged count must not build millions of modules.
    if not isinstance(layers, int) or not 0 < layers <= len(stored):
        raise _bad_config(
            path, f"it says {layers} layers and the weights hold {len(stored)} tensors"
        )
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise _bad_config(path, _reason(error)) from error
    return config, model


def _bad_config(path: Path, why: str) -> StudioError:
    return StudioError(
        f"{path / 'config.json'} does not describe a model that can be built ({why}); use the "
        "config.json that belongs to the weights."
    )


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
                f"{path} stores {name} as {_by(tensors[name].shape)} where its config.json says "
                f"{_by(shape)}; use the config.json that belongs to the weights."
            )
        if tensors[name].dtype not in _FLOATS:
            raise StudioError(
                f"{path} stores {name} as {tensors[name].dtype}, a quantized form; use the model's "
                "bf16, fp16 or fp32 version."
            )


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a single number"


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two stored tensors hold the same values (the one question that reads them)."""
    import torch

    return one.shape == other.shape and torch.equal(
        _map(one.file).get_tensor(one.name), _map(other.file).get_tensor(other.name)
    )


def _map(file: Path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise _changed(file, _reason(error)) from error


def _changed(file: Path, why: str) -> StudioError:
    return StudioError(
        f"{file} cannot be read any more ({why}); it was moved or changed while in use, open the "
        "model again."
    )


def _licence(path: Path) -> str | None:
    """`license` of the card's YAML front matter; `license_name` where that only says "other"."""
    try:
        with (path / "README.md").open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(65_536)
    except OSError:
        return None
    if not text.startswith("---\n"):
        return None
    try:
        front = yaml.safe_load(text[4:].partition("\n---")[0])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(front, dict):
        return None
    licence = front.get("license")
    if licence == "other" and isinstance(front.get("license_name"), str):
        licence = front["license_name"]
    if isinstance(licence, list):
        licence = ", ".join(str(part) for part in licence)
    return str(licence)[:120] if licence else None


def _reason(error: BaseException) -> str:
    """The first line of what an error says, short enough for a sentence."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]


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
