"""A merge on disk: an ordinary transformers folder, whole or not at all (DESIGN.md, contract 5).

Knows files; merges tensor by tensor with the live model's own arithmetic, so that what is written
is what was measured, and holds one shard in memory, never the whole model. Refuses to know about
runs: card and recipe come as finished text.
"""

import copy
import errno
import json
import math
import os
import shutil
import uuid
from pathlib import Path

import numpy as np

from studio.errors import StudioError
from studio.merge.mergekit_config import mergekit_yaml
from studio.merge.parameter_space import ParameterSpace

__all__ = ["export", "mergekit_yaml"]

#: Room left for tokenizer, card and configurations when the disk is checked.
_SMALL_FILES = 64 << 20


def export(
    space: ParameterSpace,
    genome: np.ndarray,
    out: str | Path,
    *,
    card: str,
    recipe_yaml: str,
    precision: str = "fp32",
    max_shard_size: int | str = "4GB",
) -> Path:
    """Write the merge that ``genome`` describes as a checkpoint that transformers loads.

    Weights (safetensors, sharded beyond ``max_shard_size``), config, generation config, tokenizer,
    ``README.md`` (the card), ``recipe.yaml``, ``genome.json`` (each gene's exact value) and, where
    mergekit can express the merge, ``mergekit.yaml``. Everything is written into a hidden folder
    beside ``out``, which takes its name at the very end; on any failure nothing is left behind.

    Returns:
        The folder.

    Raises:
        StudioError: the genome does not fit, ``out`` exists and is not an empty folder, may not be
            written, or does not fit on the disk.
    """
    from studio.merge.ingredients import dtype_of

    out = Path(out).expanduser().absolute()
    dtype = dtype_of(precision)
    settings = space.settings(genome)
    mergekit = mergekit_yaml(space, genome, str(dtype).removeprefix("torch."))
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _check_target(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        size = sum(math.prod(shape) for shape in space.tensors.values()) * dtype.itemsize
        _check_room(out.parent, size)
        temporary.mkdir()
        _write_weights(space, settings, temporary, dtype, max_shard_size)
        _write_configs(space, temporary, dtype)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        (temporary / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")
        (temporary / "genome.json").write_text(_exact(space, genome), encoding="utf-8")
        if mergekit is not None:
            (temporary / "mergekit.yaml").write_text(mergekit, encoding="utf-8")
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


def _exact(space: ParameterSpace, genome: np.ndarray) -> str:
    """The genome as JSON, a gene a line, in the recipe's order; floats as they are, to the bit.

    A source is called by the last part of its name: where folders lie here is nobody else's
    business.
    """
    rows = [
        {
            "group": gene.group,
            "filter": gene.filter,
            "source": gene.source and Path(gene.source).name,
            "gene": gene.kind,
            "value": value,
        }
        for gene, value in zip(space.genes, space.check(genome).tolist(), strict=True)
    ]
    return "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"


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


def _write_weights(space: ParameterSpace, settings, folder: Path, dtype, shard_size) -> None:
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from studio.merge.ingredients import Ingredients

    # Meta tensors: shapes without memory, enough to decide what goes into which file.
    layout = {n: torch.empty(s, dtype=dtype, device="meta") for n, s in space.tensors.items()}
    plan = split_torch_state_dict_into_shards(layout, max_shard_size=shard_size)
    for file, names in plan.filename_to_tensors.items():
        shard = {}
        for name in names:
            shard[name] = torch.empty(space.tensors[name], dtype=dtype)
            ingredients = Ingredients.prepare(space, name, dtype)
            ingredients.merge(settings[name], space.normalize, shard[name].view(-1))
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk arrives as text from another language
            full = "os error 28" in str(error) or "No space left" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True)
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _write_configs(space: ParameterSpace, folder: Path, dtype) -> None:
    from studio.merge.live import generation_config, speaker

    config = copy.deepcopy(space.template.config)
    config.dtype = dtype
    config.architectures = [space.template.architecture]
    config.save_pretrained(folder)
    voice = speaker(space)
    generation_config(voice).save_pretrained(folder)
    voice.tokenizer().save_pretrained(folder)
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
