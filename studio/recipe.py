"""The one document a user writes: which models, what they must become good at, how to search.

Knows the fields, their bounds and how to say what is wrong with one. Refuses to know how any of it
is done: models are opened and tasks loaded only by the ``build_*`` methods, when a run needs them.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from studio.errors import StudioError
from studio.yaml_page import page_text, read_page

if TYPE_CHECKING:
    from studio.tasks.base import Task

MethodName = Literal["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "slerp"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Parameter(_Section):
    """How weights are mixed; see :class:`studio.merge.parameter_space.ParameterSpace`."""

    type: Literal["parameter"] = "parameter"
    method: MethodName = "dare_ties"
    layer_granularity: int | Literal["all"] = Field(default=2)
    normalize: bool = False
    negative_weights: bool = False
    filters: list[str] = []

    @model_validator(mode="after")
    def _granularity(self) -> "Parameter":
        if self.layer_granularity != "all" and self.layer_granularity < 1:
            raise ValueError("layer_granularity must be a whole number of layers from 1, or 'all'")
        return self


class DataFlow(_Section):
    """Which paths there are; see :class:`studio.merge.data_flow.DataFlowSpace`.

    ``sources``: those that lend layers, the main model first; all of the recipe's when left out.
    """

    type: Literal["data_flow"] = "data_flow"
    sources: list[str] | None = Field(default=None, min_length=1)
    repeats: int = Field(default=3, ge=1, le=16)
    scaling: Literal["auto", "matrix", "network", "off"] = "auto"
    max_length: int | None = Field(default=None, ge=2)
    start: Literal["main", "undecided"] = "main"


class Both(_Section):
    """Parameter space first; its winner then leads the pool that paths are made of.

    ``data_flow.sources``: those that lend layers beside the winner.
    """

    type: Literal["both"] = "both"
    parameter: Parameter = Parameter()
    data_flow: DataFlow = DataFlow()


def _type_of(space: Any) -> Any:
    """The section that a space is; one without a type is the parameter space."""
    if isinstance(space, dict):
        return space.get("type", "parameter")
    return getattr(space, "type", None)


Space = Annotated[
    Annotated[Parameter, Tag("parameter")]
    | Annotated[DataFlow, Tag("data_flow")]
    | Annotated[Both, Tag("both")],
    Discriminator(
        _type_of,
        custom_error_type="space_type",
        custom_error_message="must be a section with the type 'parameter', 'data_flow' or 'both'",
    ),
]

#: Properties of a merged model that can be objectives beside tasks; both are to be small.
PROPERTIES = ("length", "parameters")


class Objective(_Section):
    """What the merge must be good at: a task, to be maximised, or a property, to be minimised.

    Of a task, ``examples`` says how many of its dev examples the search sees (all when left out).
    """

    task: str | None = None
    property: Literal["length", "parameters"] | None = None
    options: dict[str, Any] = {}
    examples: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one(self) -> "Objective":
        if (self.task is None) == (self.property is None):
            raise ValueError("an objective is a 'task' or a 'property'; name one of the two")
        if self.property and (self.options or self.examples):
            raise ValueError("a property has no examples and no options; leave them out")
        return self


class Search(_Section):
    """Which optimizer proposes candidates, and from what start.

    ``optimizer``: CMA-ES (``cma``), CMA-ES with margin (``cmaes``), NSGA-II (``nsga2``, for several
    objectives) or ``random``; when left out, ``cma`` for one objective and ``nsga2`` for several.
    ``racing``: candidates are asked a few examples first, and more only while that can change how
    they rank (`studio.evolve.racing`). ``asynchronous``: the optimizer is told every score as it
    comes, rather than a generation's together, so that no worker waits for the slowest; ``auto``
    does so where there are several workers and no races.
    ``start``: each space's own (``default``), the best of a few ``uniform`` merges, which count as
    candidates, or where a recorded run ended, by its id (`studio.evolve.starts`).
    ``scheme``, in both spaces: one search of each space for all objectives (``joint``), or as in
    the ``paper``: parameter space once per task, then paths over all the winners.
    """

    optimizer: Literal["cma", "cmaes", "nsga2", "random"] | None = None
    population: int = Field(default=16, ge=4, le=1000)
    sigma: float = Field(default=0.2, gt=0, le=1)
    finalists: int = Field(default=5, ge=1, le=100)
    random_baseline: bool = True
    racing: bool = False
    asynchronous: bool | Literal["auto"] = "auto"
    start: str = "default"
    scheme: Literal["joint", "paper"] = "joint"

    @property
    def warm(self) -> bool:
        """Whether it starts where a recorded run ended."""
        return self.start not in ("default", "uniform")


class DecodingSettings(_Section):
    """How answers are decoded: greedily, or with the paper's 5 beams and repetition penalty 1.5."""

    beams: int = Field(default=1, ge=1, le=32)
    repetition_penalty: float = Field(default=1.0, gt=0, le=10)


