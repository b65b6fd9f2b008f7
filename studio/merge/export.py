"""A virtual checkpoint on disk: an ordinary transformers folder, whole or not at all.

Knows folders. Weights go from the checkpoint to the disk as a stream of pieces
(`studio.merge.shards`): what is written is what was measured (DESIGN.md, contract 5), and no more
than one tensor is ever in memory, however large the model. Refuses to know how a tensor is made and
what a run is: card and recipe come as finished text.
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.merge.shards import write_model

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    from studio.merge.virtual import Virtual

#: Told (bytes written, bytes in all) of the weights while they are written.
OnBytes = Callable[[int, int], None]

#: Room left for tokenizer, card and configurations when the disk is checked.
_SMALL_FILES = 64 << 20
#: How the name of a folder ends that is still being written.
_PARTIAL = ".partial"
#: In place of a lock's handle, where there are no locks.
_NO_LOCKS = -1


def export(
    checkpoint: "Virtual",
    out: str | Path,
    *,
    card: str,
    recipe_yaml: str | None = None,
    max_shard_size: int | str = "4GB",
    on_bytes: OnBytes | None = None,
) -> Path:
    """Write a virtual checkpoint as one that transformers loads.

    Weights (safetensors, sharded beyond ``max_shard_size``), config, generation config, tokenizer,
    ``README.md`` (the card), ``recipe.yaml`` if there is one, and the checkpoint's own documents.
    Of a vision-language model all of it is written, what is around the language model bit for bit.
    It is written into a hidden folder beside ``out``, which takes its name at the very end, once
    all of it is on the disk. On any failure, Ctrl-C and SIGTERM nothing is left behind; what a
    killed process leaves is never called ``out``, and the next export to there clears it away.

    Returns:
        The folder.

    Raises:
        StudioError: ``out`` exists and is not an empty folder, may not be written, or does not fit
            on the disk; or a source, the tokenizer or generation config cannot be read.
    """
    if checkpoint.frame is not None:
        checkpoint = checkpoint.frame.whole(checkpoint)
    out = Path(out).expanduser().absolute()
    total = checkpoint.size
    written = 0

    def told(count: int) -> None:
        nonlocal written
        written += count
        if on_bytes:
            on_bytes(written, total)

    try:
        _check_target(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(out)
        _check_room(out.parent, total)
        with _when_asked_to_end(), _unfinished(out) as folder:
            write_model(checkpoint, folder, max_shard_size, told)
            _write_configs(checkpoint, folder)
            texts = {"README.md": card, "recipe.yaml": recipe_yaml, **checkpoint.documents()}
            for name, text in texts.items():
                if text is not None:
                    (folder / name).write_text(text, encoding="utf-8")
            for path in (*folder.iterdir(), folder):
                _settle(path)
            if out.exists():
                out.rmdir()  # empty, as checked; refuses if that changed meanwhile
            os.replace(folder, out)
        _settle(out.parent)
    except OSError as error:
        raise _sentence(out, error) from error
    return out


# ── the unfinished folder ────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """A new hidden folder beside ``out``, locked while it is written and gone in the end."""
    while True:
        folder = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
        folder.mkdir()
        lock = _lock(folder)
        # whoever clears leftovers may have come between these two lines
        if lock is not None and folder.is_dir():
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def _clear_leftovers(out: Path) -> None:
    """Remove the unfinished folders of exports to ``out`` whose processes were killed."""
    if fcntl is None:
        return
    for folder in out.parent.iterdir():
        if folder.name.startswith(f".{out.name}.") and folder.name.endswith(_PARTIAL):
            lock = _lock(folder)
            if lock is not None and lock != _NO_LOCKS:
                shutil.rmtree(folder, ignore_errors=True)
                _unlock(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder until `_unlock`, or until the operating system ends this process.

    Returns:
        a handle for `_unlock`; None where another process holds it, or where it is gone.
    """
    if fcntl is None:  # Windows does not lock folders
        return _NO_LOCKS
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:  # some network disks lock files only
        os.close(handle)
        return _NO_LOCKS
    return handle


def _unlock(handle: int) -> None:
    if handle != _NO_LOCKS:
        os.close(handle)


@contextlib.contextmanager
def _when_asked_to_end() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, tidying up, unless somebody handles it."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _settle(path: Path) -> None:
    """See a file on the disk, or the names in a folder."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────


def _check_target(out: Path) -> None:
    if out.is_dir():
        if any(out.iterdir()):
            raise StudioError(
                f"The folder {out} exists and is not empty; choose another name or empty it."
            )
    elif os.path.lexists(out):
        raise StudioError(f"{out} exists and is not a folder; choose another name.")


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + _SMALL_FILES:
        raise StudioError(
            f"The disk of {folder} has {free / 1e9:.1f} GB free, and the export needs "
            f"{(size + _SMALL_FILES) / 1e9:.1f} GB; free some space or choose another disk."
        )


def _write_configs(checkpoint: "Virtual", folder: Path) -> None:
    checkpoint.config.save_pretrained(folder)
    checkpoint.generation_config().save_pretrained(folder)
    (checkpoint.processor() or checkpoint.tokenizer()).save_pretrained(folder)
    file = folder / "tokenizer_config.json"  # how it was opened here is nobody else's business
    settings = json.loads(file.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only", "name_or_path"):
        settings.pop(key, None)
    text = json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True)
    file.write_text(text + "\n", encoding="utf-8")


def _sentence(out: Path, error: OSError) -> StudioError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StudioError(
            f"The disk is full: {out} could not be written, and nothing of it was kept; free some "
            "space or choose another disk."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StudioError(
            f"You may not write to {out.parent}; choose another folder or change its permissions."
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StudioError(
            f"{out.parent} is not a folder, or {out.name} appeared in it meanwhile; choose another "
            "name."
        )
    return StudioError(
        f"{out} could not be written ({error.strerror or error}), and nothing of it was kept; "
        "choose another folder."
    )
