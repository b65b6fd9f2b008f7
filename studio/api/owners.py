"""Whose runs are whose: read-only links, deleting all that is somebody's, and what expires.

Runs without an owner are everybody's, and nothing here touches them. Refuses to know who an owner
is (`studio.visitors` does): it is a name that a run and a folder bear.
"""

import re
import shutil
import time
from pathlib import Path

from studio.runs import Store, tracking

#: Folders of the workspace with a subfolder per owner.
OWNED = ("uploads", "chats", "exports")
#: What an owner's folder is called (a hash); whatever else lies there is nobody's to expire.
_OWNER = re.compile(r"[0-9a-f]{32}")


def share(run: str, store: Store | None = None) -> str:
    """The token of a run's read-only link, always the same; `Store.shared` knows it."""
    store = store or Store()
    return store.share(store.run(run).id)


def forget(owner: str, store: Store | None = None) -> list[str]:
    """Delete an owner's runs and the files of theirs in the workspace.

    Returns:
        the ids of runs that are being worked on: they were asked to stop; ask again to delete them.
    """
    store = store or Store()
    mine = [run.id for run in store.runs(owner)] if owner else []
    left = store.forget(owner)
    for run in set(mine) - set(left):
        tracking.forget(store, run)
    if _OWNER.fullmatch(owner):
        for kind in OWNED:
            shutil.rmtree(store.folder / kind / owner, ignore_errors=True)
    return left


def expire(days: float, store: Store | None = None) -> list[str]:
    """Delete owned runs, and files in owners' folders, that are older than ``days``.

    A run that is being worked on is asked to stop, and goes the next time.

    Returns:
        the ids of the deleted runs.
    """
    store = store or Store()
    until = time.time() - 86_400 * days
    old = [run.id for run in store.runs() if run.owner and run.created < until]
    gone = [run for run in old if store.delete_idle(run)]
    for run in gone:
        tracking.forget(store, run)
    for kind in OWNED:
        for folder in _folders(store.folder / kind):
            for entry in folder.iterdir():
                if _newest(entry) < until:
                    _remove(entry)
            if not any(folder.iterdir()):
                folder.rmdir()
    return gone


def _folders(parent: Path) -> list[Path]:
    """The owners' folders in a folder of the workspace."""
    if not parent.is_dir():
        return []
    return [
        folder
        for folder in parent.iterdir()
        if _OWNER.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
    ]


def _newest(entry: Path) -> float:
    """When a file, or anything in a folder, was last written: an export goes as a whole."""
    inside = entry.rglob("*") if entry.is_dir() and not entry.is_symlink() else ()
    return max(path.lstat().st_mtime for path in (entry, *inside))


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