class Budget(_Section):
    """When to stop: candidates of each search (in both spaces there are two; baselines too).

    ``hours`` of work in all sessions together: every search may take an equal part of them, and
    what earlier ones left; then finalists are compared and the report is made.
    """

    candidates: int = Field(default=240, ge=1, le=1_000_000)
    hours: float | None = Field(default=None, gt=0, le=100_000, allow_inf_nan=False)


@dataclass(frozen=True)
class Stage:
    """One search of a run.

    Attributes:
        name: what it is recorded under.
        space: where it searches.
        optimizer: as in `Search`, never None.
        objectives: names, see `Recipe.objective_names`.
        pool: the stages whose winners lead the pool of a data-flow space.
        baseline: whether it is there to be beaten.
        final: whether its winner is a result, not just another stage's source.
        seed: of the optimizer.
    """

    name: str
    space: Parameter | DataFlow
    optimizer: str
    objectives: tuple[str, ...]
    pool: tuple[str, ...] = ()
    baseline: bool = False
    final: bool = True
    seed: int = 0


class Recipe(_Section):
    """A whole evolution on one page.

    ``vocabulary``, of weights that are mixed: all models have the ``same``, or tokens are matched
    by what they stand for and the merge has the vocabulary of the ``base``, the ``union`` of all,
    or that of one source, by name. A path has its main model's.

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
    vocabulary: str = "same"
    space: Space = Parameter()
    objectives: list[Objective] = Field(min_length=1)
    search: Search = Search()
    budget: Budget = Budget()
    report: list[Objective] = []
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8", "nf4"] = "fp32"
    base_storage: Literal["packed", "int8", "bf16", "paged"] = "packed"
    batch_size: int | Literal["auto"] = Field(default=128)
    decoding: DecodingSettings = DecodingSettings()
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @model_validator(mode="after")
    def _whole(self) -> "Recipe":
        tasks = [item.task for item in self.objectives if item.task]
        properties = [item.property for item in self.objectives if item.property]
        if not tasks:
            raise ValueError("objectives: name at least one task; properties alone want no model")
        if len(set(properties)) < len(properties):
            raise ValueError("objectives: the same property is listed twice; list it once")
        if properties and self.space.type == "parameter":
            raise ValueError(
                f"objectives: every merge in the parameter space has the same {properties[0]}; "
                "leave it out, or search the data-flow space"
            )
        if any(item.property for item in self.report):
            raise ValueError("report: only tasks are reported on test; leave the property out")
        if any(item.examples for item in self.report):
            raise ValueError(
                "report: 'examples' says what the search sees, and the report is made on the whole "
                "test split; leave it out there"
            )
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("sources: the same model is listed twice; list each source once")
        mixing = self.space.parameter if self.space.type == "both" else self.space
        if mixing.type == "parameter":
            if mixing.method not in ("linear", "slerp") and not self.base:
                raise ValueError(
                    f"base: the method {mixing.method} mixes differences from a common base; "
                    "name the base model"
                )
        self._check_vocabulary(mixing.type == "parameter")
        paths = self.space.data_flow if self.space.type == "both" else self.space
        if paths.type == "data_flow" and paths.sources:
            place = f"space.{'data_flow.' if self.space.type == 'both' else ''}sources"
            if len(set(paths.sources)) < len(paths.sources):
                raise ValueError(f"{place}: the same model is listed twice; list it once")
            if unknown := set(paths.sources) - set(self.sources):
                raise ValueError(
                    f"{place}: {_short(min(unknown))} is not among the recipe's sources; "
                    "list it there too"
                )
        self._check_search(len(tasks), len(properties))
        self._check_memory(mixing.type == "parameter")
        return self

    def _check_vocabulary(self, mixes: bool) -> None:
        if self.vocabulary == "same":
            return
        if not mixes:
            raise ValueError("vocabulary: a path has its main model's; leave it out")
        if self.vocabulary == "base" and not self.base:
            raise ValueError("vocabulary: there is no base; name it, or write 'union' or a source")
        if self.vocabulary not in ("base", "union", *self.sources):
            raise ValueError(
                f"vocabulary: {_short(self.vocabulary)} is not among the recipe's sources; write "
                "one of them, or 'same', 'base' or 'union'"
            )

    def _check_memory(self, mixes: bool) -> None:
        if self.batch_size != "auto" and not 1 <= self.batch_size <= 4096:
            raise ValueError("batch_size: it must be from 1 to 4096, or 'auto'")
        if self.base_storage == "packed":
            return
        if self.precision not in ("int8", "nf4"):
            raise ValueError(
                f"base_storage: in {self.precision} the base is held as everything else; leave it "
                "out, or use precision int8 or nf4"
            )
        if not mixes:
            raise ValueError("base_storage: a path has no base; leave it out")

    def _check_search(self, tasks: int, properties: int) -> None:
        search, several = self.search, tasks + properties > 1
        if search.racing and search.asynchronous is True:
            raise ValueError(
                "search.asynchronous: in a race a generation is compared after every block of "
                "examples; leave it out, or leave racing out"
            )
        if not re.fullmatch("default|uniform|last|[0-9a-f]{1,8}", search.start):
            raise ValueError(
                f"search.start: {_short(search.start)} is no run; write 'default', 'uniform', or a "
                "run's id in quotation marks"
            )
        if search.start == "uniform" and self.space.type == "data_flow":
            raise ValueError(
                "search.start: a path mixes no weights, so that no merge of it is uniform; leave "
                "it out, or name a run"
            )
        if search.start != "default" and search.optimizer == "random":
            raise ValueError(
                "search.start: a random search does not go on from anywhere; leave it out, or use "
                "another optimizer"
            )
        if search.scheme == "paper" and (self.space.type != "both" or tasks < 2):
            raise ValueError(
                "search.scheme: the paper's scheme searches the parameter space once per task and "
                "then paths over the winners; give it space 'both' and two tasks or more"
            )
        if search.optimizer is None:
            chosen = "nsga2" if several else "cma"
            self.search = search.model_copy(update={"optimizer": chosen})
        elif several and search.optimizer not in ("nsga2", "random"):
            raise ValueError(
                f"search.optimizer: {search.optimizer} takes one objective; use nsga2 or random, "
                "or move the other tasks to 'report'"
            )
        elif not several and search.optimizer == "nsga2":
            raise ValueError(
                "search.optimizer: nsga2 trades several objectives off; use cma, cmaes or random "
                "for one"
            )

    @classmethod
    def from_yaml(cls, text: str, where: str = "The recipe") -> "Recipe":
        """Parse a YAML document.

        Raises:
            StudioError: not YAML, not a mapping, or a field is wrong; the sentence names the field.
        """
        document = read_page(text, where)
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
        where = f"The recipe {path}"
        return cls.from_yaml(page_text(Path(path), where), where)

    @property
    def quantized(self) -> bool:
        """Whether candidates are measured in another form than they are exported in."""
        return self.precision in ("int8", "nf4")

    def objective_names(self) -> list[str]:
        """What each objective's scores are recorded under: its task's or property's name."""
        return _numbered(item.task or item.property for item in self.objectives)

    def task_names(self) -> list[str]:
        """The names of the tasks of objectives and report, in the order of `build_tasks`.

        Of two tasks of one kind the second is called 'csv (2)'.
        """
        return _numbered(item.task for item in [*self.objectives, *self.report] if item.task)

    def stages(self) -> list[Stage]:
        """The searches of a run, in order: its own, then the random baseline's."""
        own = self._searches(self.search.optimizer)
        if self.search.optimizer == "random" or not self.search.random_baseline:
            return own
        return own + self._searches("random", baseline=True)

    def _searches(self, optimizer: str, baseline: bool = False) -> list[Stage]:
        """The searches that lead to one result."""
        names = tuple(self.objective_names())
        space, seed = self.space, self.seed
        if space.type != "both":
            return [Stage(optimizer, space, optimizer, names, baseline=baseline, seed=seed)]
        mark = "random " if baseline else ""
        tasks = tuple(name for name in names if name not in PROPERTIES)
        one = "random" if optimizer == "random" else "cma"
        if self.search.scheme == "paper":
            first = [
                Stage(f"{mark}parameter {task}", space.parameter, one, (task,),
                      baseline=baseline, final=False, seed=(seed + number) % 2**32)
                for number, task in enumerate(tasks)
            ]  # fmt: skip
        else:  # what no merge of weights can change is no objective there
            chosen = one if len(tasks) == 1 and optimizer == "nsga2" else optimizer
            first = [Stage(f"{mark}parameter", space.parameter, chosen, tasks,
                           baseline=baseline, final=False, seed=seed)]  # fmt: skip
        pool = tuple(stage.name for stage in first)
        return [
            *first,
            Stage(f"{mark}data_flow", space.data_flow, optimizer, names, pool,
                  baseline=baseline, seed=seed),
        ]  # fmt: skip

    def to_yaml(self) -> str:
        """The whole document with every default written out: what a run records."""
        document = self.model_dump(mode="json", exclude_none=True)

        def dump(readable: bool) -> str:
            return yaml.safe_dump(document, sort_keys=False, allow_unicode=readable, width=100)

        # PyYAML writes a few odd characters (U+0085) so that it cannot read them back
        return dump(True) if yaml.safe_load(dump(True)) == document else dump(False)

    def build_tasks(self) -> list["Task"]:
        """The tasks of the objectives, then those only reported on the test split.

        Scores are recorded by task name, see :meth:`task_names`.
        """
        from studio.tasks import load_task

        named = [item for item in [*self.objectives, *self.report] if item.task]
        tasks = [load_task(item.task, **item.options) for item in named]
        for task, name in zip(tasks, self.task_names(), strict=True):
            task.name = name
        return tasks


