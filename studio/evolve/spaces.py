"""From a recipe to what its searches work in: models opened, spaces laid out, winners passed on.

Knows how a stage's space follows from the recipe, its models and the winners of earlier stages, and
how to find all that again in a record. Refuses to search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.evolve import inputs
from studio.merge.space import Space
from studio.recipe import Parameter, Recipe, Stage
from studio.runs.records import Candidate, split_reference
from studio.runs.store import Store

if TYPE_CHECKING:
    from studio.merge.virtual import Virtual
    from studio.models import Model


def open_model(name: str, store: Store | None = None) -> "Model":
    """A bundled model, folder or hub id, or 'RUN:12' for a candidate of a recorded run.

    Raises:
        StudioError: there is none of that name, or it cannot be used.
    """
    from studio.models import open_source

    reference = split_reference(name)
    if reference is None:
        return open_source(name)
    store = store or Store()
    run = store.run(reference[0]).id
    return rebuild(store, run, store.pick(run, reference[1]), name)


def open_models(recipe: Recipe, store: Store | None = None) -> "list[Model]":
    """The base, if one is named, then the sources, opened; raises as `open_model`."""
    return [open_model(name, store) for name in [recipe.base, *recipe.sources] if name]


@dataclass(frozen=True)
class Ancestor:
    """A recorded candidate that is a source, in plain data: all it takes to make it again.

    Attributes:
        recipe: of its run, as YAML; ancestors: those among that recipe's sources, by name.
        stage, winners: where it was found, see `won_space`.
        genome: float64 ``[d]``.
    """

    recipe: str
    ancestors: "dict[str, Ancestor]"
    stage: str
    winners: "dict[str, Winner]"
    genome: np.ndarray


def ancestors(recipe: Recipe, store: Store) -> dict[str, Ancestor]:
    """Those of a recipe's models that are candidates of recorded runs, by name.

    Raises:
        StudioError: there is no such run or candidate.
    """
    found = {}
    for name in [recipe.base, *recipe.sources]:
        reference = split_reference(name) if name else None
        if reference is None:
            continue
        record = store.run(reference[0])
        candidate = store.pick(record.id, reference[1])
        other = Recipe.from_yaml(record.recipe, f"The recipe of run {record.id}")
        found[name] = Ancestor(
            record.recipe,
            ancestors(other, store),
            candidate.stage,
            recorded_winners(store, record.id, other, candidate.stage),
            candidate.genome,
        )
    return found


def reopen_models(recipe: Recipe, known: Mapping[str, Ancestor]) -> "list[Model]":
    """As `open_models`, where no store is at hand; ``known`` are the recipe's `ancestors`."""
    from studio.models import open_source

    return [
        _born_again(name, known[name]) if name in known else open_source(name)
        for name in [recipe.base, *recipe.sources]
        if name
    ]


def _born_again(name: str, ancestor: Ancestor) -> "Virtual":
    recipe = Recipe.from_yaml(ancestor.recipe)
    models = reopen_models(recipe, ancestor.ancestors)
    space = won_space(recipe, models, ancestor.stage, ancestor.winners)
    return space.checkpoint(ancestor.genome, unquantized(recipe, space.sources), name)


def build_space(
    recipe: Recipe,
    stage: Stage,
    models: "Sequence[Model]",
    winners: "Mapping[str, Virtual] | None" = None,
) -> Space:
    """Lay out the genome of a stage.

    Args:
        models: of `open_models`.
        winners: by stage; those of ``stage.pool`` lead the pool of a data-flow space.

    Raises:
        StudioError: the models do not fit.
    """
    from studio.merge.data_flow import DataFlowSpace
    from studio.merge.live import speaker
    from studio.merge.methods import METHODS
    from studio.merge.parameter_space import ParameterSpace
    from studio.models import check_compatible
    from studio.models.vocabulary import Aligned, align, with_pictures

    base, sources = (models[0], models[1:]) if recipe.base else (None, models)
    options: dict[str, Any] = stage.space.model_dump(exclude={"type", "sources"})
    if isinstance(stage.space, Parameter):
        vocabulary = with_pictures(recipe.vocabulary, base, sources)
        check_compatible(base, sources, vocabulary)
        needs_base = METHODS[stage.space.method].needs_base
        base, sources = align(base, sources, vocabulary, with_base=needs_base)
        space = ParameterSpace(base, sources, seed=recipe.seed, **options)
        if vocabulary != "same" and isinstance(voice := speaker(space), Aligned):
            voice.check_end()
        return space
    by_name = dict(zip(recipe.sources, sources, strict=True))
    lenders = [by_name[name] for name in stage.space.sources or recipe.sources]
    # two searches may have found the same merge, whose layers need lending once
    pool: dict[Any, Model] = {}
    for name in stage.pool:
        model = (winners or {})[name]
        pool.setdefault(model.path, model)
    return DataFlowSpace([*pool.values(), *lenders], **options)


