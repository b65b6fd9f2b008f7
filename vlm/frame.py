"""What a vision-language model has around its language model, and how a merge is put there.

Knows vision tower and projector as tensors that pass through bit for bit, and how transformers
builds the whole. Refuses to know what a merge is.
"""

import copy
import math
import re
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.models import documents, values
from studio.models.alone import ALONE
from studio.models.checkpoint import Checkpoint
from studio.models.headers import StoredTensor
from studio.models.model import HEAD, Model
from vlm.structure import LanguageModel
from vlm.whole import Whole

if TYPE_CHECKING:
    import torch
    from transformers import (
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
    )

#: What a merge can change about a language model's form; all other settings are the frame's.
_FORM = ("vocab_size", "num_hidden_layers", "layer_types", "tie_word_embeddings")
#: Pixels a side planned for where the vision tower takes any number.
_LARGEST = 1024
_LAYER = re.compile(r"\.layers\.(\d+)\.")


class VisionFrame:
    """Vision tower, projector, processor and settings of a vision-language model.

    Args:
        origin: its language model, found in the same folder.
        config: of the whole.
        architecture: the whole's transformers class.
        tensors: the frame's own, by their names in that class.
        called: what the origin's files call the tensors of the language model, by canonical name.

    Attributes:
        name, path: of the vision-language model.
        parameters: of the frame alone.
    """

    def __init__(
        self,
        origin: Checkpoint,
        config: "PretrainedConfig",
        architecture: str,
        tensors: dict[str, StoredTensor],
        called: dict[str, str],
    ):
        self.name, self.path, self.architecture = origin.name, origin.path, architecture
        self.config, self.tensors, self._called = config, tensors, called
        self.fingerprint = origin.fingerprint
        self.parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())

    def __repr__(self) -> str:
        return f"VisionFrame({self.name!r}, {self.architecture}, {self.parameters:,} parameters)"

    def config_for(self, language: "PretrainedConfig") -> "PretrainedConfig":
        """The settings of the whole around a language model of another form."""
        config = copy.deepcopy(self.config)
        text = config.get_text_config()
        for key in _FORM:
            if hasattr(language, key) and hasattr(text, key):
                setattr(text, key, copy.deepcopy(getattr(language, key)))
        config.tie_word_embeddings = text.tie_word_embeddings
        return config

    def skeleton(self, config: "PretrainedConfig", dtype: "torch.dtype") -> "PreTrainedModel":
        from transformers import AutoModelForImageTextToText
        from transformers.initialization import no_init_weights

        with ALONE, no_init_weights():
            model = AutoModelForImageTextToText.from_config(self.config_for(config), dtype=dtype)
        model.tie_weights()
        return model

    def language(self, model: "PreTrainedModel") -> LanguageModel:
        return LanguageModel(model)

    def fill(self, model: "PreTrainedModel") -> None:
        import torch

        places = model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                places[name].copy_(values.whole(tensor))

    def tokens(self) -> int:
        """Those of a picture cut into as many tiles as the settings allow, before any pooling."""
        vision = self.config.vision_config
        side = getattr(vision, "image_size", None) or _LARGEST
        grid = getattr(self.config, "image_grid_pinpoints", None) or [(0, 0)]
        tiles = max(1 + (high // side) * (wide // side) for high, wide in grid)
        return tiles * ((side // vision.patch_size) ** 2 + 1)

    def passing(self) -> int:
        """One layer's activations of all those tokens."""
        vision = self.config.vision_config
        width = getattr(vision, "embed_dim", None) or vision.hidden_size
        feeding = getattr(vision, "intermediate_size", None) or 4 * width
        return self.tokens() * (8 * width + 2 * feeding)

    def processor(self, tokenizer: "PreTrainedTokenizerBase") -> "ProcessorMixin":
        """The origin's, with a tokenizer whose vocabulary is the origin's or an extension of it.

        Raises:
            StudioError: there is none, or it cannot be read.
        """
        from transformers import AutoProcessor, ProcessorMixin

        try:
            processor = AutoProcessor.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
            why = None if isinstance(processor, ProcessorMixin) else "there is only a tokenizer"
        except Exception as error:  # a stranger's files: transformers raises whatever it meets
            why = documents.reason(error)
        if why:
            raise StudioError(
                f"The picture processor of {self.name} is missing or cannot be read ({why}); put "
                "processor_config.json and preprocessor_config.json beside its weights."
            )
        processor.tokenizer = tokenizer
        if getattr(processor, "chat_template", None) is None:
            processor.chat_template = tokenizer.chat_template
        return processor

    def whole(self, language: Model) -> Whole:
        return Whole(self, language)

    def file_name(self, name: str) -> str:
        """What the origin's files call a tensor of a language model put in this frame.

        What the origin has no such tensor of (layers beyond its last, a head of its own) is called
        as its other tensors are.
        """
        if name in self._called:
            return self._called[name]
        if name == HEAD:
            return HEAD
        first = self._called[_LAYER.sub(".layers.0.", name, count=1)]
        return _LAYER.sub(f".layers.{_LAYER.search(name)[1]}.", first, count=1)
