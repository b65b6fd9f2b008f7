"""From the name a user writes to a folder on this machine.

A name is a bundled model, a local folder or a hub id; this module tells them apart and downloads
what is not here. It knows nothing about what the folder holds: `studio.models.checkpoint` looks.
"""

import difflib
import errno
import re
from pathlib import Path

from studio.errors import StudioError
from studio.models.headers import PICKLED, gguf_sentence
from studio.workspace import ASSETS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)

#: What is fetched of a hub repository: weights, configuration, tokenizer, card. Never code, never
#: pickles, nothing in subfolders, not the second copy of the weights that some repositories hold.
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "README.md"]
UNWANTED = ["*/*", "consolidated*"]


def bundled() -> list[str]:
    """Names of the models that come with the Studio, sorted.

    >>> bundled()  # doctest: +SKIP
    ['bonsai-abel', 'bonsai-base', 'bonsai-ja', 'bonsai-math']
    """
    models = ASSETS / "models"
    if not models.is_dir():
        return []
    return sorted(folder.name for folder in models.iterdir() if (folder / "config.json").is_file())


def resolve(name: str, revision: str | None = None) -> Path:
    """The folder of a bundled model, a local folder, or a hub repository (downloaded if need be).

    `revision` is a branch, tag or commit of a hub repository. The download resumes where an
    earlier one stopped, uses the token of the environment, and holds only safetensors, JSON,
    tokenizer files and the card. Without a network, one downloaded before is found in the cache.

    Raises:
        StudioError: no such model, a file in place of a folder, a kind of source that is not
            supported, or a repository that cannot be reached or fetched.
    """
    if not name.strip() or not name.isprintable():
        raise StudioError(
            f"{name[:120]!r} is not a model name; write a bundled name, a folder or a hub id."
        )
    local = ASSETS / "models" / name if name in bundled() else _local(name)
    if local is not None:
        if revision is not None:
            raise StudioError(
                f"{name} is on this machine and has no revisions; leave revision {revision!r} out "
                "or name a hub repository."
            )
        return local
    if not _HUB_ID.fullmatch(name):
        raise StudioError(_unknown(name))
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise StudioError(
            f"{revision[:120]!r} is not a revision; write a branch, tag or commit of {name}."
        )
    return _download(name, revision)


def _local(name: str) -> Path | None:
    """The folder `name` leads to, or None where it can only be a name on the hub."""
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return path
        is_file = path.is_file()
    except (OSError, RuntimeError):  # a name too long for a path; no home for "~"
        return None
    if name.endswith(".gguf"):
        raise StudioError(gguf_sentence(name))
    if is_file and name.endswith(PICKLED):
        raise StudioError(
            f"{name} is a pickled checkpoint, which can run code when read and is refused; convert "
            "it to safetensors and give the folder that holds it."
        )
    if is_file:
        raise StudioError(
            f"{name} is a file; give the folder that holds it together with config.json."
        )
    return None


def _unknown(name: str) -> str:
    if name.startswith(("/", ".", "~")) or "\\" in name:
        return f"The folder {name[:300]} does not exist; check the path."
    known = bundled()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return (
        f"There is no model {name[:120]!r}{hint}; write a bundled name ({', '.join(known)}), a "
        "folder, or a hub id such as owner/name."
    )


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED
            )
        )
    except errors.GatedRepoError as error:
        raise StudioError(
            f"{name} is gated: accept its terms at https://huggingface.co/{name} and set HF_TOKEN "
            "to a token of that account."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise StudioError(
            f"{name} has no revision {revision!r}; write a branch, tag or commit that it has."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise StudioError(
            f"There is no public repository {name} on the hub; check the spelling, or set HF_TOKEN "
            "if it is private."
        ) from error
    except errors.HFValidationError as error:
        raise StudioError(f"{name!r} is not a valid hub id; write owner/name.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise StudioError(_unreachable(name)) from error
    except Exception as error:  # whatever the transport raises: connection, timeout, proxy, disk
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise StudioError(
                f"The disk is full, so {name} could not be downloaded; free some space or set "
                "HF_HOME to another disk, and start again: the download goes on where it stopped."
            ) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudioError(
            f"{name} could not be downloaded ({reason[:200]}); try again: the download goes on "
            "where it stopped."
        ) from error


def _unreachable(name: str) -> str:
    return (
        f"There is no folder {name} here, and the hub cannot be reached to look for a repository "
        "of that name; check the path, or the network and HF_HUB_OFFLINE, or pick a bundled model "
        f"({', '.join(bundled())})."
    )
