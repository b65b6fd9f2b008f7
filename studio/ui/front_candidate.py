"""The candidate that is looked into: who it is, what it answered, what it is made of.

Reads the record through :mod:`studio.api.inside` and returns escaped HTML. Knows no Gradio.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from studio.api import inside as api
from studio.errors import StudioError
from studio.evolve import inputs
from studio.recipe import PROPERTIES, Recipe
from studio.runs import Candidate, Run, Store
from studio.tasks import Example
from studio.ui import pictures, pieces, plots, versus, words
from studio.ui.markup import esc, percent
from studio.ui.sentences import translate
from studio.ui.shared import engine, metric_of
from studio.ui.strings import say


@dataclass(frozen=True)
class Picked:
    """A candidate of a run, None before there is one; another one beside it; a task; a question.

    ``fault`` is the sentence of why the candidate cannot be had.
    """

    run: Run
    candidate: Candidate | None
    other: Candidate | None
    task: str
    question: int | None
    best: bool = False
    fault: str = ""


@dataclass(frozen=True)
class Seen:
    """What was answered to a task, by whom, and the questions themselves."""

    split: str
    rows: Sequence[dict[str, Any]]
    examples: Sequence[Example]
    graded: bool
    ahead: Mapping[int, float]
    question: int


def picked(run: Run, which: Any, other: Any, task: Any, question: Any, store: Store) -> Picked:
    """What the page's menus name, whatever was typed or sent there."""
    best, fault = store.best(run.id), ""
    candidate = second = None
    if best is not None:
        try:
            candidate = store.pick(run.id, name(which) or "best")
            second = store.pick(run.id, name(other)) if name(other) else None
        except StudioError as error:
            fault = str(error)
    names = _tasks(run)
    chosen = task if task in names else names[0]
    number = int(question) if isinstance(question, int | float) else None
    if candidate and second and candidate.id == second.id:
        second = None
    is_best = candidate is not None and candidate.id == best.id
    return Picked(run, candidate, second, chosen, number, is_best, fault)


def name(given: Any) -> str:
    """A candidate's number or 'best', as a menu has it or somebody typed it there."""
    return str(given or "").strip().removeprefix("#")


def tasks(pick: Picked) -> list[str]:
    """The tasks that a pick can be looked at by."""
    return _tasks(pick.run)


@lru_cache(maxsize=64)
def _task_names(recipe: str) -> tuple[str, ...]:
    return tuple(name for name in Recipe.from_yaml(recipe).task_names() if name not in PROPERTIES)


def _tasks(run: Run) -> list[str]:
    return list(_task_names(run.recipe))


# ── who it is ─────────────────────────────────────────────────────────────────────────────────


def head(pick: Picked, seen: Seen | None, store: Store, language: str) -> str:
    """The candidate's number, where it comes from, and its scores with their intervals."""
    if pick.fault:
        return pieces.empty(translate(language, pick.fault))
    if pick.candidate is None:
        return ""
    candidate = pick.candidate
    facts = [
        say(
            language,
            "from_generation",
            stage=words.stage(language, candidate.stage),
            n=candidate.generation,
        )
    ]
    if pick.best:
        facts.insert(0, say(language, "is_best"))
    measured = api.measured(pick.run.id, candidate.id, store)
    scores = "".join(
        f"<div><dt>{esc(row['task'])} · {esc(say(language, row['split'] + '_split'))}</dt>"
        f"<dd>{esc(words.score(language, metric_of(pick.run.recipe, row['task']), row['score']))}"
        f"<small>{percent(row['low'])} – {percent(row['high'])}, n = {row['n']}</small></dd></div>"
        for row in measured
    )
    properties = "".join(
        f"<div><dt>{esc(say(language, name))}</dt><dd>{esc(words.compact(value))}</dd></div>"
        for name, value in candidate.scores.items()
        if name in PROPERTIES
    )
    note = ""
    if seen is not None:
        own = any(row["split"] == "test" for row in measured)
        other = "other_not_reported" if own else "not_reported"
        note = say(language, "reported" if seen.split == "test" else other)
    broken = ""
    if candidate.broken:
        why = say(language, "candidate_broken", why=translate(language, candidate.broken))
        broken = f'<p class="message">{esc(why)}</p>'
    return (
        f'<section class="es-picked" data-c="{candidate.id}">'
        f"<h3>{esc(say(language, 'candidate_n', n=candidate.id))} "
        f"<small>{esc(' · '.join(facts))}</small></h3>"
        f'<dl>{scores}{properties}</dl><p class="note">{esc(note)}</p>{broken}</section>'
    )


def recipe(pick: Picked, store: Store, language: str) -> str:
    """What it is made of, beside the other one if there is one; the first waits for torch."""
    if pick.candidate is None:
        return ""
    try:
        one = _inside(pick.run.id, pick.candidate.id, store)
        if pick.other is not None:
            other = _inside(pick.run.id, pick.other.id, store)
            return versus.recipes(one, other, language)
    except StudioError as error:  # a model of an old run may be gone; its scores are still there
        return pieces.empty(translate(language, str(error)))
    return versus.inside(one, language)


