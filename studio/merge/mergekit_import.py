"""A mergekit configuration as a document: its slices, and which parameter holds for which tensor.

Knows mergekit's YAML as of version 0.1.5: `models` or `slices`, parameters of sources, slices and
the whole, each a number, a gradient over layers, or a list of those by name filter; and what holds
where nothing is said. Refuses to open a model or to merge a tensor: `studio.merge.fixed` does.
What the Studio cannot do the same way is refused here, in a sentence.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import StudioError
from studio.yaml_page import read_page

#: mergekit's methods that are merged here, by their name there, which is also ours.
METHODS = (
    "linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "passthrough",
)  # fmt: skip
#: Those that divide by the summed weights unless told otherwise.
_NORMALIZED = ("linear", "ties")
#: Those that merge differences from ``base_model``.
DIFFERENCES = ("task_arithmetic", "ties", "dare_linear", "dare_ties")

NUMBERS = ("weight", "density", "t", "scale", "lambda")
SWITCHES = ("normalize", "rescale", "int8_mask")
#: Parameters of methods that are not merged here, or of earlier versions. mergekit ignores what a
#: method does not have, and so do we, but not what no method has: that is a slip of the pen.
_IGNORED = (
    "gamma", "epsilon", "select_topk", "filter_wise", "embed_slerp", "consensus_method",
    "nuslerp_row_wise", "nuslerp_flatten", "max_iter", "tol", "eps", "masked",
)  # fmt: skip

DTYPES = ("float32", "bfloat16", "float16")
_FIELDS = (
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype",
    "tokenizer_source", "tokenizer", "chat_template",
)  # fmt: skip
#: What people write beside these, and mergekit does not read: a title, and LazyMergekit's seed.
_ASIDES = ("name", "random_seed")

#: More layers than any model has; it bounds the work that a page can ask for.
MAX_LAYERS = 2000


@dataclass(frozen=True)
class Condition:
    """A value, or a gradient over the layers of a slice, for tensors whose names hold a text."""

    text: str | None
    values: tuple[float, ...]

    def holds(self, name: str) -> bool:
        return self.text is None or self.text == "*" or self.text in name


#: Conditions by parameter, of which the first that holds decides.
Parameters = Mapping[str, tuple[Condition, ...]]


@dataclass(frozen=True)
class Input:
    """A model in a slice, with the layers [first, stop) that it lends; all where that is None."""

    model: str
    layers: tuple[int, int] | None
    parameters: Parameters


@dataclass(frozen=True)
class Slice:
    """Consecutive layers of the result, made of as many layers of each source."""

    sources: tuple[Input, ...]
    base: str | None
    parameters: Parameters


@dataclass(frozen=True)
class Configuration:
    """A merge as mergekit's YAML says it; make it with `Configuration.from_yaml`.

    Attributes:
        text: the document as it was written.
        base: ``base_model``; every slice has its own, which is this one where it names none.
        slices: from the first layer to the last. One for ``models``.
        dtype: of the result by name, None for that of the models.
        tokenizer: "base", "union", a model whose tokenizer the result takes, or None: that of
            the `donor`.
        chat_template: "auto", a template, or None.
        seed: of the random masks.
    """

    text: str
    method: str
    base: str | None
    slices: tuple[Slice, ...]
    parameters: Parameters
    dtype: str | None
    tokenizer: str | None
    chat_template: str | None
    seed: int

    @classmethod
    def from_yaml(cls, text: str, where: str = "The mergekit configuration") -> "Configuration":
        """Read a YAML document.

        Raises:
            StudioError: no YAML, or not a configuration that can be merged here; the sentence
                names the field.
        """
        try:
            return _Reader(read_page(text, where)).configuration(text)
        except _Wrong as problem:
            raise StudioError(f"{where}: {problem}") from None

    @property
    def models(self) -> list[str]:
        """Every model it names, each once: the base model first, then in the order of slices."""
        named = [self.base] if self.base else []
        for piece in self.slices:
            named += [source.model for source in piece.sources]
            named += [piece.base] if piece.base else []
        if self.tokenizer not in (None, "base", "union"):
            named.append(self.tokenizer)
        return list(dict.fromkeys(named))

    @property
    def donor(self) -> str:
        """The model whose configuration, tokenizer and generation config the result takes."""
        return self.base or self.slices[0].sources[0].model

    def number(
        self, name: str, tensor: str, t: float, piece: Slice, source: Input | None = None
    ) -> float | None:
        """The value of a parameter, or None where nothing is said.

        Args:
            tensor: the name that filters are held against: that of the source's tensor for what
                a source has, that of the result's for what all share.
            t: where in the slice its layer lies, 0 to 1.
            source: None for what all sources share, which no source's own parameters decide.
        """
        values = self._decided(name, tensor, piece, source)
        if values is None:
            return None
        place = t * (len(values) - 1)
        before = int(place)
        after = min(before + 1, len(values) - 1)
        share = place - before
        return (1 - share) * values[before] + share * values[after]

    def switch(self, name: str, tensor: str, t: float, piece: Slice) -> bool | None:
        """As `number`, for what is on or off: nothing lies between two of its values."""
        values = self._decided(name, tensor, piece, None)
        return None if values is None else bool(values[int(t * (len(values) - 1))])

    def normalize(self, tensor: str, t: float, piece: Slice) -> bool:
        """Whether to divide by the summed weights; mergekit's own answer depends on the method."""
        said = self.switch("normalize", tensor, t, piece)
        return self.method in _NORMALIZED if said is None else said

    def rescale(self, tensor: str, t: float, piece: Slice) -> bool:
        """Whether what DARE keeps is scaled up for what it drops."""
        said = self.switch("rescale", tensor, t, piece)
        return self.method.startswith("dare") if said is None else said

    def _decided(
        self, name: str, tensor: str, piece: Slice, source: Input | None
    ) -> tuple[float, ...] | None:
        scopes = [piece.parameters, self.parameters]
        for scope in [source.parameters, *scopes] if source else scopes:
            for condition in scope.get(name, ()):
                if condition.holds(tensor):
                    return condition.values
        return None


