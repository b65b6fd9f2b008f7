"""What a run's record says: how far it is, its front, its report, who was right on what."""

from typing import Any

from studio.api.processes import wake
from studio.recipe import Recipe
from studio.runs import Candidate, Evaluation, Progress, Store
from studio.runs import progress as reading


def progress(run: str, store: Store | None = None) -> Progress:
    """Where a run stands now: see :class:`studio.runs.Progress`.

    One that waits wakes the workspace's worker, should that have been killed.
    """
    store = store or Store()
    found = reading.progress(store, run)
    if found.position:
        wake(store)
    return found


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
    from studio.runs.statistics import interval

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
