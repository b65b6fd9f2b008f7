"""A user's own task definition for lm_eval: a YAML file, read as data and nothing else.

The harness's YAML may name Python functions, dataset scripts and metrics that are downloaded as
code. Knows which fields are plain data, and hands the harness nothing but these; the harness itself
never opens the file. Refuses to know how a task is measured, or what its templates say.
"""

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from studio.errors import StudioError

#: A definition is a page; a folder of them is a shelf.
MAX_BYTES = 256 * 1024
MAX_FILES = 2000
#: One file of examples.
MAX_DATA = 256 * 1024**2
#: What reads a local file of examples; none of them runs or unpickles anything.
LOADERS = ("json", "csv", "parquet", "text")
LOADER_OPTIONS = ("data_files", "field", "delimiter", "sep")
#: What a definition may say of generation: `transformers` takes code and other models there, too.
GENERATION = (
    "until", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "max_gen_toks",
    "max_new_tokens", "max_tokens", "max_completion_tokens",
)  # fmt: skip
FIELDS = frozenset(
    ["task", "task_alias", "tag", "include", "dataset_path", "dataset_name", "dataset_kwargs",
     "training_split", "validation_split", "test_split", "fewshot_split", "fewshot_config",
     "num_fewshot", "doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix",
     "target_delimiter", "fewshot_delimiter", "output_type", "generation_kwargs", "repeats",
     "metric_list", "filter_list", "should_decontaminate", "doc_to_decontamination_query",
     "metadata"]
)  # fmt: skip


@dataclass(frozen=True)
class _Tagged:
    """Where a file has a YAML tag that is no plain value, such as ``!function``."""

    tag: str


