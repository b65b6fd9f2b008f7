"""How things look in a terminal: tables and sentences for people, one JSON document for scripts."""

import dataclasses
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column, Table

from studio.errors import StudioError
from studio.recipe import PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from studio.api import OnBytes
    from studio.runs import Candidate, Evaluation, Progress, Store


out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def writing() -> "Iterator[OnBytes]":
    """A bar of the bytes of a checkpoint as they are written; what is yielded moves it."""
    columns = (TextColumn("Writing"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        line = bar.add_task("", total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def print_written(folder: Path, as_json: bool) -> None:
    print_json({"folder": str(folder)}) if as_json else out.print(f"Written to {plain(folder)}")


def print_summary(run: str, store: "Store", as_json: bool) -> None:
    """Everything the terminal tells of one run."""
    from studio import api
    from studio.evolve.spaces import rebuild_space
    from studio.recipe import Recipe

    p = api.progress(run, store)
    report = api.report(run, store)
    front = api.front(run, store) if len(Recipe.from_yaml(p.run.recipe).objectives) > 1 else []
    best = store.best(run)
    table: list[dict[str, Any]] = []
    if best:
        try:
            table = rebuild_space(store, run, best.stage).table(best.genome)
        except StudioError as error:  # models may be gone: what was recorded is shown all the same
            err.print(f"The best recipe cannot be laid out: {plain(error)}")
    if as_json:
        sessions = [e.payload for e in store.events(run) if e.kind == "session"]
        return print_json({**run_document(p), "recipe": p.run.recipe, "sessions": sessions,
                      "best_genome": best.genome.tolist() if best else None,
                      "best_settings": table, "report": report,
                      "front": [{"id": c.id, **c.scores} for c in front]})  # fmt: skip
    out.print(
        f"[bold]{plain(p.run.name)}[/] (run {p.run.id}): {p.state}, {p.done}/{p.total} "
        f"candidates in {duration(p.elapsed)}"
    )
    if p.run.message:
        err.print(plain(p.run.message))
    if best:
        out.print(f"best: candidate {best.id}, {percent(best.score)} on the search's examples")
        if table:
            out.print(settings_table(table))
    if front:
        out.print(front_table(front))
    if report:
        out.print(scores_table(report))
        rows = {row["role"]: row for row in reversed(report)}
        if "evolved" in rows and rows["evolved"]["subject"].startswith("candidate:"):
            out.print(f"Take it home: python -m studio export {run} --out DIR")


def dtype_of(card: dict[str, Any]) -> str:
    """The dtype its tensors have here, and the quantization they are made of."""
    dtype, stored = card["dtype"], card["stored"]
    return dtype if card["kind"] != "gguf" else f"{stored} → {dtype}"


def card_lines(card: dict[str, Any]) -> str:
    """A model's card, a fact a line."""
    title = f"[bold]{plain(card['name'])}[/]"
    if card.get("error"):
        return f"{title}\n  {plain(card['error'])}"
    facts = {
        "architecture": card["architecture"],
        "layers": card["layers"],
        "hidden size": card["hidden"],
        "vocabulary": f"{card['vocab']:,} tokens",
        "parameters": f"{card['parameters']:,}" + (", tied head" if card["tied"] else ""),
        "dtype": dtype_of(card),
        "size": f"{card['size'] / 1e6:,.1f} MB of {card['kind']}",
        "licence": card["licence"] or "not stated",
        "where": card["path"],
    }
    if card["base"]:
        facts["adapter on"] = card["base"]
    if "fits" in card:
        facts["fits the base"] = "yes" if card["fits"] else f"no: {card['why']}"
    # lines and no table, which would break paths
    return "\n".join([title] + [f"  {name:<14}{plain(value)}" for name, value in facts.items()])


def memory_table(rows: list[dict[str, Any]]) -> Table:
    """What a recipe takes at each precision."""
    title = (
        f"Memory at the most, with prompts of {rows[0]['prompt']} tokens and answers of "
        f"{rows[0]['answer']}"
    )
    table = make_table(
        "precision", "memory", "answers at a time", title=title, title_justify="left"
    )
    for row in rows:
        batch = str(row["batch"]) if row["batch"] else "none fits"
        table.add_row(row["precision"], f"{row['bytes'] / 1e9:,.2f} GB", batch)
    return table


def print_paper(document: dict[str, list[dict[str, Any]]], strip: list[dict[str, Any]]) -> None:
    """Table 1 beside ours, the strip of the problems, and what held."""
    n = next((row["n"] for row in document["table"] if row["n"]), 0)
    headers = ("", "paper", "MGSM-JA", "here", f"right of {n}", "95 % interval", "run")
    table = make_table(*headers, title="Table 1, rows 1 to 6", title_justify="left")
    for row in document["table"]:
        mine = ("–", "", "")
        if row["score"] is not None:
            interval = f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
            candidate = f"{row['run']}:{row['candidate']}" if row["run"] else ""
            mine = (percent(row["score"]), interval, candidate)
        table.add_row(str(row["id"]), row["model"], f"{row['accuracy']:.1f} %", row["ours"], *mine)
    out.print(table)
    for first in range(0, n, 50):
        out.print(f"problems {first + 1} to {min(n, first + 50)}, █ right")
        for row in strip:
            said = "".join(
                "█" if o.score == 1 else "·" for o in row["outcomes"][first : first + 50]
            )
            out.print(f"  {said}  {plain(row['label'])}", highlight=False)
    table = make_table("finding", "paper", "here", "", title="What held", title_justify="left")
    for row in document["findings"]:
        published = row["paper"] or "in words"
        table.add_row(row["claim"], published, row["here"], row["verdict"])
    out.print()
    out.print(table)


def make_table(*headers: str, **options: Any) -> Table:
    """A table that folds what is too wide for the terminal: a cut-off path helps nobody."""
    columns = (Column(header, overflow="fold") for header in headers)
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, **options)


def settings_table(rows: list[dict[str, Any]]) -> Table:
    """The best recipe, a row per layer group and source, or per step of a path."""
    keys = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    table = make_table(*keys, title="best recipe", title_justify="left")
    for row in rows:
        cells = ("" if row[key] is None else row[key] for key in keys)
        table.add_row(*(f"{c:.2f}" if isinstance(c, float) else plain(c) for c in cells))
    return table


def front_table(candidates: "list[Candidate]") -> Table:
    """What no other candidate beats in every objective, on the search's examples."""
    names = list(candidates[0].scores)
    table = make_table("front", *names, title="front", title_justify="left")
    for candidate in candidates:
        cells = (
            f"{value:,.0f}" if name in PROPERTIES else percent(value)
            for name, value in candidate.scores.items()
        )
        table.add_row(f"#{candidate.id}", *cells)
    return table


def scores_table(rows: list[dict[str, Any]]) -> Table:
    table = make_table("model", "role", "task", "score", "95 % interval", "examples",
                  title="scores", title_justify="left")  # fmt: skip
    for row in rows:
        interval = f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
        table.add_row(plain(row["model"]), row["role"], row["task"], percent(row["score"]),
                      interval, str(row["n"]))  # fmt: skip
    return table


def run_document(p: "Progress") -> dict[str, Any]:
    fields = dataclasses.asdict(p)
    record = fields.pop("run")
    return {"run": record["id"], "name": record["name"], "created": record["created"],
            "message": record["message"], **fields}  # fmt: skip


def outcomes_of(evaluation: "Evaluation") -> list[dict[str, Any]]:
    return [dataclasses.asdict(outcome) for outcome in evaluation.outcomes]


def print_json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def percent(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.1f} %"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def plain(text: Any) -> str:
    """Text from a file, a model or a user, with rich's markup switched off."""
    from rich.markup import escape

    return escape(str(text))
