"""A folder as one zip file, to be carried away through a browser.

Weights are random bits to a compressor: they are stored as they are, piece by piece, so that
neither memory nor time grows with compression. Refuses to know what is in the folder.
"""

import os
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

from studio.errors import StudioError

#: Files that compression does nothing for.
_DENSE = (".safetensors",)
_PIECE = 4 << 20


def zip_folder(
    folder: Path, file: Path, on_bytes: Callable[[int, int], None] | None = None
) -> Path:
    """Write all files of a folder into a zip, below the folder's name; whole or not at all.

    Args:
        on_bytes: told (bytes read, bytes in all) of the folder's files; what it raises is raised.

    Raises:
        StudioError: the file cannot be written.
    """
    inside = sorted(path for path in folder.rglob("*") if path.is_file())
    total, done = sum(path.stat().st_size for path in inside), 0
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for path in inside:
                name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                entry = zipfile.ZipInfo.from_file(path, name)
                dense = path.suffix in _DENSE
                entry.compress_type = zipfile.ZIP_STORED if dense else zipfile.ZIP_DEFLATED
                with path.open("rb") as source, archive.open(entry, "w") as target:
                    while piece := source.read(_PIECE):
                        target.write(piece)
                        done += len(piece)
                        if on_bytes:
                            on_bytes(done, total)
        os.replace(partial, file)
    except OSError as error:
        raise StudioError(
            f"The zip file could not be written ({error.strerror or error}); make room on the disk "
            "and try again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return file
