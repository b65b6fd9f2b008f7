"""From a name to a model: the kind of source behind it is found out here, and nowhere else.

Knows what tells safetensors folders, GGUF files and adapters apart, and how an adapter finds its
base. Refuses to know how each is read.
"""

import importlib.util
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.models import adapter, sources
from studio.models.adapter import Adapter
from studio.models.checkpoint import Checkpoint, read_config
from studio.models.compatibility import SAME, check_compatible
from studio.models.gguf import Gguf
from studio.models.model import Model
from studio.models.vocabulary import with_pictures

#: What a card calls them.
_KINDS = {Checkpoint: "safetensors", Gguf: "gguf", Adapter: "adapter"}


def open_source(name: str | Path) -> Model:
    """Open whatever a name means: a bundled model, a folder, a GGUF file, a hub id, an adapter.

    >>> open_source("owner/name@v1.0")  # doctest: +SKIP
    >>> open_source("my-adapter+models/my-base")  # doctest: +SKIP

    Raises:
        StudioError: there is none of that name, or it cannot be used.
    """
    return _open(str(name), adapters=True)


def _open(name: str, adapters: bool) -> Model:
    taken = sources.split(name)
    path = sources.resolve(taken.place, taken.revision)
    if path.is_file():
        return _without_base(Gguf.open(name, path), taken)
    if (path / adapter.CONFIG).is_file() and not (path / "config.json").is_file():
        if not adapters:
            raise StudioError(
                f"{name} is itself an adapter and cannot be the base of another; merge it into its "
                "base first and name that folder."
            )
        base = _base(taken, path)
        if base.frame is not None:
            raise StudioError(
                f"{name} is an adapter of a vision-language model, which cannot be opened as one; "
                "merge it into its base first (peft's merge_and_unload) and name that folder."
            )
        return Adapter.open(name, path, base)
    files = sorted(path.glob("*.gguf"))
    if files and not (path / "config.json").is_file():
        if len(files) > 1:
            raise StudioError(
                f"{path} holds {len(files)} GGUF files; name the one to use, such as {files[0]}."
            )
        return _without_base(Gguf.open(name, files[0]), taken)
    if sees(path):
        return _without_base(_vision_language(name, path), taken)
    return _without_base(Checkpoint.of_folder(name, path), taken)


def sees(folder: Path) -> bool:
    """Whether a folder's configuration is a vision-language model's; StudioError if unreadable."""
    return "vision_config" in read_config(folder)


def _vision_language(name: str, path: Path) -> Model:
    """By the vlm package, which the rest of the Studio does without."""
    if importlib.util.find_spec("vlm") is None:
        raise StudioError(
            f"{name} is a vision-language model, and the vlm package is not installed; install the "
            "whole project, or use language models."
        )
    from vlm.opening import open_folder

    return open_folder(name, path)


def _without_base(model: Model, taken: sources.Name) -> Model:
    if taken.base is not None:
        raise StudioError(
            f"{taken.place} is no adapter, so that it has no base of its own; leave +{taken.base} "
            "out."
        )
    return model


def _base(taken: sources.Name, folder: Path) -> Model:
    """The base of an adapter: the one the user names, else the one it was trained on."""
    if taken.base is not None:
        return _open(taken.base, adapters=False)
    name = adapter.base_of(folder)
    if name is None:
        raise StudioError(
            f"{taken.place} does not say which base it is an adapter for; name it: "
            f"{taken.place}+BASE."
        )
    # Where an adapter was trained beside its base, the path is from one to the other.
    beside = folder / name
    try:
        return _open(str(beside) if beside.exists() else name, adapters=False)
    except StudioError as error:
        raise StudioError(
            f"{taken.place} is an adapter for {name[:200]}, which cannot be opened: "
            f"{str(error).rstrip('.')}; or name a base that is here: {taken.place}+BASE."
        ) from error


def describe(name: str | Path, base: str | Path | None = None) -> dict[str, Any]:
    """The `card` of a model by name, beside that of a base if one is named.

    Raises:
        StudioError: one of them cannot be opened: see `open_source`.
    """
    model = open_source(name)
    return card(model, None if base is None else open_source(base))


def card(model: Model, base: Model | None = None, vocabulary: str = SAME) -> dict[str, Any]:
    """What a card shows of a model; JSON-able. Reads headers only, and tokenizers with a base.

    Args:
        base: where there is one, ``fits`` says whether it can be merged with the model, and ``why``
            it cannot.
        vocabulary: a recipe's; only with "same" both must have one.
    """
    config = model.config
    dtype = str(model.dtype).removeprefix("torch.")
    shown = {
        "name": model.name,
        "kind": _KINDS.get(type(model), "merge"),
        "architecture": model.architecture,
        "layers": model.layers,
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "vocab": config.vocab_size,
        "tied": model.tied,
        "dtype": dtype,
        "stored": model.quantization if isinstance(model, Gguf) else dtype,
        "parameters": model.parameters + (model.frame.parameters if model.frame else 0),
        "size": model.size,
        "licence": model.licence,
        "base": model.base.name if isinstance(model, Adapter) else None,
        "vision": model.frame and model.frame.architecture,
        "path": str(model.path),
    }
    if base is None:
        return shown
    try:
        check_compatible(base, [model], with_pictures(vocabulary, base, [model]))
    except StudioError as error:
        return shown | {"fits": False, "why": str(error)}
    return shown | {"fits": True, "why": None}