class _Wrong(Exception):
    """What is wrong with the document, as the rest of a sentence that names the document."""


class _Reader:
    """One document, field by field."""

    def __init__(self, document: Any):
        self._document = _mapping(document, "it")

    def configuration(self, text: str) -> Configuration:
        document = self._document
        method = _text(document.get("merge_method"), "merge_method")
        if method not in METHODS:
            raise _Wrong(
                f"the merge method {_shown(method)} is not one of {', '.join(METHODS)}; use one of "
                "these, or merge with mergekit itself."
            )
        if "modules" in document:
            raise _Wrong("'modules' is not supported; write 'models' or 'slices'.")
        _known(document, (*_FIELDS, *_ASIDES), "it")
        if ("models" in document) == ("slices" in document):
            raise _Wrong("write either 'models' or 'slices'.")
        base = _optional(document, "base_model")
        if "models" in document:
            slices = (self._models(document["models"], base),)
        else:
            slices = tuple(
                _slice(_mapping(entry, f"slices[{n}]"), f"slices[{n}]", base)
                for n, entry in enumerate(_list(document["slices"], "slices"))
            )
        for number, piece in enumerate(slices):
            _check(method, piece, f"slices[{number}]" if "slices" in document else "models")
        if sum(_length(piece) for piece in slices) > MAX_LAYERS:
            raise _Wrong(f"'slices' have more than {MAX_LAYERS} layers in all; write fewer.")
        return Configuration(
            text=text,
            method=method,
            base=base,
            slices=slices,
            parameters=_parameters(document, ""),
            dtype=_dtype(document, "out_dtype") or _dtype(document, "dtype"),
            tokenizer=_tokenizer(document),
            chat_template=_chat_template(document),
            seed=_seed(document),
        )

    def _models(self, entries: Any, base: str | None) -> Slice:
        sources = []
        for number, entry in enumerate(_list(entries, "models")):
            place = f"models[{number}]"
            _known(_mapping(entry, place), ("model", "parameters"), place)
            model = _text(entry.get("model"), f"{place}.model")
            sources.append(Input(model, None, _parameters(entry, f"{place}.")))
        if base is not None and base not in [source.model for source in sources]:
            sources.append(Input(base, None, {}))
        return Slice(tuple(sources), base, {})


