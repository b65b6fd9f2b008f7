"""Which tensor of a vision-language model is which of its language model: found by structure.

Knows module trees, paths of names and shapes. There are no lists of architectures here, and none of
names: what a model is made of is read off the model that transformers builds. Refuses to read a
value.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from studio.errors import StudioError
from studio.models.alone import ALONE

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

#: What a configuration says about itself and not about a model.
_FORMALITIES = {"model_type", "architectures", "transformers_version", "_name_or_path"}
#: Settings by which the positions of pictures differ from those of text: for text they do nothing.
_PICTURE_ROPE = {"mrope_section", "mrope_interleaved"}


class LanguageModel(nn.Module):
    """The language model inside a resident vision-language model, under the names of its own kind.

    It shares the modules: what is written here is written there. ``config`` is the text part of
    the configuration that both go by.

    Raises:
        StudioError: transformers' class does not say where its language model is.
    """

    def __init__(self, whole: "PreTrainedModel"):
        super().__init__()
        decoder, head = whole.get_decoder(), whole.get_output_embeddings()
        if decoder is None or decoder is whole or head is None or not hasattr(decoder, "layers"):
            raise StudioError(
                f"The language model inside a {type(whole).__name__} cannot be told from the rest "
                "of it; pick a vision-language model such as a LLaVA or Qwen2-VL."
            )
        self.model, self.lm_head = decoder, head
        self.config = decoder.config

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


def language_names(whole: "PreTrainedModel") -> dict[str, str]:
    """Canonical name in the language model → name in the vision-language model.

    A tied head has no entry of its own. Raises as `LanguageModel`.
    """
    places = {id(tensor): name for name, tensor in whole.named_parameters()}
    return {name: places[id(tensor)] for name, tensor in LanguageModel(whole).named_parameters()}


def match(stored: Mapping[str, tuple], expected: Mapping[str, tuple]) -> dict[str, str]:
    """Stored name → name in the model, for files that call the same tensors differently.

    Files of several generations of transformers hold one model under several names
    (``language_model.model.layers.0…``, ``model.language_model.layers.0…``). The parts of such
    names are the same but for order and wrappers. A stored tensor is the one of the same shape that
    ends alike and shares the most parts; among equals, the one with the fewest parts beside.

    Args:
        stored, expected: shapes by name.

    Returns:
        an entry for every stored name that is one; no two have the same value.
    """
    by_end: dict[str, list[str]] = defaultdict(list)
    for name in expected:
        by_end[_end(name)].append(name)
    found = {name: name for name in stored if name in expected}
    taken = set(found.values())
    for name, shape in stored.items():
        if name in found:
            continue
        parts = Counter(name.split("."))
        ranked = sorted(
            (-(parts & Counter(other.split("."))).total(), other.count("."), other)
            for other in by_end[_end(name)]
            if expected[other] == shape and other not in taken
        )
        # of two that are equally like it neither is known to be it
        if ranked and (len(ranked) == 1 or ranked[0][:2] != ranked[1][:2]):
            found[name] = ranked[0][2]
            taken.add(ranked[0][2])
    return found


def _end(name: str) -> str:
    """What must be the same: number of the layer, if there is one, and all that follows it.

    >>> _end("language_model.model.layers.3.mlp.up_proj.weight")
    '3.mlp.up_proj.weight'
    """
    parts = name.split(".")
    numbers = [at for at, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[0] :] if numbers else parts[-1:])


def language_config(
    config: "PretrainedConfig", shapes: Mapping[str, tuple[int, ...]]
) -> "tuple[PretrainedConfig, str]":
    """The configuration and architecture of the plain language model with just these tensors.

    A vision-language model may have its own kind of text model (``qwen2_vl_text``), which differs
    from a language model (``qwen2``) in how it numbers pictures' tokens alone. A kind of language
    model counts as the same if its name begins the other's and it has the same tensors.

    Args:
        config: the text part of a vision-language configuration.
        shapes: of its language model's tensors, by canonical name.

    Returns:
        such as (MistralConfig, "MistralForCausalLM"); where there is no such language model, the
        configuration itself and the name of its kind.
    """
    import torch
    import transformers

    kind = config.model_type
    while kind:
        known = kind in transformers.CONFIG_MAPPING
        if known and transformers.CONFIG_MAPPING[kind] in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            plain = _plain(config, transformers.CONFIG_MAPPING[kind])
            with ALONE, torch.device("meta"):
                model = transformers.AutoModelForCausalLM.from_config(plain)
            if {name: tuple(p.shape) for name, p in model.named_parameters()} == dict(shapes):
                return plain, type(model).__name__
        kind = kind.rpartition("_")[0]
    return copy.deepcopy(config), config.model_type


def _plain(config: "PretrainedConfig", kind: type) -> "PretrainedConfig":
    """The same settings in another class of configuration, as far as that has them."""
    known = set(kind().to_dict()) - _FORMALITIES
    settings = {key: value for key, value in config.to_dict().items() if key in known}
    rope = settings.get("rope_parameters")
    if isinstance(rope, dict) and set(rope) & _PICTURE_ROPE:
        kept = {key: rope[key] for key in rope if key not in _PICTURE_ROPE | {"type"}}
        settings["rope_parameters"] = kept | {"rope_type": "default"}
    return kind(**settings)
