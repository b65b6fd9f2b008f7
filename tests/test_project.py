"""The project's own promises: README, CI and repository agree with each other."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from studio import api, paper
from studio.recipe import Recipe
from studio.runs import Store
from tests import published

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))


def test_ci_calls_exactly_the_readmes_test_command():
    command = 'pip install -e ".[test]" && pytest'
    assert command in README.splitlines()
    assert ci_line() == f"bash -c '{command}'"


def ci_line() -> str:
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if "pip install -e" in line and not line.startswith("#"))
    return line


@pytest.mark.skipif(os.name == "nt", reason="CI is a Bash script")
@pytest.mark.parametrize(("pip", "pytests"), [(1, 0), (0, 1), (0, 0)])
def test_ci_stops_where_pip_or_pytest_fails(tmp_path, pip, pytests):
    for name, status in (("pip", pip), ("pytest", pytests)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{ci_line()}\necho went on"],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    fine = pip == pytests == 0
    assert (done.returncode == 0) == fine
    assert ("went on" in done.stdout) == fine


def test_front_matter_follows_the_conventions_of_spaces():
    front = yaml.safe_load(README.split("---")[1])
    assert front["sdk"] == "gradio"
    assert (ROOT / front["app_file"]).is_file()
    assert front["license"] == "apache-2.0"
    assert len(front["short_description"]) <= 60
    wanted = re.search(r"gradio>=(\S+),<(\d+)", (ROOT / "requirements.txt").read_text())
    assert front["sdk_version"].startswith(wanted[1])


def test_the_package_needs_what_the_space_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["dependencies"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"] == ["requirements.txt"]


def test_every_picture_the_readme_shows_is_there():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file()


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_example_recipe_is_valid(path):
    recipe = Recipe.load(path)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_importing_the_terminal_loads_no_heavy_library():
    code = (
        "import sys, studio.cli, studio.api; "
        "print([m for m in ('torch', 'transformers', 'gradio', 'vlm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_tracked_file_is_over_ten_megabytes():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    files = files or [path for path in ROOT.rglob("*") if path.is_file()]  # no git: a download
    large = [path for path in files if path.is_file() and path.stat().st_size > 10 * 2**20]
    assert not [path for path in large if "assets" in path.parts or listed.stdout]


# ── the measured table ────────────────────────────────────────────────────────────────────────


def test_the_readme_shows_the_measured_table():
    shown = re.search(r"<!-- table: (.*?) -->\n(.*?)<!-- /table -->", README, re.DOTALL)
    assert (ROOT / shown[1].split()[-1]).is_file()
    tables = (published.TABLE, published.PATHS)
    weights, paths = (published.lines(table.read_text(encoding="utf-8")) for table in tables)
    assert len(weights) == 8 and len(paths) == 4
    assert published.lines(shown[2]) == weights + paths


def test_the_readme_shows_table_one_and_what_held():
    measured = published.PATHS.read_text(encoding="utf-8").splitlines()
    shown = README.splitlines()
    rows = [line for line in measured if re.match(r"\| [1-6] \|", line)]
    held = [line for line in measured if line.endswith((" held |", " noise |", " not hold |"))]
    assert len(rows) == 6 and len(held) >= len(paper.CLAIMS)
    assert set(rows + held) <= set(shown)


SHOWN = ["optimizers", "objectives", "path_export", "memory", "four_bit", "four_bit_evolution",
         "memory_7b_cpu", "mergekit_agreement", "vlm_table", "clip_score"]  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_readme_and_docs_show_what_a_benchmark_gave(name):
    """Every row of a table that they carry over is one that was measured."""
    measured = (published.RESULTS / f"{name}.md").read_text(encoding="utf-8")
    pages = [README, *(p.read_text(encoding="utf-8") for p in sorted(ROOT.glob("docs/*.md")))]
    found = (re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", p, re.DOTALL) for p in pages)
    shown = next(filter(None, found))
    tables = [line for line in shown[1].splitlines() if line.startswith("|")]
    assert len(tables) > 2 and set(tables) <= set(measured.splitlines())


def test_the_readme_shows_the_measured_skills():
    measured = (ROOT / "benchmarks/results/latent_skill.md").read_text(encoding="utf-8")
    measured = {line.split(" | ")[0]: line.split(" | ")[1:] for line in measured.splitlines()}
    shown = [line.split(" | ") for line in README.splitlines()]
    for model in ("bonsai-base", "bonsai-ja", "bonsai-math", "bonsai-abel", "bonsai-base, asked"):
        # the README says besides, in its second cell, what the model is
        assert [f"| {model}", *measured[f"| {model}"]] in [[c[0], *c[2:]] for c in shown]


def test_the_table_shows_a_skill_that_no_source_has():
    sources = [row["score"] for row in published.rows() if row["role"] in ("base", "source")]
    evolved = published.score("evolved")
    assert len(sources) == 4 and max(sources) <= 30
    assert evolved >= 52
    assert evolved - max(sources) >= 22
    assert evolved > published.score("uniform grid")
    assert evolved > published.score("rescaled source")
    assert evolved > published.score("random")


def test_the_table_is_the_sample_runs_record(tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    (run,) = store.import_runs(api.SAMPLE_RUN)
    recorded = [
        {
            "model": row["model"],
            "role": row["role"],
            **{key: round(100 * row[key], 1) for key in ("score", "low", "high")},
        }
        for row in api.report(run, store)
    ]
    store.close()
    searched_since = ("uniform grid", "rescaled source")  # by the benchmark, beside the run
    assert recorded == [row for row in published.rows() if row["role"] not in searched_since]


def test_the_paths_in_the_table_are_the_bundled_runs_record(tmp_path):
    store = Store(tmp_path / "runs.sqlite")
    runs = store.import_runs(api.PAPER_RUNS)
    recorded = [
        {key: round(100 * row[key], 1) for key in ("score", "low", "high")}
        for run in sorted(runs, key=lambda run: store.run(run).created)
        for row in api.report(run, store)
        if row["role"] in ("evolved", "random")
    ]
    store.close()
    shown = [{key: row[key] for key in recorded[0]} for row in published.rows(published.PATHS)]
    assert shown == recorded