# ── slices ───────────────────────────────────────────────────────────────────────────────────────


def _slice(entry: Mapping, place: str, base: str | None) -> Slice:
    _known(entry, ("sources", "parameters", "base_model"), place)
    sources = []
    for number, source in enumerate(_list(entry.get("sources"), f"{place}.sources")):
        here = f"{place}.sources[{number}]"
        _known(_mapping(source, here), ("model", "layer_range", "parameters"), here)
        model = _text(source.get("model"), f"{here}.model")
        layers = _layers(source.get("layer_range"), f"{here}.layer_range")
        sources.append(Input(model, layers, _parameters(source, f"{here}.")))
    return Slice(
        tuple(sources),
        _optional(entry, "base_model", f"{place}.") or base,
        _parameters(entry, f"{place}."),
    )


def _layers(value: Any, place: str) -> tuple[int, int]:
    whole = isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)
    if not whole or not 0 <= value[0] < value[1] <= MAX_LAYERS:
        raise _Wrong(f"'{place}' must be [first, one past the last], as in [0, 16].")
    return value[0], value[1]


def _length(piece: Slice) -> int:
    """Layers of a slice; 1 where only the models know."""
    layers = piece.sources[0].layers
    return layers[1] - layers[0] if layers else 1


def _check(method: str, piece: Slice, place: str) -> None:
    """What mergekit demands of a slice before it reads a tensor."""
    names = [source.model for source in piece.sources]
    if len(set(names)) < len(names):
        raise _Wrong(f"'{place}' lists the same model twice; list each once.")
    lengths = {source.layers[1] - source.layers[0] for source in piece.sources if source.layers}
    if len(lengths) > 1:
        raise _Wrong(f"'{place}' takes different numbers of layers; take as many of each source.")
    if method == "passthrough" and len(names) != 1:
        raise _Wrong(f"'{place}' has {len(names)} models, and passthrough copies one; name one.")
    if method in (*DIFFERENCES, "slerp"):
        if piece.base is None:
            raise _Wrong(f"{method} needs a 'base_model'; name it.")
        if piece.base not in names:
            raise _Wrong(f"'{place}' lacks the base_model {_shown(piece.base)}; list it there too.")
        if len(names) < 2:
            raise _Wrong(f"'{place}' names no model beside the base_model; add one.")
    if method == "slerp" and len(names) != 2:
        raise _Wrong(f"'{place}' has {len(names)} models, and slerp takes exactly two.")


# ── parameters ───────────────────────────────────────────────────────────────────────────────────


def _parameters(entry: Mapping, prefix: str) -> Parameters:
    if entry.get("parameters") is None:
        return {}
    place = f"{prefix}parameters"
    table = _mapping(entry["parameters"], f"'{place}'")
    _known(table, (*NUMBERS, *SWITCHES, *_IGNORED), f"'{place}'")
    return {
        name: tuple(_conditions(name, value, f"{place}.{name}"))
        for name, value in table.items()
        if name not in _IGNORED
    }


def _conditions(name: str, value: Any, place: str) -> Iterable[Condition]:
    if isinstance(value, dict):
        value = [value]
    if not (isinstance(value, list) and any(isinstance(entry, dict) for entry in value)):
        return [Condition(None, _gradient(name, value, place))]
    conditions = []
    for number, entry in enumerate(value):
        here = f"{place}[{number}]"
        _known(_mapping(entry, f"'{here}'"), ("filter", "value"), f"'{here}'")
        if "value" not in entry:
            raise _Wrong(f"'{here}' has no 'value'; add it.")
        text = _optional(entry, "filter", f"{here}.")
        conditions.append(Condition(text, _gradient(name, entry["value"], f"{here}.value")))
    return conditions


