"""The Take home tab: what an export would be, how it is handed over, and what is left of it."""

import shutil
import zipfile
from pathlib import Path

import gradio as gr
import huggingface_hub
import pytest

from studio import api, talks
from studio.errors import StudioError
from studio.evolve.spaces import first_space
from studio.models.licences import judge
from studio.recipe import Recipe
from studio.runs import Evaluation, Outcome, Store
from studio.speech import Settings
from studio.ui import strings, take_home
from studio.ui.take_home import FOLDER, HUB, ZIP
from studio.ui.wiring import Visit
from studio.visitors import Visitor
from tests.conftest import make_model, perturb, save_model

OWNER, OTHER = "a" * 32, "b" * 32
SCORED = Evaluation(
    "candidate:0", "jmath", "dev", 0.5, 9, 1.0, "", (Outcome("dev-0", 0.5, "4", {}, 9),)
)


@pytest.fixture
def store(own_workspace, monkeypatch) -> Store:
    made = Store(own_workspace / "runs.sqlite")
    monkeypatch.setattr(take_home, "store", lambda: made)
    monkeypatch.setattr(take_home, "engine", lambda: None)
    yield made
    made.close()


@pytest.fixture
def served(tmp_path, monkeypatch) -> Path:
    """Where Gradio serves files from."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    return tmp_path / "served"


@pytest.fixture
def run(store, tiny_family) -> str:
    """One of the owner's, with a candidate."""
    recipe = Recipe(
        base=str(tiny_family["base"]),
        sources=[str(tiny_family["ja"]), str(tiny_family["math"])],
        objectives=[{"task": "jmath"}],
        space={"layer_granularity": "all"},
    )
    run = store.create_run("tiny", recipe.to_yaml(), owner=OWNER)
    store.record_ask(run, "cma", 0, [(0, first_space(recipe).initial)])
    store.record_evaluation(run, SCORED)
    return run


def visit(owner: str = "", language: str = "en", **more) -> Visit:
    who = Visitor(owner, True, host=False, **more) if owner else Visitor()
    return Visit(who, language, "t" * 43)


def write(at: Visit, run: str, form: str, folder: str = "", repository: str = "", public=False):
    return list(take_home.write(at, run, "best", form, folder, repository, public))


# ── folder, zip, hub ──────────────────────────────────────────────────────────────────────────


def test_a_folder_is_written_with_its_progress(run, store):
    steps = write(visit(), run, FOLDER, "mine")
    out = visit().who.folder("exports") / "mine"
    assert (out / "model.safetensors").is_file() and (out / "mergekit.yaml").is_file()
    bars = [step[0] for step in steps[:-1]]
    assert all("<progress" in bar for bar in bars) and "Getting ready" in bars[0]
    assert any("Writing the weights" in bar and "value=" in bar for bar in bars)
    files, path, download, export, cancel = steps[-1]
    assert "model.safetensors" in files and path["value"] == str(out)
    assert export["interactive"] and not cancel["interactive"]
    with pytest.raises(StudioError, match="mine"):  # twice into the same folder
        write(visit(), run, FOLDER, "mine")


@pytest.mark.parametrize("owner", ["", OWNER])
def test_a_zip_is_handed_over_and_nothing_else_is_kept(run, store, served, owner):
    at = visit(owner)
    files, path, download, *_ = write(at, run, ZIP, "mine")[-1]
    file = Path(download["value"])
    assert file.is_relative_to(served) and download["visible"]
    with zipfile.ZipFile(file) as archive:
        assert "mine/model.safetensors" in archive.namelist() and archive.testzip() is None
    assert "model.safetensors" in files and "value" not in path
    assert not list(at.who.folder("exports").iterdir())
    again = Path(write(at, run, ZIP, "mine")[-1][2]["value"])
    assert again.exists() and (not owner or not file.exists())  # in public there is one at a time


def test_what_is_too_large_for_a_browser(run, store, served, monkeypatch):
    monkeypatch.setattr(take_home, "MAX_ZIP", 1000)
    files, path, *_ = write(visit(), run, ZIP, "mine")[-1]
    assert "Too large" in files and Path(path["value"]).is_dir()
    with pytest.raises(StudioError, match="on your own machine"):
        write(visit(OWNER), run, ZIP, "mine")
    assert not list(visit(OWNER).who.folder("exports").iterdir())


