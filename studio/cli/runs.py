"""Commands about runs: begin one, go on, stop, look at them, forget them."""

import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from studio.cli.options import (
    Address,
    Executor,
    Json,
    RunId,
    Timeout,
    Track,
    Workers,
    app,
    place,
)
from studio.cli.showing import (
    duration,
    err,
    make_table,
    out,
    percent,
    plain,
    print_json,
    print_paper,
    print_summary,
    run_document,
)
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.api import Place
    from studio.runs import Progress, Store


@app.command()
def evolve(
    recipe: Annotated[Path, typer.Argument(help="A recipe, see recipes/ for examples.")],
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Run it with so many seeds, one after another.")
    ] = 1,
    start: Annotated[
        str | None,
        typer.Option(help="Begin at: default, uniform, or where a run ended, by its id."),
    ] = None,
    executor: Executor = None,
    workers: Workers = None,
    address: Address = None,
    timeout: Timeout = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Run a recipe from start to report. Ctrl-C stops it; `resume` goes on."""
    from studio import api
    from studio.runs import tracking
    from studio.runs.records import FINISHED

    tracking.chosen(track)  # before a run is recorded
    where = place(executor, workers, address, timeout)
    store = api.open_store()
    begun = api.starting(recipe, start, store) if start else recipe
    for one in api.reseeded(begun, seeds):
        run = api.create(one, store)
        _work(run, store, as_json, track, where)
        if store.run(run).status != FINISHED:
            break


@app.command()
def resume(
    run: RunId,
    executor: Executor = None,
    workers: Workers = None,
    address: Address = None,
    timeout: Timeout = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped, interrupted or killed, where it was worked on last."""
    from studio import api

    where = place(executor, workers, address, timeout)
    store = api.open_store()
    _work(store.run(run).id, store, as_json, track, where)


@app.command()
def track(
    run: RunId,
    tracker: Annotated[str, typer.Option(help="Where to: tensorboard.")] = "tensorboard",
) -> None:
    """Write a run's scalars as recorded so far, for a tracker to show."""
    from studio import api

    out.print(f"Written to {plain(api.track(run, tracker, api.open_store()))}")


@app.command()
def worker(
    store: Annotated[Path, typer.Option(help="The run store of the workspace.")],
) -> None:
    """Work on the queued runs, one after another, without showing anything: what the page wakes."""
    from studio import api
    from studio.runs import Store

    if hasattr(os, "nice"):
        os.nice(5)  # whoever looks at the page comes first

    def failed(run: str, error: Exception) -> None:
        said = traceback.format_exception(error)
        err.print(plain(f"Run {run}: {error}" if isinstance(error, StudioError) else "".join(said)))

    api.work_off(Store(store), failed)


@app.command()
def stop(
    run: RunId,
    finish: Annotated[
        bool, typer.Option("--finish", help="End the search only: compare finalists and report.")
    ] = False,
) -> None:
    """Ask a run to stop within a batch, or to finish early with what it has found."""
    from studio import api

    if finish:
        api.finish(run)
        return out.print(f"Run {run} ends its search, then reports.")
    api.pause(run)
    out.print(f"Run {run} stops within a batch; `resume {run}` goes on.")


@app.command()
def delete(run: RunId) -> None:
    """Forget a run and everything recorded of it; what was exported stays."""
    from studio import api

    store = api.open_store()
    found = store.run(run)
    api.delete(found.id, store)
    out.print(f"Run {found.id} ({plain(found.name)}) is deleted.")


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
            err.print(f"Run {run.id} cannot be shown: {plain(error)}")
    if as_json:
        return print_json([run_document(p) for p in found])
    if not found:
        return out.print("No runs yet; `python -m studio evolve recipes/jmath.yaml` starts one.")
    table = make_table("run", "name", "state", "scored", "best", "worked", "begun")
    for p in found:
        begun = time.strftime("%b %d %H:%M", time.localtime(p.run.created))
        table.add_row(p.run.id, plain(p.run.name), p.state, f"{p.done}/{p.total}",
                      percent(p.best), duration(p.elapsed), begun)  # fmt: skip
    out.print(table)


@app.command()
def show(run: RunId, as_json: Json = False) -> None:
    """Show where a run stands: its progress, its best recipe and its report."""
    from studio import api

    store = api.open_store()
    print_summary(store.run(run).id, store, as_json)


@app.command("export-run")
def export_run(
    run: RunId,
    out_file: Annotated[Path, typer.Option("--out", help="The file; must not exist yet.")],
) -> None:
    """Write a run's whole record to one file, which `import-run` takes in anywhere."""
    from studio import api

    out.print(f"Written to {plain(api.archive(run, out_file, api.open_store()))}")


@app.command("import-run")
def import_run(
    file: Annotated[Path, typer.Argument(help="What `export-run` or the page wrote.")],
    as_json: Json = False,
) -> None:
    """Take in the runs of a file; one that was not finished can be resumed."""
    from studio import api

    store = api.open_store()
    runs = api.unarchive(file, store=store)
    if as_json:
        return print_json({"runs": runs})
    for run in runs:
        out.print(f"Run {run} ({plain(store.run(run).name)}) is imported.")


@app.command()
def candidates(
    run: RunId,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="A file to write instead; must not exist yet.")
    ] = None,
) -> None:
    """Print all candidates of a run as CSV: scores, and the genome by the names of its genes."""
    from studio import api

    lines = api.candidates_csv(run, api.open_store())
    if out_file is None:
        for line in lines:
            print(line, end="")
        return
    try:
        # a byte-order mark, without which Excel takes the names for another encoding
        with out_file.open("x", encoding="utf-8-sig", newline="") as file:
            file.writelines(lines)
    except OSError as error:
        raise StudioError(
            f"{out_file} cannot be written ({error.strerror}); choose another name."
        ) from error
    out.print(f"Written to {plain(out_file)}")


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
            eta = f", {duration(p.eta)} to go" if p.eta is not None else ""
            status.update(f"Row {row}: {p.stage}, {p.done}/{p.total}, best {percent(p.best)}{eta}")

        table_one.reproduce(store, told)
    document = {
        name: getattr(table_one, name)(store) for name in ("table", "ablations", "findings")
    }
    strip = table_one.strip(store)
    if as_json:
        rows = [{"label": row["label"], "right": [o.score == 1 for o in row["outcomes"]]}
                for row in strip]  # fmt: skip
        return print_json(document | {"strip": rows})
    print_paper(document, strip)


def _work(
    run: str, store: "Store", as_json: bool, track: str | None, where: "Place | None"
) -> None:
    """Drive a run from this process under a progress bar, then show its summary."""
    from studio import api

    if as_json:
        api.resume(run, store, track=track, place=where)
        return print_summary(run, store, as_json)
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
                best=percent(p.best),
                speed=f"{p.candidates_per_minute:.0f} candidates/min, "
                f"{p.tokens_per_second:.0f} tokens/s",
                eta=duration(p.eta) if p.eta is not None else "–",
            )

        api.resume(run, store, update, track, where)
    print_summary(run, store, as_json)
