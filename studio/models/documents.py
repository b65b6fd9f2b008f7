"""What lies beside the weights of a model: settings, card, tokenizer; all of it a stranger's.

Knows how to read these files with suspicion: whatever is wrong with one is a sentence, and code
that asks to be run is refused. Refuses to know what the settings mean and how weights are stored.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.models.alone import ALONE
from studio.yaml_page import read_page

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: Configuration keys through which a checkpoint can have transformers fetch and run code.
_CODE_KEYS = ("attn_implementation", "experts_implementation", "kernel_config")

#: The kinds of model that are opened: transformers' auto classes for them, and what to call them.
LANGUAGE, VISION = "AutoModelForCausalLM", "AutoModelForImageTextToText"
_KINDS = {
    LANGUAGE: (
        "MODEL_FOR_CAUSAL_LM_MAPPING",
        "a text-generating language model; pick one such as a Llama, Mistral, Qwen or Gemma",
    ),
    VISION: (
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
        "a vision-language model that answers about pictures; pick one such as a LLaVA or Qwen2-VL",
    ),
}

#: No model's settings come near; a forged file must not take all memory.
MAX_JSON = 100_000_000


def read_json(file: Path) -> dict:
    """The JSON object in a file.

    Raises:
        StudioError: it cannot be read, or is none.
    """
    try:
        if file.stat().st_size > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON // 1_000_000} MB")
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudioError(
            f"{file} cannot be read as JSON ({reason(error)}); download or copy it again."
        ) from error
    if not isinstance(settings, dict):
        raise StudioError(f"{file} is not a JSON object; download or copy it again.")
    return settings


def refuse_code(folder: Path, names: tuple[str, ...]) -> None:
    """Check that none of these JSON files of a folder, where present, asks for code to be run.

    Raises:
        StudioError: one does, or cannot be read.
    """
    for file in (folder / name for name in names):
        if file.is_file() and (key := _remote_code(read_json(file))):
            raise StudioError(
                f"{folder.name} asks for code of its own ({key} in {file.name}), which is refused; "
                "use a version of the model that plain transformers can load."
            )


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


def bad_config(file: Path, why: str) -> StudioError:
    """What to say of settings that transformers cannot build a model from."""
    return StudioError(
        f"{file} does not describe a model that can be built ({why}); use the {file.name} that "
        "belongs to the weights."
    )


def skeleton(
    config: "PretrainedConfig", file: Path, tensors: int, auto: str = LANGUAGE
) -> "PreTrainedModel":
    """The model of a configuration, without any memory behind its tensors (meta device).

    Args:
        file: where the configuration was read, for errors.
        tensors: how many the weights hold: a forged count of layers must not build millions of
            modules.
        auto: `LANGUAGE` or `VISION`.

    Raises:
        StudioError: the configuration is another kind of model's, or no model can be built from it.
    """
    import torch
    import transformers

    mapping, what = _KINDS[auto]
    if type(config) not in getattr(transformers, mapping):
        raise StudioError(f"{file.parent.name} ({config.model_type}) is not {what}.")
    counts = [getattr(config.get_text_config(), "num_hidden_layers", None)]
    vision = getattr(config, "vision_config", None)
    for key in ("num_hidden_layers", "depth"):  # no vision tower need have either
        counts += [getattr(vision, key)] if hasattr(vision, key) else []
    for layers in counts:
        if not isinstance(layers, int) or not 0 < layers <= tensors:
            raise bad_config(
                file, f"it says {layers} layers and the weights hold {tensors} tensors"
            )
    try:
        with ALONE, torch.device("meta"):
            return getattr(transformers, auto).from_config(config, trust_remote_code=False)
    except Exception as error:  # a stranger's settings: transformers raises whatever it meets
        raise bad_config(file, reason(error)) from error


def licence(folder: Path) -> str | None:
    """`license` of the card's YAML front matter; `license_name` where that only says "other"."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(65_536)
    except OSError:
        return None
    if not text.startswith("---\n"):
        return None
    try:
        front = read_page(text[4:].partition("\n---")[0], "The card")
    except StudioError:
        return None
    if not isinstance(front, dict):
        return None
    licence = front.get("license")
    if licence == "other" and isinstance(front.get("license_name"), str):
        licence = front["license_name"]
    if isinstance(licence, list):
        licence = ", ".join(str(part) for part in licence)
    return str(licence)[:120] if licence else None


def tokenizer(folder: Path, name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder; `name` is what to call the model.

    Raises:
        StudioError: there is none, it cannot be read, or it needs code of its own.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a stranger's files: transformers raises whatever it meets
        raise StudioError(
            f"The tokenizer of {name} is missing or cannot be read ({reason(error)}); put the "
            "model's tokenizer files (tokenizer.json, tokenizer_config.json) beside its weights."
        ) from error


def by(shape: tuple[int, ...]) -> str:
    """A shape for a sentence."""
    return " × ".join(map(str, shape)) or "a single number"


def reason(error: BaseException) -> str:
    """The first line of what an error says, short enough for a sentence."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
