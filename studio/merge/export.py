"""A virtual checkpoint on disk: an ordinary transformers folder, whole or not at all.

Knows files. Asks the checkpoint for one tensor after another, so that what is written is what was
measured (DESIGN.md, contract 5), and holds one shard in memory, never the whole model. Refuses to
know how a tensor is made and what a run is: card and recipe come as finished text.
"""

import errno
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.merge.virtual import Virtual

#: Room left for tokenizer, card and configurations when the disk is checked.
_SMALL_FILES = 64 << 20


def export(
    checkpoint: "Virtual",
    out: str | Path,
    *,
    card: str,
    recipe_yaml: str,
    max_shard_size: int | str = "4GB",
) -> Path:
    """Write a virtual checkpoint as one that transformers loads.

    Weights (safetensors, sharded beyond ``max_shard_size``), config, generation config, tokenizer,
    ``README.md`` (the card), ``recipe.yaml``, and the checkpoint's own documents. Everything is
    written into a hidden folder beside ``out``, which takes its name at the very end; on any
    failure nothing is left behind.

    Returns:
        The folder.

    Raises:
        StudioError: ``out`` exists and is not an empty folder, may not be written, or does not fit
            on the disk; or the tokenizer or generation config cannot be read.
    """
    out = Path(out).expanduser().absolute()
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _check_target(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        _check_room(out.parent, checkpoint.size)
        temporary.mkdir()
        _write_weights(checkpoint, temporary, max_shard_size)
        _write_configs(checkpoint, temporary)
        texts = {"README.md": card, "recipe.yaml": recipe_yaml, **checkpoint.documents()}
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        for file in temporary.glob("*.safetensors"):  # safetensors makes files private to the user
            shutil.copymode(temporary / "README.md", file)
        if out.exists():
            out.rmdir()  # empty, as checked; refuses if that changed meanwhile
        os.replace(temporary, out)
    except OSError as error:
        raise _sentence(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


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


def _write_weights(checkpoint: "Virtual", folder: Path, shard_size: int | str) -> None:
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Meta tensors: shapes without memory, enough to decide what goes into which file.
    layout = {
        name: torch.empty(checkpoint.shape(name), dtype=checkpoint.dtype, device="meta")
        for name in checkpoint.names()
    }
    plan = split_torch_state_dict_into_shards(layout, max_shard_size=shard_size)
    for file, names in plan.filename_to_tensors.items():
        shard = {name: checkpoint.get(name) for name in names}
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk arrives as text from another language
            full = "os error 28" in str(error) or "No space left" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True)
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _write_configs(checkpoint: "Virtual", folder: Path) -> None:
    checkpoint.config.save_pretrained(folder)
    checkpoint.generation_config().save_pretrained(folder)
    checkpoint.tokenizer().save_pretrained(folder)
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
