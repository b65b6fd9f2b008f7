"""The steps a user takes, one function each: what the terminal, the page and notebooks all call.

    >>> from studio import api
    >>> run = api.evolve("recipes/quick.yaml")          # doctest: +SKIP
    >>> api.export(run, "my-model")                     # doctest: +SKIP

Knows how the rooms fit together. Refuses to know how anything is shown, and adds nothing a room
could do itself. ``store`` is always the workspace's own when left out.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.evolve.plan import Plan
from studio.evolve.plan import plan as plan_recipe
from studio.evolve.spaces import check, first_space, open_models, rebuild_space, unquantized
from studio.merge.space import Space
from studio.recipe import Recipe
from studio.runs import Candidate, Evaluation, Progress, Run, Store
from studio.runs import progress as reading
from studio.runs.lock import is_held
from studio.runs.records import FINISHED, QUEUED, STOPPED, split_reference
from studio.workspace import ASSETS, subfolder, workspace
from studio.yaml_page import page_text, read_page

__all__ = [
    "card", "cards", "curve", "delete", "describe", "evaluate", "evolve", "export", "front",
    "memory", "merge", "models", "open_store", "plan", "progress", "push", "report", "restart",
    "resume", "scores_of", "start", "stop", "strip", "subject", "take_up",
]  # fmt: skip

SAMPLE_RUN = ASSETS / "sample-run.sqlite"
#: Rows 5 and 6 of the paper's table in miniature; row 4 is the sample run (`studio.paper`).
PAPER_RUNS = ASSETS / "paper-runs.sqlite"
OnProgress = Callable[[Progress], None]
#: Told (bytes written, bytes in all) of a checkpoint's weights.
OnBytes = Callable[[int, int], None]


def open_store() -> Store:
    """The workspace's store, with the bundled finished runs in it."""
    store = Store()
    for bundle in (SAMPLE_RUN, PAPER_RUNS):
        if bundle.is_file():
            store.import_runs(bundle)
    return store


def bundled_runs() -> list[str]:
    """The ids of the runs that come with the Studio, the sample run first."""
    store = Store(":memory:")
    return [
        run
        for bundle in (SAMPLE_RUN, PAPER_RUNS)
        if bundle.is_file()
        for run in store.import_runs(bundle)
    ]


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

    recipe = _recipe(recipe)
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


# ── runs ──────────────────────────────────────────────────────────────────────────────────────


def create(recipe: Recipe | str | Path, store: Store | None = None) -> str:
    """Record a queued run of a recipe whose models and tasks were checked; returns its id."""
    store = store or Store()
    recipe = _anchored(_recipe(recipe), store)
    check(recipe, open_models(recipe, store))
    searched = sum(item.task is not None for item in recipe.objectives)
    for number, task in enumerate(recipe.build_tasks()):
        if number < searched:
            task.examples("dev")
        task.examples("test")
    return store.create_run(recipe.name, recipe.to_yaml())


def evolve(
    recipe: Recipe | str | Path, store: Store | None = None, on_progress: OnProgress | None = None
) -> str:
    """Run a recipe from start to report in this process; returns the run's id.

    Raises:
        StudioError: a recipe, model or task is not usable.
    """
    store = store or Store()
    return resume(create(recipe, store), store, on_progress)


def resume(run: str, store: Store | None = None, on_progress: OnProgress | None = None) -> str:
    """Go on with a run in this process, from whatever its record holds; returns its id."""
    from studio.evolve.loop import work

    store = store or Store()
    run = store.run(run).id
    step = (lambda: on_progress(progress(run, store))) if on_progress else (lambda: None)
    work(store, run, step)
    return run


def start(recipe: Recipe | str | Path, store: Store | None = None) -> str:
    """As :func:`evolve`, but by a worker process that outlives this one; returns the run's id."""
    store = store or Store()
    subfolder(store.folder, "logs")  # before a run is recorded that could not be started
    run = create(recipe, store)
    _spawn(run, store)
    return run


def restart(run: str, store: Store | None = None) -> str:
    """As :func:`resume`, by a worker process that outlives this one.

    Raises:
        StudioError: the run is finished, or a process works on it already.
    """
    store = store or Store()
    record = store.run(run)
    if record.status == FINISHED:
        raise StudioError(f"Run {record.id} is finished; there is nothing left to resume.")
    if is_held(store, record.id):
        raise StudioError(f"Run {record.id} is being worked on already; watch it or stop it first.")
    subfolder(store.folder, "logs")
    store.set_status(record.id, QUEUED)
    _spawn(record.id, store)
    return record.id


def take_up(run: str, store: Store) -> None:
    """What a worker process does: resume the run, unless it was stopped before it got there."""
    record = store.run(run)
    if record.status == QUEUED and record.stop:
        store.set_status(record.id, STOPPED)
    else:
        resume(record.id, store)


def stop(run: str, store: Store | None = None) -> None:
    """Ask a run to stop within a batch; returns at once. What was recorded is kept."""
    store = store or Store()
    store.request_stop(store.run(run).id)


def delete(run: str, store: Store | None = None) -> None:
    """Forget a run that nobody works on."""
    store = store or Store()
    record = store.run(run)
    if is_held(store, record.id):
        raise StudioError(f"Run {record.id} is being worked on; stop it before deleting it.")
    store.delete_run(record.id)


