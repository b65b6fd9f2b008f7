"""The one document a user writes: which models, what they must become good at, how to search.

Knows the fields, their bounds and how to say what is wrong with one. Refuses to know how any of it
is done: models are opened and tasks loaded only by the ``build_*`` methods, when a run needs them.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.merge.parameter_space import ParameterSpace
    from studio.models import Checkpoint
    from studio.tasks.base import Task

MethodName = Literal["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "slerp"]
#: A recipe is a page, not a data file: larger input is a mistake (or an attack).
MAX_BYTES = 256 * 1024
#: YAML aliases can make a page mean gigabytes ("billion laughs"): this many values are refused.
MAX_VALUES = 10_000


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Space(_Section):
    """What evolution may change; see :class:`studio.merge.parameter_space.ParameterSpace`."""

    type: Literal["parameter"] = "parameter"
    method: MethodName = "dare_ties"
    layer_granularity: int | Literal["all"] = Field(default=2)
    normalize: bool = False
    negative_weights: bool = False
    filters: list[str] = []

    @model_validator(mode="after")
    def _granularity(self) -> "Space":
        if self.layer_granularity != "all" and self.layer_granularity < 1:
            raise ValueError("layer_granularity must be a whole number of layers from 1, or 'all'")
        return self


class Objective(_Section):
    """One task, and how many of its dev examples the search sees (all when left out)."""

    task: str
    options: dict[str, Any] = {}
    examples: int | None = Field(default=None, ge=1)


class Search(_Section):
    """Which optimizer proposes candidates, and from what start."""

    optimizer: Literal["cma", "random"] = "cma"
    population: int = Field(default=16, ge=4, le=1000)
    sigma: float = Field(default=0.2, gt=0, le=1)
    finalists: int = Field(default=5, ge=1, le=100)
    random_baseline: bool = True


class Budget(_Section):
    """When to stop: a number of candidates of the search (the random baseline gets as many)."""

    candidates: int = Field(default=240, ge=1, le=1_000_000)


class Recipe(_Section):
    """A whole evolution on one page.

    Example:
        >>> recipe = Recipe(
        ...     base="bonsai-base",
        ...     sources=["bonsai-ja", "bonsai-math"],
        ...     objectives=[{"task": "jmath", "examples": 100}],
        ... )
        >>> recipe.search.optimizer
        'cma'
    """

    name: str = Field(default="untitled", min_length=1, max_length=200)
    base: str | None = None
    sources: list[str] = Field(min_length=1, max_length=16)
    space: Space = Space()
    objectives: list[Objective] = Field(min_length=1)
    search: Search = Search()
    budget: Budget = Budget()
    report: list[Objective] = []
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = Field(default=128, ge=1, le=4096)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @model_validator(mode="after")
    def _whole(self) -> "Recipe":
        if len(self.objectives) > 1:
            raise ValueError(
                "objectives: this version searches one objective; keep one there and move the "
                "others to 'report', where their test scores are reported"
            )
        if any(item.examples for item in self.report):
            raise ValueError(
                "report: 'examples' says what the search sees, and the report is made on the whole "
                "test split; leave it out there"
            )
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("sources: the same model is listed twice; list each source once")
        if self.space.method not in ("linear", "slerp") and not self.base:
            raise ValueError(
                f"base: the method {self.space.method} mixes differences from a common base; "
                "name the base model"
            )
        return self

    @classmethod
    def from_yaml(cls, text: str, where: str = "The recipe") -> "Recipe":
        """Parse a YAML document.

        Raises:
            StudioError: not YAML, not a mapping, or a field is wrong; the sentence names the field.
        """
        if len(text.encode("utf-8", "replace")) > MAX_BYTES:
            raise StudioError(
                f"{where} is larger than {MAX_BYTES // 1024} KiB; a recipe is a page."
            )
        try:
            document = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            raise StudioError(
                f"{where} is not valid YAML{place}; check the indentation."
            ) from error
        if _weight(document) > MAX_VALUES:
            raise StudioError(
                f"{where} holds more than {MAX_VALUES} values once its aliases are written out; a "
                "recipe is a page."
            )
        if not isinstance(document, dict):
            raise StudioError(
                f"{where} must be a YAML mapping with at least 'sources' and 'objectives'; "
                "see recipes/ for examples."
            )
        return cls.from_dict(document, where)

    @classmethod
    def from_dict(cls, document: dict[str, Any], where: str = "The recipe") -> "Recipe":
        """As :meth:`from_yaml`, from a parsed document."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise StudioError(f"{where}: {_sentence(error)}") from error

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe file.

        Raises:
            StudioError: the file cannot be read, or :meth:`from_yaml` refuses it.
        """
        path = Path(path)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise StudioError(
                    f"The recipe {path} is larger than {MAX_BYTES // 1024} KiB; name a recipe file."
                )
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise StudioError(
                f"The recipe {path} cannot be read ({error.strerror}); check the path."
            ) from error
        except UnicodeDecodeError as error:
            raise StudioError(f"The recipe {path} is not UTF-8 text; save it as UTF-8.") from error
        return cls.from_yaml(text, f"The recipe {path}")

    def stages(self) -> list[str]:
        """The searches of a run, in order: its own optimizer's, then the random baseline's."""
        own = self.search.optimizer
        return [own, "random"] if self.search.random_baseline and own != "random" else [own]

    def to_yaml(self) -> str:
        """The whole document with every default written out: what a run records."""
        document = self.model_dump(mode="json")

        def dump(readable: bool) -> str:
            return yaml.safe_dump(document, sort_keys=False, allow_unicode=readable, width=100)

        # PyYAML writes a few odd characters (U+0085) so that it cannot read them back
        return dump(True) if yaml.safe_load(dump(True)) == document else dump(False)

    def open_models(self) -> "list[Checkpoint]":
        """The base, if one is named, then the sources, opened; raises StudioError."""
        from studio.models import Checkpoint

        return [Checkpoint.open(name) for name in [self.base, *self.sources] if name]

    def build_space(self, models: "list[Checkpoint] | None" = None) -> "ParameterSpace":
        """Lay out the genome over the models of :meth:`open_models`, opened here if left out.

        Raises:
            StudioError: the models cannot be opened, or do not fit.
        """
        from studio.merge.parameter_space import ParameterSpace
        from studio.models import check_compatible

        models = models or self.open_models()
        base, sources = (models[0], models[1:]) if self.base else (None, models)
        check_compatible(base, sources)
        return ParameterSpace(
            base, sources, seed=self.seed, **self.space.model_dump(exclude={"type"})
        )

    def build_tasks(self) -> list["Task"]:
        """The tasks of the objectives, then those only reported on the test split.

        Scores are recorded by task name: of two tasks of one kind the second is called 'csv (2)'.
        """
        from studio.tasks import load_task

        tasks = [load_task(item.task, **item.options) for item in [*self.objectives, *self.report]]
        kinds: Counter[str] = Counter()
        for task in tasks:
            kinds[task.name] += 1
            if kinds[task.name] > 1:
                task.name = f"{task.name} ({kinds[task.name]})"
        return tasks


def _weight(document: Any) -> int:
    """How many values a document means with its aliases written out; stops counting when many."""
    count, waiting = 0, [document]
    while waiting and count <= MAX_VALUES:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
    return count


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation error, as field, problem and remedy in one sentence."""
    problem = error.errors()[0]
    parts = (str(part) for part in problem["loc"] if part not in ("int", "literal['all']"))
    field = _short(".".join(parts))
    more = f" ({error.error_count() - 1} more after that.)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        section = _section(problem["loc"][:-1])
        return f"there is no field '{field}'; use one of {', '.join(section.model_fields)}.{more}"
    if problem["type"] == "missing":
        return f"the field '{field}' is missing; add it (see recipes/ for examples).{more}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = problem.get("input")
    shown = f", not {_short(repr(given))}" if isinstance(given, str | int | float | bool) else ""
    lead = f"'{field}': " if field else ""
    return f"{lead}{message}{shown}.{more}"


def _short(text: str) -> str:
    """A stranger's text within a sentence: one line, not too long."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 80 else text[:79] + "…"


def _section(location: tuple[int | str, ...]) -> type[_Section]:
    """The section of the document that a location of a validation error lies in."""
    return {
        "space": Space,
        "objectives": Objective,
        "report": Objective,
        "search": Search,
        "budget": Budget,
    }.get(str(location[0]) if location else "", Recipe)
