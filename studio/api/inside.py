"""One candidate looked into: what it is made of, what it answered, and how two of them differ.

Knows the run's record and the space that a genome is of. Refuses to know how any of it is shown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store
from studio.runs.statistics import interval

#: The order in which a strip has its rows: the base first, what evolved last, as in the paper.
_ORDER = {"base": 0, "source": 1, "random": 2, "stage": 3, "exported": 4, "evolved": 5}


@dataclass(frozen=True)
class Inside:
    """What a candidate is made of.

    Attributes:
        number: the candidate's.
        kind: "parameter" | "data_flow".
        sources: names of the models that it takes from; of a path, the main one first.
        rows: of ``ParameterSpace.table`` or ``DataFlowSpace.table``.
    """

    number: int
    kind: str
    sources: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Asked:
    """What several models answered to the same questions.

    Attributes:
        split: "test" if the candidate was reported, else "dev".
        rows: label, role, subject and outcomes, of which every row has the same examples in the
            same order; the candidate's is the last.
    """

    split: str
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Reference:
    """A score to measure candidates by, with its 95 % interval, all in [0, 1]."""

    subject: str
    role: str
    score: float
    low: float
    high: float


def inside(run: str, which: str | int = "best", store: Store | None = None) -> Inside:
    """What a candidate is made of: its weights by layer group, or its path through layers.

    Raises:
        StudioError: no such run or candidate, or a model of it is gone or has changed.
    """
    from studio.evolve.spaces import rebuild_space

    store = store or Store()
    candidate = store.pick(run, which)
    space = rebuild_space(store, run, candidate.stage)
    names = tuple(source.name for source in space.sources)
    return Inside(candidate.id, space.kind, names, tuple(space.table(candidate.genome)))


def asked(
    run: str,
    task: str,
    which: str | int | None = "best",
    beside: int | None = None,
    store: Store | None = None,
) -> Asked:
    """A candidate's answers to a task beside those of base, sources and who else was reported.

    The test questions if the candidate was reported, else the search's own; empty if it was never
    asked this task.

    Args:
        which: the candidate; None before there is one: the sources' answers alone.
        beside: another candidate that is to have a row, if it was asked the same.
    """
    store = store or Store()
    candidates = [which] if which is not None else []
    numbers = [store.pick(run, name).id for name in candidates]
    if beside is not None and beside not in numbers:
        numbers.append(store.pick(run, beside).id)
    # two are compared where both were asked, if there is such a split
    for needed in (numbers, numbers[:1]):
        for split in ("test", "dev"):
            found = {
                number: evaluation
                for number in numbers
                if (evaluation := store.evaluation(run, f"candidate:{number}", task, split))
            }
            if any(number not in found for number in needed):
                continue
            others = [e for e in store.evaluations(run, split) if e.task == task]
            rows = _rows(run, store, [*others, *found.values()], numbers)
            if rows:
                return Asked(split, tuple(rows))
    return Asked("dev", ())


def _rows(
    run: str, store: Store, found: Sequence[Evaluation], numbers: Sequence[int]
) -> list[dict[str, Any]]:
    """Rows of those that answered the same questions, the looked-into candidate last.

    Of a front's other members only the winner has a row: a front may be long.
    """
    best = store.best(run)
    wanted = [f"candidate:{number}" for number in numbers]
    winner = f"candidate:{best.id}" if best else ""
    rows = {}
    for evaluation in found:
        subject = evaluation.subject
        role = role_of(subject, run, store)
        if role == "evolved" and subject not in (*wanted, winner):
            continue
        rows[subject] = {
            "label": subject.partition(":")[2],
            "role": role,
            "subject": subject,
            "outcomes": list(evaluation.outcomes),
        }
    last = {subject: place for place, subject in enumerate(reversed(wanted), start=1)}
    ordered = sorted(rows.values(), key=lambda r: (last.get(r["subject"], 0), _ORDER[r["role"]]))
    return _shared(ordered)


def _shared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the questions that one of them was not asked."""
    if not rows:
        return rows
    by_name = [{outcome.example: outcome for outcome in row["outcomes"]} for row in rows]
    names = [name for name in by_name[-1] if all(name in other for other in by_name)]
    return [
        row | {"outcomes": [outcomes[name] for name in names]}
        for row, outcomes in zip(rows, by_name, strict=True)
        if names
    ]


def role_of(subject: str, run: str, store: Store) -> str:
    """The role a subject plays in a run: base | source | random | stage | exported | evolved."""
    kind, _, name = subject.partition(":")
    recipe = Recipe.from_yaml(store.run(run).recipe)
    if kind == "model":
        return "base" if name == recipe.base else "source"
    if kind == "export":
        return "exported"
    found = store.candidate(run, int(name)).stage
    stage = next(stage for stage in recipe.stages() if stage.name == found)
    return "random" if stage.baseline else "evolved" if stage.final else "stage"


def references(run: str, store: Store | None = None) -> list[Reference]:
    """What a single-objective search is measured by, on its own questions.

    The base, the sources, and the best candidate of random search.
    """
    store = store or Store()
    recipe = Recipe.from_yaml(store.run(run).recipe)
    task = recipe.task_names()[0]
    found = [e for e in store.evaluations(run, "dev") if e.task == task]
    for stage in recipe.stages():
        if stage.baseline and stage.final and (ranked := store.ranked(run, stage.name)):
            evaluation = store.evaluation(run, f"candidate:{ranked[0].id}", task, "dev")
            found += [evaluation] if evaluation else []
    return [
        Reference(e.subject, role_of(e.subject, run, store), e.score, *_interval(e.outcomes))
        for e in found
        if e.outcomes
    ]


def _interval(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    return interval([outcome.score for outcome in outcomes])


def measured(run: str, which: str | int, store: Store | None = None) -> list[dict[str, Any]]:
    """A candidate's scores with their 95 % intervals: on test if it was reported, and on dev.

    Returns:
        rows of task, split, score, low, high (0 to 1) and n (questions).
    """
    store = store or Store()
    number = store.pick(run, which).id
    rows = []
    for split in ("test", "dev"):
        for task in Recipe.from_yaml(store.run(run).recipe).task_names():
            found = store.evaluation(run, f"candidate:{number}", task, split)
            if found and found.outcomes:
                low, high = _interval(found.outcomes)
                row = {"task": task, "split": split, "score": found.score, "low": low, "high": high}
                rows.append(row | {"n": len(found.outcomes)})
    return rows


def ahead(rows: Sequence[Mapping[str, Any]], subject: str, than: Sequence[str]) -> dict[int, float]:
    """The questions that a subject answers better than all others, and by how much.

    Args:
        rows: of `Asked`.
        than: the subjects of the others.

    Returns:
        number of the question, from 1 → lead over the best of the others, in (0, 1].
    """
    scores = {row["subject"]: [o.score for o in row["outcomes"]] for row in rows}
    others = [scores[name] for name in than if name in scores]
    if subject not in scores or not others:
        return {}
    leads = [mine - max(theirs) for mine, *theirs in zip(scores[subject], *others, strict=True)]
    return {number: lead for number, lead in enumerate(leads, start=1) if lead > 0}


def shared_layers(one: Inside, other: Inside) -> int:
    """How many layers two paths both pass, one passed twice counted as often as both do."""
    passed = [Counter((row["source"], row["layer"]) for row in path.rows) for path in (one, other)]
    return (passed[0] & passed[1]).total()
