"""Looking before anything is loaded: cards of models, and the memory that a recipe takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.api.recipes import as_recipe
from studio.errors import StudioError
from studio.evolve.plan import Plan
from studio.evolve.plan import plan as plan_recipe
from studio.evolve.spaces import open_models
from studio.recipe import Recipe
from studio.runs import Store


def models() -> list[dict[str, Any]]:
    """A card of every bundled model: see :func:`studio.models.describe`."""
    from studio.models import bundled, describe

    return [describe(name) for name in bundled()]


def describe(name: str, base: str | None = None) -> dict[str, Any]:
    """A card of one model: see :func:`studio.models.describe`.

    Args:
        base: another model; the card then says whether the two ``fits`` and, if not, ``why`` not.

    Raises:
        StudioError: one of them cannot be opened.
    """
    from studio.models import describe

    return describe(name, base)


def cards(recipe: Recipe | str | Path, store: Store | None = None) -> list[dict[str, Any]]:
    """Cards of a recipe's base, if it has one, and sources, each with its ``role``.

    A model that cannot be opened has a ``name``, a ``role`` and an ``error``; sources say whether
    they fit the base.
    """
    from studio.evolve.spaces import open_model
    from studio.models.opening import card

    recipe = as_recipe(recipe)
    shown, base = [], None
    for role, name in [("base", recipe.base), *(("source", name) for name in recipe.sources)]:
        if name is None:
            continue
        try:
            model = open_model(name, store)
            shown.append({"role": role, **card(model, base, recipe.vocabulary)})
            base = model if role == "base" else base
        except StudioError as error:
            shown.append({"role": role, "name": name, "error": str(error)})
    return shown


def plan(
    recipe: Recipe | str | Path, memory: float | None = None, precisions: Sequence[str] = ()
) -> dict[str, Plan]:
    """What a recipe's searches take of a device's memory, and the batch that fits, by precision.

    Args:
        memory: bytes of a GPU to fit into; what is free on the device here when left out.
        precisions: the recipe's own when left out.

    Raises:
        StudioError: a model cannot be opened, or the models do not fit each other.
    """
    from studio.evolve.memory import available

    recipe = as_recipe(recipe)
    try:
        tasks = recipe.build_tasks()
    except StudioError:  # data that is not here, a package that is not installed
        tasks = None
    models = open_models(recipe)
    there = int(available() if memory is None else memory)
    device = None if memory is None else "cuda"
    return {
        precision: plan_recipe(recipe, models, tasks, there, device, precision)
        for precision in precisions or [recipe.precision]
    }


def memory(recipe: Recipe | str | Path, memory: float | None = None) -> list[dict[str, Any]]:
    """The memory that a recipe takes at each precision.

    Args:
        memory: as of :func:`plan`.

    Returns:
        rows of precision, bytes (at the most, with the largest batch that fits), batch (0: not
        even one answer at a time fits), prompt and answer (tokens that were planned for).
    """
    from studio.models.precision import PRECISIONS

    return [
        {
            "precision": precision, "bytes": planned.peak, "batch": planned.batch,
            "prompt": planned.prompt, "answer": planned.answer,
        }
        for precision, planned in plan(recipe, memory, PRECISIONS).items()
    ]  # fmt: skip
