"""The merge that a mergekit configuration describes, as a checkpoint: nothing searched, all given.

Knows which tensors of which models become which tensor of the result and with what settings, and
asks the evolved merges' own arithmetic for it (`studio.merge.ingredients`). Refuses to parse YAML.

All methods compute in float32 from the weights as they are stored, and round once, to the result's
dtype; mergekit computes in ``dtype``. DARE draws the Studio's masks, and rescales by 1/density
rather than by the share of the L1 norm that was kept.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from studio.errors import StudioError
from studio.merge.ingredients import Ingredients
from studio.merge.mergekit_import import DIFFERENCES, Configuration, Input, Slice
from studio.merge.methods import METHODS
from studio.merge.parameter_space import Setting, layer_of
from studio.merge.virtual import Virtual
from studio.models.compatibility import check_compatible, check_path
from studio.models.model import HEAD, Model, frame_of
from studio.models.vocabulary import BASE, SAME, UNION, Aligned, align

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


@dataclass(frozen=True)
class How:
    """How one tensor of the result is made.

    Attributes:
        method: a name in `METHODS`.
        base: (model, its tensor's name) that differences are taken from, or None.
        sources: the same of each source.
        strength: what the merged differences are multiplied by at last (mergekit's ``lambda``).
    """

    method: str
    base: tuple[str, str] | None
    sources: tuple[tuple[str, str], ...]
    setting: Setting
    normalize: bool = False
    strength: float = 1.0


class _Everything:
    """The mask that drops nothing."""

    def limit(self, density: float) -> None:
        return None

    def keep(self, limit: None, start: int, values: Tensor) -> Tensor:
        return torch.ones_like(values)


class FixedMerge(Virtual):
    """What a mergekit configuration makes of its models.

    Args:
        configuration: what is merged how.
        open_model: a model by the name that the configuration gives it.
        name: what to call it.

    Raises:
        StudioError: a model cannot be opened, the models do not fit, layers that a model does not
            have, or a parameter that is missing or cannot be had here.
    """

    def __init__(self, configuration: Configuration, open_model: Callable[[str], Model], name: str):
        self.configuration = configuration
        self._opened = {model: open_model(model) for model in configuration.models}
        if frame := frame_of(self._opened.values()):
            raise StudioError(
                f"A mergekit configuration merges language models, and {frame.name} is a "
                "vision-language model; write a recipe instead."
            )
        self._slices = [self._whole(number) for number in range(len(configuration.slices))]
        self._check()
        self._align()
        donor = self._opened[configuration.donor]
        super().__init__(name, donor, list(self._opened.values()), "fp32")
        self.dtype = _dtype(configuration, list(self._opened.values()))
        self.config.dtype = self.dtype
        self.config.tie_word_embeddings = all(self._opened[m].tied for m in self._outer())
        self.config.num_hidden_layers = sum(_count(piece) for piece in self._slices)
        self._set_layer_types()
        self._how = dict(self._plan())
        self.config.vocab_size = self.shape(self.names()[0])[0]

    # ── models ───────────────────────────────────────────────────────────────────────────────────

    def _whole(self, number: int) -> Slice:
        """A slice with all its layer ranges written out."""
        piece = self.configuration.slices[number]
        sources = []
        for source in piece.sources:
            has = self._opened[source.model].layers
            first, stop = source.layers or (0, has)
            if stop > has:
                raise StudioError(
                    f"'slices[{number}]' takes layers {first} to {stop - 1} of {source.model}, "
                    f"which has {has}; end its layer_range at {has}."
                )
            sources.append(replace(source, layers=(first, stop)))
        return replace(piece, sources=tuple(sources))

    def _outer(self) -> list[str]:
        """The models that embedding, final norm and head are made of."""
        ends = (self._slices[0], self._slices[-1])
        return list(dict.fromkeys(source.model for piece in ends for source in piece.sources))

    @property
    def _vocabulary(self) -> str:
        """The tokenizer that the configuration wants, as `align` calls it."""
        wanted = self.configuration.tokenizer
        if wanted in (None, UNION):
            return wanted or SAME
        giver = self._giver
        return BASE if giver == self.configuration.base else self._opened[giver].name

    def _check(self) -> None:
        models, first = list(self._opened.values()), 0
        in_place = len({model.layers for model in models}) == 1
        for piece in self._slices:
            in_place &= all(source.layers[0] == first for source in piece.sources)
            first += _count(piece)
        if in_place and first == models[0].layers:
            check_compatible(None, models, self._vocabulary)
            return
        for piece in self._slices:
            for source in piece.sources:
                if _count_of(source) != _count(piece):
                    raise StudioError(
                        f"{piece.sources[0].model} and {source.model} have different numbers of "
                        "layers; write 'slices' that take as many of each."
                    )
        # layers move, or the models are of different depth
        check_path(models)
        named = dict.fromkeys([*self._outer(), self.configuration.donor])
        one, *others = [self._opened[model] for model in named]
        for other in others if self._vocabulary == SAME else []:
            if one.tokenizer().get_vocab() != other.tokenizer().get_vocab():
                raise StudioError(
                    f"{one.name} and {other.name} have different vocabularies, and both have a "
                    "part in embedding and head; write 'tokenizer_source: union', or pick models "
                    "that share one tokenizer."
                )

    def _align(self) -> None:
        """Bring embeddings and heads into one order of tokens."""
        outer, choice = self._outer(), self._vocabulary
        wanted = self.configuration.tokenizer
        if wanted not in (None, BASE, UNION, self.configuration.base) and wanted not in outer:
            raise StudioError(
                f"The tokenizer of {wanted} is wanted, which has no part in embedding and head; "
                "take it from one of the models that are merged there."
            )
        if choice != SAME and self.configuration.donor not in outer:
            raise StudioError(
                f"{self.configuration.donor} gives configuration and tokenizer, and has no part in "
                "embedding and head; leave the tokenizer out, or name another base_model."
            )
        base = self.configuration.base
        below = self._opened[base] if base else None
        rest = [model for model in outer if model != base]
        named = [self._opened[model] for model in rest]
        if not named:  # the base alone has an embedding and a head here
            return
        below, aligned = align(below, named, choice, with_base=base in outer)
        self._opened |= dict(zip(rest, aligned, strict=True))
        if base in outer:
            self._opened[base] = below
        voice = self._opened[self._giver]
        if choice != SAME and isinstance(voice, Aligned):
            voice.check_end()

    def _set_layer_types(self) -> None:
        if not getattr(self.config, "layer_types", None):
            return
        kinds = []
        for piece in self._slices:
            for offset in range(_count(piece)):
                found = {
                    self._opened[source.model].config.layer_types[source.layers[0] + offset]
                    for source in piece.sources
                }
                if len(found) > 1:
                    raise StudioError(
                        f"Layer {len(kinds)} would be merged of layers with different kinds of "
                        f"attention ({', '.join(sorted(found))}); shift a layer_range."
                    )
                kinds += found
        self.config.layer_types = kinds

    # ── what is made how ─────────────────────────────────────────────────────────────────────────

    def _plan(self) -> Iterator[tuple[str, How]]:
        """Every tensor of the result in the model's order."""
        donor = self._opened[self.configuration.donor]
        names = [name for name in donor.names() if name != HEAD]
        if not self.tied:
            names.append(HEAD)
        layers = [name for name in names if layer_of(name) is not None]
        suffixes = [name.split(".0.", 1)[1] for name in layers if layer_of(name) == 0]
        prefix = layers[0].split(".0.", 1)[0]
        # Before the layers the first slice decides, after them the last, all of it: mergekit takes
        # no more of the last slice's sources than the first slice has, by oversight it seems.
        piece = self._slices[0]
        for name in names:
            if layer_of(name) is None:
                yield name, self._how_to(name, piece, 0.0, None)
            elif name == layers[0]:  # here stand all layers of the result
                number = 0
                for piece in self._slices:
                    last = _count(piece) - 1
                    for offset in range(last + 1):
                        place = offset / last if last else 1.0
                        for suffix in suffixes:
                            slot = f"{prefix}.{number}.{suffix}"
                            yield slot, self._how_to(slot, piece, place, offset)
                        number += 1

    def _how_to(self, name: str, piece: Slice, place: float, offset: int | None) -> How:
        """How a tensor is made, from a slice's sources at a place from 0 to 1 in it."""
        config, method = self.configuration, self.configuration.method

        def theirs(source: Input) -> str:
            if offset is None:
                return name
            before, after = name.split(f".{layer_of(name)}.", 1)
            return f"{before}.{source.layers[0] + offset}.{after}"

        def values(kind: str, sources: list[Input]) -> list[float | None]:
            return [config.number(kind, theirs(s), place, piece, s) for s in sources]

        sources = list(piece.sources)
        base = next((source for source in sources if source.model == piece.base), None)
        others = [source for source in sources if source is not base]
        if method == "passthrough":
            (scale,) = values("scale", sources)
            weights = Setting((1.0 if scale is None else scale,))
            return How("linear", None, ((sources[0].model, theirs(sources[0])),), weights)
        if method == "slerp":
            t = config.number("t", name, place, piece)
            if t is None:
                raise StudioError(f"slerp needs a parameter 't' for {name}; add it.")
            both = tuple((source.model, theirs(source)) for source in (base, *others))
            return How("slerp", None, both, Setting(t=t))
        merged = others if method in DIFFERENCES else sources
        weights = values("weight", merged)
        if None in weights:
            model = merged[weights.index(None)].model
            raise StudioError(f"{method} needs a 'weight' of {model} for {name}; add it.")
        normalize = config.normalize(name, place, piece)
        tensors = tuple((source.model, theirs(source)) for source in merged)
        if method == "linear":
            if normalize and abs(sum(weights)) < 1e-8:
                raise StudioError(
                    f"The weights for {name} sum to zero, and to normalize would divide by that; "
                    "change them, or write 'normalize: false'."
                )
            return How(method, None, tensors, Setting(tuple(weights)), normalize)
        strength = config.number("lambda", name, place, piece)
        strength = 1.0 if strength is None else strength
        densities = ()
        if method != "task_arithmetic":
            densities = tuple(1.0 if d is None else d for d in values("density", merged))
        setting = Setting(tuple(weights), densities)
        how = How(method, (base.model, theirs(base)), tensors, setting, normalize, strength)
        if densities and config.rescale(name, place, piece) != method.startswith("dare"):
            return _otherwise_rescaled(how)
        return how

    # ── the checkpoint ───────────────────────────────────────────────────────────────────────────

    def names(self) -> list[str]:
        return list(self._how)

    def shape(self, name: str) -> tuple[int, ...]:
        model, theirs = self._how[self._stored(name)].sources[0]
        return self._opened[model].shape(theirs)

    def pieces(self, name: str) -> Iterator[Tensor]:
        name = self._stored(name)
        how = self._how[name]
        base = self._reader(how.base) if how.base else None
        method, densities = METHODS[how.method], how.setting.densities
        whole = bool(densities) and min(densities) == 1.0
        ingredients = Ingredients.streamed(
            replace(method, masks=None) if whole else method,
            self.configuration.seed,
            name,
            base,
            [self._reader(source) for source in how.sources],
            math.prod(self.shape(name)),
            torch.float32,
        )
        if whole:  # mergekit's default density, for which no entry needs to be ranked
            ingredients = replace(ingredients, masks=[_Everything()] * len(densities))
        if how.strength != 1.0:  # the base comes last, once the differences have their strength
            ingredients = replace(ingredients, base=None)
        for start, piece in ingredients.merge(how.setting, how.normalize):
            if how.strength != 1.0:
                below = base(start, start + piece.numel()).float()
                piece = piece.mul_(how.strength).add_(below)
            yield piece.to(self.dtype)

    def _reader(self, tensor: tuple[str, str]):
        model, name = tensor
        return self._opened[model].reader(name)

    def fingerprint(self) -> str:
        parts = [
            [model.fingerprint() for model in self._opened.values()],
            list(self._opened),
            [[name, *map(str, astuple(how))] for name, how in self._how.items()],
            self.configuration.seed,
            self.configuration.tokenizer,
            self.configuration.chat_template,
            str(self.dtype),
        ]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    @property
    def _giver(self) -> str:
        """The model whose tokenizer the result takes, or extends."""
        wanted = self.configuration.tokenizer
        return self.configuration.donor if wanted in (None, BASE, UNION) else wanted

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        tokenizer = self._opened[self._giver].tokenizer()
        template = self.configuration.chat_template
        if template == "auto":
            said = [model.tokenizer().chat_template for model in self._opened.values()]
            counted = Counter(text for text in said if isinstance(text, str)).most_common(1)
            template = counted[0][0] if counted else None
        if template is not None:
            tokenizer.chat_template = template
        return tokenizer

    def generation_config(self) -> "GenerationConfig":
        return self._opened[self.configuration.donor].generation_config()

    def documents(self) -> dict[str, str]:
        """``mergekit.yaml``: the configuration as it was written."""
        return {"mergekit.yaml": self.configuration.text}


def _otherwise_rescaled(how: How) -> How:
    """The same without DARE's rescaling, which its weights or its strength undo."""
    if how.method == "ties":
        raise StudioError("'rescale' is not supported for ties; leave it out.")
    weights, densities = how.setting.weights, how.setting.densities
    if not how.normalize:
        weights = tuple(w * density for w, density in zip(weights, densities, strict=True))
        return replace(how, setting=replace(how.setting, weights=weights))
    if len(set(densities)) == 1:  # the weights would be divided out again
        return replace(how, strength=how.strength * densities[0])
    raise StudioError(
        "'rescale: false' together with 'normalize: true' is supported for equal densities only; "
        "change one of the three."
    )


def _count_of(source: Input) -> int:
    return source.layers[1] - source.layers[0]


def _count(piece: Slice) -> int:
    """Layers of a slice."""
    return _count_of(piece.sources[0])


def _dtype(configuration: Configuration, models: list[Model]) -> torch.dtype:
    if configuration.dtype is not None:
        return getattr(torch, configuration.dtype)
    dtype = reduce(torch.promote_types, (model.dtype for model in models))
    return dtype if dtype.itemsize <= 4 else torch.float32
