"""The main road on the bundled models: a skill that none of the sources has.

Minutes, so only under `pytest -m slow` and in `.ci/run`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def studio(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "studio", *arguments, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        # as a user would: with every core (tests/conftest.py takes one thread)
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_default_recipe_evolves_japanese_math(tmp_path):
    run = studio("evolve", "recipes/jmath.yaml")
    assert run["state"] == "finished"
    rows = {row["model"]: row for row in run["report"] if row["task"] == "jmath"}
    assert all(row["n"] == 250 for row in rows.values())
    sources = {name: row for name, row in rows.items() if row["role"] == "source"}
    assert set(sources) == {"bonsai-ja", "bonsai-math", "bonsai-abel"}
    best_source = max(row["score"] for row in sources.values())
    assert best_source <= 0.30
    assert rows["bonsai-base"]["score"] <= 0.30
    (evolved,) = (row for row in rows.values() if row["role"] == "evolved")
    assert evolved["score"] >= 0.52
    assert evolved["score"] - best_source >= 0.22

    folder = studio("export", run["run"], "--out", str(tmp_path / "evolved"))["folder"]
    again = studio("evaluate", folder, "--task", "jmath")
    assert again["score"] == evolved["score"]
