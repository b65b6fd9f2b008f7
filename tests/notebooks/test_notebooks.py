"""The notebooks as they are committed, and run from top to bottom."""

import json
import os
import re
import socket
import sys
from pathlib import Path

import nbformat
import pytest

from studio.address import colab

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))

import ready  # noqa: E402
import run as runner  # noqa: E402

BOOKS = runner.notebooks()
WIDGETS = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


def text_of(cell) -> str:
    """What a cell printed or showed as text."""
    parts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        parts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/markdown", "")]
    return "\n".join(parts)


def check(book) -> None:
    """What is true of a notebook that ran."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    for cell in code:
        assert all(output.output_type != "error" for output in cell.outputs)
        assert all(output.get("name") != "stderr" for output in cell.outputs), text_of(cell)
    shown = {
        output.data[WIDGETS]["model_id"]
        for cell in code
        for output in cell.outputs
        if WIDGETS in output.get("data", {})
    }
    assert shown, "a notebook without a widget"
    state = book.metadata.widgets[STATE].state
    assert shown <= set(state)


def test_there_are_eight_in_order():
    assert [path.name[:2] for path in BOOKS] == [f"{n:02}" for n in range(8)]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_outputs_and_widgets_and_without_its_machine(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    check(book)
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 500_000
    outputs = json.dumps([cell.get("outputs") for cell in book.cells]) + json.dumps(book.metadata)
    assert not re.search(r"/(tmp|home|root|work|Users)/|[A-Z]:\\\\|127\.0\.0\.1|localhost", outputs)
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", outputs)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_shared_parts_are_as_the_script_writes_them(path):
    book = nbformat.read(path, as_version=4)
    assert [cell.source for cell in runner.prepared(path).cells] == [c.source for c in book.cells]
    assert book.cells[0].source.startswith(f"# {path.name[:2]} · ")
    assert "## Exercise" in "\n".join(cell.source for cell in book.cells)


def test_the_badge_and_the_address_come_from_one_constant():
    path, home = BOOKS[3], "https://github.com/owner/name"
    cells = runner.prepared(path, home).cells
    assert colab(path.name, home) in cells[1].source and "colab-badge" in cells[1].source
    assert f'ADDRESS = "{home}"' in cells[2].source
    bare = runner.prepared(path, "").cells
    assert "colab" not in "".join(cell.source for cell in bare).lower()
    assert len(bare) == len(cells) - 1


def first_cell(monkeypatch, tmp_path, **known) -> None:
    """Run the first cell where no checkout is around."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "notebooks" not in p])
    exec(runner.SETUP.format(address=known.get("address", "")), {})


def test_without_a_checkout_the_first_cell_says_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="evollm-studio"):
        first_cell(monkeypatch, tmp_path)


def test_with_an_address_the_first_cell_clones_it(monkeypatch, tmp_path):
    import subprocess

    origin = tmp_path / "origin"
    (origin / "notebooks").mkdir(parents=True)
    (origin / "notebooks" / "ready.py").write_text(
        "def ready(root): open('called', 'w').write(str(root))"
    )
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], cwd=origin, check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.delitem(sys.modules, "ready", raising=False)
    first_cell(monkeypatch, elsewhere, address=str(origin))
    monkeypatch.setitem(sys.modules, "ready", ready)
    assert (elsewhere / "called").read_text() == str(elsewhere / "evollm-studio")


def test_only_what_is_missing_is_installed_and_never_torch(monkeypatch, tmp_path):
    versions = {"torch": "1.0", "gradio": None, "transformers": "4.0"}
    real = ready._version
    monkeypatch.setattr(ready, "_version", lambda name: versions.get(name, real(name)))
    absent = [re.split(r"[<>=~]", line)[0] for line in ready.missing(ROOT)]
    assert sorted(absent) == ["gradio", "torch", "transformers"]
    commands = []

    class Done:
        returncode = 0

    monkeypatch.setattr(ready.subprocess, "run", lambda c, **_: commands.append(c) or Done)
    monkeypatch.chdir(tmp_path)
    ready.ready(ROOT)
    assert Path(os.getcwd()) == ROOT
    (command,) = commands
    wished = [re.split(r"[<>=~]", word)[0] for word in command[5:]]
    assert sorted(wished) == ["gradio", "transformers"]
    versions["torch"] = None
    with pytest.raises(RuntimeError, match="no torch"):
        ready.ready(ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, capsys):
    book = runner.prepared(path)
    seconds = runner.execute(book)
    with capsys.disabled():
        print(f"\n{path.name}: {seconds:.0f} s", end=" ")
    check(book)
    said = "\n".join(text_of(cell) for cell in book.cells)
    for claim in CLAIMS.get(path.name[:2], ()):
        assert re.search(claim, said), claim


#: What a notebook's widgets must have done when it ran, in the words that it prints.
CLAIMS = {
    "00": [r"答えは35枚です", r"False – bonsai-base and bonsai-culture"],
    "01": [r"bonsai-math\s+right number"],
    "02": [r"answers under the strip changed: True", r"merges tried"],
    "03": [r"'finished'", r"evolved\s+\d"],
    "04": [r"'finished'", r"all scales 1"],
    "05": [r"'finished'", r"generation"],
    "06": [r"'finished'", r"a third and two thirds"],
    "07": [r"nf4\s+\d+%", r"subtract, then round"],
}
