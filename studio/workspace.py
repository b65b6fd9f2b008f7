"""Where things lie: the bundled assets, and the user's workspace with its runs.

Knows paths only, never what is inside them.
"""

import os
from pathlib import Path

from studio.errors import StudioError

#: Bundled models, data and the finished sample run (``assets/`` beside the package).
ASSETS = Path(__file__).resolve().parent.parent / "assets"


def workspace() -> Path:
    """The folder that holds the user's runs and exports, created on first use.

    ``$STUDIO_WORKSPACE`` if set, else ``~/.evollm-studio``.

    Raises:
        StudioError: the folder cannot be created or written to.
    """
    folder = Path(os.environ.get("STUDIO_WORKSPACE") or Path.home() / ".evollm-studio").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudioError(
            f"The workspace {folder} cannot be created ({error.strerror}); set STUDIO_WORKSPACE to "
            "a folder you may write to."
        ) from error
    if not os.access(folder, os.W_OK):
        raise StudioError(
            f"The workspace {folder} is not writable; set STUDIO_WORKSPACE to a folder you may "
            "write to."
        )
    return folder


def subfolder(parent: Path, name: str) -> Path:
    """The folder `name` in `parent`, made if it is not there.

    Raises:
        StudioError: it cannot be made, or may not be written to.
    """
    folder = parent / name
    remedy = f"choose another place than {parent} (for runs, set STUDIO_WORKSPACE)"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StudioError(
            f"The folder {folder} cannot be made because a file is in the way; move that file, or "
            f"{remedy}."
        ) from error
    except OSError as error:
        raise StudioError(
            f"The folder {folder} cannot be made ({error.strerror}); make room and grant "
            f"permission there, or {remedy}."
        ) from error
    if not os.access(folder, os.W_OK):
        raise StudioError(
            f"The folder {folder} is not writable; grant permission there, or {remedy}."
        )
    return folder
