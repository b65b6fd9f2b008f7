"""The terminal: the whole road, documents for scripts, and bad input as one sentence.

`studio` calls the program's own entry point within this process, once per command as a shell would;
what only a process of its own can show (a full disk, the module's name) starts one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from studio import api
from studio.cli import main
from studio.runs import Store
from tests.conftest import make_model, save_model

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def no_bundled_runs(monkeypatch):
    """A workspace holds what the test puts there; the bundled runs are `test_api`'s."""
    monkeypatch.setattr(api.samples, "SAMPLE_RUN", Path("absent"))
    monkeypatch.setattr(api.samples, "PAPER_RUNS", Path("absent"))


@pytest.fixture
def studio(monkeypatch, capsys):
    """`studio("runs", "--json")` → (exit status, stdout, stderr)."""

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["studio", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return left.value.code or 0, said.out, said.err

    return call


@pytest.fixture
def refused(studio):
    """The one sentence with which bad input is refused."""

    def call(*arguments) -> str:
        status, out, err = studio(*arguments)
        assert status == 2, (out, err)
        assert "Traceback" not in err and out.strip() == ""
        lines = [line for line in err.splitlines() if line.strip()]
        assert len(lines) == 1 and lines[0].startswith("Error: "), err
        return lines[0]

    return call


@pytest.fixture
def recipe_file(tiny_recipe, tmp_path):
    """`recipe_file(budget={…})` → the path of a recipe."""

    def write(**changes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(tiny_recipe(**changes).to_yaml(), encoding="utf-8")
        return path

    return write


def options(questions) -> list[str]:
    return ["--option", f"path={questions}", "--option", "match=contains",
            "--option", "max_new_tokens=2"]  # fmt: skip


# ── the road ──────────────────────────────────────────────────────────────────────────────────


def test_from_recipe_to_folder(studio, recipe_file, questions, tmp_path):
    status, out, err = studio("evolve", recipe_file(), "--json")
    assert status == 0, err
    shown = json.loads(out)
    run = shown["run"]
    assert (shown["state"], shown["done"], shown["total"]) == ("finished", 28, 28)
    assert [row["role"] for row in shown["report"]] == [
        "base", "source", "source", "evolved", "random"
    ]  # fmt: skip
    assert len(shown["best_genome"]) == 4 and shown["best_settings"]

    status, out, err = studio("runs", "--json")
    assert status == 0 and [item["run"] for item in json.loads(out)] == [run]
    status, out, _ = studio("runs")
    assert status == 0 and run in out and "finished" in out

    for name in (run, run[:4], "last"):
        status, out, _ = studio("show", name, "--json")
        assert status == 0 and json.loads(out)["report"] == shown["report"]
    status, out, _ = studio("show", run)
    assert status == 0 and "95 % interval" in out and "evolved" in out and "28/28" in out

    status, out, err = studio("resume", run, "--json")  # nothing left to do
    assert status == 0 and json.loads(out)["report"] == shown["report"]

    folder = tmp_path / "taken home"
    status, out, err = studio("export", run, "--out", folder, "--json")
    assert status == 0, err
    assert Path(json.loads(out)["folder"]) == folder

    row = next(row for row in shown["report"] if row["role"] == "evolved")
    answers = []
    for model in (folder, f"{run}:best"):
        status, out, err = studio("evaluate", model, "--task", "csv", *options(questions), "--json")
        assert status == 0, err
        found = json.loads(out)
        assert [found[key] for key in ("score", "low", "high", "n")] == [
            row[key] for key in ("score", "low", "high", "n")
        ]
        assert found["tokens"] > 0 and found["seconds"] > 0
        answers.append(found["outcomes"])
    store = Store()
    recorded = store.evaluation(run, row["subject"], "csv", "test")
    store.close()
    assert answers[0] == answers[1]
    assert [a["response"] for a in answers[0]] == [o.response for o in recorded.outcomes]


def test_people_see_progress_and_a_summary(studio, recipe_file):
    status, out, err = studio("evolve", recipe_file(budget={"candidates": 4}))
    assert status == 0
    assert "resume" in err  # how to go on after Ctrl-C
    for words in ("finished", "8/8", "best recipe", "scores", "95 % interval", "export"):
        assert words in out


def test_evaluate_for_people_shows_speed_and_answers(studio, tiny_recipe, questions):
    model = tiny_recipe().sources[0]
    status, out, _ = studio(
        "evaluate", model, "--task", "csv", *options(questions),
        "--split", "dev", "--examples", "3", "--responses",
    )  # fmt: skip
    assert status == 0
    assert "tokens/s" in out and "95 % interval" in out
    assert all(f"line-{n} " in out for n in (2, 3, 4)) and "line-5 " not in out


def test_merge_at_once(studio, tiny_recipe, recipe_file, tmp_path):
    ja, math = tiny_recipe().sources
    recipe = recipe_file(space={"method": "slerp", "layer_granularity": "all"})
    status, out, err = studio("merge", recipe, "--out", tmp_path / "m", "--t", "1", "--json")
    assert status == 0, err
    from transformers import AutoModelForCausalLM

    merged, wanted = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).state_dict()
        for path in (json.loads(out)["folder"], math)
    )
    for name, tensor in wanted.items():
        assert torch.allclose(merged[name], tensor, atol=1e-6)