def _gradient(name: str, value: Any, place: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise _Wrong(f"'{place}' is empty; write a number or a list of them.")
    read = _switch if name in SWITCHES else _number
    found = tuple(read(entry, place) for entry in values)
    if name == "density" and not all(0 < density <= 1 for density in found):
        raise _Wrong(f"'{place}' must lie above 0 and not above 1.")
    return found


def _number(value: Any, place: str) -> float:
    """A finite number; YAML takes 1e-3 for text, and mergekit takes such text for a number."""
    if isinstance(value, int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) and abs(number) < 1e30:
            return number
    raise _Wrong(f"'{place}' must be a number, a list of numbers, or a list of filters and values.")


def _switch(value: Any, place: str) -> float:
    words = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
    said = words.get(str(value).lower()) if isinstance(value, int | float | str) else None
    if said is None:
        raise _Wrong(f"'{place}' must be true or false.")
    return said


# ── the rest of the page ─────────────────────────────────────────────────────────────────────────


def _dtype(document: Mapping, field: str) -> str | None:
    name = _optional(document, field)
    if name is None:
        return None
    name = name.removeprefix("torch.")
    if name not in DTYPES:
        raise _Wrong(f"'{field}' is {_shown(name)}; use one of {', '.join(DTYPES)}.")
    return name


def _tokenizer(document: Mapping) -> str | None:
    source = _optional(document, "tokenizer_source")
    if document.get("tokenizer") is None:
        return source
    if source is not None:
        raise _Wrong("write either 'tokenizer_source' or 'tokenizer'.")
    table = _mapping(document["tokenizer"], "'tokenizer'")
    _known(table, ("source", "tokens", "pad_to_multiple_of"), "'tokenizer'")
    for field in ("tokens", "pad_to_multiple_of"):
        if table.get(field):
            raise _Wrong(
                f"'tokenizer.{field}' is not supported; leave it out, or merge with mergekit "
                "itself."
            )
    return _optional(table, "source", "tokenizer.") or "union"


def _chat_template(document: Mapping) -> str | None:
    template = _optional(document, "chat_template")
    if template is not None and template != "auto" and "{" not in template:
        raise _Wrong(
            f"'chat_template' is {_shown(template)}, and templates that only mergekit knows by "
            "name are not supported; write 'auto' or the template itself."
        )
    return document.get("chat_template")


def _seed(document: Mapping) -> int:
    seed = document.get("random_seed")
    if seed is None:
        return 0
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise _Wrong("'random_seed' must be a whole number from 0, below 2³².")
    return seed


def _mapping(value: Any, place: str) -> dict:
    if not isinstance(value, dict):
        raise _Wrong(f"{place} must be a mapping of fields to values.")
    return value


def _list(value: Any, place: str) -> list:
    if not isinstance(value, list) or not value:
        raise _Wrong(f"'{place}' must be a list with at least one entry.")
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Wrong(f"'{place}' must be a text.")
    return value.strip()


def _optional(entry: Mapping, field: str, prefix: str = "") -> str | None:
    value = entry.get(field)
    return None if value is None else _text(value, prefix + field)


def _known(entry: Mapping, fields: Sequence[str], place: str) -> None:
    for field in entry:
        if field not in fields:
            raise _Wrong(f"{place} has no field {_shown(field)}; use {', '.join(fields)}.")


def _shown(value: Any) -> str:
    """A stranger's text within a sentence: one line, not too long."""
    text = re.sub(r"[^\x20-\x7e\u00a0-\uffff]", "?", str(value))
    return repr(text if len(text) <= 80 else text[:79] + "…")
