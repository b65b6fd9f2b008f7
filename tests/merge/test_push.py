"""Uploads, against a stand-in for the hub."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from studio import api
from studio.errors import StudioError
from studio.models import access


class Hub:
    """What `HfApi` is to a push: repositories with a visibility, and what was uploaded to them."""

    def __init__(self):
        self.private: dict[str, bool] = {}
        self.uploaded: list[dict] = []
        self.tokens: list[str] = []
        self.failure: Exception | None = None
        self.fails_at = "create_repo"

    def _step(self, name: str) -> None:
        if self.failure and self.fails_at == name:
            raise self.failure

    def create_repo(self, repository, *, private, exist_ok):
        self._step("create_repo")
        assert exist_ok
        self.private.setdefault(repository, private)
        return f"https://huggingface.co/{repository}"

    def repo_info(self, repository):
        return SimpleNamespace(private=self.private[repository])

    def upload_folder(self, **options):
        self._step("upload_folder")
        self.uploaded.append(options)


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()

    def api(token):
        hub.tokens.append(token)
        return hub

    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return hub


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def answered(status: int) -> Exception:
    response = SimpleNamespace(
        status_code=status, headers={}, request=None, text="", json=lambda: {}
    )
    error = errors.HfHubHTTPError.__new__(errors.HfHubHTTPError)
    Exception.__init__(error, f"{status} from the hub\nwith a second line")
    error.response = response
    return error


def test_a_push_is_private_unless_said_otherwise(hub, folder):
    assert api.push(folder, "me/mine") == "https://huggingface.co/me/mine"
    assert api.push(folder, "me/ours", public=True) == "https://huggingface.co/me/ours"
    assert hub.private == {"me/mine": True, "me/ours": False}
    assert [upload["repo_id"] for upload in hub.uploaded] == ["me/mine", "me/ours"]
    assert all(upload["folder_path"] == folder for upload in hub.uploaded)


def test_a_second_push_replaces_the_first_ones_weights(hub, folder):
    for _ in range(2):
        api.push(folder, "me/mine")
    assert "*.safetensors" in hub.uploaded[1]["delete_patterns"]


def test_nothing_private_goes_to_a_public_repository(hub, folder):
    hub.private["me/mine"] = False
    with pytest.raises(StudioError, match="me/mine exists and is public"):
        api.push(folder, "me/mine")
    assert not hub.uploaded
    api.push(folder, "me/mine", public=True)
    assert hub.uploaded


@pytest.mark.parametrize(
    "name", ["", "mine", "me/", "/mine", "a/b/c", "me/mi ne", "../x", "me/é", "-/x"]
)
def test_names_that_are_none(hub, folder, name):
    with pytest.raises(StudioError, match="write owner/name"):
        api.push(folder, name)


def test_without_a_token(hub, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(StudioError, match="set HF_TOKEN"):
        api.push(folder, "me/mine")
    with pytest.raises(StudioError, match="set HF_TOKEN"):  # before anything is looked up
        api.export("no-such-run", tmp_path / "out", push="me/mine")


def test_whose_name_it_is_written_in(hub, folder):
    api.push(folder, "me/mine")
    api.push(folder, "me/mine", token="hf_visitors")
    with access.asking_with("hf_served"):
        api.push(folder, "me/mine")
    assert hub.tokens == ["hf_secret", "hf_visitors", "hf_served"]


def test_a_guest_never_writes_with_the_machines_token(hub, folder, tmp_path):
    with pytest.raises(StudioError, match="sign in"):
        api.push(folder, "me/mine", token=False)
    with access.asking_with(False):
        for push in (
            lambda: api.push(folder, "me/mine"),
            lambda: api.export("no-such-run", tmp_path / "out", push="me/mine"),
        ):
            with pytest.raises(StudioError, match="sign in"):
                push()
    assert not hub.tokens


def test_a_visitor_is_told_no_paths(hub, folder):
    hub.failure = answered(403)
    with pytest.raises(StudioError, match="no right to write") as raised:
        api.push(folder, "me/mine", token="hf_visitors")
    assert str(folder) not in str(raised.value)


@pytest.mark.parametrize("step", ["create_repo", "upload_folder"])
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (answered(401), "does not know the token, or"),
        (answered(403), "no right to write to me/mine"),
        (answered(404), "no right to write to me/mine"),
        (answered(500), "did not take me/mine .500 from the hub.;"),
        (errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE"),
        (ConnectionError("refused"), "cannot be reached"),
        (errors.HFValidationError("too long"), "takes no repository"),
        (RuntimeError(""), "RuntimeError"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub, folder, step, failure, message):
    hub.failure, hub.fails_at = failure, step
    with pytest.raises(StudioError, match=message) as raised:
        api.push(folder, "me/mine")
    text = str(raised.value)
    assert "\n" not in text and "hf_secret" not in text
    assert f"stays in {folder}" in text and "python -m studio push" in text


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_only_a_finished_export_is_pushed(hub, folder, missing):
    (folder / missing).unlink()
    with pytest.raises(StudioError, match="holds no finished export"):
        api.push(folder, "me/mine")
    with pytest.raises(StudioError, match="holds no finished export"):
        api.push(folder / "absent", "me/mine")
    assert not hub.uploaded
