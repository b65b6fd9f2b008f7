"""A resident model that takes on a candidate in place: no disk, no reload (DESIGN.md, contract 2).

Knows the model's parameters and how to overwrite them; refuses to know where genomes come from or
what the model is asked. Contract 6 holds for its users: one live model, one user at a time.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from studio.errors import StudioError
from studio.merge.fused import Fused, Work, fuses, share_out
from studio.merge.ingredients import Ingredients, Resident, anchor
from studio.merge.parameter_space import ParameterSpace, Setting
from studio.models.model import Model
from studio.models.packed import Packed
from studio.models.packed_model import (
    Dense,
    PackedLinear,
    Part,
    compute_dtype,
    linear_layers,
    replace,
)
from studio.models.precision import QUANTIZED, default_device, dtype_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from studio.merge.fused_gpu import FusedOnGpu


def speaker(space: ParameterSpace) -> Model:
    """The model whose tokenizer, chat template and generation config the merge takes.

    That which the merge sees with; without one the first source with a chat template, else the
    first source: a common base is often a plain language model that was never taught where a turn
    ends.
    """
    if space.frame is not None:
        return next(model for model in space.models if model.frame is space.frame)
    with_template = (s for s in space.sources if s.tokenizer().chat_template)
    return next(with_template, space.sources[0])


class LiveModel:
    """A transformers model whose parameters become those of one candidate after another.

    In "fp32" and "bf16" it holds, beside the model's own parameters, the base and the task vectors
    (4 or 2 bytes an entry). On a CPU the merge is compiled; elsewhere 4 bytes per entry and source
    hold the masks of DARE or TIES, prepared once. Merging is deterministic: a genome always gives
    the same parameters.

    In "int8" and "nf4" the sources are held as packed task vectors, and every linear layer
    computes with two packed parts, base and merged delta; a candidate overwrites the delta alone.
    Embeddings, norms and head are merged in the dtype that the device computes in.

    Args:
        space: what a genome means.
        precision: "fp32", "bf16", "int8" or "nf4": of the resident model and what it is merged
            from.
        device: default CUDA, then Apple GPU, then CPU.
        base: how a quantized model holds the base's linear layers: "packed" as the precision says,
            as "int8" or "bf16", or "paged": packed, in the CPU's memory, and copied to the device
            for each use.

    Attributes:
        model: the transformers model, in eval mode. Before the first `apply` nothing is merged.
        tokenizer, processor: of the `speaker`.
        genome: what is applied now, or None.

    Raises:
        StudioError: unknown precision, a model that cannot be loaded, or not enough memory.

    Example:
        >>> live = LiveModel(space)  # doctest: +SKIP
        >>> live.apply(space.initial)  # doctest: +SKIP
        >>> live.model.generate(...)  # doctest: +SKIP
    """

    def __init__(
        self,
        space: ParameterSpace,
        *,
        precision: str = "fp32",
        device: torch.device | str | None = None,
        base: str = "packed",
    ):
        self.space = space
        self.precision = precision
        self.device = torch.device(device) if device else default_device()
        self.genome: np.ndarray | None = None
        build = _packed if precision in QUANTIZED else _held
        try:
            self.model, self._targets = build(space, precision, self.device, base)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise StudioError(
                f"The base and {len(space.sources)} task vectors do not fit the memory of "
                f"{self.device} in {precision}; use fewer sources or a smaller precision (nf4)."
            ) from error
        voice = speaker(space)
        self.tokenizer: PreTrainedTokenizerBase = voice.tokenizer()
        self.processor: ProcessorMixin | None = voice.processor()
        self.model.generation_config = voice.generation_config()

    @torch.no_grad()
    def apply(self, genome: np.ndarray) -> None:
        """Merge ``genome`` (float64 ``[d]``) into the resident parameters.

        Raises:
            StudioError: wrong length, NaN or outside the bounds; the model is left as it was.
        """
        settings = self.space.settings(genome)
        self.genome = None  # a half-applied genome is nobody's
        normalize = self.space.normalize
        share_out(
            work
            for name, target in self._targets.items()
            for work in target.become(settings[name], normalize)
        )
        self.genome = np.array(genome, dtype=np.float64)

    def state_dict(self) -> dict[str, Tensor]:
        """The resident parameters by canonical name, a tied head once.

        Not copies, except for packed ones: those are unpacked, base and delta added in float32.
        """
        return {name: target.tensor() for name, target in self._targets.items()}


class _Compiled:
    """A parameter that is overwritten by its merge, on any core."""

    def __init__(self, fused: Fused, parameter: nn.Parameter):
        self._fused, self._parameter = fused, parameter

    def become(self, setting: Setting, normalize: bool) -> list[Work]:
        return [self._fused.merging(self._parameter.view(-1), setting, normalize)]

    def tensor(self) -> Tensor:
        return self._parameter.detach()


class _Whole:
    """A parameter that is overwritten by its merge."""

    def __init__(self, ingredients: "Ingredients | FusedOnGpu", parameter: nn.Parameter):
        self._ingredients, self._parameter = ingredients, parameter

    def become(self, setting: Setting, normalize: bool) -> list[Work]:
        self._ingredients.merge_into(self._parameter.view(-1), setting, normalize)
        return []

    def tensor(self) -> Tensor:
        return self._parameter.detach()


class _OntoBase:
    """A parameter that becomes the base, left where it lies, plus the merge of packed vectors."""

    def __init__(self, ingredients: Ingredients, parameter: nn.Parameter, base: Tensor):
        self._ingredients, self._parameter, self._base = ingredients, parameter, base.flatten()

    def become(self, setting: Setting, normalize: bool) -> list[Work]:
        share = self._ingredients.share(setting, normalize)
        flat = self._parameter.view(-1)
        for start, delta in self._ingredients.merge(setting, normalize):
            piece = slice(start, start + delta.numel())
            flat[piece] = delta.add_(self._base[piece].to(delta.device).float(), alpha=share)
        return []

    def tensor(self) -> Tensor:
        return self._parameter.detach()


class _Apart:
    """A packed layer of which a merge becomes the delta."""

    def __init__(self, ingredients: Ingredients, layer: PackedLinear, delta: Packed):
        self._ingredients, self._layer, self._delta = ingredients, layer, delta

    def become(self, setting: Setting, normalize: bool) -> list[Work]:
        self._layer.factor = self._ingredients.share(setting, normalize)
        for start, delta in self._ingredients.merge(setting, normalize):
            self._delta.write(start, delta)
        return []

    def tensor(self) -> Tensor:
        base = self._layer.base.to(self._delta.device).dense(torch.float32)
        return self._delta.dense(torch.float32).add_(base, alpha=self._layer.factor)


_Target = _Compiled | _Whole | _OntoBase | _Apart
_Built = tuple["PreTrainedModel", dict[str, _Target]]


def _held(space: ParameterSpace, precision: str, device: torch.device, base: str) -> "_Built":
    dtype = dtype_of(precision)
    model = space.template.load(dtype, device)
    parameters = dict(space.template.language(model).named_parameters())
    if missing := set(parameters) ^ set(space.tensors):
        raise StudioError(
            f"{space.template.name} cannot be merged: weights and layout disagree about "
            f"{min(missing)}; use a checkpoint that transformers' save_pretrained wrote."
        )
    targets: dict[str, _Target] = {}
    for name, resident in Resident.all(space, dtype, device):
        if fuses(device, dtype):
            targets[name] = _Compiled(Fused(resident), parameters[name])
        elif _fuses_on_gpu(device, dtype):
            from studio.merge.fused_gpu import FusedOnGpu

            targets[name] = _Whole(FusedOnGpu(resident), parameters[name])
        else:
            targets[name] = _Whole(Ingredients.held(resident), parameters[name])
    return model, targets


def _fuses_on_gpu(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    from studio.merge.fused_gpu import works

    return works(device, dtype)


def _packed(space: ParameterSpace, precision: str, device: torch.device, base: str) -> "_Built":
    model = space.template.skeleton(compute_dtype(device))
    language = space.template.language(model)
    targets: dict[str, _Target] = {}
    layers = {f"{name}.weight": (name, layer) for name, layer in linear_layers(language)}
    below = anchor(space)
    for tensor, (name, layer) in layers.items():
        part = _base_part(below, tensor, precision, device, base)
        delta = Packed(precision, space.tensors[tensor], device)
        replace(language, name, PackedLinear(part, layer.bias, delta))
    model = model.to(device)
    if space.frame is not None:
        space.frame.fill(model)
    parameters = dict(language.named_parameters())
    for name in space.tensors:
        ingredients = Ingredients.packed(space, name, precision, device)
        if name in layers:
            layer = language.get_submodule(layers[name][0])
            targets[name] = _Apart(ingredients, layer, layer.delta)
        else:
            targets[name] = _OntoBase(ingredients, parameters[name], below.get(name))
    return model, targets


def _base_part(model: Model, tensor: str, precision: str, device: torch.device, form: str) -> Part:
    """A linear layer of the base in the form it is held in."""
    weight = model.get(tensor).to(device)
    if form == "bf16":
        return Dense(weight.to(torch.bfloat16))
    part = Packed.of(weight, "int8" if form == "int8" else precision)
    if form == "paged":
        part = part.to("cpu")
        return part.pinned() if device.type == "cuda" else part
    return part
