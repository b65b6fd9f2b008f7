"""Who asks for something, and what they may: the users of a shared workspace, or a public's guests.

Locally there is one workspace, and whoever reaches the page may do everything in it. In public
(any Space unless ``STUDIO_PUBLIC=0``, anywhere with ``STUDIO_PUBLIC=1``) every visitor owns runs,
uploads and chats of their own, sees those and the bundled runs, and works within a list of models
and a bounded budget. Knows owners, links and limits. Refuses to know pages and requests: whoever
serves one says who asks, and every handler asks here before it does anything.
"""

import hashlib
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from studio.errors import StudioError
from studio.models import access
from studio.models.sources import bundled
from studio.recipe import DataFlow, Recipe
from studio.runs.records import QUEUED, RUNNING, Run, split_reference
from studio.runs.store import Store
from studio.workspace import subfolder, workspace

#: Days after which what a public's visitors left is deleted.
EXPIRY_DAYS = 7
#: Answers that all searches of a public run may ask for: the bundled recipes', and no more.
MAX_ANSWERS = 64_000
#: Sources of a public run; each is held in memory.
MAX_SOURCES = 4
#: Tasks that a public run may name: their data is bundled, or the visitor's own upload.
PUBLIC_TASKS = ("jmath", "emath", "ja_vqa", "ja_culture_vqa", "clip_score", "csv")
#: Folders of the workspace with a subfolder per owner; the local one's is this.
LOCAL = "local"


def is_public() -> bool:
    """Whether visitors are strangers to each other."""
    asked = os.environ.get("STUDIO_PUBLIC", "").strip()
    return asked == "1" or (asked != "0" and "SPACE_ID" in os.environ)


def owner_of(kind: str, secret: str) -> str:
    """What is stored of a visitor: a hash of their account's name, or of their browser's token.

    >>> owner_of("token", "abc") == owner_of("token", "abc") != owner_of("account", "abc")
    True
    >>> len(owner_of("token", "abc"))
    32
    """
    return hashlib.sha256(f"evollm-studio:{kind}:{secret}".encode()).hexdigest()[:32]


def allowed_models() -> list[str]:
    """What a public's visitors may choose from: bundled models and those of ``STUDIO_MODELS``."""
    more = os.environ.get("STUDIO_MODELS", "").split(",")
    return [*bundled(), *(name.strip() for name in more if name.strip())]


@cache
def _bundled_runs() -> frozenset[str]:
    from studio import api

    return frozenset(api.bundled_runs())


