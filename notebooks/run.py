"""Runs the notebooks from top to bottom and writes them back with outputs and widgets' state.

    python notebooks/run.py             all of them
    python notebooks/run.py 02 05       those two
    python notebooks/run.py --check     run, say how long each took, write nothing

Knows the parts that all notebooks share: the badge and the first cell, which it writes from
`studio.address`. Refuses to know what a notebook is about. Runs go to a workspace that is thrown
away; a cell that raises ends the script with that cell's error.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from studio.address import REPOSITORY, colab  # noqa: E402

#: Seconds that a cell may take, on a machine that does other things as well.
PATIENCE = 1200
#: The first cell of every notebook.
SETUP = """\
# Finds the Studio around this notebook, or clones it, and installs what is missing of the packages
# that it needs; never torch, which comes with the machine.
import subprocess
import sys
from pathlib import Path

ADDRESS = "{address}"
around = (Path.cwd(), *Path.cwd().parents, Path("evollm-studio").resolve())
root = next((place for place in around if (place / "notebooks" / "ready.py").is_file()), None)
if root is None and ADDRESS:
    root = around[-1]
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ADDRESS, str(root)], check=True)
if root is None:
    raise FileNotFoundError(
        "The Studio is not here. Open this notebook from the notebooks folder of a checkout, or "
        "put a checkout beside it, in a folder called evollm-studio, and run this cell again."
    )
sys.path.insert(0, str(root / "notebooks"))
from ready import ready

ready(root)"""


def notebooks(chosen: list[str] | None = None) -> list[Path]:
    """The notebooks, or those whose names begin as one of ``chosen`` does."""
    found = sorted(HERE.glob("[0-9][0-9]-*.ipynb"))
    return [path for path in found if not chosen or any(path.name.startswith(c) for c in chosen)]


def prepared(path: Path, repository: str = REPOSITORY) -> nbformat.NotebookNode:
    """A notebook with its shared parts as they should be, and no outputs."""
    book = nbformat.read(path, as_version=4)
    cells = [c for c in book.cells if not {"badge", "setup"} & set(c.metadata.get("tags", []))]
    shared = [_cell("code", SETUP.format(address=repository), "setup")]
    if address := colab(path.name, repository):
        image = "https://colab.research.google.com/assets/colab-badge.svg"
        shared.insert(0, _cell("markdown", f"[![Open in Colab]({image})]({address})", "badge"))
    # the title stays on top
    book.cells = [*cells[:1], *shared, *cells[1:]]
    for number, cell in enumerate(book.cells):
        cell.id = f"cell-{number:02}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    book.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return book


def execute(book: nbformat.NotebookNode) -> float:
    """Run a notebook in a workspace of its own, outputs and widgets' state put into it.

    Returns:
        seconds, the kernel's start included.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as workspace:
        environment = {**os.environ, "STUDIO_WORKSPACE": workspace, "HF_HUB_OFFLINE": "1"}
        environment |= {"STUDIO_NOTEBOOK_RUN": "1", "PYTHONWARNINGS": "ignore"}
        environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        client = NotebookClient(
            book,
            timeout=PATIENCE,
            kernel_name="python3",
            resources={"metadata": {"path": str(HERE)}},
            store_widget_state=True,
            record_timing=False,
        )
        client.execute(env=environment)
    book.metadata["language_info"] = {"name": "python"}
    for cell in book.cells:
        if "live" in cell.metadata.get("tags", []):
            cell.outputs = []  # they point at a server that has ended
    return time.monotonic() - start


def _cell(kind: str, source: str, tag: str) -> nbformat.NotebookNode:
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}[kind]
    return make(source, metadata={"tags": [tag]})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run the notebooks and write them back.")
    parser.add_argument(
        "which", nargs="*", help="beginnings of names, such as 02; all when left out"
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(arguments)
    for path in notebooks(given.which):
        book = prepared(path)
        seconds = execute(book)
        if not given.check:
            nbformat.write(book, path)
        print(f"{path.name}  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