def _numbered(kinds: Iterable[str]) -> list[str]:
    """Names made different: the second 'csv' is 'csv (2)'."""
    seen: Counter[str] = Counter()
    names = []
    for kind in kinds:
        seen[kind] += 1
        names.append(kind if seen[kind] == 1 else f"{kind} ({seen[kind]})")
    return names


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation error, as field, problem and remedy in one sentence."""
    problem = error.errors()[0]
    place = _place(problem["loc"])
    field = _short(".".join(str(part) for part in place))
    more = f" ({error.error_count() - 1} more after that.)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        section = _section(place[:-1], problem["loc"])
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


def _place(location: tuple[int | str, ...]) -> list[int | str]:
    """A location of a validation error as a user would write it, without pydantic's own marks."""
    place = [part for part in location if part not in ("int", "literal['all']")]
    if len(place) > 1 and place[0] == "space":
        del place[1]  # which kind of space it was taken for
    return place


def _section(place: list[int | str], location: tuple[int | str, ...]) -> type[_Section]:
    """The section of the document that a place lies in."""
    kinds: dict[Any, type[_Section]] = {"parameter": Parameter, "data_flow": DataFlow, "both": Both}
    if place[:1] == ["space"]:
        return kinds[place[1] if len(place) > 1 else location[1]]
    return {
        "objectives": Objective,
        "report": Objective,
        "search": Search,
        "budget": Budget,
        "decoding": DecodingSettings,
    }.get(str(place[0]) if place else "", Recipe)