def _spawn(run: str, store: Store) -> None:
    store.append(run, "queued", {})
    detach(["worker", run, "--store", store.path], run, store)


def detach(arguments: list[str], name: str, store: Store) -> None:
    """Run a command of the Studio in a process that outlives this one; its log is NAME.log."""
    logs = subfolder(store.folder, "logs")
    detached: dict[str, Any] = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
        if os.name == "nt"
        else {"start_new_session": True}
    )
    root = Path(__file__).resolve().parent.parent
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    with (logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "studio", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            **detached,
        )
    # A child that ended stays a zombie until somebody waits for it.
    threading.Thread(target=process.wait, daemon=True).start()


# ── reading a run ─────────────────────────────────────────────────────────────────────────────


def progress(run: str, store: Store | None = None) -> Progress:
    """Where a run stands now: see :class:`studio.runs.Progress`."""
    return reading.progress(store or Store(), run)


def curve(run: str, store: Store | None = None) -> dict[str, list[tuple[int, float]]]:
    """Best score so far after each scored candidate, per stage: [(count, best), …]."""
    store = store or Store()
    return reading.curve(store, store.run(run).id)


def front(run: str, store: Store | None = None) -> list[Candidate]:
    """The candidates of a run's own (last) search that no other beats in every objective.

    Of a single objective that is the best one. Until a second search begins it is the first's.
    """
    from studio.runs.front import front as not_dominated

    store = store or Store()
    record = store.run(run)
    own = [s for s in Recipe.from_yaml(record.recipe).stages() if not s.baseline]
    for stage in reversed(own):
        found = not_dominated(store.ranked(record.id, stage.name), stage.objectives)
        if found:
            return found
    return []


def report(run: str, store: Store | None = None) -> list[dict[str, Any]]:
    """Test scores of a run, with 95 % intervals; empty before the search has ended.

    Returns:
        rows of model, role (base | source | evolved | exported | random), task, score, low,
        high (0 to 1), n (examples) and subject.
    """
    store = store or Store()
    record = store.run(run)
    return [
        scores_of(evaluation, *_label(evaluation.subject, record.id, store))
        for evaluation in store.evaluations(record.id, "test")
    ]


def scores_of(evaluation: Evaluation, model: str, role: str) -> dict[str, Any]:
    """One evaluation as a row of a report."""
    from studio.evolve.statistics import interval

    low, high = interval([outcome.score for outcome in evaluation.outcomes])
    return {
        "model": model,
        "role": role,
        "task": evaluation.task,
        "score": evaluation.score,
        "low": low,
        "high": high,
        "n": len(evaluation.outcomes),
        "subject": evaluation.subject,
    }


def strip(
    run: str, task: str | None = None, split: str = "test", store: Store | None = None
) -> list[dict[str, Any]]:
    """The paper's figure: per question, which of base, sources and best candidates are right.

    Returns:
        rows of label, role, subject and outcomes (a list of
        :class:`studio.runs.Outcome`, the same examples in the same order in every row).
    """
    store = store or Store()
    record = store.run(run)
    task = task or Recipe.from_yaml(record.recipe).task_names()[0]
    found = [e for e in store.evaluations(record.id, split) if e.task == task]
    if split == "dev" and (best := store.best(record.id)):
        evaluation = store.evaluation(record.id, f"candidate:{best.id}", task, split)
        found += [evaluation] if evaluation else []
    rows = []
    for evaluation in found:
        label, role = _label(evaluation.subject, record.id, store)
        rows.append(
            {
                "label": label,
                "role": role,
                "subject": evaluation.subject,
                "outcomes": list(evaluation.outcomes),
            }
        )
    return rows


def _label(subject: str, run: str, store: Store) -> tuple[str, str]:
    """How a report calls a subject, and the role it plays in the run."""
    kind, _, name = subject.partition(":")
    if kind == "model":
        base = Recipe.from_yaml(store.run(run).recipe).base
        return name, "base" if name == base else "source"
    if kind == "export":
        return f"evolved (#{name}), as exported", "exported"
    found = store.candidate(run, int(name)).stage
    stages = Recipe.from_yaml(store.run(run).recipe).stages()
    stage = next(stage for stage in stages if stage.name == found)
    if stage.baseline:
        return f"best of random search (#{name})", "random"
    if stage.final:
        return f"evolved (#{name})", "evolved"
    return f"evolved, {stage.name} (#{name})", "stage"


# ── models of a run ───────────────────────────────────────────────────────────────────────────


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

    recipe = _recipe(recipe)
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


def push(folder: str | Path, repository: str, public: bool = False) -> str:
    """Upload an export to the hub, private unless ``public``; returns the repository's address.

    Raises:
        StudioError: no finished export, no ``owner/name``, no token in the environment, a public
            repository for a private export, or a hub that cannot be reached or refuses.
    """
    from studio.merge.push import push as upload

    return upload(folder, repository, public)


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
    recipe = _recipe(recipe)
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


def _recipe(recipe: Recipe | str | Path) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)


def _anchored(recipe: Recipe, store: Store) -> Recipe:
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
