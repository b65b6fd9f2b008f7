"""The parameter space (PS): what each number of a genome means for which tensors.

Knows the names and shapes of the sources' tensors and the genes of the merge methods; refuses to
read a tensor or to merge one. Following the paper (arXiv:2403.13187, section 3.1) the input
embedding, every block of transformer layers and the output head have genes of their own, for each
source: a weight and, where the method trims or drops, a density.
"""

import json
import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from studio.errors import StudioError
from studio.merge.methods import METHODS
from studio.merge.space import checked
from studio.models.model import frame_of

if TYPE_CHECKING:
    import torch

    from studio.merge.live import LiveModel
    from studio.merge.virtual import Merged
    from studio.models.model import Model

#: Where a tensor's layer number stands in its canonical name: ``model.layers.3.mlp.…``.
_LAYER = re.compile(r"\.(\d+)\.")

BOUNDS = {"weight": (0.0, 2.0), "density": (0.05, 1.0), "t": (0.0, 1.0)}
INITIAL = 0.5


@dataclass(frozen=True)
class Gene:
    """One number of a genome.

    Attributes:
        kind: "weight", "density" or "t".
        group: the layer group, as `Part.group`.
        filter: the name filter inside the group, or None for everything it leaves.
        source: the name of the source, or None for ``t``, which belongs to both.
        low, high: bounds, inclusive.
    """

    kind: Literal["weight", "density", "t"]
    group: str
    filter: str | None
    source: str | None
    low: float
    high: float

    @property
    def name(self) -> str:
        """As in ``layers 2-3/mlp/bonsai-ja/weight``."""
        return "/".join(filter(None, (self.group, self.filter, self.source, self.kind)))


@dataclass(frozen=True)
class Setting:
    """How one tensor is merged: ``weights`` and ``densities`` per source, ``t`` for slerp."""

    weights: tuple[float, ...] = ()
    densities: tuple[float, ...] = ()
    t: float | None = None


@dataclass(frozen=True)
class Part:
    """The tensors that share one set of genes: a layer group, or what a filter takes of it."""

    group: str
    filter: str | None
    layers: tuple[int, ...]
    tensors: tuple[str, ...]
    genes: dict[tuple[str, int], int] = field(default_factory=dict)  # (kind, source) → position


