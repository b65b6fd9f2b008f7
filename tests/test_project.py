"""The project's own promises: README, CI and repository agree with each other."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from studio.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))


def test_ci_calls_exactly_the_readmes_test_command():
    command = 'pip install -e ".[test]" && pytest'
    assert command in README.splitlines()
    assert ci_line() == f"bash -c '{command}'"


def ci_line() -> str:
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if "pip install" in line and not line.startswith("#"))
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
