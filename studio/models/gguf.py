"""A GGUF file as a model: its tensors are dequantized when they are asked for.

Knows which GGUF keys and tensors become which of transformers, and what llama.cpp changes in some
of them. The `gguf` package knows the quantizations, transformers the tokenizers. Refuses to know
the file format (`studio.models.gguf_header`), and architectures whose conversion it cannot undo.
"""

import copy
import functools
import hashlib
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.models import documents, values
from studio.models.documents import by, reason
from studio.models.gguf_header import Array, GgufHeader, GgufTensor, read_header
from studio.models.model import HEAD, Model

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import (
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

#: GGUF architectures whose tensors can be turned back, and what transformers calls them.
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
}
#: Types that are numbers as they are, by ggml's name.
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
#: What GGUF calls transformers' special tokens.
_SPECIAL = {
    "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding",
}  # fmt: skip


@dataclass(repr=False)
class Gguf(Model):
    """A model in one GGUF file; make it with `Gguf.open`.

    ``dtype`` is float32 unless the file holds plain float16 or bfloat16, ``size`` the file's.

    Attributes:
        path: the file.
        quantization: ggml's name of the type that most parameters have, such as "Q4_K".
    """

    name: str
    path: Path
    config: "PretrainedConfig"
    architecture: str
    licence: str | None
    quantization: str
    _header: GgufHeader
    _tensors: dict[str, tuple[str, GgufTensor]]

    @classmethod
    def open(cls, name: str, file: Path) -> "Gguf":
        """Open a GGUF file; only its header is read.

        Raises:
            StudioError: it is no sound GGUF file, or one of an architecture that is not supported.
        """
        header = read_header(file)
        config = _config(header)
        model = documents.skeleton(config, file, len(header.tensors))
        tensors = _tensors(header, model)
        licence = header.metadata.get("general.license")
        return cls(
            name=name,
            path=file,
            config=config,
            architecture=type(model).__name__,
            licence=licence[:120] if isinstance(licence, str) and licence else None,
            quantization=_most_used(header),
            _header=header,
            _tensors=tensors,
        )

    def __repr__(self) -> str:
        return f"Gguf({self.name!r}, {self.architecture}, {self.quantization})"

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[self._stored(name)][1].shape

    def get(self, name: str) -> "torch.Tensor":
        """A tensor on the CPU, dequantized to float32; of a plain type, in that.

        Nothing is kept: each call dequantizes again. KeyError where there is no such tensor.
        """
        import torch
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        stored, tensor = self._tensors[self._stored(name)]
        kind = GGMLQuantizationType(tensor.type)
        data = self._map(tensor)
        try:
            numbers = dequantize(data, kind).reshape(tensor.shape)
        except NotImplementedError as error:
            raise StudioError(
                f"{self.name} stores {name} as {kind.name}, which the gguf package cannot "
                "dequantize; use another file of the model."
            ) from error
        numbers = self._restored(stored, numbers)
        dtype = getattr(torch, _PLAIN.get(kind.name, "float32"))
        return torch.from_numpy(numbers.copy()).to(dtype)

    @property
    def stored(self) -> "torch.dtype":
        """bfloat16, which is finer than any quantized form, unless the numbers are plain."""
        import torch

        return self.dtype if self.quantization in _PLAIN else torch.bfloat16

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        return getattr(torch, _PLAIN.get(self.quantization, "float32"))

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def fingerprint(self) -> str:
        """Of the header, which holds settings and tokenizer, and of pages all over the file."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.size}".encode())
        with self.path.open("rb") as stream:
            digest.update(stream.read(self._header.documents))
        for page in values.sample(self.path):
            digest.update(page)
        return digest.hexdigest()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer in the file.

        Raises:
            StudioError: there is none, or transformers cannot convert it.
        """
        stat = self.path.stat()
        try:
            special = tuple(
                (role, self._header.metadata.get(f"tokenizer.ggml.{key}_token_id"))
                for role, key in _SPECIAL.items()
            )
            converted = _tokenizer(
                self.path,
                self._header.documents,
                self.config.vocab_size,
                special,
                stat.st_mtime_ns,
            )
        except Exception as error:  # a stranger's file: transformers raises whatever it meets
            raise StudioError(
                f"The tokenizer in {self.name} cannot be read ({reason(error)}); use another GGUF "
                "file of the model, or its safetensors version."
            ) from error
        # Converting takes seconds, and whoever gets a tokenizer may change its settings.
        return copy.deepcopy(converted)

    def generation_config(self) -> "GenerationConfig":
        """What the header says: the ids that begin and end a text, and the end of a turn."""
        from transformers import GenerationConfig

        generation = GenerationConfig.from_model_config(self.config)
        turn = self._header.metadata.get("tokenizer.ggml.eot_token_id")
        end = generation.eos_token_id
        if isinstance(turn, int) and isinstance(end, int) and turn != end:
            generation.eos_token_id = [end, turn]
        return generation

    def _map(self, tensor: GgufTensor) -> "np.ndarray":
        """The tensor's bytes, as many to a row as `gguf` wants; pages are read when touched."""
        import numpy as np

        rows = math.prod(tensor.shape[:-1])
        try:
            return np.memmap(self.path, np.uint8, "r", tensor.offset, (rows, tensor.bytes // rows))
        except (OSError, ValueError) as error:
            raise StudioError(
                f"{self.path} cannot be read any more ({reason(error)}); it was moved or changed "
                "while in use, open the model again."
            ) from error

    def _restored(self, stored: str, numbers: "np.ndarray") -> "np.ndarray":
        """Undo what llama.cpp changes in a tensor when it converts a model."""
        kind = self._header.metadata["general.architecture"]
        if kind == "llama" and (".attn_q." in stored or ".attn_k." in stored):
            # Rotary halves lie interleaved: https://github.com/ggml-org/llama.cpp, `permute`.
            count = self.config.num_attention_heads
            if ".attn_k." in stored:
                count = self.config.num_key_value_heads
            heads = numbers.reshape(count, -1, 2, *numbers.shape[1:])
            return heads.swapaxes(1, 2).reshape(numbers.shape)
        if kind.startswith("gemma") and stored.endswith("norm.weight"):
            return numbers - 1  # Gemma multiplies by 1 + weight, GGUF stores the sum
        return numbers


@functools.lru_cache(maxsize=4)
def _tokenizer(
    file: Path, end: int, tokens: int, special: tuple[tuple[str, Any], ...], changed: int
) -> "PreTrainedTokenizerBase":
    """transformers' conversion of the metadata, cached until the file changes.

    Args:
        end: of the metadata in the file.
        tokens: how many the model knows.
        special: the ids of special tokens, or None, by what transformers calls them.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        # The metadata alone are a GGUF file, too; and no other file beside it has a say.
        alone = Path(folder, "tokenizer.gguf")
        with file.open("rb") as source, alone.open("wb") as target:
            target.write(source.read(8) + bytes(8))  # magic and version; no tensors
            source.seek(16)
            target.write(source.read(end - 16))
        converted = PreTrainedTokenizerFast.from_pretrained(
            folder, gguf_file=alone.name, local_files_only=True
        )
    # The conversion gives a vocabulary without unknown tokens one, which the model never saw.
    state = json.loads(converted.backend_tokenizer.to_str())
    known = [token for token in state["added_tokens"] if token["id"] < tokens]
    if len(known) < len(state["added_tokens"]):
        state["added_tokens"] = known
        converted = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(state)),
            chat_template=converted.chat_template,
        )
    # Not every version of transformers takes them over.
    for role, number in special:
        token = converted.convert_ids_to_tokens(number) if isinstance(number, int) else None
        setattr(converted, role, token)
    return converted


def _config(header: GgufHeader) -> "PretrainedConfig":
    """The transformers configuration that the metadata describe."""
    from transformers import AutoConfig
    from transformers.integrations import GGUF_CONFIG_MAPPING

    metadata = header.metadata
    kind = metadata.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise StudioError(
            f"{header.file} is a GGUF of the architecture {kind!s:.60}; only "
            f"{', '.join(ARCHITECTURES)} can be read, use the model's safetensors version."
        )
    settings: dict[str, Any] = {}
    for group in (kind, "tokenizer"):
        for key, setting in GGUF_CONFIG_MAPPING[group].items():
            value = metadata.get(f"{group}.{key}")
            if setting and value is not None:
                settings[setting] = _decimal(value)
    if (size := metadata.get(f"{kind}.attention.key_length")) is not None:
        settings["head_dim"] = size
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Array):
        settings.setdefault("vocab_size", tokens.count)
    for setting, value in settings.items():
        if not isinstance(value, int | float):
            raise documents.bad_config(header.file, f"{setting} is no number")
    _refuse_scaled_rope(header, kind)
    settings["tie_word_embeddings"] = "output.weight" not in header.tensors
    try:
        return AutoConfig.for_model(ARCHITECTURES[kind], **settings)
    except Exception as error:  # a stranger's settings: transformers raises whatever it meets
        raise documents.bad_config(header.file, reason(error)) from error


def _decimal(value: Any) -> Any:
    """A float32 as the decimal that was meant: 1e-05, not 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value))) if isinstance(value, float) else value