class ParameterSpace:
    """Genome ↔ settings for every tensor.

    Groups are ``embedding``, blocks of ``layer_granularity`` layers (the last may be shorter, layer
    norms belong to their block) and ``head``, which the final norm belongs to. Where all models tie
    head and embedding, the head has no genes of its own: ``embedding+head``. ``"all"`` makes one
    group of everything, a uniform merge. ``filters`` are substrings of tensor names, as in
    mergekit-evolve: inside each block what a filter matches gets its own genes (the first matching
    filter wins), the rest of the block keeps default ones. Filters never take embedding, head or
    norms. Where an adapter leaves its base as it is, it has no genes.

    Args:
        base: the common ancestor; None for the methods that use none (linear, slerp).
        sources: one or more; exactly two for slerp.
        method: a name in `METHODS`.
        normalize: divide by the summed weights (mergekit's ``normalize``).
        negative_weights: weights from −2 instead of 0.
        seed: of the random masks; with the recipe's sources it fixes them for good.

    Attributes:
        genes, names: one per number of a genome; lower, upper, initial: float64 ``[d]``.
        binary: bool ``[d]``, all False: every gene is continuous.
        tensors: every merged tensor's shape by canonical name.
        tied: whether the merged model ties its head to its embedding.
        parts: the tensors that share genes.

    Raises:
        StudioError: the options do not fit each other or the models.

    Example:
        >>> from studio.models.checkpoint import Checkpoint
        >>> open = Checkpoint.open
        >>> space = ParameterSpace(  # doctest: +SKIP
        ...     open("bonsai-base"), [open("bonsai-ja"), open("bonsai-math")], layer_granularity=2
        ... )
        >>> settings = space.settings(space.initial)  # doctest: +SKIP
    """

    kind = "parameter"

    def __init__(
        self,
        base: "Model | None",
        sources: "Sequence[Model]",
        *,
        method: str = "dare_ties",
        layer_granularity: int | Literal["all"] = 1,
        normalize: bool = False,
        negative_weights: bool = False,
        filters: Sequence[str] = (),
        seed: int = 0,
    ):
        if method not in METHODS:
            raise StudioError(
                f"There is no merge method '{method}'; use one of {', '.join(METHODS)}."
            )
        self.method = METHODS[method]
        self.base = base if self.method.needs_base else None
        self.sources = list(sources)
        self.layer_granularity = layer_granularity
        self.normalize = normalize
        self.negative_weights = negative_weights
        self.filters = (filters,) if isinstance(filters, str) else tuple(filters)
        self.seed = seed
        self._check()

        models = self.models
        self.tied = all(model.tied for model in models)
        #: The checkpoint whose config and layout the merged model takes.
        template = next((model for model in models if model.tied == self.tied), models[0])
        #: What the merged model sees with: that of the first model that sees, unmerged.
        self.frame = frame_of(self.sources) or frame_of(models)
        self.template = template.framed(self.frame)
        self.tensors = {name: tuple(self.template.shape(name)) for name in self.template.names()}
        self.parts = self._parts()
        self.genes: list[Gene] = []
        for part in self.parts:
            self._add_genes(part)
        if not self.genes:
            raise StudioError(
                f"Nothing is left to evolve: with one source and normalize, {method} gives back "
                "that source whatever its weight; add a source or switch normalize off."
            )
        self.names = [gene.name for gene in self.genes]
        self.lower = np.array([gene.low for gene in self.genes])
        self.upper = np.array([gene.high for gene in self.genes])
        self.initial = np.full(len(self.genes), INITIAL)
        self.binary = np.zeros(len(self.genes), bool)

    @property
    def models(self) -> "list[Model]":
        """The checkpoints that take part: the base, if the method uses one, then the sources."""
        return ([self.base] if self.base else []) + self.sources

    def _check(self) -> None:
        name = self.method.name
        if not self.sources:
            raise StudioError("A merge needs at least one source; name the models to merge.")
        if self.method.needs_base and self.base is None:
            raise StudioError(
                f"The method {name} merges differences from a common ancestor; name the base."
            )
        if self.method.sources and len(self.sources) != self.method.sources:
            raise StudioError(
                f"The method {name} takes exactly {self.method.sources} sources, not "
                f"{len(self.sources)}; choose two, or another method."
            )
        if "weight" not in self.method.genes and (self.normalize or self.negative_weights):
            raise StudioError(
                f"The method {name} has no weights; leave normalize and negative_weights off."
            )
        folders = [source.path.resolve() for source in self.sources]
        for index, folder in enumerate(folders):
            if folder in folders[:index]:
                raise StudioError(
                    f"The source {self.sources[index].name} is listed twice; list each source once."
                )
        if self.base and self.base.path.resolve() in folders:
            raise StudioError(
                f"The base {self.base.name} is also listed as a source, where it would have no "
                "effect; take it off the sources."
            )
        granularity = self.layer_granularity
        whole = isinstance(granularity, int) and not isinstance(granularity, bool)
        if granularity != "all" and not (whole and granularity >= 1):
            raise StudioError(
                f"layer_granularity is a number of layers from 1, or 'all', not {granularity!r}."
            )
        if any(not isinstance(text, str) or not text for text in self.filters):
            raise StudioError("Every filter is a part of a tensor name, such as self_attn or mlp.")
        if len(set(self.filters)) < len(self.filters):
            raise StudioError("The same filter is listed twice; list each filter once.")

    # ── layout ───────────────────────────────────────────────────────────────────────────────────

    def _parts(self) -> list[Part]:
        groups: dict[str, list[str]] = {}
        layers: dict[str, set[int]] = {}
        place = "embedding"  # names come in the model's order: embedding, layers, norm and head
        for name in self.tensors:
            layer = layer_of(name)
            if layer is not None:
                place = "head"
            group = self._group(layer, place)
            groups.setdefault(group, []).append(name)
            if layer is not None:
                layers.setdefault(group, set()).add(layer)
        parts = []
        for group, names in groups.items():
            by_filter: dict[str | None, list[str]] = {None: []}
            by_filter |= {text: [] for text in self.filters}
            for name in names:
                by_filter[self._filter(name)].append(name)
            parts += [
                Part(group, text, tuple(sorted(layers.get(group, ()))), tuple(taken))
                for text, taken in by_filter.items()
                if taken
            ]
        for text in self.filters:
            if not any(part.filter == text for part in parts):
                raise StudioError(
                    f"The filter '{text}' takes no tensor of these models; filters are parts of "
                    "names inside a layer, such as self_attn, mlp or q_proj, never of norms, "
                    "embedding or head, and an earlier filter takes first."
                )
        return parts

    def _group(self, layer: int | None, place: str) -> str:
        if self.layer_granularity == "all":
            return "all"
        if layer is None:
            return "embedding+head" if self.tied else place
        first = layer - layer % self.layer_granularity
        last = min(first + self.layer_granularity, self.template.layers) - 1
        return f"layer {first}" if first == last else f"layers {first}-{last}"

    def _filter(self, name: str) -> str | None:
        if layer_of(name) is None or "norm" in name:
            return None
        return next((text for text in self.filters if text in name), None)

    def _add_genes(self, part: Part) -> None:
        if "t" in self.method.genes:
            self._add_gene(part, "t", 0, None)
            return
        for index, source in enumerate(self.sources):
            if self._unchanged(part, source):
                continue
            # With one source, normalize divides its weight out again: no gene without effect.
            if not (self.normalize and len(self.sources) == 1):
                self._add_gene(part, "weight", index, source.name)
            if "density" in self.method.genes:
                self._add_gene(part, "density", index, source.name)

    def _unchanged(self, part: Part, source: "Model") -> bool:
        """Whether a source is the base there, as an adapter is where it changes nothing.

        Then no weight of it has an effect, unless weights are normalised: it takes its share.
        """
        if self.base is None or self.normalize:
            return False
        return all(source.shares(name, self.base) for name in part.tensors)

    def _add_gene(self, part: Part, kind: str, index: int, source: str | None) -> None:
        low, high = BOUNDS[kind]
        if kind == "weight" and self.negative_weights:
            low = -high
        part.genes[kind, index] = len(self.genes)
        self.genes.append(Gene(kind, part.group, part.filter, source, low, high))

    # ── meaning ──────────────────────────────────────────────────────────────────────────────────

    def check(self, genome: np.ndarray) -> np.ndarray:
        """The genome as float64 ``[d]``.

        Raises:
            StudioError: wrong length, not a finite number, or outside its bounds.
        """
        return checked(self, genome)

    def part_settings(self, genome: np.ndarray) -> list[tuple[Part, Setting]]:
        """What the genome says for each part of the model; raises as `check`."""
        genome = self.check(genome)
        count = len(self.sources)
        result = []
        for part in self.parts:

            def values(kind: str, part: Part = part) -> tuple[float, ...]:
                positions = [part.genes.get((kind, index)) for index in range(count)]
                return tuple(1.0 if p is None else float(genome[p]) for p in positions)

            if "t" in self.method.genes:
                setting = Setting(t=values("t")[0])
            else:
                densities = values("density") if "density" in self.method.genes else ()
                setting = Setting(values("weight"), densities)
            result.append((part, setting))
        return result

    def settings(self, genome: np.ndarray) -> dict[str, Setting]:
        """What the genome says for every tensor, by canonical name; raises as `check`."""
        return {
            name: setting for part, setting in self.part_settings(genome) for name in part.tensors
        }

    def live(
        self, precision: str, base: str = "packed", device: "torch.device | str | None" = None
    ) -> "LiveModel":
        """A resident model that takes on one merge after another."""
        from studio.merge.live import LiveModel

        return LiveModel(self, precision=precision, base=base, device=device)

    def without(self, genome: np.ndarray, source: str) -> np.ndarray:
        """The genome with all weights of a source at 0; raises as `check`."""
        genome = self.check(genome).copy()
        for index, gene in enumerate(self.genes):
            if gene.kind == "weight" and gene.source == source:
                genome[index] = 0.0
        return genome

    def phenotype(self, genome: np.ndarray) -> Hashable:
        """The genes themselves: each of them counts."""
        return self.check(genome).tobytes()

    def properties(self, genome: np.ndarray) -> dict[str, float]:
        """``length`` in layers and ``parameters``: those of every merge."""
        self.check(genome)
        return self.worst()

    def worst(self) -> dict[str, float]:
        """The `properties`, which no genome changes."""
        parameters = sum(math.prod(shape) for shape in self.tensors.values())
        return {"length": float(self.template.layers), "parameters": float(parameters)}

    def memory(
        self, precision: str, base: str = "packed", device: "torch.device | str | None" = None
    ) -> int:
        """Bytes of the device's memory that `live` takes, without what a merge needs in passing.

        Model and base; per source a task vector and, unless it is packed or the merge compiled for
        the CPU, 4 bytes for masks.
        """
        from studio.merge.fused import fuses
        from studio.models.precision import QUANTIZED, default_device, dtype_of

        count, device = len(self.sources), device or default_device()
        around = self.frame.parameters if self.frame else 0
        if precision not in QUANTIZED:
            entry = dtype_of(precision).itemsize
            masked = self.method.masks and not fuses(device, dtype_of(precision))
            vectors = count * (entry + (4 if masked else 0))
            parameters = sum(map(math.prod, self.tensors.values()))
            return (entry * (2 if self.base else 1) + vectors) * parameters + entry * around
        from studio.models.packed import BITS
        from studio.models.packed_model import base_bits, compute_dtype, is_packed, packed_bits

        vectors = count if self.base else count - 1  # the first source is what others differ from
        plain = compute_dtype(device).itemsize
        bits = 8 * plain * around
        for name, shape in self.tensors.items():
            each = vectors * packed_bits(shape, precision)
            if is_packed(name, shape):
                each += base_bits(base, precision) + BITS[precision]
            else:
                each += 8 * plain
            bits += math.prod(shape) * each
        return int(bits / 8)

    def table(self, genome: np.ndarray) -> list[dict]:
        """Rows ``{group, filter, source, weight, density, t}`` for heat maps and cards.

        One row per part and source that changes it (for slerp one per part, its source None); what
        the method does not have is None. Raises as `check`.
        """
        rows = []
        for part, setting in self.part_settings(genome):
            place = {"group": part.group, "filter": part.filter}
            if setting.t is not None:
                rows.append(
                    place | {"source": None, "weight": None, "density": None, "t": setting.t}
                )
                continue
            for index, source in enumerate(self.sources):
                if self._unchanged(part, source):
                    continue
                density = setting.densities[index] if setting.densities else None
                row = {"source": source.name, "weight": setting.weights[index], "density": density}
                rows.append(place | row | {"t": None})
        return rows

    # ── what a genome becomes ────────────────────────────────────────────────────────────────────

    def checkpoint(self, genome: np.ndarray, precision: str, name: str) -> "Merged":
        """The ordinary checkpoint that a genome stands for, its tensors merged on demand.

        Raises:
            StudioError: as `check`, or the precision is neither "fp32" nor "bf16".
        """
        from studio.merge.virtual import Merged

        return Merged(self, genome, precision=precision, name=name)


def exact(space: ParameterSpace, genome: np.ndarray) -> str:
    """The genome as JSON, a gene a line, in the recipe's order; floats as they are, to the bit.

    A source is called by the last part of its name: where folders lie here is nobody else's
    business. Raises as `ParameterSpace.check`.
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


def layer_of(name: str) -> int | None:
    """The layer number in a canonical tensor name, or None outside the layers.

    >>> layer_of("model.layers.3.mlp.up_proj.weight")
    3
    """
    found = _LAYER.search(name)
    return int(found[1]) if found else None
