import errno
import os
import subprocess
import sys

import pytest

from studio.errors import StudioError
from studio.models import hub, sources


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An assets folder with two bundled models (and one thing that is none)."""
    for name in ("bonsai-base", "bonsai-math"):
        (tmp_path / "assets/models" / name).mkdir(parents=True)
        (tmp_path / "assets/models" / name / "config.json").write_text("{}")
    (tmp_path / "assets/models/notes").mkdir()
    monkeypatch.setattr(sources, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr(sources, "_in_wheel", lambda: None)
    return tmp_path / "assets/models"


def test_bundled_names_and_local_folders(shelf, tmp_path):
    assert sources.bundled() == ["bonsai-base", "bonsai-math"]
    assert sources.resolve("bonsai-base") == shelf / "bonsai-base"
    assert sources.resolve(str(tmp_path)) == tmp_path


def test_a_misspelt_name_gets_a_suggestion(shelf):
    with pytest.raises(StudioError, match=r"did you mean bonsai-math\?"):
        sources.resolve("bonsai-mat")


def test_a_hub_id_without_network_says_what_to_do(shelf):
    with pytest.raises(StudioError, match="hub cannot be reached.*bundled model") as caught:
        sources.resolve("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_revision_is_for_hub_ids(shelf, tmp_path):
    with pytest.raises(StudioError, match="no revisions"):
        sources.resolve(str(tmp_path), revision="main")
    with pytest.raises(StudioError, match="not a revision"):
        sources.resolve("owner/name", revision="../../etc")


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a\0b",
        "a\nb",
        "../bonsai-base/../../secret",
        "bonsai-base/../../secret",
        "owner/name/../..",
        "$(touch pwned)",
        "a; touch pwned",
        "-rf/--name",
        "owner/..",
        "x" * 5000,
        "https://example.org/model",
        "~nobody-here/model",
        "C:\\models\\x",
    ],
)
def test_odd_names_are_refused_before_any_lookup(shelf, monkeypatch, tmp_path, name):
    def never(*_):
        raise AssertionError("reached the hub")

    monkeypatch.setattr(hub, "download", never)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudioError) as caught:
        sources.resolve(name)
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("model.safetensors", "give the folder that holds it"),
        ("pytorch_model.bin", "pickled"),
        ("weights.pth", "pickled"),
    ],
)
def test_a_file_in_place_of_a_folder(shelf, tmp_path, file, words):
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(StudioError, match=words):
        sources.resolve(str(tmp_path / file))


def _failure(name):
    """A hub error as huggingface_hub raises it."""
    import httpx
    from huggingface_hub import errors

    request = httpx.Request("GET", "https://huggingface.co/owner/name")
    response = httpx.Response(404, request=request)
    return {
        "gated": lambda: errors.GatedRepoError("gated", response=response),
        "missing": lambda: errors.RepositoryNotFoundError("missing", response=response),
        "revision": lambda: errors.RevisionNotFoundError("revision", response=response),
        "full": lambda: OSError(errno.ENOSPC, "No space left on device"),
        "cut": lambda: httpx.ReadTimeout("timed out\nwith a second line"),
    }[name]()


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("gated", "gated: accept its terms"),
        ("missing", "no public repository"),
        ("revision", "no revision 'v9'"),
        ("full", "disk is full"),
        ("cut", r"could not be downloaded \(timed out\)"),
    ],
)
def test_what_can_go_wrong_on_the_hub_is_one_sentence(shelf, monkeypatch, failure, words):
    def snapshot_download(*_, **__):
        raise _failure(failure)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(StudioError, match=words) as caught:
        sources.resolve("owner/name", revision="v9")
    assert "\n" not in str(caught.value)


def test_only_safe_files_are_fetched(shelf, monkeypatch, tmp_path):
    """The patterns, applied by huggingface_hub's own filter to a typical repository."""
    from huggingface_hub.utils import filter_repo_objects

    asked = {}

    def snapshot_download(name, **options):
        asked.update(options)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert sources.resolve("owner/name") == tmp_path
    wanted = ["config.json", "model.safetensors", "tokenizer.json", "README.md"]
    unwanted = [
        "modeling_evil.py",
        "pytorch_model.bin",
        "consolidated.safetensors",
        "original/model.safetensors",
        "model.pt",
        "training_args.bin",
    ]
    kept = filter_repo_objects(
        wanted + unwanted,
        allow_patterns=asked["allow_patterns"],
        ignore_patterns=asked["ignore_patterns"],
    )
    assert list(kept) == wanted


def test_importing_the_room_is_cheap():
    code = (
        "import sys, studio.models\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
