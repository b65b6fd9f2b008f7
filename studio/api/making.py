"""Models made: a candidate asked again or taken home, and merges without a search."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studio.api.reading import report, scores_of
from studio.api.recipes import as_recipe
from studio.errors import StudioError
from studio.evolve.spaces import first_space, rebuild_space, unquantized
from studio.merge.space import Space
from studio.recipe import Recipe
from studio.runs import Candidate, Evaluation, Run, Store
from studio.runs.records import split_reference
from studio.workspace import subfolder, workspace
from studio.yaml_page import page_text, read_page

#: Told (bytes written, bytes in all) of a checkpoint's weights.
OnBytes = Callable[[int, int], None]


def subject(name: str, store: Store | None = None) -> tuple[Run, Candidate, Space] | None:
    """What 'RUN:best' or 'RUN:12' means; None if the name is no candidate's.

    Raises:
        StudioError: there is no such run or candidate, or one of its models changed since.
    """
    found = split_reference(name)
    if found is None or Path(name).exists():
        return None
    return _rebuilt(*found, store or Store())


def _rebuilt(run: str, which: str | int | None, store: Store) -> tuple[Run, Candidate, Space]:
    """A run, a candidate of it (the best if none is named), and the space it is a genome of."""
    record = store.run(run)
    candidate = store.pick(record.id, "best" if which is None else which)
    return record, candidate, rebuild_space(store, record.id, candidate.stage)


def evaluate(
    model: str,
    task: str,
    split: str = "test",
    options: Mapping[str, Any] | None = None,
    examples: int | None = None,
    store: Store | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
) -> Evaluation:
    """Score one model on a task's split, without recording it.

    Args:
        model: a source, or 'RUN:best' or 'RUN:12' for a candidate.
        examples: how many, from the beginning of the split; all when left out.
        batch_size: prompts decoded together; a candidate's recipe says it by default, else 128.
        precision: "fp32", "bf16", "int8" or "nf4"; by default what a candidate's recipe says,
            else "fp32", as in a recipe that says nothing.
    """
    from studio.evolve import evaluate as evaluation
    from studio.evolve.generate import GREEDY, Decoding
    from studio.models import open_source
    from studio.models.packed_model import load_packed
    from studio.models.precision import QUANTIZED, default_device, dtype_of
    from studio.tasks import load_task

    loaded = load_task(task, **(options or {}))
    chosen = loaded.examples(split)[:examples]
    found = subject(model, store)
    if found:
        record, candidate, space = found
        recipe = Recipe.from_yaml(record.recipe)
        batch_size = batch_size or (128 if recipe.batch_size == "auto" else recipe.batch_size)
        precision = precision or recipe.precision
        live = space.live(precision, recipe.base_storage)
        live.apply(candidate.genome)
        speaker, tokenizer, processor = live.model, live.tokenizer, live.processor
        decoding = Decoding(**recipe.decoding.model_dump())
    else:
        checkpoint = open_source(model)
        if precision in QUANTIZED:
            speaker = load_packed(checkpoint, precision, default_device())
        else:
            speaker = checkpoint.load(dtype_of(precision or "fp32"), default_device())
        tokenizer, processor = checkpoint.tokenizer(), checkpoint.processor()
        decoding = GREEDY
    return evaluation.evaluate(
        speaker,
        tokenizer,
        loaded,
        chosen,
        subject=model if found else f"model:{model}",
        split=split,
        batch_size=batch_size or 128,
        processor=processor,
        decoding=decoding,
    )


def card(run: str, candidate: int | None = None, store: Store | None = None) -> str:
    """The model card (Markdown with YAML front matter) that :func:`export` would write."""
    store = store or Store()
    return _card(*_rebuilt(run, candidate, store), store)


def export(
    run: str,
    out: str | Path,
    candidate: int | None = None,
    store: Store | None = None,
    on_bytes: OnBytes | None = None,
    push: str | None = None,
    public: bool = False,
) -> Path:
    """Write a candidate (the best if none is named) as an ordinary checkpoint folder.

    Args:
        on_bytes: told (bytes written, bytes in all) of the weights.
        push: a repository to upload it to as well, as :func:`push` does.

    Returns:
        the folder: safetensors, tokenizer, config, model card, recipe and mergekit YAML.

    Raises:
        StudioError: no such run or candidate, or the folder cannot be written; nothing is left
            half-written. Or the push failed, which leaves the folder.
    """
    from studio.merge import push as hub
    from studio.merge.export import export as write

    if push is not None:
        hub.check(push)
    store = store or Store()
    record, chosen, space = _rebuilt(run, candidate, store)
    precision = unquantized(Recipe.from_yaml(record.recipe), space.sources)
    merged = space.checkpoint(chosen.genome, precision, f"{record.id}:{chosen.id}")
    folder = write(
        merged,
        Path(out),
        card=_card(record, chosen, space, store),
        recipe_yaml=record.recipe,
        on_bytes=on_bytes,
    )
    if push is not None:
        hub.push(folder, push, public)
    return folder


def push(
    folder: str | Path, repository: str, public: bool = False, token: str | bool | None = None
) -> str:
    """Upload an export to the hub, private unless ``public``; returns the repository's address.

    Args:
        token: to write with; by default that of whoever is served, or this machine's own.

    Raises:
        StudioError: no finished export, no ``owner/name``, no token in the environment, a public
            repository for a private export, or a hub that cannot be reached or refuses.
    """
    from studio.merge.push import push as upload

    return upload(folder, repository, public, token)


def _card(record: Run, candidate: Candidate, space: Space, store: Store) -> str:
    from studio.merge.card import model_card

    return model_card(
        title=f"{record.name} (candidate {candidate.id} of run {record.id})",
        recipe=record.recipe,
        space=space,
        genome=candidate.genome,
        scores=_card_scores(record.id, candidate.id, store),
        lineage=_lineage(record, candidate),
    )


def _lineage(record: Run, candidate: Candidate) -> dict[str, Any]:
    """Where a candidate comes from, for its card."""
    return {
        "run": record.id,
        "candidate": candidate.id,
        "proposed by": f"{candidate.stage}, generation {candidate.generation}",
    }


def _card_scores(run: str, number: int, store: Store) -> list[dict[str, Any]]:
    """The report, for a candidate that is in it; else what the search measured of it, on dev."""
    rows = report(run, store)
    if any(row["subject"] == f"candidate:{number}" for row in rows):
        return [{**row, "split": "test"} for row in rows]
    tasks = Recipe.from_yaml(store.run(run).recipe).task_names()
    found = [store.evaluation(run, f"candidate:{number}", task, "dev") for task in tasks]
    return [
        {**scores_of(evaluation, f"this model (#{number})", "evolved"), "split": "dev"}
        for evaluation in found
        if evaluation is not None
    ]


def merge(
    recipe: Recipe | str | Path,
    out: str | Path,
    weights: Mapping[str, float] | None = None,
    density: float | None = None,
    t: float | None = None,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Merge a recipe's sources without a search, and write the result as :func:`export` does.

    Args:
        recipe: or the file of a mergekit configuration, which is merged as it says.
        weights: source → weight, the same for all layers; the search's start, 0.5, when left out.
        density: of every source, for methods that have one.
        t: of slerp: 0 is the first source, 1 the second.
        on_bytes: told (bytes written, bytes in all) of the weights.
    """
    from studio.merge.card import model_card
    from studio.merge.export import export as write

    if isinstance(recipe, str | Path):
        where = f"The recipe {recipe}"
        text = page_text(Path(recipe), where)
        document = read_page(text, where)
        if isinstance(document, dict) and "merge_method" in document:
            if weights or density is not None or t is not None:
                raise StudioError(
                    f"{recipe} is a mergekit configuration, which says all weights itself; leave "
                    "weight, density and t out."
                )
            return _merge_configuration(Path(recipe), text, Path(out), on_bytes)
    recipe = as_recipe(recipe)
    if recipe.stages()[0].space.type != "parameter":
        raise StudioError(
            "A path is not merged by weights; evolve the recipe, or give it a parameter space."
        )
    space = first_space(recipe)
    genome = space.initial.copy()
    weights = dict(weights or {})
    if unknown := set(weights) - set(recipe.sources):
        raise StudioError(
            f"'{min(unknown)}' is no source of the recipe; its sources are "
            f"{', '.join(recipe.sources)}."
        )
    kinds = {gene.kind for gene in space.genes}
    for name, given in (("weight", weights), ("density", density), ("t", t)):
        if given and name not in kinds:
            raise StudioError(f"The method {space.method.name} has no {name}; leave it out.")
    for index, gene in enumerate(space.genes):
        value = {"weight": weights.get(gene.source or ""), "density": density, "t": t}[gene.kind]
        if value is not None:
            genome[index] = value
    title = recipe.name
    text = recipe.to_yaml()
    card = model_card(title=title, recipe=text, space=space, genome=genome)
    merged = space.checkpoint(genome, unquantized(recipe, space.sources), title)
    return write(merged, Path(out), card=card, recipe_yaml=text, on_bytes=on_bytes)


def _merge_configuration(path: Path, text: str, out: Path, on_bytes: OnBytes | None) -> Path:
    """Merge as a mergekit configuration says."""
    from studio.evolve.spaces import open_model
    from studio.merge.card import fixed_card
    from studio.merge.export import export as write
    from studio.merge.fixed import FixedMerge
    from studio.merge.mergekit_import import Configuration

    def by_name(name: str):
        # mergekit names the base of an adapter first, the Studio the adapter
        base, plus, adapter = name.partition("+")
        return open_model(f"{adapter}+{base}" if plus and not Path(name).exists() else name)

    configuration = Configuration.from_yaml(text, f"The mergekit configuration {path}")
    merged = FixedMerge(configuration, by_name, path.stem)
    return write(merged, out, card=fixed_card(path.stem, merged), on_bytes=on_bytes)


def exports() -> Path:
    """Where the page writes exports: a folder of the workspace."""
    return subfolder(workspace(), "exports")