def first_space(recipe: Recipe, store: Store | None = None) -> Space:
    """The space of the recipe's first search; raises as `open_models` and `build_space`."""
    return build_space(recipe, recipe.stages()[0], open_models(recipe, store))


def check(recipe: Recipe, models: "Sequence[Model]") -> None:
    """Lay out the spaces of all stages over the models of `open_models`.

    Raises:
        StudioError: the models do not fit.
    """
    winners: dict[str, Any] = {}
    for number, stage in enumerate(recipe.stages()):
        space = build_space(recipe, stage, models, winners)
        # any merge will do, they all have one form; but no two may be the same model
        genome = np.random.default_rng(number).uniform(space.lower, space.upper)
        precision = unquantized(recipe, space.sources)
        winners[stage.name] = space.checkpoint(genome, precision, stage.name)


def unquantized(recipe: Recipe, sources: "Sequence[Model]") -> str:
    """The precision in which candidates are exported, and passed on to a next stage.

    That of the recipe; of a quantized one, "fp32" where a source lies in that, else "bf16".
    """
    import torch

    if not recipe.quantized:
        return recipe.precision
    return "fp32" if any(s.stored in (torch.float32, torch.float64) for s in sources) else "bf16"


def winner_name(candidate: Candidate) -> str:
    """What a stage's winner is called as a source of the next."""
    return f"{candidate.stage} #{candidate.id}"


@dataclass(frozen=True)
class Winner:
    """A stage's winner as a source of the next: its name there, its genome (float64 [d])."""

    name: str
    genome: np.ndarray


def recorded_winners(store: Store, run: str, recipe: Recipe, name: str) -> dict[str, Winner]:
    """The winners, by stage, that the space of a stage builds on."""
    stage = next(stage for stage in recipe.stages() if stage.name == name)
    winners = {}
    for earlier in stage.pool:
        winners |= recorded_winners(store, run, recipe, earlier)
        candidate = store.best(run, earlier)
        winners[earlier] = Winner(winner_name(candidate), candidate.genome)
    return winners


def won_space(
    recipe: Recipe, models: "Sequence[Model]", name: str, winners: Mapping[str, Winner]
) -> Space:
    """The space of a stage, given the winners it builds on; raises as `build_space`."""
    stage = next(stage for stage in recipe.stages() if stage.name == name)
    pool = {}
    for earlier in stage.pool:
        winner = winners[earlier]
        space = won_space(recipe, models, earlier, winners)
        pool[earlier] = space.checkpoint(
            winner.genome, unquantized(recipe, space.sources), winner.name
        )
    return build_space(recipe, stage, models, pool)


def recorded_space(
    store: Store, run: str, recipe: Recipe, models: "Sequence[Model]", name: str
) -> Space:
    """The space of a stage whose pool's winners are recorded; raises as `build_space`."""
    return won_space(recipe, models, name, recorded_winners(store, run, recipe, name))


def rebuild_space(store: Store, run: str, stage: str) -> Space:
    """The space of a recorded run's stage, over the very models it was begun with.

    Raises:
        StudioError: a model is gone or has changed.
    """
    record = store.run(run)
    recipe = Recipe.from_yaml(record.recipe, f"The recipe of run {record.id}")
    models = open_models(recipe, store)
    inputs.check(store, record.id, inputs.of_models(models))
    return recorded_space(store, record.id, recipe, models, stage)


def rebuild(store: Store, run: str, candidate: Candidate, name: str) -> "Virtual":
    """A recorded candidate as a checkpoint; raises as `rebuild_space`."""
    recipe = Recipe.from_yaml(store.run(run).recipe)
    space = rebuild_space(store, run, candidate.stage)
    precision = unquantized(recipe, space.sources)
    return space.checkpoint(candidate.genome, precision, name)
