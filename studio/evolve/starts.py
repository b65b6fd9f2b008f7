"""Where a search begins: at its space's own start, the best uniform merge, or where another ended.

Knows which uniform merges are worth a look, and what a genome of one space is in another. What was
taken from another run is recorded with the new one, which never needs that other again. Refuses to
score anything, and to search.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from studio.errors import StudioError
from studio.evolve import spaces
from studio.merge.data_flow import SURE, DataFlowSpace
from studio.merge.parameter_space import ParameterSpace, Part, Setting, layer_of
from studio.merge.space import Space
from studio.recipe import Recipe, Stage
from studio.runs.front import front
from studio.runs.records import Candidate, Event, rank
from studio.runs.store import Store

if TYPE_CHECKING:
    from studio.models import Model

#: The event that says where a stage's optimizer begins, where that is not its space's own start.
ORIGIN = "origin"
#: Uniform merges: every source with the same weight, or one before the others.
WEIGHTS = (2 / 3, 1 / 3, 1.0)
REST = 1 / 3
#: With the first of them; the others are tried where all sources weigh the same.
DENSITIES = (0.5, 0.25, 1.0)
#: Of slerp.
TS = (0.5, 0.25, 0.75)


def uniform(space: ParameterSpace, most: int) -> list[np.ndarray]:
    """Merges that treat all layers alike, float64 ``[d]`` each, the likeliest first, ``most`` of
    them at most; no two are the same model."""
    count = len(space.sources)
    if "t" in space.method.genes:
        settings = [Setting(t=t) for t in TS]
    else:
        even = [(weight,) * count for weight in WEIGHTS]
        leading = [
            tuple(weight if index == leader else REST for index in range(count))
            for weight in (1.0, 2 / 3)
            for leader in range(count)
        ]
        settings = [Setting(weights, (DENSITIES[0],) * count) for weights in even + leading]
        if "density" in space.method.genes:
            settings += [
                Setting(weights, (density,) * count)
                for density in DENSITIES[1:]
                for weights in even
            ]
    found = {}
    for setting in settings:
        genome = space.initial.copy()
        for part in space.parts:
            for (kind, index), gene in part.genes.items():
                genome[gene] = _value(setting, kind, index)
        found.setdefault(space.phenotype(genome), genome)
    return list(found.values())[:most]


def _value(setting: Setting, kind: str, index: int) -> float | None:
    """A gene's value; None where the setting does not say."""
    if kind == "t":
        return setting.t
    values = setting.weights if kind == "weight" else setting.densities
    return values[index] if values else None


# ── from another run ──────────────────────────────────────────────────────────────────────────


def taken(recipe: Recipe, models: "Sequence[Model]", store: Store) -> dict[str, dict]:
    """What a recipe's own searches begin with, by stage, if it starts where another run ended.

    Returns:
        payloads of the event `ORIGIN`, to be recorded with the new run.

    Raises:
        StudioError: there is no such run, it found nothing, or nothing that fits.
    """
    if not recipe.search.warm:
        return {}
    run = store.run(recipe.search.start).id
    other = Recipe.from_yaml(store.run(run).recipe, f"The recipe of run {run}")
    ended = [
        stage for stage in other.stages() if not stage.baseline and store.best(run, stage.name)
    ]
    if not ended:
        raise StudioError(f"Run {run} has no scored candidate yet to start from; wait for one.")
    opened = models if _same_models(recipe, other) else spaces.open_models(other, store)
    found, winners = {}, {}
    own = [stage for stage in recipe.stages() if not stage.baseline]
    for number, stage in enumerate(own):
        space = spaces.build_space(recipe, stage, models, winners)
        # any merge will do for the next one's pool, they all have one form
        genome = np.random.default_rng(number).uniform(space.lower, space.upper)
        precision = spaces.unquantized(recipe, space.sources)
        winners[stage.name] = space.checkpoint(genome, precision, stage.name)
        fitting = [old for old in ended if old.space.type == stage.space.type]
        if not fitting:
            continue
        old = next((old for old in fitting if old.name == stage.name), fitting[-1])
        before = spaces.recorded_space(store, run, other, opened, old.name)
        candidates = _found(store, run, old, several=len(stage.objectives) > 1)
        genomes = [translated(before, c.genome, space) for c in candidates]
        found[stage.name] = payload(stage, candidates, genomes) | {"run": run}
    if not found:
        words = " or ".join(sorted({stage.space.type.replace("_", "-") for stage in own}))
        raise StudioError(
            f"search.start: run {run} searched no {words} space; start from a run that did, or "
            "leave it out."
        )
    return found


