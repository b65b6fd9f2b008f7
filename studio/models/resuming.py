"""A large file of a hub repository, fetched so that a broken download goes on where it stopped.

huggingface_hub keeps whole files and, since it gives every download a name of its own, forgets the
beginning of one that broke off: of a shard of 5 GB, perhaps 5 GB. This module knows how to ask for
the rest of a file and where the hub's cache looks for whole ones
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache). Refuses to know what to fetch,
and leaves everything else to huggingface_hub, which finds the file there.
"""

import hashlib
import os
import re
import time
from pathlib import Path
from typing import BinaryIO

from studio.models.access import token

#: How often a broken connection is taken up again before that is told.
TRIES = 5
_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(repository: str, file: str, commit: str) -> None:
    """Put a file into the hub's cache, from wherever an earlier attempt stopped.

    Raises:
        OSError: the disk is full, or what arrived is not what the hub has.
        Exception: whatever the hub refuses, and whatever the connection raises in the end.
    """
    from filelock import FileLock
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name

    url = hf_hub_url(repository, file, revision=commit)
    about = get_hf_file_metadata(url)
    if about.size is None or not re.fullmatch(r"[\w.-]+", about.etag or "", re.ASCII):
        return
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    whole = Path(constants.HF_HUB_CACHE, folder, "blobs", about.etag)
    whole.parent.mkdir(parents=True, exist_ok=True)
    part = whole.with_name(f"{about.etag}.part")
    with FileLock(f"{part}.lock"):
        if whole.exists():
            return
        with part.open("a+b") as stream:
            _complete(stream, url, file, about.size)
            if _SHA256.fullmatch(about.etag) and _sha256(stream) != about.etag:
                stream.truncate(0)
                raise OSError(f"{file} arrived damaged")
        os.replace(part, whole)


def _complete(stream: BinaryIO, url: str, file: str, size: int) -> None:
    """Append what a file lacks to its ``size`` bytes."""
    from huggingface_hub.utils import tqdm

    if stream.tell() > size:
        stream.truncate(0)
    with tqdm(total=size, initial=stream.tell(), unit="B", unit_scale=True, desc=file) as bar:
        for left in reversed(range(TRIES)):
            try:
                _append(stream, url, size, bar)
            except Exception:  # whatever broke the line off: what came so far is kept
                if not left:
                    raise
            else:
                return
            time.sleep(1)


def _append(stream: BinaryIO, url: str, size: int, bar) -> None:
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    begin = stream.seek(0, os.SEEK_END)
    if begin == size:
        return
    headers = build_hf_headers(token=token())
    headers |= {"Range": f"bytes={begin}-", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if response.status_code != 206:  # the whole file, whatever was asked
            stream.truncate(0)
            bar.reset(size)
        for piece in response.iter_bytes(1 << 20):
            stream.write(piece)
            bar.update(len(piece))
    if stream.tell() != size:
        raise OSError(f"{stream.tell():,} of {size:,} bytes arrived")


def _sha256(stream: BinaryIO) -> str:
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest()
