"""Hub repositories become folders on this machine.

Knows what may be fetched, what a download needs and what can go wrong with one. Downloading and
caching are huggingface_hub's, but for what it would begin anew (`studio.models.resuming`). Refuses
to know what was downloaded.
"""

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.errors import StudioError
from studio.models import resuming
from studio.models.access import token
from studio.models.headers import PICKLED

#: What is fetched of a hub repository: weights, configuration, tokenizer, card. Never code, never
#: pickles, nothing in subfolders, not the second copy of the weights that some repositories hold.
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "README.md"]
UNWANTED = ["*/*", "consolidated*"]

#: Files from this size are worth resuming, in bytes; smaller ones are fetched many at a time.
LARGE = 10_000_000
#: Left free on the disk by a download, so that runs can still be recorded.
SPARE = 1 << 30


def download(name: str, revision: str | None, file: str | None = None) -> Path:
    """The folder of a hub repository, or one file of it, fetched where it is not in the cache.

    `revision` is a branch, tag or commit. The download resumes where an earlier one stopped, uses
    the token of whoever asks (`studio.models.access`), and holds only safetensors, JSON, tokenizer
    files and the card. Without a network, one downloaded before is found in the cache. On a
    terminal it shows progress.

    Raises:
        StudioError: the repository cannot be reached or fetched, or does not fit the disk.
    """
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    try:
        with _progress():
            commit, large = _look_ahead(name, revision, file)
            for part in large:
                resuming.fetch(name, part, commit)
            if file is not None:
                return Path(hf_hub_download(name, file, revision=revision, token=token()))
            return Path(
                snapshot_download(
                    name,
                    revision=revision,
                    allow_patterns=WANTED,
                    ignore_patterns=UNWANTED,
                    token=token(),
                )
            )
    except StudioError:
        raise
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
    except errors.RemoteEntryNotFoundError as error:
        raise StudioError(f"{name} has no file {file}; check its name on the hub.") from error
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


def _look_ahead(name: str, revision: str | None, file: str | None) -> tuple[str, list[str]]:
    """Check, before a byte is fetched, that there is something to fetch and room for it.

    Returns:
        the commit, and the large files of it that are not here.

    Raises:
        StudioError: no safetensors in the repository, or too little space on the disk.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.utils import filter_repo_objects

    try:
        info = HfApi(token=token()).model_info(
            name, revision=revision, files_metadata=True, timeout=10
        )
    except Exception:  # no network, no such repository, no access: the download itself says so
        return "", []
    files = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    if file is not None:
        files = {file: files.get(file, 0)}
    else:
        _check_kind(name, list(files))
        wanted = filter_repo_objects(files, allow_patterns=WANTED, ignore_patterns=UNWANTED)
        files = {file: files[file] for file in wanted}
    missing = {
        file: size
        for file, size in files.items()
        if not isinstance(try_to_load_from_cache(name, file, revision=info.sha), str)
    }
    needed = sum(missing.values())
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free
    if needed and needed + SPARE > free:
        raise StudioError(
            f"{name} takes {needed / 1e9:.1f} GB, and the disk of {cache} has {free / 1e9:.1f} GB "
            "free; free some space or set HF_HOME to another disk. Nothing was downloaded."
        )
    return info.sha, [file for file, size in missing.items() if size >= LARGE]


def _check_kind(name: str, files: list[str]) -> None:
    here = [file for file in files if "/" not in file]
    if any(file.endswith(".safetensors") for file in here):
        return
    if found := [file for file in files if file.endswith(".gguf")]:
        raise StudioError(
            f"{name} holds GGUF files; name the one to use, such as {name}/{found[0]}."
        )
    if any(file.endswith(PICKLED) for file in here):
        raise StudioError(
            f"{name} holds only pickled weights, which can run code when read and are refused; use "
            "a version of the model with safetensors."
        )
    raise StudioError(f"{name} holds no weights; name a repository of a model.")


@contextmanager
def _progress() -> Iterator[None]:
    """huggingface_hub's progress bars on a terminal; none in the log of a worker."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            enable_progress_bars()


def _unreachable(name: str) -> str:
    return (
        f"There is no folder {name} here, and the hub cannot be reached to look for a repository "
        "of that name; check the path, or the network and HF_HUB_OFFLINE, or pick a bundled model "
        "(`python -m studio models`)."
    )
