"""An export on the hub: a repository of the user's, private unless they say otherwise.

Knows huggingface_hub and how it fails. Refuses to know what is in the folder beyond that it is a
finished checkpoint: what was exported is what is uploaded, and it stays where it is.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.models import access

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
#: What an earlier model in the same repository must not leave behind: shards of both would mix.
_REPLACED = ["*.safetensors", "*.safetensors.index.json"]


def check(repository: str, token: access.Token = None) -> None:
    """What can be known before an hour's export: a name, and a token to write with.

    Args:
        token: as in `push`.

    Raises:
        StudioError: no ``owner/name``, or no token.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise StudioError(f"{repository[:120]!r} is no repository; write owner/name.")
    _token(repository, token)


def _token(repository: str, token: access.Token) -> str:
    """The token to write with: a visitor's, or this machine's where it is theirs to use."""
    from huggingface_hub import get_token

    token = access.token() if token is None else token
    if token is False:
        raise StudioError(
            f"To write to {repository} the hub wants to know you; sign in with Hugging Face, at "
            "the top of the page."
        )
    found = get_token() if token is None or token is True else token
    if found is None:
        raise StudioError(
            f"To write to {repository} the hub wants a token: set HF_TOKEN to one with the right "
            "to write, or run `hf auth login`."
        )
    return found


def push(
    folder: str | Path, repository: str, public: bool = False, token: access.Token = None
) -> str:
    """Upload an export in one commit, making the repository if there is none.

    Model files of an earlier commit are replaced, and stay in the repository's history.

    Args:
        repository: ``owner/name``.
        public: for everybody to see; otherwise the repository is, and must be, private.
        token: to write with; None for that of whoever is served (`studio.models.access`), which
            is this machine's own unless somebody said otherwise; False for none at all.

    Returns:
        The address of the repository.

    Raises:
        StudioError: as `check`; no finished export in the folder; a public repository for a private
            export; or the hub cannot be reached or refuses. The folder is not touched.
    """
    from huggingface_hub import HfApi

    check(repository, token)
    folder = Path(folder).expanduser()
    weights = ("model.safetensors", "model.safetensors.index.json")
    if not (folder / "config.json").is_file() or not any((folder / w).is_file() for w in weights):
        raise StudioError(f"{folder} holds no finished export; name the folder of one.")
    try:
        return _upload(HfApi(token=_token(repository, token)), folder, repository, public)
    except StudioError:
        raise
    except Exception as error:  # the hub's own errors, and whatever the transport raises
        reason = _reason(error, repository)
        # Whoever is served through a page sees no paths and no terminal of this machine.
        if isinstance(access.token() if token is None else token, str):
            raise StudioError(f"{reason}; nothing was uploaded.") from error
        raise StudioError(
            f"{reason}; the export stays in {folder}, and "
            f"`python -m studio push {folder} {repository}` tries again."
        ) from error


def _upload(api: "HfApi", folder: Path, repository: str, public: bool) -> str:
    address = api.create_repo(repository, private=not public, exist_ok=True)
    if not public and not api.repo_info(repository).private:
        raise StudioError(
            f"{repository} exists and is public, and so would be the export in {folder}; choose "
            "another name, or say that it may be public."
        )
    api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        commit_message="A merge by EvoLLM Studio",
        delete_patterns=_REPLACED,
    )
    return str(address)


def _reason(error: Exception, repository: str) -> str:
    """Why the hub did not take it, as the beginning of a sentence."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.HFValidationError):
        return f"The hub takes no repository {repository!r}"
    if status == 401:
        return "The hub does not know the token, or it has expired"
    if status in (403, 404):
        return f"The token has no right to write to {repository}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "The hub may not be reached while HF_HUB_OFFLINE is set"
    transport = isinstance(error, OSError) or type(error).__module__.startswith("httpx")
    if status is None and transport:
        return "The hub cannot be reached"
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"The hub did not take {repository} ({said[:200]})"