@pytest.fixture
def hub(monkeypatch) -> list:
    uploaded = []

    def push(folder, repository, public, token):
        if repository == "me/refused":
            raise StudioError(f"The hub refused {folder}; try again.")
        assert (folder / "model.safetensors").is_file()
        uploaded.append((repository, public, token))
        return f"https://huggingface.co/{repository}"

    monkeypatch.setattr(api, "push", push)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_machine")
    return uploaded


def test_the_hub_is_written_to_in_the_visitors_name_only(run, store, hub):
    signed_in = visit(OWNER, token="hf_visitor")
    files, *_ = write(signed_in, run, HUB, "mine", "me/mine", True)[-1]
    assert 'href="https://huggingface.co/me/mine"' in files
    write(visit(), run, HUB, "mine", "me/mine")
    assert hub == [("me/mine", True, "hf_visitor"), ("me/mine", False, None)]
    with pytest.raises(StudioError, match="sign in"):
        write(visit(OWNER), run, HUB, "mine", "me/mine")
    with pytest.raises(StudioError, match="owner/name"):
        write(signed_in, run, HUB, "mine", "mine")
    with pytest.raises(StudioError) as refused:
        write(signed_in, run, HUB, "mine", "me/refused")
    folder = signed_in.who.folder("exports")
    assert str(folder) not in str(refused.value) and not list(folder.iterdir())
    assert len(hub) == 2


def test_a_cancelled_export_leaves_nothing(run, store, served, monkeypatch):
    import threading

    told, ended = threading.Event(), threading.Event()
    real = api.export

    def slow(*arguments, on_bytes, **options):
        def on(*at):
            told.wait(30)
            on_bytes(*at)

        try:
            return real(*arguments, on_bytes=on, **options)
        finally:
            ended.set()

    monkeypatch.setattr(api, "export", slow)
    at = visit()
    going = take_home.write(at, run, "best", ZIP, "", "", False)
    next(going)
    thread = threading.Timer(0.5, told.set)
    thread.start()
    next(going)
    going.close()  # as Cancel and a closed page do
    assert ended.wait(30)
    folder = at.who.folder("exports")
    for _ in range(100):
        if not list(folder.iterdir()):
            break
        ended.wait(0.05)
        threading.Event().wait(0.05)
    assert not list(folder.iterdir()) and not list(served.glob("exports/*/*"))


@pytest.mark.parametrize("name", ["../../etc", "a/b", ".hidden", "x" * 101, "日本"])
def test_names_stay_in_the_visitors_folder(run, store, name):
    with pytest.raises(StudioError, match="folder name"):
        write(visit(), run, FOLDER, name)


def test_a_stranger_takes_nothing_home(run, store, served):
    for form in (ZIP, HUB):
        with pytest.raises(StudioError, match="no run"):
            write(visit(OTHER), run, form, "mine", "me/mine")
    with pytest.raises(StudioError, match="no run"):
        take_home.preview(visit(OTHER), run, "best")
    with pytest.raises(StudioError, match="choose one"):  # no folders on a server of others
        write(visit(OWNER), run, FOLDER, "mine")
    assert not served.exists()


def test_the_command_does_the_same():
    def command(*values):
        return take_home._command(visit(), *values)

    run = "0123abcd"
    assert command(run, "best", FOLDER, "", "", False) == (
        "python -m studio export 0123abcd --out 0123abcd-best"
    )
    assert command(run, "3", HUB, "mine", "me/mine", True) == (
        "python -m studio export 0123abcd --candidate 3 --out mine --push me/mine --public"
    )
    assert command(run, "3; rm", FOLDER, "", "", False) == ""
    assert command(run, "best", HUB, "", "me/$(rm)", False) == ""
    assert command(None, "best", FOLDER, "", "", False) == ""