@lru_cache(maxsize=64)
def _inside(run: str, number: int, store: Store) -> api.Inside:
    """As :func:`studio.api.inside.inside`; opening the models takes a moment, so it is kept."""
    engine()
    return api.inside(run, number, store)


# ── what it answered ──────────────────────────────────────────────────────────────────────────


def asked(pick: Picked, store: Store, language: str) -> Seen | None:
    """What the candidate, the sources and the base answered; None if it was never asked."""
    if pick.fault:
        return None
    which = pick.candidate.id if pick.candidate else None
    other = pick.other.id if pick.other else None
    found = api.asked(pick.run.id, pick.task, which, other, store)
    if not found.rows:
        return None
    rows = [
        row | {"label": words.called(language, row["subject"], row["role"], row["label"])}
        for row in found.rows
    ]
    examples = _examples(pick.run.id, pick.task, found.split, rows, store, language)
    graded = pieces.is_graded(outcome for row in rows for outcome in row["outcomes"])
    others = [row["subject"] for row in rows if row["role"] in ("base", "source")]
    ahead = api.ahead(rows, f"candidate:{which}", others)
    question = pick.question or max(ahead, key=ahead.get, default=1)
    question = min(max(1, question), len(examples))
    return Seen(found.split, rows, examples, graded, ahead, question)


def unasked(pick: Picked, language: str) -> str:
    """In place of a strip: that there is none yet, or none of this candidate."""
    if pick.fault:
        return ""
    if pick.candidate is None:
        return pieces.empty(say(language, "strip_empty"))
    return pieces.empty(say(language, "never_asked", task=pick.task))


def strip(pick: Picked, seen: Seen, language: str) -> str:
    """The candidate's answers against the sources', a column a question."""
    mine = f"candidate:{pick.candidate.id}" if pick.candidate else ""
    rows = [
        plots.Row(
            label=row["label"],
            role=row["role"],
            score=sum(o.score for o in row["outcomes"]) / len(row["outcomes"]),
            states=[pieces.state_of(o, seen.graded) for o in row["outcomes"]],
            best=row["subject"] == mine,
            values=[o.score for o in row["outcomes"]] if seen.graded else (),
        )
        for row in seen.rows
    ]
    note = say(language, "strip_note")
    if seen.ahead:
        key = "merge_leads" if seen.graded else "only_merge"
        note = f"{say(language, key, n=len(seen.ahead))} {note}"
    metric = words.metric(language, metric_of(pick.run.recipe, pick.task))
    split = say(language, f"{seen.split}_split")
    return plots.strip(
        rows,
        [example.question for example in seen.examples],
        title=f"{say(language, 'strip')}: {pick.task} ({metric}), {split}",
        note=note,
        names=pieces.state_names(language, seen.graded),
        selected=seen.question,
    )


def only(pick: Picked, seen: Seen, language: str) -> str:
    """The questions that one of two candidates answers better; nothing of one alone."""
    if pick.candidate is None or pick.other is None:
        return ""
    return versus.questions(
        seen.rows, pick.candidate.id, pick.other.id, language, graded=seen.graded
    )


def answers(pick: Picked, seen: Seen, language: str) -> str:
    """All answers to the open question, side by side."""
    example = seen.examples[seen.question - 1]
    return pieces.answers(
        seen.question,
        len(seen.examples),
        example.question,
        example.answer,
        [(row["label"], row["outcomes"][seen.question - 1]) for row in seen.rows],
        language,
        metric=metric_of(pick.run.recipe, pick.task),
        graded=seen.graded,
        picture=picture(example, language),
    )


def picture(example: Example, language: str) -> str:
    """What a question is about, or why it cannot be shown; nothing of a question in words."""
    if example.picture is None:
        return ""
    try:
        return pictures.image(example.picture, say(language, "question_picture"), pictures.TALK)
    except StudioError as error:
        return f"<p>{esc(translate(language, str(error)))}</p>"


def _examples(
    run: str, task: str, split: str, rows: Sequence[dict[str, Any]], store: Store, language: str
) -> list[Example]:
    """The questions that a strip's outcomes answer, in the outcomes' order.

    A user's file may have changed or gone since: the record then still shows what was answered,
    but no question that may be another one's.
    """
    ids = [outcome.example for outcome in rows[0]["outcomes"]]
    try:
        known = {example.id: example for example in questions(run, task, split, store)}
    except StudioError:
        known = {}
    if all(name in known for name in ids):
        return [known[name] for name in ids]
    return [Example(name, say(language, "question_gone", example=name), "?") for name in ids]


@lru_cache(maxsize=8)
def questions(run: str, task: str, split: str, store: Store) -> list[Example]:
    """The examples that a run's scores of a task, recorded under its name ('csv (2)'), are of.

    Raises:
        StudioError: they are gone, or others than when the run was begun.
    """
    found = Recipe.from_yaml(store.run(run).recipe).build_tasks()
    examples = next((t.examples(split) for t in found if t.name == task), [])
    inputs.check(store, run, inputs.of_examples({(task, split): examples}))
    return examples
