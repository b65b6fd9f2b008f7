"""What models there are: bundled, in the workspace, in the hub's cache, exported, on the hub.

A glance reads settings and the headers of weights, never torch, so that a page of cards is there at
once; whether a model can really be opened is for `studio.models.opening` to say. Knows shelves and
the hub's search; refuses to download anything.
"""

import concurrent.futures
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.models import access, adapter, documents, gguf_header, headers, sources

#: Where a model was found.
BUNDLED, LOCAL, CACHED, EXPORTED, HUB = "bundled", "local", "cached", "exported", "hub"
#: Models that are listed of one shelf, at the most.
MAX_SHELF = 200
#: What the hub is asked for: how many models, and how many seconds it may take.
HUB_RESULTS, HUB_SECONDS = 12, 6.0
#: The hub's kinds of model that a recipe can use; some repositories name none.
_PIPELINES = ("text-generation", "image-text-to-text", None)
_EXPAND = ["safetensors", "gated", "downloads", "tags", "config", "pipeline_tag"]
#: Searches that run at once; one that outlasts its time holds its place until it ends.
_SEARCHES = concurrent.futures.ThreadPoolExecutor(4, "hub-search")


@dataclass(frozen=True)
class Found:
    """A model that somebody can choose.

    Attributes:
        name: what a recipe calls it.
        place: BUNDLED, LOCAL, CACHED, EXPORTED or HUB.
        kind: safetensors | gguf | adapter, '' where it is not known.
        architecture: as its settings name it.
        layers: of its language model.
        parameters: as stored.
        size: bytes of the weights.
        licence: as its card says.
        sees: whether it answers about pictures.
        gated: whether the hub wants its terms accepted first.
        downloads: from the hub, last month.
        base: an adapter's.
        fault: why a glance at it failed, '' if it did not.
    """

    name: str
    place: str
    kind: str = ""
    architecture: str | None = None
    layers: int | None = None
    parameters: int | None = None
    size: int | None = None
    licence: str | None = None
    sees: bool = False
    gated: bool = False
    downloads: int | None = None
    base: str | None = None
    fault: str = ""


# ── on this machine ───────────────────────────────────────────────────────────────────────────


def bundled() -> list[Found]:
    """The models that come with the Studio."""
    return [_glanced(name, BUNDLED, sources.resolve(name)) for name in sources.bundled()]


def here(folder: Path, place: str = LOCAL) -> list[Found]:
    """The models in a folder: folders of weights, adapters and GGUF files, two levels deep."""
    found = [_glanced(str(path), place, path) for path in _models_in(folder, 2)]
    return found[:MAX_SHELF]


def cached() -> list[Found]:
    """What of the hub was downloaded before and needs no network."""
    from huggingface_hub import constants

    found = []
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*"))[:MAX_SHELF]:
        name = "/".join(folder.name.split("--")[1:3])
        try:
            commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        snapshot = folder / "snapshots" / commit
        for path in _models_in(snapshot, 0):
            inside = f"{name}/{path.name}" if path.suffix == ".gguf" else name
            found.append(_glanced(inside, CACHED, path))
    return found


def _models_in(folder: Path, depth: int) -> Iterator[Path]:
    """A folder that is a model or, where it is none, what in it is."""
    try:
        if (folder / "config.json").is_file() or (folder / adapter.CONFIG).is_file():
            yield folder
            return
        entries = sorted(folder.iterdir())
    except OSError:
        return
    yield from (path for path in entries if path.suffix == ".gguf" and path.is_file())
    if depth:
        for path in entries:
            if path.is_dir() and not path.name.startswith("."):
                yield from _models_in(path, depth - 1)


def matching(models: Iterable[Found], text: str) -> list[Found]:
    """The models whose name, architecture or licence has every word of a text."""
    asked = text.lower().split()

    def fits(model: Found) -> bool:
        said = f"{model.name} {model.architecture} {model.licence} {model.kind}".lower()
        return all(word in said for word in asked)

    return [model for model in models if fits(model)]


def _glanced(name: str, place: str, path: Path) -> Found:
    """A model on this machine at a glance; what is wrong with its files is its ``fault``."""
    file = path
    if path.is_dir():
        file = next(
            (path / name for name in ("config.json", adapter.CONFIG) if (path / name).is_file()),
            path,
        )
    try:
        seen = _glance(path, file.stat().st_mtime_ns)
    except StudioError as error:
        seen = {"fault": str(error)}
    except OSError as error:
        seen = {"fault": f"{path} cannot be read ({error.strerror})."}
    return Found(name, place, **seen)


