"""Commands about models: list and describe them, plan a recipe, score one, merge, take home."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from studio.cli.options import Json, Out, Public, RunId, app, pairs, value
from studio.cli.showing import (
    card_lines,
    dtype_of,
    duration,
    err,
    make_table,
    memory_table,
    out,
    outcomes_of,
    plain,
    print_json,
    print_written,
    scores_table,
    writing,
)
from studio.errors import StudioError

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
        return print_json(cards)
    table = make_table("model", "type", "layers", "weights", "dtype", "size", "licence")
    for card in cards:
        table.add_row(
            plain(card["name"]),
            card["architecture"].removesuffix("ForCausalLM"),
            str(card["layers"]),
            f"{card['parameters'] / 1e6:.1f} M",
            dtype_of(card),
            f"{card['size'] / 1e6:.1f} MB",
            plain(card["licence"] or "not stated"),
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
        return print_json({"models": cards, "memory": memory})
    for card in cards:
        out.print(card_lines(card))
    if memory:
        out.print(memory_table(memory))


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
    print_json(rows) if as_json else out.print(memory_table(rows))


@app.command()
def estimate(
    recipe: Annotated[Path, typer.Argument(help="A recipe, see recipes/ for examples.")],
    as_json: Json = False,
) -> None:
    """Say how long a recipe takes, after ten seconds of trying; and its memory and disk."""
    from studio import api

    with err.status("Trying the recipe …"):
        found = api.estimate(recipe, api.open_store())
    if as_json:
        return print_json(dataclasses.asdict(found))
    if found.seconds is None or found.candidate_seconds is None:
        out.print("time: not measured in time")
    else:
        out.print(f"time: {duration(found.seconds)}, {found.candidate_seconds:.1f} s a candidate")
    out.print(f"memory: {found.memory / 1e9:,.2f} GB, {found.batch} answers at a time")
    out.print(f"disk: {found.disk / 1e6:,.1f} MB")
    out.print(f"answers: {found.answers:,}")


@app.command(hidden=True)
def probe(
    recipe: Annotated[Path, typer.Argument(help="A recipe as `estimate` hands it over.")],
    store: Annotated[Path, typer.Option(help="The run store of the workspace.")],
) -> None:
    """What `estimate` starts: prints what is known so far as one line of JSON, twice."""
    from studio import api
    from studio.recipe import Recipe
    from studio.runs import Store

    try:
        for found in api.probe(Recipe.load(recipe), Store(store)):
            print(json.dumps(found), flush=True)
    except StudioError as error:
        print(json.dumps({"error": str(error)}), flush=True)


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks a model can be evolved for or evaluated on."""
    from studio.tasks import task_names

    if as_json:
        return print_json(task_names())
    for name in task_names():
        out.print(name)


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

    options = {name: value(text) for name, text in pairs(option or [], "--option")}
    with err.status(f"{plain(model)} answers {task} …"):
        evaluation = api.evaluate(
            model, task, split, options, examples, api.open_store(), batch_size, precision
        )
    row = api.scores_of(evaluation, model, "")
    if as_json:
        return print_json({**row, "split": split, "tokens": evaluation.tokens,
                      "seconds": evaluation.seconds, "broken": evaluation.broken,
                      "outcomes": outcomes_of(evaluation)})  # fmt: skip
    if responses:
        for outcome in evaluation.outcomes:
            mark = "[green]right[/]" if outcome.score == 1 else f"[red]{outcome.score:.2f}[/]"
            out.print(f"{plain(outcome.example)} {mark} {plain(outcome.response)}")
    out.print(scores_table([row]))
    out.print(
        f"{evaluation.tokens} tokens in {duration(evaluation.seconds)}, "
        f"{evaluation.tokens / max(evaluation.seconds, 1e-9):.0f} tokens/s"
    )
    if evaluation.broken:
        err.print(f"The model is broken: {plain(evaluation.broken)}.")


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
    for name, number in pairs(weight or [], "--weight"):
        try:
            weights[name] = float(number)
        except ValueError:
            raise StudioError(f"--weight {name}={number}: '{number}' is no number.") from None
    with writing() as on_bytes:
        folder = api.merge(recipe, out_folder, weights, density, t, on_bytes)
    print_written(folder, as_json)


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

    with writing() as on_bytes:
        folder = api.export(
            run, out_folder, candidate, api.open_store(), on_bytes, push, public=public
        )
    print_written(folder, as_json)
    if push and not as_json:
        out.print(f"Uploaded to {plain(push)} ({'public' if public else 'private'})")


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
    print_json({"address": address}) if as_json else out.print(f"Uploaded to {plain(address)}")