@dataclass(frozen=True)
class Visitor:
    """Somebody who asks.

    Attributes:
        owner: '' where the workspace is shared, else a hash (see `owner_of`).
        public: whether there are other visitors whose things are none of theirs.
        guest: ids of runs that were opened through a read-only link.
        host: whether they run the Studio: locally, or signed in as the Space's owner.
        token: the access token of a signed-in visitor, for the hub alone; kept nowhere.
    """

    owner: str = ""
    public: bool = False
    guest: frozenset[str] = frozenset()
    host: bool = True
    token: str | None = field(default=None, repr=False)

    @property
    def hub_token(self) -> access.Token:
        """What the hub is asked with for them: the machine's token is the host's alone."""
        return None if self.host else self.token or False

    # ── runs ──────────────────────────────────────────────────────────────────────────────────

    def sees(self, run: Run) -> bool:
        """Whether a run is theirs to look at."""
        return (
            not self.public
            or (bool(self.owner) and run.owner == self.owner)
            or run.id in self.guest
            or run.id in _bundled_runs()
        )

    def changes(self, run: Run) -> bool:
        """Whether a run is theirs to stop, resume or delete; not through a read-only link."""
        if run.id in self.guest:
            return False
        return not self.public or (bool(self.owner) and run.owner == self.owner)

    def runs(self, store: Store) -> list[Run]:
        """The runs that they see, newest first."""
        return [run for run in store.runs() if self.sees(run)]

    def run(self, store: Store, run: str | None) -> Run:
        """A run that they may look at.

        Raises:
            StudioError: none is named, or there is no such run, or it is somebody else's, which
                is said in the same words.
        """
        if not run:
            raise StudioError("No run is chosen; pick one at the top of the page, or start one.")
        record = store.run(run)
        if not self.sees(record):
            raise StudioError(f"There is no run '{run}'; `python -m studio runs` lists them.")
        return record

    def mine(self, store: Store, run: str | None) -> Run:
        """A run that they may change; raises as :meth:`run`, or says that it is only to be read."""
        record = self.run(store, run)
        if not self.changes(record):
            raise StudioError(
                f"Run {record.id} can only be looked at here; duplicate its recipe and start your "
                "own."
            )
        return record

    # ── models and recipes ────────────────────────────────────────────────────────────────────

    def model(self, store: Store, name: str) -> str:
        """The name of a model that they may open: any locally, in public one of the list.

        Raises:
            StudioError: they may not.
        """
        reference = split_reference(name)
        if not self.public:
            if reference is None or reference[0] not in self.guest:
                return name
        if reference is not None:
            self.run(store, reference[0])
            return name
        if name not in allowed_models():
            raise StudioError(
                f"The model {name!r} is not offered here; choose one of the list, or run the "
                "Studio on your own machine, where any model can be opened."
            )
        if name not in bundled():
            with access.asking_with(self.hub_token):
                access.check(name)  # it may be here already, for somebody who may have it
        return name

    def recipe(self, store: Store, recipe: Recipe) -> Recipe:
        """A recipe that they may start.

        Raises:
            StudioError: in public, it names a model or task that is not offered, asks for more
                than the budget, or the visitor has a run at work or queued already.
        """
        if not self.public:
            return recipe
        if not self.owner:
            raise StudioError("The page does not know you yet; reload it, then press Start again.")
        self.recipe_models(store, recipe)
        if recipe.search.warm:
            self.run(store, recipe.search.start)
        if len(recipe.sources) > MAX_SOURCES:
            raise StudioError(f"A public Studio merges {MAX_SOURCES} sources at most; take fewer.")
        for item in [*recipe.objectives, *recipe.report]:
            if item.task is not None:
                self._task(item.task, item.options)
        if (asked := _answers(recipe)) > MAX_ANSWERS:
            raise StudioError(
                f"This recipe asks for about {asked:,} answers and a public Studio gives "
                f"{MAX_ANSWERS:,}; take fewer candidates or questions, or run the Studio on your "
                "own machine."
            )
        for run in store.runs():
            if run.owner == self.owner and run.status in (QUEUED, RUNNING):
                raise StudioError(
                    f"Your run {run.id} is still {run.status}; wait for it, or stop it first."
                )
        return recipe

    def recipe_models(self, store: Store, recipe: Recipe) -> None:
        """Raises StudioError if a recipe names a model that they may not open."""
        for name in _models(recipe):
            self.model(store, name)

    def brings(self, store: Store, recipe: Recipe) -> None:
        """Raises StudioError if a recipe in a file of runs names a model that they may not open.

        Candidates that it names are the importer's to look at: they lie in the same file.
        """
        for name in _models(recipe):
            if split_reference(name) is None:
                self.model(store, name)

    def _task(self, name: str, options: dict) -> None:
        if name not in PUBLIC_TASKS:
            raise StudioError(
                f"The task {name!r} is not offered here; choose one of {', '.join(PUBLIC_TASKS)}."
            )
        paths = [value for key, value in options.items() if key == "path"]
        if name != "csv" and options:
            raise StudioError(f"The task {name!r} takes no options here; leave them out.")
        for path in paths:
            self.upload(str(path))

    # ── files ─────────────────────────────────────────────────────────────────────────────────

    def folder(self, kind: str) -> Path:
        """Their own folder of uploads, exports or chats in the workspace."""
        if self.public and not self.owner:
            raise StudioError("The page does not know you yet; reload it.")
        return subfolder(subfolder(workspace(), kind), self.owner or LOCAL)

    def upload(self, path: str) -> Path:
        """A file that they may have read: any locally, in public one that they uploaded.

        Raises:
            StudioError: it is not one of theirs.
        """
        if not self.public:
            return Path(path)
        mine = self.folder("uploads").resolve()
        if not Path(path).resolve().is_relative_to(mine):
            raise StudioError("Only files that you uploaded can be used here; upload it first.")
        return Path(path)


def _models(recipe: Recipe) -> list[str]:
    """Every model that a recipe names."""
    names = [*recipe.sources, recipe.base]
    if recipe.vocabulary not in ("same", "base", "union"):
        names.append(recipe.vocabulary)
    space = recipe.space
    paths = space if isinstance(space, DataFlow) else getattr(space, "data_flow", None)
    return [name for name in [*names, *(paths and paths.sources or [])] if name]


def _answers(recipe: Recipe) -> int:
    """How many answers a recipe's searches ask for, beams counted; all of dev is taken for 200."""
    seen = {
        name: item.examples or 200
        for name, item in zip(recipe.objective_names(), recipe.objectives, strict=True)
        if item.task
    }
    searched = sum(seen.get(name, 0) for stage in recipe.stages() for name in stage.objectives)
    return recipe.budget.candidates * searched * recipe.decoding.beams
