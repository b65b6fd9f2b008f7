"""Files that a recipe names and other machines may not have: found here, carried there.

A bundled model and one of the hub every machine opens by name; a folder or file of this one is
looked for there first, under the same path, as on a file system that is shared. Knows which files
are meant, how one tells that they are there already, and where copies are kept: once per machine,
in its workspace. Refuses to know how bytes travel.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from studio.errors import StudioError
from studio.evolve.spaces import Ancestor
from studio.models import adapter, sources
from studio.models.headers import PICKLED
from studio.recipe import Recipe
from studio.runs.records import split_reference
from studio.workspace import subfolder, workspace

#: Bytes of a piece of a file as it travels.
PIECE = 64 << 20
#: Days after which a copy that no run asked for is deleted.
EXPIRY_DAYS = 14


@dataclass(frozen=True)
class File:
    """A regular file: its path below a bundle's, bytes, and when it was last changed (ns)."""

    name: str
    size: int
    changed: int


@dataclass(frozen=True)
class Bundle:
    """A folder or file that a recipe names; plain data.

    Attributes:
        name: what the recipe calls it.
        path: where it lies on the driver's machine, absolute.
        files: all that is needed of it; of a single file, one whose name is empty.
    """

    name: str
    path: str
    files: tuple[File, ...]

    @property
    def key(self) -> str:
        """32 hex digits that change when any of the files does."""
        return hashlib.blake2b(repr((self.path, self.files)).encode(), digest_size=16).hexdigest()


def bundles(recipe: Recipe, ancestors: Mapping[str, Ancestor]) -> list[Bundle]:
    """All that a recipe and its ancestors' name on this machine, each name once.

    Raises:
        StudioError: a model's name cannot be one.
    """
    found: dict[str, Path] = {}
    for name in _models(recipe, ancestors):
        found |= _places(name)
    made = {name: Bundle(name, str(path), _model_files(path)) for name, path in found.items()}
    for item in [*recipe.objectives, *recipe.report]:
        path = item.options.get("path")
        if isinstance(path, str) and Path(path).expanduser().exists():
            place = Path(path).expanduser().resolve()
            made[path] = Bundle(path, str(place), _files(place))
    return list(made.values())


def _models(recipe: Recipe, ancestors: Mapping[str, Ancestor]) -> Iterator[str]:
    for name in [recipe.base, *recipe.sources]:
        if name in ancestors:
            other = ancestors[name]
            yield from _models(Recipe.from_yaml(other.recipe), other.ancestors)
        elif name and split_reference(name) is None:
            yield name


def _places(name: str) -> dict[str, Path]:
    """The folders and files of this machine behind a model's name, by what each is called."""
    taken = sources.split(name)
    path = sources.local(taken.place)
    if path is None or taken.place in sources.bundled():
        return _places(taken.base) if taken.base else {}
    found = {taken.place: path.resolve()}
    if taken.base:
        return found | _places(taken.base)
    if (path / adapter.CONFIG).is_file() and (base := adapter.base_of(path)):
        beside = path / base
        return found | ({base: beside.resolve()} if beside.exists() else _places(base))
    return found


def _model_files(path: Path) -> tuple[File, ...]:
    """A GGUF file, or what lies in a model's folder, without pickles and folders within."""
    if path.is_file():
        return _files(path)
    return tuple(file for file in _files(path, deep=False) if not file.name.endswith(PICKLED))


def _files(path: Path, deep: bool = True) -> tuple[File, ...]:
    if path.is_file():
        return (_file(path, ""),)
    found = sorted(path.rglob("*") if deep else path.iterdir())
    return tuple(_file(file, file.relative_to(path).as_posix()) for file in found if file.is_file())


def _file(path: Path, name: str) -> File:
    stat = path.stat()
    return File(name, stat.st_size, stat.st_mtime_ns)


# ── there ─────────────────────────────────────────────────────────────────────────────────────


def find(bundle: Bundle) -> Path | None:
    """Where a bundle lies on this machine: as it is called, or as a copy; None if it does not."""
    path = Path(bundle.path)
    if all(_same(path / file.name if file.name else path, file) for file in bundle.files):
        return path
    copy = _copy(bundle)
    if not copy.exists():
        return None
    os.utime(copy.parent)  # it is still asked for
    return copy


def _same(path: Path, file: File) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (file.size, file.changed)


def _copy(bundle: Bundle) -> Path:
    """A copy's place; its name is kept, for a GGUF file is known by it."""
    return workspace() / "shipped" / bundle.key / Path(bundle.path).name


def take_in(bundle: Bundle, pieces: Callable[[File], Iterator[bytes]]) -> None:
    """Make a copy of a bundle on this machine, unless another process does.

    Args:
        pieces: the contents of one of its files, in order.

    Raises:
        StudioError: it cannot be written here.
    """
    shelf = subfolder(workspace(), "shipped")
    with FileLock(shelf / f"{bundle.key}.lock"):
        if find(bundle) is not None:
            return
        _tidy(shelf)
        copy = _copy(bundle)
        part = shelf / f"{bundle.key}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            for file in bundle.files:
                path = part / copy.name / file.name if file.name else part / copy.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    for piece in pieces(file):
                        out.write(piece)
            part.rename(copy.parent)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise StudioError(
                f"{bundle.name} cannot be copied to {shelf} ({error.strerror}); make room there, "
                "or set STUDIO_WORKSPACE to another folder."
            ) from error


def _tidy(shelf: Path) -> None:
    """Delete copies that nobody asked for in a long time."""
    for folder in shelf.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < time.time() - 86_400 * EXPIRY_DAYS:
            shutil.rmtree(folder, ignore_errors=True)


def at_home(recipe: str, places: Mapping[str, Path]) -> str:
    """A recipe (YAML) with the files of its tasks where they lie on this machine."""
    document = Recipe.from_yaml(recipe).model_dump(mode="json")
    for item in [*document["objectives"], *document["report"]]:
        if item["options"].get("path") in places:
            item["options"]["path"] = str(places[item["options"]["path"]])
    return Recipe.from_dict(document).to_yaml()