# ── what it would be ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", strings.LANGUAGES)
def test_licence_card_and_configuration_are_shown_beforehand(run, store, language):
    licence, card, obstacle, mergekit = take_home.preview(visit(OWNER, language), run, "best")
    assert 'data-kind="free"' in licence and "apache-2.0" in licence
    assert strings.say(language, "licence_free") in licence
    assert "## Recipe" in card and not card.startswith("---")
    assert obstacle == "" and "merge_method" in mergekit["value"] and mergekit["visible"]


def test_a_research_only_source_makes_a_research_only_merge(store, tmp_path, tiny_family):
    model = make_model()
    perturb(model, seed=9)
    source = save_model(model, tmp_path / "nc", licence="cc-by-nc-4.0")
    silent = shutil.copytree(tiny_family["ja"], tmp_path / "silent")
    (silent / "README.md").unlink()
    recipe = Recipe(
        base=str(tiny_family["base"]),
        sources=[str(source), str(silent)],
        objectives=[{"task": "jmath"}],
        space={"layer_granularity": "all"},
    )
    run = store.create_run("nc", recipe.to_yaml())
    store.record_ask(run, "cma", 0, [(0, first_space(recipe).initial)])
    store.record_evaluation(run, SCORED)
    shown = take_home.preview(visit(), run, "best")[0]
    assert 'data-kind="noncommercial"' in shown and "nc (cc-by-nc-4.0)" in shown
    assert "No licence is stated by" in shown and "silent" in shown


def test_every_verdict_has_words():
    for licences, kind in (
        ({"m": "mit"}, "free"),
        ({"m": "gemma"}, "terms"),
        ({"m": "gemma", "n": "llama2"}, "several"),
        ({"m": None}, "unknown"),
        ({"m": "cc-by-nc-4.0"}, "noncommercial"),
        ({"m": "gpl-3.0", "n": "gemma"}, "conflict"),
        ({"m": "cc-by-nd-4.0"}, "forbidden"),
    ):
        assert judge(licences).kind == kind
        for language in strings.LANGUAGES:
            assert strings.say(language, f"licence_{kind}", names="NAMES")


def test_a_candidate_that_is_gone_is_a_word_about_it(run, store):
    shown, card, obstacle, mergekit = take_home.preview(visit(), run, "7")
    assert "7" in shown and card == "" and not mergekit["visible"]


# ── my data ───────────────────────────────────────────────────────────────────────────────────


def test_a_visitors_data_is_deleted_and_nobody_elses(run, store, served):
    mine, other = visit(OWNER), visit(OTHER)
    others = store.create_run("other", "x: y", owner=OTHER)
    write(mine, run, ZIP)
    for at in (mine, other):
        (at.who.folder("uploads") / "questions.csv").write_text("q,a")
        talk = talks.talk(at.who.folder("chats"), "0123abcd")
        talk.ask("Why?", Settings())
        talk.save()
    told, *_ = take_home.forget(mine)
    assert "runs 1, conversations 1, uploads 1, exported files 1" in told
    assert [r.id for r in store.runs()] == [others]
    left = [path for path in store.folder.rglob("*") if OWNER in str(path) and path.is_file()]
    assert not left and not list(served.glob(f"exports/{OWNER}-*"))
    assert (other.who.folder("uploads") / "questions.csv").exists()
    assert talks.talk(other.who.folder("chats"), "0123abcd").questions


def test_locally_nothing_is_anybodys_own(run, store):
    with pytest.raises(StudioError, match="in a public Studio"):
        take_home.forget(visit())
    assert store.runs()


@pytest.mark.parametrize(("public", "there"), [("1", True), ("0", False)])
def test_what_a_public_page_offers(monkeypatch, public, there):
    from studio.ui.wiring import Wires

    monkeypatch.setenv("STUDIO_PUBLIC", public)
    with gr.Blocks() as page:
        take_home.build(Wires(gr.BrowserState({}), gr.State(frozenset())), gr.Dropdown([]))
    blocks = {block.elem_id: block for block in page.blocks.values()}
    assert ("delete-data" in blocks) == there
    forms = [value for _, value in blocks["export-form"].choices]
    assert forms == ([ZIP, HUB] if there else [FOLDER, ZIP, HUB])
    assert not set(forms) & set(strings.TABLE)  # Gradio translates what is a word of ours
