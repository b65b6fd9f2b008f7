"""The page's smaller pieces of HTML: where a run stands, scores, recipes, answers, files.

Each takes plain values and a language, and returns escaped HTML. Knows no Gradio and no store.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio.runs import Outcome, Progress
from studio.ui import words
from studio.ui.markup import esc, percent
from studio.ui.plots import HALF, RIGHT, WRONG
from studio.ui.sentences import translate
from studio.ui.strings import say

#: Of tasks of which nothing else is said.
EACH_ACCURACY: Mapping[str, str] = MappingProxyType({})
SIGNS = {RIGHT: "✓", HALF: "◐", WRONG: "✗"}


def empty(sentence: str) -> str:
    """A place that will be filled later, saying when."""
    return f'<p class="es-empty">{esc(sentence)}</p>'


def status(
    progress: Progress, language: str, *, mean: bool = False, metric: str = words.ACCURACY
) -> str:
    """Where a run stands: state, bar, and the numbers that change.

    Args:
        mean: whether scores are means over several tasks.
        metric: what scores are.
    """
    p = progress
    live = p.state in ("running", "stopping", "queued")
    state = say(language, p.state)
    if p.state == "running" and p.stage:
        state += f" · {words.phase(language, p.stage)}"
    best, best_key = "–", "best_mean" if mean else "best"
    if p.best is not None:
        unit = " %" if metric == words.ACCURACY else ""
        best = f"{percent(p.best)}{unit} <small>#{p.best_id}</small>"
    facts = [
        ("candidates", f"{p.done}<small> / {p.total}</small>"),
        (best_key, best),
        ("per_minute", f"{p.candidates_per_minute:.0f}" if p.done else "–"),
        ("tokens_s", f"{p.tokens_per_second:,.0f}" if p.done else "–"),
        ("elapsed", esc(words.duration(language, p.elapsed))),
    ]
    if live:
        facts.append(("eta", esc(words.duration(language, p.eta))))
    named = "" if metric in (words.ACCURACY, words.MEAN) else words.metric(language, metric)
    cells = "".join(
        f"<div><dt>{esc(say(language, key))} {esc(named if key == best_key else '')}</dt>"
        f"<dd>{value}</dd></div>"
        for key, value in facts
    )
    # a run that was told to finish is done, though it never asked for its whole budget
    done = p.total if p.state == "finished" else p.done
    share = 100 * done / p.total if p.total else 0
    message = (
        f'<p class="message">{esc(translate(language, p.run.message))}</p>' if p.run.message else ""
    )
    return (
        f'<section class="es-status" data-state="{p.state}" data-run="{esc(p.run.id)}">'
        f'<header><h3>{esc(p.run.name)}</h3><span class="state">{esc(state)}</span></header>'
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="{p.total}" '
        f'aria-valuenow="{done}" aria-label="{esc(say(language, "candidates"))}">'
        f'<span style="width:{share:.2f}%"></span></div>{message}<dl>{cells}</dl></section>'
    )


def report(
    rows: Sequence[dict[str, Any]], language: str, metrics: Mapping[str, str] = EACH_ACCURACY
) -> str:
    """The test scores: a table with each 95 % interval drawn beside its numbers.

    Args:
        metrics: what the scores of each task are, if they are not accuracies.
    """
    if not rows:
        return empty(say(language, "report_empty"))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    body = []
    for task in tasks:
        mine = sorted((r for r in rows if r["task"] == task), key=lambda r: r["score"])
        n = mine[0]["n"]
        body.append(
            f'<tr class="task"><th colspan="5" scope="rowgroup">{esc(task)} · '
            f"{esc(words.metric(language, metrics.get(task, words.ACCURACY)))} · n = {n}</th></tr>"
        )
        for row in mine:
            role = f"role_{row['role']}"
            named = words.called(language, row["subject"], row["role"], row["model"])
            body.append(
                f'<tr class="{esc(row["role"])}"><th scope="row">{esc(named)}</th>'
                f'<td class="role">{esc(say(language, role))}</td>'
                f"{interval_cells(row)}</tr>"
            )
    head = "".join(
        f'<th scope="col"{extra}>{esc(say(language, key))}</th>'
        for key, extra in (
            ("col_model", ""),
            ("col_role", ' class="role"'),
            ("col_score", ' class="number"'),
            ("col_interval", ' class="number range"'),
        )
    )
    return (
        f'<figure class="es-figure es-report"><figcaption>{esc(say(language, "report"))}'
        f'</figcaption><p class="note">{esc(say(language, "report_note"))}</p>'
        f"<table><thead><tr>{head}{scale_cell()}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></figure>"
    )


def interval_cells(row: Mapping[str, Any]) -> str:
    """Score and 95 % interval of a row (0 to 1), in per cent, then drawn: three cells."""
    low, high, score = (100 * row[key] for key in ("low", "high", "score"))
    return (
        f'<td class="number"><b>{score:.1f}</b></td>'
        f'<td class="number range">{low:.1f} – {high:.1f}</td>'
        f'<td class="drawn" aria-hidden="true"><div class="interval">'
        f'<i style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        f'<b style="left:{score:.2f}%"></b></div></td>'
    )


def scale_cell() -> str:
    """The heading above drawn intervals: 0 to 100."""
    scale = "".join(f'<span style="left:{n}%">{n}</span>' for n in (0, 25, 50, 75, 100))
    return f'<td class="drawn" aria-hidden="true"><div class="scale">{scale}</div></td>'


def heat_map(rows: Sequence[dict[str, Any]], number: int, language: str) -> str:
    """A candidate's recipe: weight (and density) by layer group and source.

    Args:
        rows: of ``ParameterSpace.table``.
        number: the candidate's.
    """
    slerp = any(row["t"] is not None for row in rows)
    dense = any(row["density"] is not None for row in rows)
    columns = ["t"] if slerp else list(dict.fromkeys(row["source"] for row in rows))
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        place = words.group(language, row["group"])
        place += f" · {row['filter']}" if row["filter"] else ""
        groups.setdefault(place, {})[row["source"] or "t"] = row
    top = max([1.0] + [abs(row["weight"] or 0.0) for row in rows])
    body = []
    for place, cells in groups.items():
        tds = []
        for column in columns:
            row = cells[column]
            value = row["t"] if slerp else row["weight"]
            tds.append(heat(value, row["density"], top))
        body.append(f'<tr><th scope="row">{esc(place)}</th>{"".join(tds)}</tr>')
    head = "".join(f'<th scope="col">{esc(column)}</th>' for column in columns)
    note = "heat_note_t" if slerp else "heat_note" if dense else "heat_note_plain"
    return (
        f'<figure class="es-figure es-heat"><figcaption>{esc(say(language, "heat"))}</figcaption>'
        f'<p class="note">{esc(say(language, note, n=number))}</p><div class="scroll"><table>'
        f'<thead><tr><th scope="col">{esc(say(language, "group"))}</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></figure>"
    )


def heat(value: float, density: float | None, top: float) -> str:
    """A cell of a recipe: a weight, as dark as its share of ``top``, and its density, if any."""
    sign = " negative" if value < 0 else ""
    share = 100 * abs(value) / top
    small = "" if density is None else f"<small>{density:.2f}</small>"
    return f'<td class="heat{sign}" style="--share:{share:.0f}%">{value:.2f}{small}</td>'


def path(rows: Sequence[dict[str, Any]], lanes: Sequence[str], number: int, language: str) -> str:
    """A candidate's path: a table whose columns are lanes, one per model, with a line through it.

    Args:
        rows: of ``DataFlowSpace.table``.
        lanes: the names of the models that may lend layers, the main one first.
        number: the candidate's.
    """
    body, places, passed = [], [], Counter()
    for index, row in enumerate(rows):
        lane = lanes.index(row["source"])
        places.append(((lane + 0.5) / len(lanes), index + 0.5))
        layer = (row["source"], row["layer"])
        passed[layer] += 1
        again = f" <small>↻{passed[layer]}</small>" if passed[layer] > 1 else ""
        called = esc(say(language, "layer_n", n=row["layer"]))
        kind = "lane main" if lane == 0 else "lane"
        tds = "".join(
            f'<td class="{kind}"><b>{called}{again}</b></td>' if lane == other else "<td></td>"
            for other in range(len(lanes))
        )
        body.append(
            f'<tr><th scope="row">{row["step"] + 1}</th>{tds}'
            f'<td class="scale">{_scale_bar(row["scale"])}</td></tr>'
        )
    heads = []
    for lane, name in enumerate(lanes):
        mark = f" <small>{esc(say(language, 'main_model'))}</small>" if lane == 0 else ""
        heads.append(
            f'<th scope="col" class="lane" title="{esc(name)}">{esc(Path(name).name)}{mark}</th>'
        )
    line = " ".join(f"{100 * x:.2f},{y:g}" for x, y in places)
    return (
        f'<figure class="es-figure es-path"><figcaption>{esc(say(language, "path"))}</figcaption>'
        f'<p class="note">{esc(say(language, "path_note", n=number, length=len(rows)))}</p>'
        f'<div class="lanes"><svg viewBox="0 0 100 {len(rows)}" preserveAspectRatio="none" '
        f'aria-hidden="true"><polyline points="{line}"/></svg>'
        f'<table><thead><tr><th scope="col">{esc(say(language, "step"))}</th>{"".join(heads)}'
        f'<th scope="col" class="scale">{esc(say(language, "scale"))}</th></tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></figure>"
    )


def _scale_bar(scale: float) -> str:
    """A bar from 1 in the middle to 0.5 at the left or 2 at the right, and the number."""
    at = 50 * (1 + max(-1.0, min(1.0, math.log2(scale))))
    low, high = sorted((50.0, at))
    return (
        f'<i aria-hidden="true"><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i></i>'
        f"{scale:.2f}"
    )


def front(
    plot: str,
    members: Sequence[tuple[int, Mapping[str, float]]],
    objectives: Sequence[str],
    selected: int | None,
    best: int,
    language: str,
    metrics: Mapping[str, str] = EACH_ACCURACY,
) -> str:
    """The front's plot, and beside it the same as a table.

    Args:
        members: (candidate's number, its value of each objective).
        selected: the candidate that is looked into; best: the one that the run reports.
        metrics: of the tasks, as of :func:`report`.

    Buttons carry ``data-c``, a candidate's number, for whoever listens to clicks.
    """
    head = "".join(
        f'<th scope="col" class="number">'
        f"{esc(words.objective(language, name, metrics.get(name, words.ACCURACY)))}</th>"
        for name in objectives
    )
    body = "".join(
        f'<tr><th scope="row"><button type="button" data-c="{number}" '
        f'aria-pressed="{str(number == selected).lower()}">★ #{number}</button></th>'
        + "".join(
            f'<td class="number">{esc(words.value(name, values[name]))}</td>' for name in objectives
        )
        + "</tr>"
        for number, values in members
    )
    return (
        f'<section class="es-front" data-best="{best}">{plot}<figure class="es-figure"><table>'
        f'<thead><tr><th scope="col">{esc(say(language, "col_id"))}</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></figure></section>"
    )


def is_graded(outcomes: Iterable[Outcome]) -> bool:
    """Whether answers are more than right or wrong: some score lies in between."""
    return any(0 < outcome.score < 1 for outcome in outcomes)


def state_of(outcome: Outcome, graded: bool = False) -> str:
    """RIGHT, HALF or WRONG.

    HALF is the right number in the wrong language or, where answers are ``graded``, any score in
    between.
    """
    if outcome.score >= 1:
        return RIGHT
    half = outcome.score > 0 if graded else outcome.details.get("right")
    return HALF if half else WRONG


def state_names(language: str, graded: bool = False) -> dict[str, str]:
    """What the states are called."""
    keys = ("full_score", "part_score", "no_score")
    if not graded:
        keys = ("right", "language_wrong", "wrong")
    return dict(zip((RIGHT, HALF, WRONG), (say(language, key) for key in keys), strict=True))


def answers(
    index: int,
    count: int,
    question: str,
    expected: str,
    said: Sequence[tuple[str, Outcome]],
    language: str,
    *,
    metric: str = words.ACCURACY,
    graded: bool = False,
    picture: str = "",
) -> str:
    """One question with every model's answer side by side.

    Args:
        index: of the question, from 1, of ``count``.
        said: (model's label, what it answered).
        metric: what scores are; they are said where answers are ``graded``.
        picture: HTML of what the question is about.
    """
    cards = []
    for label, outcome in said:
        state = state_of(outcome, graded)
        verdict = state_names(language)[state]
        if graded:
            verdict = words.score(language, metric, outcome.score)
            if answer_counts_as_none(outcome):
                verdict += f" · {say(language, 'counts_empty')}"
        answer = outcome.response.strip()
        text = esc(answer) if answer else f"<em>{esc(say(language, 'no_answer'))}</em>"
        cards.append(
            f'<li class="{state}"><header><b>{esc(label)}</b>'
            f'<span class="verdict">{SIGNS[state]} {esc(verdict)}</span>'
            f"</header><p>{text}</p></li>"
        )
    return (
        f'<section class="es-answers"><header><h4>'
        f"{esc(say(language, 'question_of', i=index, n=count))}</h4>{picture}"
        f'<p class="question">{esc(question)}</p>'
        f"<p>{esc(say(language, 'expected'))}: <b>{esc(expected)}</b></p></header>"
        f"<ul>{''.join(cards)}</ul></section>"
    )


def answer_counts_as_none(outcome: Outcome) -> bool:
    """Whether a task read nothing in an answer because it is in another language than asked for."""
    details = outcome.details
    return (
        "language" in details and details.get("parsed") is None and bool(outcome.response.strip())
    )


def files(folder: Path, language: str) -> str:
    """What lies in an exported folder, with sizes."""
    rows = "".join(
        f'<tr><th scope="row">{esc(path.name)}</th><td class="number">{_size(path)}</td></tr>'
        for path in sorted(folder.iterdir())
    )
    return (
        f'<table class="es-files"><thead><tr><th scope="col">{esc(say(language, "files"))}</th>'
        f'<th scope="col" class="number">{esc(say(language, "size"))}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _size(path: Path) -> str:
    size = float(path.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
