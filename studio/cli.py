"""The Studio in a terminal: ``python -m studio COMMAND``, a thin skin over :mod:`studio.api`.

Knows how to show things in a terminal, and nothing else. Commands take ``--json`` for scripts; bad
input is one sentence on standard error and exit status 2.
"""

import dataclasses
import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
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

app = typer.Typer(
    help="Evolve merges of language models, evaluate them and take them home.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for scripts.")]
RunId = Annotated[str, typer.Argument(help="A run's id, the beginning of one, or 'last'.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write; must not exist yet.")]
Public = Annotated[bool, typer.Option("--public", help="Upload it for everybody to see.")]


def main() -> None:
    """The entry point: like ``app()``, with bad input said in one sentence."""
    # A pipe on Windows may speak another encoding than the Japanese that models answer in.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except StudioError as error:
        err.print(f"[bold red]Error:[/] {_plain(error)}")
        raise SystemExit(2) from None


known = typer.Typer(help="List the bundled models, or show one.", invoke_without_command=True)
app.add_typer(known, name="models")


@known.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the bundled models; `models show NAME` describes any."""
    if context.invoked_subcommand:
        return
    from studio import api

    cards = api.models()
    if as_json:
        return _json(cards)
    table = _table("model", "type", "layers", "weights", "dtype", "size", "licence")
    for card in cards:
        table.add_row(
            _plain(card["name"]),
            card["architecture"].removesuffix("ForCausalLM"),
            str(card["layers"]),
            f"{card['parameters'] / 1e6:.1f} M",
            _dtype(card),
            f"{card['size'] / 1e6:.1f} MB",
            _plain(card["licence"] or "not stated"),
        )
    out.print(table)


@known.command("show")
def show_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Bundled names, folders, GGUF files, adapters, hub ids."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Also say whether each can be merged with this base.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Say what this recipe takes of the memory; with no names, its models."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show cards of models: what they are, whether they fit a base, what a recipe takes."""
    from studio import api

    if not names and not recipe:
        raise StudioError("Name a model to show, or a recipe: models show --recipe RECIPE.yaml")
    cards = [api.describe(name, base) for name in names] if names else api.cards(recipe)
    memory = api.memory(recipe) if recipe else []
    if as_json:
        return _json({"models": cards, "memory": memory})
    for card in cards:
        out.print(_card(card))
    if memory:
        out.print(_memory(memory))


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe, see recipes/ for examples.")],
    memory: Annotated[
        float | None,
        typer.Option(min=0, help="Gigabytes of a GPU to fit into; by default what is free here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a recipe takes of the memory at each precision, before anything is loaded."""
    from studio import api

    rows = api.memory(recipe, None if memory is None else memory * 1e9)
    _json(rows) if as_json else out.print(_memory(rows))


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks a model can be evolved for or evaluated on."""
    from studio.tasks import task_names

    if as_json:
        return _json(task_names())
    for name in task_names():
        out.print(name)


@app.command()
def evolve(
    recipe: Annotated[Path, typer.Argument(help="A recipe, see recipes/ for examples.")],
    as_json: Json = False,
) -> None:
    """Run a recipe from start to report. Ctrl-C stops it; `resume` goes on."""
    from studio import api

    store = api.open_store()
    run = api.create(recipe, store)
    _work(run, store, as_json)


@app.command()
def resume(run: RunId, as_json: Json = False) -> None:
    """Go on with a run that was stopped, interrupted or killed."""
    from studio import api

    store = api.open_store()
    _work(store.run(run).id, store, as_json)


@app.command()
def worker(
    run: RunId,
    store: Annotated[Path, typer.Option(help="The run store; the workspace's by default.")],
) -> None:
    """Work on a run without showing anything: what the page starts."""
    from studio import api
    from studio.runs import Store

    api.take_up(run, Store(store))


@app.command()
def stop(run: RunId) -> None:
    """Ask a run to stop within a batch."""
    from studio import api

    api.stop(run)
    out.print(f"Run {run} stops within a batch; `resume {run}` goes on.")


@app.command()
def delete(run: RunId) -> None:
    """Forget a run and everything recorded of it; what was exported stays."""
    from studio import api

    store = api.open_store()
    found = store.run(run)
    api.delete(found.id, store)
    out.print(f"Run {found.id} ({_plain(found.name)}) is deleted.")


@app.command()
def runs(as_json: Json = False) -> None:
    """List all runs of the workspace, newest first."""
    from studio import api

    store = api.open_store()
    found = []
    for run in store.runs():
        try:
            found.append(api.progress(run.id, store))
        except StudioError as error:  # one record that cannot be read does not hide the others
            err.print(f"Run {run.id} cannot be shown: {_plain(error)}")
    if as_json:
        return _json([_run_json(p) for p in found])
    if not found:
        return out.print("No runs yet; `python -m studio evolve recipes/jmath.yaml` starts one.")
    table = _table("run", "name", "state", "scored", "best", "worked", "begun")
    for p in found:
        begun = time.strftime("%b %d %H:%M", time.localtime(p.run.created))
        table.add_row(p.run.id, _plain(p.run.name), p.state, f"{p.done}/{p.total}",
                      _percent(p.best), _duration(p.elapsed), begun)  # fmt: skip
    out.print(table)


@app.command()
def show(run: RunId, as_json: Json = False) -> None:
    """Show where a run stands: its progress, its best recipe and its report."""
    from studio import api

    store = api.open_store()
    _summary(store.run(run).id, store, as_json)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A source, or RUN:best or RUN:12.")],
    task: Annotated[str, typer.Option(help="The task, see `tasks`.")],
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    option: Annotated[
        list[str] | None, typer.Option(help="A task's option as name=value; repeatable.")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="How many examples; all by default.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts decoded together; a candidate's recipe says it, or 128."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32 or bf16; a candidate's recipe says it, or fp32."),
    ] = None,
    responses: Annotated[bool, typer.Option(help="Also print every answer.")] = False,
    as_json: Json = False,
) -> None:
    """Score one model on a task, without recording it."""
    from studio import api

    options = {name: _value(text) for name, text in _pairs(option or [], "--option")}
    with err.status(f"{_plain(model)} answers {task} …"):
        evaluation = api.evaluate(
            model, task, split, options, examples, api.open_store(), batch_size, precision
        )
    row = api.scores_of(evaluation, model, "")
    if as_json:
        return _json({**row, "split": split, "tokens": evaluation.tokens,
                      "seconds": evaluation.seconds, "broken": evaluation.broken,
                      "outcomes": _outcomes(evaluation)})  # fmt: skip
    if responses:
        for outcome in evaluation.outcomes:
            mark = "[green]right[/]" if outcome.score == 1 else f"[red]{outcome.score:.2f}[/]"
            out.print(f"{_plain(outcome.example)} {mark} {_plain(outcome.response)}")
    out.print(_scores([row]))
    out.print(
        f"{evaluation.tokens} tokens in {_duration(evaluation.seconds)}, "
        f"{evaluation.tokens / max(evaluation.seconds, 1e-9):.0f} tokens/s"
    )
    if evaluation.broken:
        err.print(f"The model is broken: {_plain(evaluation.broken)}.")


@app.command()
def merge(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe, whose search is not run, or a mergekit YAML.")
    ],
    out_folder: Out,
    weight: Annotated[
        list[str] | None, typer.Option(help="source=weight; 0.5 for sources not named.")
    ] = None,
    density: Annotated[float | None, typer.Option(help="Of ties and dare methods.")] = None,
    t: Annotated[float | None, typer.Option(help="Of slerp, from 0 to 1.")] = None,
    as_json: Json = False,
) -> None:
    """Merge once, without searching: as a mergekit YAML says, or a recipe's sources the same
    everywhere."""
    from studio import api

    weights = {}
    for name, value in _pairs(weight or [], "--weight"):
        try:
            weights[name] = float(value)
        except ValueError:
            raise StudioError(f"--weight {name}={value}: '{value}' is no number.") from None
    with _writing() as on_bytes:
        folder = api.merge(recipe, out_folder, weights, density, t, on_bytes)
    _written(folder, as_json)


@app.command()
def export(
    run: RunId,
    out_folder: Out,
    candidate: Annotated[
        int | None, typer.Option(min=0, help="Its number; the best by default.")
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Upload it as well, to the hub's owner/name; private.")
    ] = None,
    public: Public = False,
    as_json: Json = False,
) -> None:
    """Write a candidate as an ordinary checkpoint with model card and mergekit YAML."""
    from studio import api

    with _writing() as on_bytes:
        folder = api.export(
            run, out_folder, candidate, api.open_store(), on_bytes, push, public=public
        )
    _written(folder, as_json)
    if push and not as_json:
        out.print(f"Uploaded to {_plain(push)} ({'public' if public else 'private'})")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="The folder of an export.")],
    repository: Annotated[str, typer.Argument(help="Where to, as owner/name.")],
    public: Public = False,
    as_json: Json = False,
) -> None:
    """Upload an export to the hub, with the token in HF_TOKEN; private unless --public."""
    from studio import api

    with err.status("Uploading …"):
        address = api.push(folder, repository, public)
    _json({"address": address}) if as_json else out.print(f"Uploaded to {_plain(address)}")


@app.command()
def paper(as_json: Json = False) -> None:
    """Run rows 1 to 6 of the paper's Table 1 in miniature, or go on, and say which findings held.

    What the workspace holds already is not run again. Ctrl-C stops it; the same command goes on.
    """
    from studio import api
    from studio import paper as table_one

    store = api.open_store()
    with err.status("Looking for the runs …") as status:

        def told(row: int, p: "Progress") -> None:
            eta = f", {_duration(p.eta)} to go" if p.eta is not None else ""
            status.update(f"Row {row}: {p.stage}, {p.done}/{p.total}, best {_percent(p.best)}{eta}")

        table_one.reproduce(store, told)
    document = {
        name: getattr(table_one, name)(store) for name in ("table", "ablations", "findings")
    }
    strip = table_one.strip(store)
    if as_json:
        rows = [{"label": row["label"], "right": [o.score == 1 for o in row["outcomes"]]}
                for row in strip]  # fmt: skip
        return _json(document | {"strip": rows})
    _paper(document, strip)


# ── showing ───────────────────────────────────────────────────────────────────────────────────


def _work(run: str, store: "Store", as_json: bool) -> None:
    """Work on a run in this process under a progress bar, then show its summary."""
    from studio import api

    if as_json:
        api.resume(run, store)
        return _summary(run, store, as_json)
    columns = (
        TextColumn("{task.fields[stage]}", style="bold"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("best {task.fields[best]}"),
        TextColumn("{task.fields[speed]}"),
        TextColumn("ETA {task.fields[eta]}"),
    )
    err.print(f"Run [bold]{run}[/]: Ctrl-C stops it, `python -m studio resume {run}` goes on.")
    with Bar(*columns, console=err, transient=True) as bar:
        line = bar.add_task("", stage="loading", best="–", speed="", eta="–", total=None)

        def update(p: "Progress") -> None:
            bar.update(
                line,
                completed=p.done,
                total=p.total,
                stage=p.stage or p.state,
                best=_percent(p.best),
                speed=f"{p.candidates_per_minute:.0f} candidates/min, "
                f"{p.tokens_per_second:.0f} tokens/s",
                eta=_duration(p.eta) if p.eta is not None else "–",
            )

        api.resume(run, store, update)
    _summary(run, store, as_json)


@contextmanager
def _writing() -> "Iterator[OnBytes]":
    """A bar of the bytes of a checkpoint as they are written; what is yielded moves it."""
    columns = (TextColumn("Writing"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        line = bar.add_task("", total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def _written(folder: Path, as_json: bool) -> None:
    _json({"folder": str(folder)}) if as_json else out.print(f"Written to {_plain(folder)}")


def _summary(run: str, store: "Store", as_json: bool) -> None:
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
            err.print(f"The best recipe cannot be laid out: {_plain(error)}")
    if as_json:
        sessions = [e.payload for e in store.events(run) if e.kind == "session"]
        return _json({**_run_json(p), "recipe": p.run.recipe, "sessions": sessions,
                      "best_genome": best.genome.tolist() if best else None,
                      "best_settings": table, "report": report,
                      "front": [{"id": c.id, **c.scores} for c in front]})  # fmt: skip
    out.print(
        f"[bold]{_plain(p.run.name)}[/] (run {p.run.id}): {p.state}, {p.done}/{p.total} "
        f"candidates in {_duration(p.elapsed)}"
    )
    if p.run.message:
        err.print(_plain(p.run.message))
    if best:
        out.print(f"best: candidate {best.id}, {_percent(best.score)} on the search's examples")
        if table:
            out.print(_settings(table))
    if front:
        out.print(_front(front))
    if report:
        out.print(_scores(report))
        rows = {row["role"]: row for row in reversed(report)}
        if "evolved" in rows and rows["evolved"]["subject"].startswith("candidate:"):
            out.print(f"Take it home: python -m studio export {run} --out DIR")


def _dtype(card: dict[str, Any]) -> str:
    """The dtype its tensors have here, and the quantization they are made of."""
    dtype, stored = card["dtype"], card["stored"]
    return dtype if card["kind"] != "gguf" else f"{stored} → {dtype}"


def _card(card: dict[str, Any]) -> str:
    """A model's card, a fact a line."""
    title = f"[bold]{_plain(card['name'])}[/]"
    if card.get("error"):
        return f"{title}\n  {_plain(card['error'])}"
    facts = {
        "architecture": card["architecture"],
        "layers": card["layers"],
        "hidden size": card["hidden"],
        "vocabulary": f"{card['vocab']:,} tokens",
        "parameters": f"{card['parameters']:,}" + (", tied head" if card["tied"] else ""),
        "dtype": _dtype(card),
        "size": f"{card['size'] / 1e6:,.1f} MB of {card['kind']}",
        "licence": card["licence"] or "not stated",
        "where": card["path"],
    }
    if card["base"]:
        facts["adapter on"] = card["base"]
    if "fits" in card:
        facts["fits the base"] = "yes" if card["fits"] else f"no: {card['why']}"
    # lines and no table, which would break paths
    return "\n".join([title] + [f"  {name:<14}{_plain(value)}" for name, value in facts.items()])


def _memory(rows: list[dict[str, Any]]) -> Table:
    """What a recipe takes at each precision."""
    title = (
        f"Memory at the most, with prompts of {rows[0]['prompt']} tokens and answers of "
        f"{rows[0]['answer']}"
    )
    table = _table("precision", "memory", "answers at a time", title=title, title_justify="left")
    for row in rows:
        batch = str(row["batch"]) if row["batch"] else "none fits"
        table.add_row(row["precision"], f"{row['bytes'] / 1e9:,.2f} GB", batch)
    return table


def _paper(document: dict[str, list[dict[str, Any]]], strip: list[dict[str, Any]]) -> None:
    """Table 1 beside ours, the strip of the problems, and what held."""
    n = next((row["n"] for row in document["table"] if row["n"]), 0)
    headers = ("", "paper", "MGSM-JA", "here", f"right of {n}", "95 % interval", "run")
    table = _table(*headers, title="Table 1, rows 1 to 6", title_justify="left")
    for row in document["table"]:
        mine = ("–", "", "")
        if row["score"] is not None:
            interval = f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
            candidate = f"{row['run']}:{row['candidate']}" if row["run"] else ""
            mine = (_percent(row["score"]), interval, candidate)
        table.add_row(str(row["id"]), row["model"], f"{row['accuracy']:.1f} %", row["ours"], *mine)
    out.print(table)
    for first in range(0, n, 50):
        out.print(f"problems {first + 1} to {min(n, first + 50)}, █ right")
        for row in strip:
            said = "".join(
                "█" if o.score == 1 else "·" for o in row["outcomes"][first : first + 50]
            )
            out.print(f"  {said}  {_plain(row['label'])}", highlight=False)
    table = _table("finding", "paper", "here", "", title="What held", title_justify="left")
    for row in document["findings"]:
        published = row["paper"] or "in words"
        table.add_row(row["claim"], published, row["here"], row["verdict"])
    out.print()
    out.print(table)


def _table(*headers: str, **options: Any) -> Table:
    """A table that folds what is too wide for the terminal: a cut-off path helps nobody."""
    columns = (Column(header, overflow="fold") for header in headers)
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, **options)


def _settings(rows: list[dict[str, Any]]) -> Table:
    """The best recipe, a row per layer group and source, or per step of a path."""
    keys = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    table = _table(*keys, title="best recipe", title_justify="left")
    for row in rows:
        cells = ("" if row[key] is None else row[key] for key in keys)
        table.add_row(*(f"{c:.2f}" if isinstance(c, float) else _plain(c) for c in cells))
    return table


def _front(candidates: "list[Candidate]") -> Table:
    """What no other candidate beats in every objective, on the search's examples."""
    names = list(candidates[0].scores)
    table = _table("front", *names, title="front", title_justify="left")
    for candidate in candidates:
        cells = (
            f"{value:,.0f}" if name in PROPERTIES else _percent(value)
            for name, value in candidate.scores.items()
        )
        table.add_row(f"#{candidate.id}", *cells)
    return table


def _scores(rows: list[dict[str, Any]]) -> Table:
    table = _table("model", "role", "task", "score", "95 % interval", "examples",
                  title="scores", title_justify="left")  # fmt: skip
    for row in rows:
        interval = f"{100 * row['low']:.1f} – {100 * row['high']:.1f}"
        table.add_row(_plain(row["model"]), row["role"], row["task"], _percent(row["score"]),
                      interval, str(row["n"]))  # fmt: skip
    return table


def _run_json(p: "Progress") -> dict[str, Any]:
    fields = dataclasses.asdict(p)
    record = fields.pop("run")
    return {"run": record["id"], "name": record["name"], "created": record["created"],
            "message": record["message"], **fields}  # fmt: skip


def _outcomes(evaluation: "Evaluation") -> list[dict[str, Any]]:
    return [dataclasses.asdict(outcome) for outcome in evaluation.outcomes]


def _pairs(items: list[str], flag: str) -> list[tuple[str, str]]:
    """'name=value' items, split."""
    pairs = []
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise StudioError(f"{flag} {item}: write it as name=value.")
        pairs.append((name, value))
    return pairs


def _value(text: str) -> Any:
    """A task's option as a recipe would give it: a number, true or false, or else text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text


def _json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.1f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _plain(text: Any) -> str:
    """Text from a file, a model or a user, with rich's markup switched off."""
    from rich.markup import escape

    return escape(str(text))
