"""The data-flow space (DFS): a genome is the path a token takes through the layers of the sources.

Knows which numbers of a genome keep which layer and scale which input; refuses to read a tensor or
to run a layer. The formulation is the paper's (arXiv:2403.13187, section 3.2): all M layers of all
sources are laid out in order, the sequence is repeated r times, an indicator says for each of the
T = M × r slots whether its layer is kept, and a W in R^(M×M), or a small network in its place,
scales the input of layer j when it comes from layer i. As the authors sketch it in their public
issue tracker, the first and the last layer of the main model enclose whatever was chosen.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from studio.errors import StudioError
from studio.merge.parameter_space import layer_of
from studio.merge.space import checked
from studio.models.model import frame_of

if TYPE_CHECKING:
    import torch

    from studio.merge.path import PathCheckpoint, PathModel
    from studio.models.model import Model

#: The modules of a layer that write to the residual stream, by architecture. Where a norm follows
#: the projections (Gemma 2 and 3), it is the norm that writes.
PROJECTIONS = ("self_attn.o_proj", "mlp.down_proj")
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
WRITERS = {
    "LlamaForCausalLM": PROJECTIONS,
    "MistralForCausalLM": PROJECTIONS,
    "Qwen2ForCausalLM": PROJECTIONS,
    "Qwen3ForCausalLM": PROJECTIONS,
    "GemmaForCausalLM": PROJECTIONS,
    "Gemma2ForCausalLM": POST_NORMS,
    "Gemma3ForCausalLM": POST_NORMS,
}

#: Hidden units of the network that predicts W.
HIDDEN = 8
#: A full W has M² genes; above this many layers the network takes its place unless told otherwise.
MATRIX_LAYERS = 16
#: How sure the search is of its start: indicators begin at ± this, on a scale of ± 1.
SURE = 0.5

Scaling = Literal["auto", "matrix", "network", "off"]


@dataclass(frozen=True)
class PathGene:
    """One number of a genome, between −1 and 1.

    Attributes:
        kind: "keep" (above 0 the slot's layer is on the path), "scale" (the base-2 logarithm of an
            entry of W) or "network" (a weight of the network that predicts W).
        name: as in ``repeat 1/bonsai-ja 3/keep`` or ``bonsai-ja 3 → bonsai-math 4/scale``.
    """

    kind: Literal["keep", "scale", "network"]
    name: str
    low: float = -1.0
    high: float = 1.0


@dataclass(frozen=True)
class Step:
    """One layer on a path.

    Attributes:
        source: position of the layer's model among the sources; 0 is the main model.
        layer: its number in that model.
        slot: which of the T slots chose it, or None for the enclosing first and last layer.
        scale: w in [0.5, 2], what its input is scaled by.
        divisor: c, the product of all scales up to and with this one: what this layer adds to the
            residual stream is divided by it (the folded form, DESIGN.md).
    """

    source: int
    layer: int
    slot: int | None
    scale: float
    divisor: float


class DataFlowSpace:
    """Genome ↔ path through the layers of the sources.

    A genome has T = M × r indicators, then the genes of W. Every gene lies in [−1, 1]: a slot's
    layer is on the path where its indicator is above 0, and w = 2^g lies in [0.5, 2]. Input
    embedding, final norm, head, tokenizer, first and last layer are the main model's, which is the
    first source.

    Args:
        sources: the models that lend layers, the main one first; one is enough.
        repeats: r, how often the sequence of all layers is laid out.
        scaling: "matrix", a gene per pair (i, j) that can follow one another; "network", the
            weights of tanh(V tanh(U (i, j, step) + u) + v), which w is 2 to the power of; "off", no
            scaling (the paper's ablation); "auto", the matrix up to `MATRIX_LAYERS` layers in all,
            above that the network.
        max_length: layers that a path may have, first and last included; of more, those with the
            highest indicators are taken.
        start: where a search begins: at the "main" model's own layers, or "undecided", every
            indicator at the threshold.

    Attributes:
        called: what each source is called in names of genes, no two the same.
        genes, names: one per number of a genome; lower, upper, initial: float64 ``[d]``.
        binary: bool ``[d]``, which genes only count as above or below 0.
        layers: (source, layer) by i, the M layers in order; slots: i by slot, T in all.

    Raises:
        StudioError: the options do not fit each other, or the models do not fit on one path.

    Example:
        >>> from studio.models import Checkpoint
        >>> open = Checkpoint.open
        >>> space = DataFlowSpace([open("bonsai-math"), open("bonsai-ja")])  # doctest: +SKIP
        >>> len(space.slots), len(space.path(space.initial))  # doctest: +SKIP
        (48, 8)
    """

    kind = "data_flow"

    def __init__(
        self,
        sources: "Sequence[Model]",
        *,
        repeats: int = 3,
        scaling: Scaling = "auto",
        max_length: int | None = None,
        start: Literal["main", "undecided"] = "main",
    ):
        from studio.models.compatibility import check_path

        self.sources = list(sources)
        check_path(self.sources)
        self.main = self.sources[0]
        #: What the path sees with: the main model's, which knows the tokens of pictures.
        self.frame = self.main.frame
        if self.frame is None and (seeing := frame_of(self.sources)):
            raise StudioError(
                f"A path takes embedding and vocabulary from its main model, and {self.main.name} "
                f"sees no pictures; put {seeing.name} first among the sources of the path."
            )
        self.template = self.main
        if max_length is not None and max_length < 2:
            raise StudioError(
                "max_length counts the first and the last layer of the main model, which every "
                "path has; make it 2 at least."
            )
        self.layers = [
            (index, layer)
            for index, source in enumerate(self.sources)
            for layer in range(source.layers)
        ]
        if scaling == "auto":
            scaling = "matrix" if len(self.layers) <= MATRIX_LAYERS else "network"
        self.repeats, self.scaling, self.max_length = repeats, scaling, max_length
        # where folders lie here is nobody else's business: these names go into exports
        called = [Path(source.name).name for source in self.sources]
        self.called = [
            name if name not in called[:index] else f"{name} ({index + 1})"
            for index, name in enumerate(called)
        ]
        self.slots = list(range(len(self.layers))) * repeats
        self._last = self.main.layers - 1  # its i: the main model's layers come first
        self._pairs: dict[tuple[int, int], int] = {}  # (i, j) → position of its gene
        self.genes = self._genes()
        self.names = [gene.name for gene in self.genes]
        self.lower = np.full(len(self.genes), -1.0)
        self.upper = np.full(len(self.genes), 1.0)
        self.binary = np.array([gene.kind == "keep" for gene in self.genes])
        self.initial = np.zeros(len(self.genes))
        if start == "main":
            self.initial[: len(self.slots)] = -SURE
            self.initial[1 : self._last] = SURE

    @property
    def models(self) -> "list[Model]":
        """The checkpoints that take part."""
        return self.sources

    def _reachable(self) -> list[tuple[int, int]]:
        """The pairs (i, j) where some path goes from layer i to layer j."""
        m = len(self.layers)
        return [
            (i, j)
            for i in range(m)
            for j in range(m)
            # the first layer precedes all slots and the last follows them
            if (i < j or self.repeats > 1 or i == 0 or j == self._last)
            # what neither begins nor ends a path needs four layers: first, i, j, last
            and 2 + (i != 0) + (j != self._last) <= (self.max_length or np.inf)
        ]

    def _genes(self) -> list[PathGene]:
        genes = [
            PathGene("keep", f"repeat {slot // len(self.layers) + 1}/{self._called(i)}/keep")
            for slot, i in enumerate(self.slots)
        ]
        if self.scaling == "matrix":
            for i, j in self._reachable():
                self._pairs[i, j] = len(genes)
                name = f"{self._called(i)} → {self._called(j)}/scale"
                genes.append(PathGene("scale", name))
        elif self.scaling == "network":
            shapes = (("U", 3 * HIDDEN), ("u", HIDDEN), ("V", HIDDEN), ("v", 1))
            genes += [
                PathGene("network", f"network/{name}{n}")
                for name, size in shapes
                for n in range(size)
            ]
        return genes

    def _called(self, i: int) -> str:
        source, layer = self.layers[i]
        return f"{self.called[source]} {layer}"

    # ── meaning ──────────────────────────────────────────────────────────────────────────────────

    def check(self, genome: np.ndarray) -> np.ndarray:
        """The genome as float64 ``[d]``.

        Raises:
            StudioError: wrong length, not a finite number, or outside its bounds.
        """
        return checked(self, genome)

    def path(self, genome: np.ndarray) -> list[Step]:
        """The layers a token passes, in order; raises as `check`."""
        genome = self.check(genome)
        steps = []
        before, divisor = 0, 1.0
        for position, (i, slot) in enumerate(self._chosen(genome)):
            # what enters the network at its first layer is the embedding as it is
            scale = self._scale(genome, before, i, position) if position else 1.0
            divisor *= scale
            steps.append(Step(*self.layers[i], slot, scale, divisor))
            before = i
        return steps

    def _chosen(self, genome: np.ndarray) -> list[tuple[int, int | None]]:
        """(i, slot) of every layer on the path."""
        indicators = genome[: len(self.slots)]
        slots = np.flatnonzero(indicators > 0)
        if self.max_length is not None and len(slots) > self.max_length - 2:
            best = np.argsort(-indicators[slots], kind="stable")[: self.max_length - 2]
            slots = np.sort(slots[best])
        inner: list[tuple[int, int | None]] = [(self.slots[slot], int(slot)) for slot in slots]
        return [(0, None), *inner, (self._last, None)]

    def _scale(self, genome: np.ndarray, i: int, j: int, step: int) -> float:
        if self.scaling == "off":
            return 1.0
        if self.scaling == "matrix":
            return float(2.0 ** genome[self._pairs[i, j]])
        weights = genome[len(self.slots) :]
        u, bias, v = np.split(weights[:-1], (3 * HIDDEN, 4 * HIDDEN))
        ends = max(1, len(self.layers) - 1)
        place = 2 * np.array([i / ends, j / ends, step / (len(self.slots) + 1)]) - 1
        hidden = np.tanh(u.reshape(HIDDEN, 3) @ place + bias)
        return float(2.0 ** np.tanh(v @ hidden + weights[-1]))

    def table(self, genome: np.ndarray) -> list[dict[str, Any]]:
        """Rows ``{step, slot, source, layer, scale}`` for diagrams and cards; raises as `check`."""
        return [
            {
                "step": number,
                "slot": step.slot,
                "source": self.sources[step.source].name,
                "layer": step.layer,
                "scale": step.scale,
            }
            for number, step in enumerate(self.path(genome))
        ]

    def phenotype(self, genome: np.ndarray) -> Hashable:
        """The layers and what divides their outputs, whichever slots they lie in."""
        return tuple((step.source, step.layer, step.divisor) for step in self.path(genome))

    def properties(self, genome: np.ndarray) -> dict[str, float]:
        """``length`` in layers, and ``parameters`` of the exported model; raises as `check`."""
        path = self.path(genome)
        outside = self.main.parameters - self._layer_parameters(0) * self.main.layers
        return {
            "length": float(len(path)),
            "parameters": float(outside + sum(self._layer_parameters(s.source) for s in path)),
        }

    def worst(self) -> dict[str, float]:
        """The largest value each of the `properties` can take."""
        length = len(self.slots) + 2
        if self.max_length is not None:
            length = min(length, self.max_length)
        outside = self.main.parameters - self._layer_parameters(0) * self.main.layers
        return {
            "length": float(length),
            "parameters": float(outside + length * self._layer_parameters(0)),
        }

    def _layer_parameters(self, source: int) -> int:
        """Parameters of one layer; the same in every layer of every source (see `check_path`)."""
        model = self.sources[source]
        names = (name for name in model.names() if layer_suffix(name, 0))
        return sum(int(np.prod(model.shape(name))) for name in names)

    def unscaled(self) -> "DataFlowSpace":
        """The same paths without scales: a genome of it is the indicators of one of this."""
        return DataFlowSpace(
            self.sources, repeats=self.repeats, scaling="off", max_length=self.max_length
        )

    # ── what a genome becomes ────────────────────────────────────────────────────────────────────

    def live(
        self, precision: str, base: str = "packed", device: "torch.device | str | None" = None
    ) -> "PathModel":
        """A resident model that takes on one path after another; a path has no base."""
        from studio.merge.path import PathModel

        return PathModel(self, precision=precision, device=device)

    def memory(
        self, precision: str, base: str = "packed", device: "torch.device | str | None" = None
    ) -> int:
        """Bytes of the device's memory that `live` takes: the main model and the others' layers."""
        from studio.models.packed_model import compute_dtype, is_packed, packed_bits
        from studio.models.precision import QUANTIZED, default_device, dtype_of

        packed = precision in QUANTIZED
        dtype = compute_dtype(device or default_device()) if packed else dtype_of(precision)
        bits = 8 * dtype.itemsize * (self.frame.parameters if self.frame else 0)
        for source in self.sources:
            for name in source.names():
                shape = source.shape(name)
                if source is not self.main and layer_of(name) is None:
                    continue
                each = 8 * dtype.itemsize
                if packed and is_packed(name, shape):
                    each = packed_bits(shape, precision)
                bits += int(np.prod(shape)) * each
        return int(bits / 8)

    def checkpoint(self, genome: np.ndarray, precision: str, name: str) -> "PathCheckpoint":
        """The ordinary checkpoint that a genome stands for."""
        from studio.merge.path import PathCheckpoint

        return PathCheckpoint(self, genome, precision=precision, name=name)


def layer_suffix(name: str, layer: int) -> str | None:
    """What follows the layer in a canonical name, None where it is of no or another layer.

    >>> layer_suffix("model.layers.3.mlp.up_proj.weight", 3)
    'mlp.up_proj.weight'
    """
    prefix = f"model.layers.{layer}."
    return name[len(prefix) :] if name.startswith(prefix) else None