class _Loader(yaml.SafeLoader):
    """Plain values. Tags become marks; aliases, which can make a page mean gigabytes, errors."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases are not read", mark)
        return super().compose_node(parent, index)


_Loader.add_constructor(None, lambda loader, node: _Tagged(node.tag))


def read(path: Path, name: str) -> dict[str, Any]:
    """The definition of the task ``name`` in a YAML file, or in a folder and its subfolders.

    Returns:
        the fields, includes merged, and the files of examples as absolute paths: relative ones are
        sought beside the definition.

    Raises:
        StudioError: there is no such task, or its definition is not plain data.
    """
    others: list[str] = []
    unreadable: StudioError | None = None
    for file in _files(path):
        try:
            fields = _fields(file)
        except StudioError as error:
            unreadable = unreadable or error
            continue
        if fields.get("task") == name:
            return _checked(_included(fields, file, (file,)), file)
        if isinstance(fields.get("task"), str):
            others.append(fields["task"])
    if unreadable:
        raise unreadable
    there = f"only {', '.join(others[:8])}" if others else "nor any other"
    raise StudioError(f"There is no task called {name!r} in {path}, {there}.")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise StudioError(f"There is no folder of task definitions {path}; check the task's path.")
    found = (p for p in path.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file())
    files = list(islice(found, MAX_FILES + 1))
    if len(files) > MAX_FILES:
        raise StudioError(f"{path} holds more than {MAX_FILES} YAML files; name a smaller folder.")
    return sorted(files)


def _fields(file: Path) -> dict[str, Any]:
    """One file's mapping, as it stands there."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise StudioError(f"{file} is larger than {MAX_BYTES // 1024} KiB; that is no task.")
        fields = yaml.load(file.read_text("utf-8"), _Loader)
    except OSError as error:
        raise StudioError(f"{file} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        why = f" ({error.problem})" if getattr(error, "problem", None) else ""
        raise StudioError(f"{file} is not valid YAML{place}{why}; correct it.") from error
    if not isinstance(fields, dict):
        raise StudioError(f"{file} defines no task; it must be a YAML mapping with a field 'task'.")
    return fields


def _included(fields: dict[str, Any], file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The fields over those of the files they include."""
    fields = dict(fields)
    wanted = fields.pop("include", [])
    merged: dict[str, Any] = {}
    for name in wanted if isinstance(wanted, list) else [wanted]:
        if not isinstance(name, str):
            raise StudioError(f"{file}: 'include' must be the name of a file beside it.")
        other = (file.parent / name).resolve()
        if other in above or len(above) > 8:
            raise StudioError(f"{file}: the includes go around in a circle at {name!r}.")
        merged |= _included(_fields(other), other, (*above, other))
    return merged | fields


def _checked(fields: dict[str, Any], file: Path) -> dict[str, Any]:
    """The fields, all of them data, with the files of examples found."""
    for field, value in fields.items():
        if tag := _tag_in(value):
            raise StudioError(
                f"{file}: '{field}' holds the tag {tag}, and a local definition runs no code; "
                "write the field as a value or a template."
            )
        if field not in FIELDS:
            raise StudioError(
                f"{file}: the field {str(field)!r} is not taken from a local definition, for it is "
                "no plain data; leave it out."
            )
    metrics = fields.get("metric_list")
    for metric in metrics if isinstance(metrics, list) else []:
        if not isinstance(metric, dict) or not isinstance(metric.get("metric"), str):
            raise StudioError(f"{file}: each entry of 'metric_list' needs the name of a 'metric'.")
        if metric.get("hf_evaluate"):
            raise StudioError(
                f"{file}: 'hf_evaluate' downloads the metric {metric['metric']} as code, which is "
                "never run; use a metric of lm_eval's own."
            )
    _check_options(fields.get("generation_kwargs"), "generation_kwargs", GENERATION, file)
    return fields | {"dataset_kwargs": _dataset(fields, file)}


def _check_options(options: Any, field: str, known: tuple[str, ...], file: Path) -> None:
    """StudioError unless a field is left out or a mapping of known options."""
    if options is not None and not isinstance(options, dict):
        raise StudioError(f"{file}: '{field}' must be a mapping, of {', '.join(known)}.")
    if odd := [str(option) for option in options or () if option not in known]:
        raise StudioError(
            f"{file}: '{field}' has {odd[0]!r}, which is not taken from a local definition; use "
            f"{', '.join(known)}."
        )


def _tag_in(value: Any) -> str:
    """The first YAML tag within a value, or ''."""
    if isinstance(value, _Tagged):
        return value.tag
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_tag_in, parts)), "")


def _dataset(fields: dict[str, Any], file: Path) -> dict[str, Any]:
    """The options of the loader, which reads local files or a hub's dataset, never a script."""
    path, options = fields.get("dataset_path"), fields.get("dataset_kwargs") or {}
    on_hub = isinstance(path, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path)
    if path not in LOADERS and (not on_hub or path.endswith(".py") or Path(path).exists()):
        raise StudioError(
            f"{file}: 'dataset_path' is {path!r}; write {', '.join(LOADERS)} with 'data_files' in "
            "'dataset_kwargs', or a dataset's id on the hub."
        )
    _check_options(options, "dataset_kwargs", LOADER_OPTIONS, file)
    if path in LOADERS:
        if "data_files" not in options:
            raise StudioError(f"{file}: 'dataset_kwargs' names no 'data_files'; add them.")
        return options | {"data_files": _data(options["data_files"], file)}
    return options


def _data(value: Any, file: Path) -> Any:
    """The names of local files, in whatever form datasets takes them, as absolute paths."""
    if isinstance(value, dict):
        return {split: _data(part, file) for split, part in value.items()}
    if isinstance(value, list):
        return [_data(part, file) for part in value]
    path = file.parent / Path(str(value)).expanduser()
    try:
        if path.stat().st_size > MAX_DATA:
            raise StudioError(f"{path} is larger than {MAX_DATA // 1024**2} MiB; take fewer rows.")
    except (OSError, ValueError) as error:
        raise StudioError(
            f"{file}: there is no file {str(value)!r} beside it; check 'data_files'."
        ) from error
    return str(path.resolve())
