"""Recipes as the steps take and record them: read from wherever they lie, and tied to a place."""

from pathlib import Path

from studio.recipe import Recipe
from studio.runs import Store
from studio.runs.records import split_reference


def as_recipe(recipe: Recipe | str | Path) -> Recipe:
    """A recipe, or the one in a file, with the precision that "auto" stands for on this machine.

    Raises:
        StudioError: as :meth:`studio.recipe.Recipe.load`.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    if recipe.precision != "auto":
        return recipe
    from studio.models.precision import automatic

    return recipe.model_copy(update={"precision": automatic()})


def duplicate(run: str, store: Store | None = None) -> Recipe:
    """The recipe of a run, to start another from."""
    record = (store or Store()).run(run)
    return Recipe.from_yaml(record.recipe, f"The recipe of run {record.id}")


def starting(recipe: Recipe | str | Path, start: str, store: Store | None = None) -> Recipe:
    """A recipe whose search begins at ``start``: see :class:`studio.recipe.Search`.

    Raises:
        StudioError: it cannot begin there, or there is no such run.
    """
    document = as_recipe(recipe).model_dump(mode="json")
    document["search"]["start"] = start
    found = Recipe.from_dict(document)
    if not found.search.warm:
        return found
    document["search"]["start"] = (store or Store()).run(start).id  # "last" is another one later
    return Recipe.from_dict(document)


def anchor_all(recipe: Recipe, store: Store) -> Recipe:
    """The recipe with local folders and files as absolute paths, and candidates by number.

    A run may be resumed elsewhere, and the best of another run may be another one by then.
    """

    from studio.models.sources import anchored

    def anchor(name: str) -> str:
        if not Path(name).expanduser().exists() and (reference := split_reference(name)):
            run = store.run(reference[0]).id
            return f"{run}:{store.pick(run, reference[1]).id}"
        return anchored(name)

    document = recipe.model_dump(mode="json")
    document["sources"] = [anchor(name) for name in recipe.sources]
    if recipe.search.warm:
        document["search"]["start"] = store.run(recipe.search.start).id
    if recipe.vocabulary not in ("same", "base", "union"):  # it is one of the sources
        document["vocabulary"] = anchor(recipe.vocabulary)
    for place in (document["space"], document["space"].get("data_flow", {})):
        if place.get("sources"):
            place["sources"] = [anchor(name) for name in place["sources"]]
    document["base"] = anchor(recipe.base) if recipe.base else None
    for objective in [*document["objectives"], *document["report"]]:
        if isinstance(path := objective["options"].get("path"), str):
            file = Path(path).expanduser()
            objective["options"]["path"] = str(file.resolve()) if file.exists() else path
    return Recipe.from_dict(document)
