"""A run as one file: written to keep or send, and taken in again, from whoever it comes.

Knows which other runs a run needs, whose the runs become and what they may name. How such a file is
read without believing it is `studio.runs.archive`'s.
"""

import secrets
from collections.abc import Callable
from pathlib import Path

from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Store
from studio.runs import archive as files
from studio.runs.archive import Parcel
from studio.runs.records import split_reference
from studio.runs.store import insert

#: Raises StudioError for a recipe that names what its importer may not.
Allow = Callable[[Recipe], object]


def archive(run: str, path: str | Path, store: Store | None = None) -> Path:
    """Write a run, and the runs whose candidates are its sources, to a file of their own.

    Returns:
        the file, an SQLite database that :func:`unarchive` reads.

    Raises:
        StudioError: there is no such run, or there is a file of that name, or no room.
    """
    store = store or Store()
    found = [store.run(run).id]
    for name in found:  # grows as it goes
        recipe = Recipe.from_yaml(store.run(name).recipe, f"The recipe of run {name}")
        found += [needed for needed in sorted(_references(recipe)) if needed not in found]
    path = Path(path).expanduser()
    files.write(store, found, path)
    return path


def unarchive(
    path: str | Path, store: Store | None = None, owner: str = "", allow: Allow | None = None
) -> list[str]:
    """Import the runs of a file; one that was at work is stopped, and can be resumed.

    Args:
        owner: whose they become. An owner's runs may name no files of this machine but their own
            uploads, and no runs of others.
        allow: asked about every recipe first.

    Returns:
        the ids of the new runs, the one that was exported first. It has its old id, unless that is
        taken; a run that it needs and that is here already is not imported again.

    Raises:
        StudioError: the file is no archive, or something in it is not allowed; nothing is imported.
    """
    store = store or Store()
    parcels = files.read(Path(path).expanduser())
    needed = {name for parcel in parcels for name in _references(parcel.recipe)}
    new = [parcel for parcel in parcels if not _is_here(parcel, needed, store)]
    coming = {parcel.run["id"] for parcel in parcels}
    for parcel in new:
        if owner:
            _check_names(parcel.recipe, owner, coming, store)
        if allow is not None:
            allow(parcel.recipe)
    _check_chain({parcel.run["id"]: parcel.recipe for parcel in parcels}, store)
    new.sort(key=lambda parcel: parcel.run["id"] in needed)
    with store._transaction() as db:
        taken = {run.id for run in store.runs()}
        ids = []
        for parcel in new:
            run = parcel.run["id"]
            while run in taken:
                if run in needed:  # its name is in another's recipe
                    raise StudioError(f"Another run {run} is here already; delete that one first.")
                run = secrets.token_hex(4)
            taken.add(run)
            ids.append(run)
            insert(db, "runs", parcel.run | {"id": run, "owner": owner})
            for table in ("events", "candidates", "evaluations"):
                for row in getattr(parcel, table):
                    insert(db, table, row | {"run": run})
    return ids


def _references(recipe: Recipe) -> set[str]:
    """The runs whose candidates a recipe names."""
    names = [recipe.base, *recipe.sources]
    found = (split_reference(name) for name in names if name and not Path(name).exists())
    return {reference[0] for reference in found if reference}


def _check_chain(recipes: dict[str, Recipe], store: Store) -> None:
    """Refuse runs whose sources are, by whichever way, candidates of their own."""
    recipes = dict(recipes)

    def visit(run: str, above: tuple[str, ...]) -> None:
        if run in above or len(above) > 20:
            raise StudioError(f"Run {run} is made of itself; export it again where it was made.")
        if run not in recipes:
            known = next((record for record in store.runs() if record.id == run), None)
            if known is None:
                return  # its models are not here, which whoever opens it is told
            try:
                recipes[run] = Recipe.from_yaml(known.recipe)
            except StudioError:  # of a newer Studio, which this one makes no model of
                return
        for needed in _references(recipes[run]):
            visit(needed, (*above, run))

    for run in list(recipes):
        visit(run, ())


def _is_here(parcel: Parcel, needed: set[str], store: Store) -> bool:
    """Whether a run that another needs is in the store already, the same candidates in it."""
    run = parcel.run["id"]
    if run not in needed:
        return False
    known = next((record for record in store.runs() if record.id == run), None)
    return (
        known is not None
        and known.recipe == parcel.run["recipe"]
        and {c.id: c.genome.tobytes() for c in store.candidates(run)}
        == {row["id"]: row["genome"] for row in parcel.candidates}
    )


def _check_names(recipe: Recipe, owner: str, coming: set[str], store: Store) -> None:
    """Refuse an owner's recipe that names files of this machine, or runs of others."""
    names = [recipe.base, *recipe.sources]
    if recipe.vocabulary not in ("same", "base", "union"):
        names.append(recipe.vocabulary)
    for name in filter(None, names):
        reference = split_reference(name)
        if reference:
            known = [run for run in store.runs() if run.id == reference[0]]
            mine = reference[0] in coming or any(run.owner in ("", owner) for run in known)
        else:
            mine = not (Path(name).is_absolute() or name[:1] in "~." or Path(name).exists())
        if not mine:
            raise StudioError(
                f"The run merges {name!r}, which is not here; run the Studio where it was made, or "
                "import runs of bundled models and models of the hub."
            )
    uploads = (store.folder / "uploads" / owner).resolve()
    for item in [*recipe.objectives, *recipe.report]:
        path = item.options.get("path")
        if path is not None and not Path(str(path)).resolve().is_relative_to(uploads):
            raise StudioError(
                "The run was evolved on a file of another machine; upload the file and start its "
                "recipe anew."
            )