@lru_cache(maxsize=1024)
def _glance(path: Path, changed: int) -> dict[str, Any]:
    """What files say of a model; ``changed`` is when, so that an old answer is not given again."""
    if path.suffix == ".gguf":
        return _of_gguf(path)
    if not (path / "config.json").is_file():
        return _of_adapter(path)
    settings = documents.read_json(path / "config.json")
    tensors = headers.read_folder(path)
    inner = settings.get("text_config")
    inner = {**settings, **inner} if isinstance(inner, dict) else settings
    return {
        "kind": "safetensors",
        "architecture": _architecture(settings),
        "layers": _count(inner, "num_hidden_layers", "n_layer", "num_layers"),
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors.values()),
        "size": sum(file.stat().st_size for file in {t.file for t in tensors.values()}),
        "licence": documents.licence(path),
        "sees": "vision_config" in settings,
    }


def _of_gguf(path: Path) -> dict[str, Any]:
    header = gguf_header.read_header(path)
    told = header.metadata
    kind = told.get("general.architecture")
    licence = told.get("general.license")
    layers = told.get(f"{kind}.block_count")
    return {
        "kind": "gguf",
        "architecture": str(kind)[:60] if kind else None,
        "layers": layers if isinstance(layers, int) else None,
        "parameters": sum(math.prod(tensor.shape) for tensor in header.tensors.values()),
        "size": path.stat().st_size,
        "licence": licence[:120] if isinstance(licence, str) and licence else None,
    }


def _of_adapter(path: Path) -> dict[str, Any]:
    tensors = headers.read_header(path / adapter.WEIGHTS)
    return {
        "kind": "adapter",
        "architecture": "LoRA",
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors.values()),
        "size": (path / adapter.WEIGHTS).stat().st_size,
        "licence": documents.licence(path),
        "base": adapter.base_of(path),
    }


def _architecture(settings: dict[str, Any]) -> str | None:
    named = settings.get("architectures")
    if isinstance(named, list) and named and isinstance(named[0], str):
        return named[0][:80]
    kind = settings.get("model_type")
    return kind[:80] if isinstance(kind, str) else None


def _count(settings: dict[str, Any], *keys: str) -> int | None:
    return next((settings[key] for key in keys if isinstance(settings.get(key), int)), None)


# ── on the hub ────────────────────────────────────────────────────────────────────────────────


def on_hub(text: str, seconds: float = HUB_SECONDS, limit: int = HUB_RESULTS) -> list[Found]:
    """Models of the hub with safetensors weights for a text, the most downloaded first.

    Args:
        seconds: after which the hub counts as out of reach.

    Raises:
        StudioError: the hub cannot be reached, or not in time.
    """
    from huggingface_hub import HfApi

    asked = HfApi(token=access.token())  # here: the search runs in a thread of its own

    def ask() -> list[Found]:
        listed = asked.list_models(
            search=text, filter="safetensors", sort="downloads", limit=3 * limit, expand=_EXPAND
        )
        models = [_of_hub(info) for info in listed if info.pipeline_tag in _PIPELINES]
        return models[:limit]

    return _in_time(ask, seconds)


def of_names(names: Sequence[str], seconds: float = HUB_SECONDS) -> list[Found]:
    """Cards of models that are known by name, as far as the hub or its cache tells of them."""
    from huggingface_hub import HfApi

    known = {model.name: model for model in cached()}
    asked = HfApi(token=access.token())

    def ask(name: str) -> Found:
        info = asked.model_info(name, expand=_EXPAND, timeout=seconds)
        return replace(_of_hub(info), name=name)

    found = []
    for name in names:
        if name in known:
            found.append(known[name])
            continue
        try:
            found.append(_in_time(lambda name=name: ask(name), seconds))
        except StudioError:  # it is offered all the same
            found.append(Found(name, HUB))
    return found


def typed(text: str) -> list[Found]:
    """The hub model that a text names in full, unseen: the network may be out of reach."""
    return [Found(text, HUB)] if sources.on_hub(text.partition("@")[0]) else []


def _in_time(ask: Callable[[], Any], seconds: float) -> Any:
    try:
        return _SEARCHES.submit(ask).result(seconds)
    except Exception as error:  # whatever the transport raises: offline, timeout, proxy, refusal
        raise StudioError(
            "The hub cannot be searched now; bundled models and those on this machine are listed, "
            "and any hub id can be typed in."
        ) from error


def _of_hub(info: Any) -> Found:
    """A repository as the hub's search tells of it."""
    tags = info.tags or []
    stored = getattr(info.safetensors, "parameters", None) or {}
    settings = info.config if isinstance(info.config, dict) else {}
    licence = next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), None)
    base = next((tag for tag in tags if tag.startswith("base_model:adapter:")), None)
    return Found(
        info.id,
        HUB,
        kind="adapter" if base else "safetensors",
        architecture=_architecture(settings),
        parameters=sum(stored.values()) or None,
        size=sum(n * headers.ITEM_SIZES.get(kind, 1) for kind, n in stored.items()) or None,
        licence=licence,
        sees=info.pipeline_tag == "image-text-to-text",
        gated=bool(info.gated),
        downloads=info.downloads,
        base=base.removeprefix("base_model:adapter:") if base else None,
    )
