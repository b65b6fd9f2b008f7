"""A vision-language model as files: a language model's tensors and those of the frame around it.

Knows which tensor comes from where. Refuses to know what the language model is, or how a file is
written.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from studio.models import values
from studio.models.headers import StoredTensor
from studio.models.model import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedTokenizerBase, ProcessorMixin

    from vlm.frame import VisionFrame

#: Entries read at a time.
_CHUNK = 1 << 20


class Whole(Model):
    """A vision-language model to be written: all of its tensors, under the names of its files.

    They are called as in the files of the frame's origin, so that whatever loads the origin loads
    this; and the frame's own have the dtype that they are stored in there.

    Args:
        frame: what is around.
        language: what is inside, usually a merge.
    """

    def __init__(self, frame: "VisionFrame", language: Model):
        self._frame, self._language = frame, language
        self.name, self.path, self.licence = language.name, language.path, language.licence
        self.dtype, self.architecture = language.dtype, frame.architecture
        self.config = frame.config_for(language.config)
        self.config.architectures = [self.architecture]
        for key in ("text_config", "vision_config"):
            if hasattr(self.config, key):
                getattr(self.config, key).dtype = self.dtype
        self.config.dtype = self.dtype
        #: A name in the language model, or a tensor of the frame, by name in the files.
        self._places: dict[str, str | StoredTensor] = {
            frame.file_name(name): name for name in language.names()
        }
        self._places |= {tensor.name: tensor for tensor in frame.tensors.values()}

    def names(self) -> list[str]:
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        place = self._places[name]
        return self._language.shape(place) if isinstance(place, str) else place.shape

    def dtype_of(self, name: str) -> "torch.dtype":
        place = self._places[name]
        if isinstance(place, str):
            return self._language.dtype_of(place)
        return values.dtype(place)

    def get(self, name: str) -> "Tensor":
        place = self._places[name]
        return self._language.get(place) if isinstance(place, str) else values.whole(place)

    def pieces(self, name: str) -> "Iterator[Tensor]":
        place = self._places[name]
        if isinstance(place, str):
            yield from self._language.pieces(place)
            return
        read, count = values.reader(place), math.prod(place.shape)
        for start in range(0, count, _CHUNK):
            yield read(start, min(start + _CHUNK, count))

    @property
    def size(self) -> int:
        return sum(math.prod(self.shape(n)) * self.dtype_of(n).itemsize for n in self._places)

    def fingerprint(self) -> str:
        parts = [self._frame.fingerprint(), self._language.fingerprint()]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        return self._language.tokenizer()

    def processor(self) -> "ProcessorMixin":
        return self._frame.processor(self.tokenizer())

    def generation_config(self) -> "GenerationConfig":
        return self._language.generation_config()

    def documents(self) -> dict[str, str]:
        return self._language.documents()
