"""The paper's Table 1 in miniature: PS, DFS and both, on the bonsai models.

Knows the published numbers (Akiba et al., arXiv:2403.13187, table 1 and section 4.1) and which
recipes stand for which row; runs what the workspace does not hold yet, and says which findings
held. Refuses to know how a run works: every figure is read from the record of one.

    >>> from studio import api, paper
    >>> store = api.open_store()                        # doctest: +SKIP
    >>> paper.reproduce(store)                          # doctest: +SKIP
    >>> paper.table(store)[3]["score"]                  # doctest: +SKIP
    0.732
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from studio import api
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Progress, Run, Store
from studio.runs.lock import is_held
from studio.runs.records import FINISHED
from studio.runs.statistics import interval
from studio.workspace import ASSETS

#: Rows 1 to 6: id, the paper's model, its size and its accuracy on MGSM-JA in per cent, and ours.
ROWS = (
    (1, "Shisa Gamma 7B v1 (Japanese, general)", "7B", 9.6, "bonsai-ja"),
    (2, "WizardMath 7B v1.1 (English, math)", "7B", 18.4, "bonsai-math"),
    (3, "Abel 7B 002 (English, math)", "7B", 30.0, "bonsai-abel"),
    (4, "PS: 1 + 2 + 3", "7B", 52.0, "PS: 1 + 2 + 3"),
    (5, "DFS: 3 + 1", "10B", 36.4, "DFS: 3 + 1"),
    (6, "PS + DFS: 4 + 1", "10B", 55.2, "PS + DFS: 4 + 1"),
)
PS, DFS, BOTH = 4, 5, 6
SOURCES = {number: name for number, *_, name in ROWS[:3]}
RECIPES = ASSETS.parent / "recipes"
#: What ablations are recorded under: no split of a task, so that no report takes them for scores.
ABLATION = "ablation"
#: What the paper found, by key; {row} is a row of the table.
CLAIMS = {
    "ps": "Parameter space (4) beats the best of its sources.",
    "dfs": "Data-flow space (5) beats the better of its sources.",
    "both": "Paths over the merge (6) beat the merge alone (4).",
    "ps_dfs": "Parameter space (4) beats data-flow space (5).",
    "scales": "Without its scales the path of row {row} loses more than 20 % of its score.",
    "sources": "All three sources matter, the Japanese one most.",
    "kept": "The merge keeps what its sources solve (here: at least 90 % of it) and adds problems "
    "that none of them solves.",
}
#: The share of the sources' solved problems that counts as keeping them.
KEPT = 0.9
HELD, NOISE, NOT = "held", "held, within noise", "did not hold"

OnProgress = Callable[[int, Progress], None]


# ── running ───────────────────────────────────────────────────────────────────────────────────


def recipe(row: int, store: Store) -> Recipe | None:
    """The recipe of row 4, 5 or 6; None for row 6 as long as row 4 has no winner."""
    if row == PS:
        return Recipe.load(RECIPES / "jmath.yaml")
    paths = Recipe.load(RECIPES / "paths.yaml")
    if row == DFS:
        return paths
    first = run_of(PS, store)
    if first is None or first.status != FINISHED:
        return None
    winner = f"{first.id}:{store.best(first.id).id}"
    document = paths.model_dump(mode="json", exclude_none=True)
    document |= {"name": "Japanese math, both spaces", "sources": [winner, SOURCES[1]]}
    return Recipe.from_dict(document)


def run_of(row: int, store: Store) -> Run | None:
    """The run that stands for row 4, 5 or 6: a finished one of its recipe, else the newest.

    None that was told to finish before its budget was spent: the others are measured against it.
    """
    wanted = recipe(row, store)
    if wanted is None:
        return None
    found = [run for run in store.runs() if _same(run, wanted)]
    found = [run for run in found if not store.events(run.id, "enough")]
    return next((run for run in found if run.status == FINISHED), next(iter(found), None))


def _same(run: Run, wanted: Recipe) -> bool:
    return _read(run.recipe) == wanted


@lru_cache(maxsize=256)
def _read(text: str) -> Recipe | None:
    """A recorded recipe; None for one of a newer Studio, which stands for no row."""
    try:
        return Recipe.from_yaml(text)
    except StudioError:
        return None


def reproduce(store: Store | None = None, on_progress: OnProgress | None = None) -> Store:
    """Run, or go on with, whatever of rows 4 to 6 is not finished, then the ablations.

    Args:
        on_progress: called with the row and where its run stands.

    Returns:
        the store, whose runs are finished.

    Raises:
        StudioError: as `api.resume`; what was recorded stays, and the next call goes on with it.
    """
    store = store or api.open_store()
    for row in (PS, DFS, BOTH):
        run = run_of(row, store)
        name = run.id if run else api.create(recipe(row, store), store)

        def told(progress: Progress, row: int = row) -> None:
            if on_progress:
                on_progress(row, progress)

        if store.run(name).status != FINISHED:
            api.resume(name, store, told)
        if store.run(name).status != FINISHED:
            raise StudioError(f"Row {row} was stopped; start the command again to go on with it.")
        ablate(name, store)
    return store


def start(store: Store) -> None:
    """As `reproduce`, by a process that outlives this one; its runs are recorded like any other."""
    api.detach(["paper", "--json"], "paper", store)


def is_running(store: Store) -> bool:
    """Whether some process is working on one of the rows."""
    found = (run_of(row, store) for row in (PS, DFS, BOTH))
    return any(run is not None and is_held(store, run.id) for run in found)


def ablate(run: str, store: Store) -> None:
    """Score a finished run's winner on test with one part of it taken out at a time.

    Of a merge, the weights of one source; of a path, the scales. Recorded with the run, once.
    """
    from studio.evolve.evaluate import evaluate
    from studio.evolve.spaces import rebuild_space
    from studio.merge.data_flow import DataFlowSpace

    record = store.run(run)
    written = Recipe.from_yaml(record.recipe)
    task = written.build_tasks()[0]
    best = store.best(record.id)
    subjects = _ablations(written, best.id)
    done = {e.subject for e in store.evaluations(record.id, ABLATION)}
    missing = [part for part, subject in subjects.items() if subject not in done]
    if not missing:
        return
    space = rebuild_space(store, record.id, best.stage)
    if isinstance(space, DataFlowSpace):
        space, genomes = space.unscaled(), {"scales": best.genome[: len(space.slots)]}
    else:
        genomes = {part: space.without(best.genome, part) for part in missing}
    live = space.live(written.precision)
    for part in missing:
        live.apply(genomes[part])
        found = evaluate(
            live.model,
            live.tokenizer,
            task,
            task.examples("test"),
            subject=subjects[part],
            split=ABLATION,
            batch_size=written.batch_size,
        )
        store.record_evaluation(record.id, replace(found, task=task.name))


def _ablations(written: Recipe, number: int) -> dict[str, str]:
    """What is taken out of a winner → the subject it is recorded under."""
    parts = ["scales"] if written.space.type == "data_flow" else written.sources
    return {part: f"candidate:{number} without {part}" for part in parts}


# ── reading ───────────────────────────────────────────────────────────────────────────────────


def table(store: Store) -> list[dict[str, Any]]:
    """Rows 1 to 6, the paper's beside ours.

    Returns:
        rows of id, model, size and accuracy (the paper's, per cent), ours (what stands for it),
        and of a row that was run: score, low, high (0 to 1), n, run and candidate; else None.
    """
    winners = {row: _winner(row, store) for row in (PS, DFS, BOTH)}
    rows = []
    for number, model, size, accuracy, ours in ROWS:
        row = {"id": number, "model": model, "size": size, "accuracy": accuracy, "ours": ours}
        blank = dict.fromkeys(("score", "low", "high", "n", "run", "candidate"))
        evaluation = winners.get(number) or _source(number, store)
        if evaluation:
            blank |= _numbers(evaluation)
            if number in winners:
                blank["run"] = run_of(number, store).id
                blank["candidate"] = int(evaluation.subject.partition(":")[2])
        rows.append(row | blank)
    return rows


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    low, high = interval([outcome.score for outcome in evaluation.outcomes])
    n = len(evaluation.outcomes)
    return {"score": evaluation.score, "low": low, "high": high, "n": n}


def _winner(row: int, store: Store) -> Evaluation | None:
    run = run_of(row, store)
    if run is None or run.status != FINISHED:
        return None
    task = Recipe.from_yaml(run.recipe).task_names()[0]
    return store.evaluation(run.id, f"candidate:{store.best(run.id).id}", task, "test")


def _source(row: int, store: Store) -> Evaluation | None:
    run = run_of(PS, store)
    if run is None or row not in SOURCES:
        return None
    task = Recipe.from_yaml(run.recipe).task_names()[0]
    return store.evaluation(run.id, f"model:{SOURCES[row]}", task, "test")


def strip(store: Store) -> list[dict[str, Any]]:
    """The paper's figure: which of the test problems each model of the table gets right.

    Returns:
        rows of label, role (source | evolved) and outcomes, those that were run only.
    """
    rows = []
    for number, _, _, _, ours in ROWS:
        evaluation = _source(number, store) if number in SOURCES else _winner(number, store)
        if evaluation:
            role = "source" if number in SOURCES else "evolved"
            outcomes = list(evaluation.outcomes)
            rows.append({"label": f"{number}  {ours}", "role": role, "outcomes": outcomes})
    return rows


def ablations(store: Store) -> list[dict[str, Any]]:
    """What the winners of rows 4 to 6 lose with a part taken out.

    Returns:
        rows of id, part, score, low, high (0 to 1), n, and whole: the winner's own score.
    """
    rows = []
    for number in (PS, DFS, BOTH):
        whole = _winner(number, store)
        if whole is None:
            continue
        run = run_of(number, store)
        parts = _ablations(Recipe.from_yaml(run.recipe), store.best(run.id).id)
        for evaluation in store.evaluations(run.id, ABLATION):
            part = next((p for p, s in parts.items() if s == evaluation.subject), None)
            if part is not None:
                row = {"id": number, "part": part, "whole": whole.score}
                rows.append(row | _numbers(evaluation))
    return rows


def findings(store: Store) -> list[dict[str, Any]]:
    """Which of the paper's findings held in miniature, of those whose runs are there.

    Returns:
        rows of key and claim (see `CLAIMS`), row, paper ('' where it gives no figure), here, and
        verdict: `HELD`, `NOISE` (the same direction, but the 95 % intervals overlap) or `NOT`.
    """
    rows = {row["id"]: row for row in table(store) if row["score"] is not None}
    found = []
    for key, better, worse in (
        ("ps", PS, (1, 2, 3)),
        ("dfs", DFS, (3, 1)),
        ("both", BOTH, (PS,)),
        ("ps_dfs", PS, (DFS,)),
    ):
        if better in rows and all(number in rows for number in worse):
            found.append(_comparison(key, rows[better], [rows[number] for number in worse]))
    taken_out = ablations(store)
    found += [_scales(row) for row in taken_out if row["part"] == "scales"]
    sources = [row for row in taken_out if row["id"] == PS]
    if len(sources) == len(SOURCES):
        found.append(_every_source(sources))
    if PS in rows:
        found.append(_kept(store))
    return found


def _finding(key: str, published: str, here: str, verdict: str, row: int = 0) -> dict[str, Any]:
    claim = CLAIMS[key].format(row=row)
    found = {"key": key, "row": row, "claim": claim, "paper": published}
    return found | {"here": here, "verdict": verdict}


def _comparison(key: str, better: dict, others: Sequence[dict]) -> dict[str, Any]:
    """One row against the best of others: of the paper's by its scores, of ours by our own."""
    published = max(row["accuracy"] for row in others)
    worse = max(others, key=lambda row: row["score"])
    verdict = NOT
    if better["score"] > worse["score"]:
        verdict = HELD if better["low"] > worse["high"] else NOISE
    return _finding(
        key,
        f"{better['accuracy']:.1f} : {published:.1f}",
        f"{100 * better['score']:.1f} : {100 * worse['score']:.1f}",
        verdict,
    )


def _scales(row: dict) -> dict[str, Any]:
    lost = 1 - row["score"] / row["whole"] if row["whole"] else 0.0
    here = f"{100 * lost:.0f} % ({100 * row['whole']:.1f} → {100 * row['score']:.1f})"
    return _finding("scales", "> 20 %", here, HELD if lost > 0.2 else NOT, row["id"])


def _every_source(rows: list[dict]) -> dict[str, Any]:
    falls = ", ".join(f"{100 * row['score']:.1f} (− {row['part']})" for row in rows)
    most = min(rows, key=lambda row: row["score"])["part"]
    all_matter = all(row["score"] < row["whole"] for row in rows)
    verdict = HELD if all_matter and most == SOURCES[1] else NOT
    return _finding("sources", "", f"{100 * rows[0]['whole']:.1f} → {falls}", verdict)


def _kept(store: Store) -> dict[str, Any]:
    rows = {row["label"].partition(" ")[0]: _right(row["outcomes"]) for row in strip(store)}
    by_sources = rows["1"] | rows["2"] | rows["3"]
    merge = rows[str(PS)]
    kept = (merge & by_sources).sum() / max(1, by_sources.sum())
    new = int((merge & ~by_sources).sum())
    here = f"{100 * kept:.0f} % of {int(by_sources.sum())}, + {new}"
    return _finding("kept", "", here, HELD if kept >= KEPT and new > 0 else NOT)


def _right(outcomes: Sequence[Outcome]) -> np.ndarray:
    return np.array([outcome.score == 1 for outcome in outcomes])


__all__ = ["ablations", "findings", "recipe", "reproduce", "run_of", "strip", "table"]