def test_a_mergekit_configuration_is_merged_as_it_says(studio, refused, tiny_recipe, tmp_path):
    ja, math = tiny_recipe().sources
    document = {
        "merge_method": "slerp",
        "base_model": ja,
        "slices": [{"sources": [{"model": m, "layer_range": [0, 2]} for m in (ja, math)]}],
        "parameters": {"t": [{"filter": "mlp", "value": [0, 1]}, {"value": 1}]},
    }
    config = tmp_path / "config.yml"
    config.write_text(yaml.safe_dump(document))
    status, out, err = studio("merge", config, "--out", tmp_path / "m", "--json")
    assert status == 0, err
    from transformers import AutoModelForCausalLM

    first, second, merged = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).state_dict()
        for path in (ja, math, json.loads(out)["folder"])
    )
    for name, tensor in merged.items():
        wanted = first if "layers.0.mlp" in name else second
        if "embed" not in name and "head" not in name and ".norm" not in name:
            assert torch.allclose(tensor, wanted[name], atol=1e-6), name
    assert "leave weight, density and t out" in refused(
        "merge", config, "--out", tmp_path / "x", "--t", "0.5"
    )
    config.write_text(yaml.safe_dump(document | {"merge_method": "nearswap"}))
    assert "'nearswap' is not one of" in refused("merge", config, "--out", tmp_path / "x")
    config.write_text(yaml.safe_dump(document | {"base_model": "no-such-model"}))
    assert "base_model" in refused("merge", config, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_export_is_pushed_where_it_should_go(studio, refused, settled, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(
        "studio.merge.push.push",
        lambda *given, token=None: pushed.append((*given, token)) or "https://the.hub/me/mine",
    )
    status, out, err = studio("export", settled, "--out", tmp_path / "a", "--push", "me/mine")
    assert status == 0 and "Uploaded to me/mine (private)" in out, err
    status, out, err = studio("push", tmp_path / "a", "me/mine", "--public")
    assert status == 0 and "https://the.hub/me/mine" in out, err
    # with the machine's own token, which the hub's client finds by itself
    assert [given[:3] for given in pushed] == [
        (tmp_path / "a", "me/mine", False), (tmp_path / "a", "me/mine", True)
    ]  # fmt: skip
    assert all(token is None for given in pushed for token in given[3:])
    said = refused("export", settled, "--out", tmp_path / "b", "--push", "mine")
    assert "write owner/name" in said and not (tmp_path / "b").exists()


def test_models_are_described(studio, tiny_family):
    status, out, _ = studio("models", "show", tiny_family["ja"], "--json")
    (card,) = json.loads(out)["models"]
    assert status == 0 and card["layers"] == 3 and card["licence"] == "apache-2.0"
    status, out, _ = studio("models", "show", tiny_family["ja"], tiny_family["math"])
    assert status == 0 and all(word in out for word in ("Mistral", "float32", "apache-2.0"))
    assert str(tiny_family["ja"]) in out and str(tiny_family["math"]) in out
    status, out, _ = studio("models")
    assert status == 0 and "bonsai-math" in out
    status, out, _ = studio("models", "--json")
    assert status == 0
    assert {card["name"] for card in json.loads(out)} >= {
        "bonsai-abel", "bonsai-base", "bonsai-ja", "bonsai-math"
    }  # fmt: skip
    status, out, _ = studio("tasks", "--json")
    assert status == 0 and json.loads(out)[:5] == ["jmath", "emath", "mgsm", "csv", "lm_eval"]
    assert {"ja_vqa", "ja_culture_vqa", "vqa", "clip_score"} < set(json.loads(out))


def test_a_card_says_whether_a_model_fits_and_what_a_recipe_takes(
    studio, family_factory, tiny_family, recipe_file
):
    deeper = family_factory(layers=4)["base"]
    shown = ("models", "show", tiny_family["ja"], "--base")
    status, out, _ = studio(*shown, tiny_family["base"])
    assert status == 0 and re.search(r"fits the base +yes", out)
    status, out, _ = studio(*shown, deeper)
    assert status == 0 and "no: " in out and "has 4 layers, the second 3" in out
    status, out, _ = studio(*shown, deeper, "--recipe", recipe_file(), "--json")
    document = json.loads(out)
    assert status == 0 and document["models"][0]["fits"] is False
    sizes = {row["precision"]: row["bytes"] for row in document["memory"]}
    assert 0 < sizes["bf16"] < sizes["fp32"]
    status, out, _ = studio(*shown[:3], "--recipe", recipe_file())
    assert status == 0 and re.search(r"fp32\s+0\.\d\d GB", out)
    status, out, _ = studio("models", "show", "--recipe", recipe_file(), "--json")
    shown = json.loads(out)["models"]
    assert [card["role"] for card in shown] == ["base", "source", "source"]
    assert all(card["fits"] for card in shown[1:])
    status, _, err = studio("models", "show")
    assert status == 2 and "Name a model to show" in err


def test_an_empty_workspace_says_how_to_begin(studio):
    status, out, _ = studio("runs")
    assert status == 0 and "evolve recipes/jmath.yaml" in out
    status, out, _ = studio("runs", "--json")
    assert status == 0 and json.loads(out) == []


def test_evolve_from_where_another_run_ended(studio, refused, recipe_file):
    recipe = recipe_file(budget={"candidates": 4}, search={"random_baseline": False})
    status, out, err = studio("evolve", recipe, "--json")
    assert status == 0, err
    before = json.loads(out)["run"]
    status, out, err = studio("evolve", recipe, "--start", "last", "--seeds", 2, "--json")
    assert status == 0, err
    store = Store()
    try:
        runs = store.runs()
        assert len(runs) == 3 and runs[-1].id == before
        for run in runs[:2]:  # not the second from the first
            (origin,) = store.events(run.id, "origin")
            assert origin.payload["run"] == before
    finally:
        store.close()
    assert "'uniform'" in refused("evolve", recipe, "--start", "there")


def test_stop_and_resume(studio, recipe_file):
    store = Store()
    run = api.create(recipe_file(budget={"candidates": 4}), store)
    status, out, _ = studio("stop", run)
    assert status == 0 and run in out
    assert json.loads(studio("show", run, "--json")[1])["state"] == "stopped"
    status, out, err = studio("resume", run, "--json")  # asked for by name: it goes on
    assert status == 0 and json.loads(out)["state"] == "finished", err
    store.close()


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "studio", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in ("models", "evolve", "resume", "runs", "show", "evaluate", "merge", "export"):
        assert command in done.stdout


def test_text_of_strangers_is_no_markup(studio, recipe_file):
    store = Store()
    api.create(recipe_file(name="[red]x[/nonsense] [link=file:///]"), store)
    store.close()
    assert studio("runs")[0] == 0
    status, out, _ = studio("show", "last")
    assert status == 0 and "[red]x[/nonsense] [link=file:///]" in out


# ── bad input: models ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def damaged(tiny_recipe, tmp_path):
    """A copy of a model to damage."""
    return Path(shutil.copytree(tiny_recipe().sources[0], tmp_path / "damaged"))


def unknown(folder):
    shutil.rmtree(folder)


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def truncated(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def corrupt(folder):
    file = folder / "model.safetensors"
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")


def pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")


def remote_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("open('PWNED', 'w')\n")


def tokenizer_code(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("open('PWNED', 'w')\n")


def no_config(folder):
    (folder / "config.json").unlink()


def other_shape(folder):
    shutil.rmtree(folder)
    save_model(make_model(layers=2, intermediate_size=192), folder)


def other_depth(folder):
    shutil.rmtree(folder)
    save_model(make_model(layers=3), folder)


def other_words(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


DAMAGES = [
    (unknown, "does not exist"),
    (no_weights, "safetensors"),
    (truncated, "model.safetensors"),
    (corrupt, "model.safetensors"),
    (empty_weights, "model.safetensors"),
    (pickled, "pickled"),
    (remote_code, "code of its own"),
    (tokenizer_code, "code of its own"),
    (no_config, "config.json"),
    (other_shape, "intermediate_size.*128.*192"),
    (other_depth, "layers"),
    (other_words, "tokenizer|vocabular"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=lambda x: getattr(x, "__name__", ""))
def test_a_model_that_cannot_be_used(
    refused, recipe_file, tiny_recipe, damaged, tmp_path, damage, says, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    damage(damaged)
    recipe = recipe_file(sources=[str(damaged), tiny_recipe().sources[1]])
    for command in (["evolve", recipe], ["merge", recipe, "--out", tmp_path / "out"]):
        sentence = refused(*command)
        assert re.search(says, sentence), sentence
        assert "damaged" in sentence
    assert not (tmp_path / "out").exists() and not (tmp_path / "PWNED").exists()
    store = Store()
    assert store.runs() == []
    store.close()
    if not damage.__name__.startswith("other"):
        assert re.search(says, refused("models", "show", damaged))
        assert re.search(says, refused("evaluate", damaged, "--task", "jmath"))


def test_a_name_that_is_no_model(refused):
    assert "no-such-model" in refused("evaluate", "no-such-model", "--task", "jmath")
    assert "somebody/else" in refused("models", "show", "somebody/else")


# ── bad input: recipes ────────────────────────────────────────────────────────────────────────

RECIPES = {
    "field": (b"sources: [a]\nobjectives: [{task: jmath}]\nbudgets: 3\n", "no field 'budgets'"),
    "type": (b"sources: a\nobjectives: [{task: jmath}]\n", "'sources'"),
    "yaml": (b"sources: [a\n  x: ][", "not valid YAML"),
    "list": (b"- sources\n- objectives\n", "mapping"),
    "empty": (b"", "mapping"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "nul": (b"\0" * 100, "not valid YAML"),
    "huge": (b"a" * 300_000, "KiB"),
    "object": (b"!!python/object/apply:os.system ['touch PWNED']", "not valid YAML"),
    "bomb": (b"a: &a [" + b"x," * 200 + b"]\nb: [" + b"*a," * 200 + b"]\n", "aliases"),
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_recipe_that_cannot_be_used(refused, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    content, says = RECIPES[case]
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    for command in (["evolve", path], ["merge", path, "--out", tmp_path / "out"]):
        sentence = refused(*command)
        assert says in sentence and "bad.yaml" in sentence
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bad.yaml"]


def test_a_recipe_that_is_not_there(refused, tmp_path):
    assert "cannot be read" in refused("evolve", tmp_path / "absent.yaml")
    assert "cannot be read" in refused("evolve", tmp_path)


# ── bad input: tasks ──────────────────────────────────────────────────────────────────────────

FILES = {
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"question,answer\n", "no questions"),
    "columns.csv": (b"q,a\n1,2\n", "lacks question and answer"),
    "cells.csv": (b"question,answer\na,b,c\n", "3 cells"),
    "binary.csv": (b"\xff\xfe\0\1", "not UTF-8"),
    "quote.csv": (b'question,answer\n"a,b\n', "cannot be read"),
    "broken.jsonl": (b'{"question": "a"\n', "not JSON"),
    "surrogate.jsonl": (
        b'{"question": "a \\ud800", "answer": "b \\ud800", "split": "dev"}\n'
        b'{"question": "b", "answer": "c", "split": "test"}\n', "no character"),
    "excel.xlsx": (b"PK", "no .csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_task_file_that_cannot_be_used(refused, recipe_file, tiny_recipe, tmp_path, name):
    content, says = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    objective = {"task": "csv", "options": {"path": str(path)}}
    sentences = [
        refused("evolve", recipe_file(objectives=[objective])),
        refused("evaluate", tiny_recipe().base, "--task", "csv", "--option", f"path={path}"),
    ]
    assert all(says in sentence and name in sentence for sentence in sentences), sentences
    store = Store()
    assert store.runs() == []
    store.close()


def test_other_wrong_options(refused, tiny_recipe, questions):
    model = tiny_recipe().base
    path = f"path={questions}"
    assert "chess" in refused("evaluate", model, "--task", "chess")
    assert "absent.csv" in refused(
        "evaluate", model, "--task", "csv", "--option", "path=absent.csv"
    )
    assert "'path'" in refused("evaluate", model, "--task", "csv")
    assert "name=value" in refused("evaluate", model, "--task", "csv", "--option", "path")
    assert "'train'" in refused(
        "evaluate", model, "--task", "csv", "--option", path, "--split", "train"
    )
    assert "max_new_tokens" in refused(
        "evaluate", model, "--task", "csv", "--option", path, "--option", "max_new_tokens=many"
    )


# ── bad input: runs and places ────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def finished(tiny_recipe, tmp_path_factory):
    """A workspace with one finished run."""
    folder = tmp_path_factory.mktemp("finished")
    store = Store(folder / "runs.sqlite")
    run = api.evolve(tiny_recipe(budget={"candidates": 4}), store)
    store.close()
    return folder, run


@pytest.fixture
def settled(finished, monkeypatch):
    monkeypatch.setenv("STUDIO_WORKSPACE", str(finished[0]))
    return finished[1]


def test_runs_and_candidates_that_are_not_there(refused, settled, tmp_path):
    for command in (["show"], ["resume"], ["stop"], ["export", "--out", tmp_path / "out"]):
        assert "no run 'zzzz'" in refused(command[0], "zzzz", *command[1:])
    assert "no candidate 999" in refused(
        "export", settled, "--candidate", "999", "--out", tmp_path / "out"
    )
    assert "no candidate 999" in refused("evaluate", f"{settled}:999", "--task", "jmath")
    assert not (tmp_path / "out").exists()


def forbidden(tmp_path) -> Path:
    """A place nobody may write to, root included."""
    if os.geteuid() == 0:
        return Path("/proc/self/fdinfo")
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=0o555)
    return folder


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_places_that_cannot_be_written(refused, settled, recipe_file, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("keep me")
    full = tmp_path / "full"
    full.mkdir()
    (full / "keep.txt").write_text("keep me")
    places = [file, file / "inside", full, forbidden(tmp_path) / "out"]
    for place in places:
        for command in (["export", settled], ["merge", recipe_file()]):
            assert str(place.parent) in refused(*command, "--out", place)
    assert file.read_text() == "keep me"
    assert [item.name for item in full.iterdir()] == ["keep.txt"]
    assert not list(tmp_path.glob(".*"))  # nothing half-written
    for workspace in (file, file / "inside", forbidden(tmp_path) / "workspace"):
        monkeypatch.setenv("STUDIO_WORKSPACE", str(workspace))
        assert "STUDIO_WORKSPACE" in refused("runs")
        assert "STUDIO_WORKSPACE" in refused("evolve", recipe_file())


def test_a_store_that_is_no_store(refused, own_workspace, recipe_file):
    (own_workspace / "runs.sqlite").write_bytes(b"junk" * 4000)
    assert "runs.sqlite" in refused("runs")
    assert "runs.sqlite" in refused("evolve", recipe_file())
    assert (own_workspace / "runs.sqlite").read_bytes() == b"junk" * 4000


@pytest.mark.skipif(os.name == "nt", reason="resource limits")
def test_a_full_disk_while_exporting(settled, tmp_path):
    """A limit on the size of files, which weights exceed and the run store does not."""
    import resource

    done = subprocess.run(
        [sys.executable, "-m", "studio", "export", settled, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "Error: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_models_are_gone_can_still_be_seen(studio, recipe_file, tiny_recipe, tmp_path):
    moved = Path(shutil.copytree(tiny_recipe().sources[0], tmp_path / "moved"))
    recipe = recipe_file(sources=[str(moved), tiny_recipe().sources[1]], budget={"candidates": 4})
    before = json.loads(studio("evolve", recipe, "--json")[1])
    shutil.rmtree(moved)
    status, out, err = studio("show", "last", "--json")
    assert status == 0, err
    after = json.loads(out)
    assert after["report"] == before["report"] and after["best_genome"] == before["best_genome"]
    assert yaml.safe_load(after["recipe"])["sources"][0] == str(moved)
    assert studio("show", "last")[0] == 0


def test_a_record_that_cannot_be_read_hides_no_other(studio, own_workspace):
    store = Store()
    good = store.create_run("good", "sources: [a]\nbase: b\nobjectives: [{task: jmath}]")
    bad = store.create_run("bad", "colour: blue")
    status, out, err = studio("runs", "--json")
    assert status == 0
    assert [run["run"] for run in json.loads(out)] == [good]
    assert f"Run {bad} cannot be shown" in err and "Traceback" not in err


def test_a_deleted_run_is_gone(studio, recipe_file):
    status, out, err = studio("evolve", recipe_file(budget={"candidates": 4}), "--json")
    assert status == 0, err
    run = json.loads(out)["run"]
    status, out, _ = studio("delete", run[:5])
    assert status == 0 and run in out
    status, out, _ = studio("runs", "--json")
    assert status == 0 and run not in out
    status, _, err = studio("show", run)
    assert status == 2 and f"no run '{run}'" in err


def test_the_precision_of_an_evaluation_can_be_chosen(studio, tiny_family, questions):
    for precision, status in (("fp32", 0), ("bf16", 0), ("fp8", 2)):
        found, _, err = studio("evaluate", tiny_family["ja"], "--task", "csv", *options(questions),
                               "--precision", precision)  # fmt: skip
        assert found == status, err
    assert "no precision 'fp8'; use one of fp32, bf16" in err


# ── plans ─────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_says_what_each_precision_takes_and_which_batch_fits(studio, recipe_file):
    path = recipe_file()
    status, out, _ = studio("plan", path, "--json")
    here = json.loads(out)
    assert status == 0 and [row["precision"] for row in here] == ["fp32", "bf16", "int8", "nf4"]
    assert all(row["batch"] == 8 and row["answer"] == 2 for row in here)  # the recipe's batch
    tight = json.loads(studio("plan", path, "--memory", "0.001", "--json")[1])
    assert tight[0]["batch"] == 0 and tight[3]["bytes"] < tight[0]["bytes"]
    status, out, _ = studio("plan", path, "--memory", "0.001")
    assert status == 0 and "none fits" in out and "answers of 2" in out


def test_a_plan_of_nothing_is_refused(refused, tmp_path):
    assert "cannot be read" in refused("plan", tmp_path / "absent.yaml")


# ── one run after another, and elsewhere ──────────────────────────────────────────────────────


def test_a_recipe_is_run_with_several_seeds(studio, recipe_file):
    recipe = recipe_file(budget={"candidates": 4}, seed=7)
    status, _, err = studio("evolve", recipe, "--seeds", 2)
    assert status == 0, err
    found = json.loads(studio("runs", "--json")[1])
    assert [(run["name"], run["state"]) for run in found] == [
        ("tiny, seed 8", "finished"),
        ("tiny, seed 7", "finished"),
    ]


def test_a_run_is_told_that_it_is_enough(studio, refused, settled, recipe_file, monkeypatch):
    assert "finished already" in refused("stop", settled, "--finish")
    monkeypatch.undo()
    store = Store()
    run = api.create(recipe_file(budget={"candidates": 5000}), store)
    assert "no scored candidate yet" in refused("stop", run, "--finish")
    api.resume(run, store, lambda p: p.done >= 3 and api.pause(run, store))
    store.append(run, "enough", {})  # what the option says, without waking a worker
    status, out, err = studio("resume", run, "--json")
    shown = json.loads(out)
    assert status == 0 and shown["state"] == "finished" and shown["done"] < 100, err
    assert {row["role"] for row in shown["report"]} >= {"evolved", "random"}
    store.close()


def test_a_run_goes_elsewhere_and_on(studio, refused, settled, tmp_path, monkeypatch):
    file = tmp_path / "run.sqlite"
    status, out, err = studio("export-run", settled, "--out", file)
    assert status == 0 and str(file) in out, err
    assert "exists already" in refused("export-run", settled, "--out", file)
    report = json.loads(studio("show", settled, "--json")[1])["report"]
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path / "elsewhere"))
    assert json.loads(studio("import-run", file, "--json")[1]) == {"runs": [settled]}
    assert json.loads(studio("show", settled, "--json")[1])["report"] == report
    file.write_text("a letter")
    assert "run.sqlite cannot be imported: it is no exported run." in refused("import-run", file)


def test_candidates_are_a_table(studio, refused, settled, tmp_path):
    status, out, err = studio("candidates", settled)
    lines = out.splitlines()
    assert status == 0 and lines[0].startswith("id,stage,generation,score,csv,"), err
    assert len([line for line in lines if line]) > 8
    file = tmp_path / "candidates.csv"
    assert studio("candidates", settled, "--out", file)[0] == 0
    assert file.read_text(encoding="utf-8-sig").splitlines()[0] == lines[0]
    assert "cannot be written" in refused("candidates", settled, "--out", file)


def test_an_estimate_says_time_memory_and_disk(studio, refused, recipe_file):
    status, out, err = studio("estimate", recipe_file())
    assert status == 0 and "a candidate" in out and "GB" in out and "MB" in out, err
    assert "no-such" in refused("estimate", recipe_file(sources=["no-such-model"]))