def _refuse_scaled_rope(header: GgufHeader, kind: str) -> None:
    scaling = header.metadata.get(f"{kind}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in header.tensors:
        raise StudioError(
            f"{header.file} scales its rotary positions, which GGUF describes less exactly than "
            "transformers needs; use the model's safetensors version."
        )


def _tensors(header: GgufHeader, model: "PreTrainedModel") -> dict[str, tuple[str, GgufTensor]]:
    """GGUF name and place of every tensor, by canonical name in the model's order."""
    import gguf

    kind = header.metadata["general.architecture"]
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[kind]
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    left = dict(header.tensors)
    tensors = {}
    for canonical, value in model.state_dict().items():
        if canonical == HEAD and model.config.tie_word_embeddings:
            continue
        stored = names.get_name(canonical, (".weight", ".bias"))
        if stored not in left:
            raise StudioError(
                f"{header.file} lacks the tensor {stored or canonical}; the file is incomplete or "
                "its metadata belong to another model, download it again."
            )
        tensor = left.pop(stored)
        if tensor.shape != tuple(value.shape):
            raise StudioError(
                f"{header.file} stores {stored} as {by(tensor.shape)} where its metadata say "
                f"{by(tuple(value.shape))}; download the file again."
            )
        tensors[canonical] = stored, tensor
    if left:
        raise StudioError(
            f"{header.file} stores a tensor {min(left)[:120]!r} that a {type(model).__name__} of "
            "its metadata does not have; this kind of model is not supported."
        )
    return tensors


def _most_used(header: GgufHeader) -> str:
    """ggml's name of the type that most parameters have."""
    from gguf.constants import GGMLQuantizationType

    counts: dict[int, int] = {}
    for tensor in header.tensors.values():
        counts[tensor.type] = counts.get(tensor.type, 0) + math.prod(tensor.shape)
    return GGMLQuantizationType(max(counts, key=counts.__getitem__)).name