def _same_models(one: Recipe, other: Recipe) -> bool:
    return (one.base, one.sources) == (other.base, other.sources)


def _found(store: Store, run: str, stage: Stage, several: bool) -> list[Candidate]:
    """What a stage reports, and where a front is wanted, the rest of its front."""
    best = store.best(run, stage.name)
    others = front(store.ranked(run, stage.name), stage.objectives) if several else []
    return [best, *(c for c in others if c.id != best.id)]


def translated(old: Space, genome: np.ndarray, new: Space) -> np.ndarray:
    """What a genome of one space is in another of the same kind, float64 ``[d]``.

    A group takes the setting that the old merge had for its middle layer. Sources go by their
    names; one that was not there begins as it would have without.

    Raises:
        StudioError: the one says nothing about the other.
    """
    if isinstance(old, ParameterSpace) and isinstance(new, ParameterSpace):
        return _mixed(old, genome, new)
    return _routed(old, genome, new)


def _mixed(old: ParameterSpace, genome: np.ndarray, new: ParameterSpace) -> np.ndarray:
    names = [source.name for source in old.sources]
    places = {i: names.index(s.name) for i, s in enumerate(new.sources) if s.name in names}
    slerp = ["t" in space.method.genes for space in (old, new)]
    if not places or slerp[0] != slerp[1] or (all(slerp) and places != {0: 0, 1: 1}):
        raise StudioError(
            f"search.start: that run mixed {', '.join(names)} with {old.method.name}, which says "
            "nothing about these sources and this method; leave it out."
        )
    before, found = old.settings(genome), new.initial.copy()
    for part in new.parts:
        setting = next((before[name] for name in _middle_first(part) if name in before), None)
        if setting is None:
            raise StudioError(
                f"search.start: that run's models have nothing like {part.group} of these; leave "
                "it out."
            )
        for (kind, index), gene in part.genes.items():
            value = _value(setting, kind, places[index]) if index in places or slerp[0] else None
            if value is not None:
                found[gene] = value
    return np.clip(found, new.lower, new.upper)


def _middle_first(part: Part) -> list[str]:
    """A part's tensors, those of its middle layer before the others."""
    middle = part.layers[len(part.layers) // 2] if part.layers else None
    return sorted(part.tensors, key=lambda name: layer_of(name) != middle)


def _routed(old: DataFlowSpace, genome: np.ndarray, new: DataFlowSpace) -> np.ndarray:
    path = old.path(genome)
    if _form(old) != _form(new) or len(path) > (new.max_length or len(path)):
        raise StudioError(
            f"search.start: that run's paths lead through {', '.join(_form(old)[0])} with "
            f"{old.repeats} repeats, and the best has {len(path)} layers; start with the same "
            "sources, repeats, scaling and max_length, or leave it out."
        )
    found = np.array(genome, np.float64)
    kept = [step.slot for step in path if step.slot is not None]
    found[: len(new.slots)] = -SURE  # as sure as a search is of the main model's own layers
    found[kept] = SURE
    return found


def _form(space: DataFlowSpace) -> tuple:
    """What two spaces must have in common for a genome to mean the same path in both.

    Another run's winner has another number, and is the same source all the same.
    """
    names = [re.sub(r" #\d+$", "", name) for name in space.called]
    return names, space.layers, space.repeats, space.scaling, len(space.genes)


# ── the record ────────────────────────────────────────────────────────────────────────────────


def payload(stage: Stage, candidates: Sequence[Candidate], genomes: Sequence[np.ndarray]) -> dict:
    """Of the event `ORIGIN`: genomes to the bit, the best first, and whose they were."""
    return {
        "stage": stage.name,
        "candidates": [candidate.id for candidate in candidates],
        "genomes": [[float(gene).hex() for gene in genome] for genome in genomes],
    }


def best_of(stage: Stage, candidates: Sequence[Candidate]) -> dict:
    """`payload` of the best among scored candidates, and of several objectives of their front."""
    best = min(candidates, key=rank)
    others = front(candidates, stage.objectives) if len(stage.objectives) > 1 else []
    found = [best, *(c for c in others if c.id != best.id)]
    return payload(stage, found, [candidate.genome for candidate in found])


def recorded(event: Event) -> list[np.ndarray]:
    """The genomes of an event `ORIGIN`."""
    return [np.array(list(map(float.fromhex, genes))) for genes in event.payload["genomes"]]
