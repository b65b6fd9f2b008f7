"""A LoRA adapter on a base: tensors are made on demand, base + scale · B · A, in float32.

Knows PEFT's adapter folders (https://huggingface.co/docs/peft/developer_guides/checkpoint) and what
each kind of stored tensor does to the base's. Refuses to know where the base comes from, and every
kind of adapter, or part of one, that it cannot apply exactly.
"""

import copy
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.models import documents, values
from studio.models.documents import by
from studio.models.headers import PICKLED, StoredTensor, read_header
from studio.models.licences import licence_of_merge
from studio.models.model import HEAD, Model
from studio.models.values import FLOATS, Values

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

#: Options of PEFT whose adapters do more than add to, scale or replace a tensor.
_UNKNOWN = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
    "megatron_config", "monteclora_config", "target_parameters", "trainable_token_indices",
    "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
#: Ways to begin training that leave the base as it was; the others subtract from it first.
_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
#: Parts of one low-rank update, by how their names end.
_PARTS = {
    "lora_A.weight": "A",
    "lora_B.weight": "B",
    "lora_embedding_A": "A",
    "lora_embedding_B": "B",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_B.bias": "bias",
}


@dataclass
class _Update:
    """What an adapter stores for one matrix of the base.

    Attributes:
        turned: whether B · A is the transpose of the matrix: embeddings, and GPT-2's linear layers.
    """

    turned: bool
    parts: dict[str, StoredTensor] = field(default_factory=dict)
    scale: float = 1.0


@dataclass(repr=False)
class Adapter(Model):
    """A base with a LoRA adapter; make it with `Adapter.open`.

    ``path`` is the adapter's folder, ``size`` the bytes of its weights alone.
    """

    name: str
    path: Path
    base: Model
    config: "PretrainedConfig"
    architecture: str
    licence: str | None
    _updates: dict[str, _Update]
    _replaced: dict[str, StoredTensor]
    _names: list[str]
    _values: Values = field(default_factory=Values)

    @classmethod
    def open(cls, name: str, folder: Path, base: Model) -> "Adapter":
        """Open an adapter on a base that is open already; only headers are read.

        Raises:
            StudioError: it is no LoRA adapter, one that cannot be applied exactly, or one for
                another base.
        """
        settings = read_settings(folder)
        stored = _read_weights(folder)
        known = {name: base.shape(name) for name in [*base.names(), *([HEAD] if base.tied else [])]}
        prefix = base.names()[0].partition(".")[0] + "."
        updates: dict[str, _Update] = {}
        replaced: dict[str, StoredTensor] = {}
        shared = set()
        for key, tensor in stored.items():
            target, part = _place(folder, key, base.name, known, prefix)
            if part:
                turned = "lora_embedding" in key or bool(settings.get("fan_in_fan_out"))
                updates.setdefault(target, _Update(turned)).parts[part] = tensor
            else:
                replaced[target] = tensor
                if ".base_layer." in key:
                    shared.add(target)
        for target, tensor in replaced.items():
            # An embedding and a head may know more tokens than the base's; all else is as it was.
            free = target in (base.names()[0], HEAD)
            if (
                len(tensor.shape) != len(known[target])
                or tensor.shape[free:] != known[target][free:]
            ):
                raise _other_base(folder, base.name, target, tensor.shape, known[target])
            known[target] = tensor.shape
        for target, update in updates.items():
            _check_update(folder, settings, base.name, target, update, known)
        self = cls(
            name=name,
            path=folder,
            base=base,
            config=copy.deepcopy(base.config),
            architecture=base.architecture,
            licence=_licence(folder, base),
            _updates=updates,
            _replaced=replaced,
            _names=base.names(),
        )
        if base.tied:
            self._settle_head(shared, bool(settings.get("ensure_weight_tying")))
        self._settle_vocabulary()
        return self

    def __repr__(self) -> str:
        return f"Adapter({self.name!r} on {self.base!r}, {len(self._updates)} updates)"

    def names(self) -> list[str]:
        return list(self._names)

    def shares(self, name: str, other: Model) -> bool:
        """Whether the adapter leaves a tensor of its base as it is."""
        name = self._stored(name)
        changed = name in self._updates or name in self._replaced
        return other is self or (not changed and other.path == self.base.path)

    def shape(self, name: str) -> tuple[int, ...]:
        name = self._stored(name)
        return self._replaced[name].shape if name in self._replaced else self.base.shape(name)

    def get(self, name: str) -> "torch.Tensor":
        """A tensor on the CPU in float32, made anew by each call; KeyError as everywhere."""
        import torch

        name = self._stored(name)
        if name in self._replaced:
            tensor = self._read(self._replaced[name])
        else:
            tensor = self.base.get(name).float()
        matrix = self._updates.get(f"{name.removesuffix('bias')}weight")
        if name.endswith(".bias") and matrix and "bias" in matrix.parts:
            return tensor + matrix.scale * self._read(matrix.parts["bias"])
        update = self._updates.get(name)
        if update is None:
            return tensor
        a, b = (self._read(update.parts[part]) for part in "AB")
        change = (b @ a) * update.scale
        tensor = tensor + (change.T if update.turned else change)
        if "magnitude" in update.parts:
            # DoRA (https://arxiv.org/abs/2402.09353): the direction is learned apart from the norm.
            along = 0 if update.turned else 1
            norm = torch.linalg.norm(tensor, dim=along, keepdim=True)
            magnitude = self._read(update.parts["magnitude"]).flatten()
            tensor = tensor * (magnitude.unsqueeze(along) / norm)
        return tensor.contiguous()

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        return torch.float32

    @property
    def stored(self) -> "torch.dtype":
        return self.base.stored

    @property
    def size(self) -> int:
        return (self.path / WEIGHTS).stat().st_size

    def fingerprint(self) -> str:
        """32 hex digits that change when the adapter, its base or its tokenizer does."""
        digest = hashlib.blake2b(self.base.fingerprint().encode(), digest_size=16)
        digest.update(values.fingerprint(self.path, {self.path / WEIGHTS}).encode())
        return digest.hexdigest()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The adapter folder's tokenizer if it has one, else the base's; raises as both."""
        if (self.path / "tokenizer.json").is_file() or (self.path / "tokenizer.model").is_file():
            return documents.tokenizer(self.path, self.name)
        return self.base.tokenizer()

    def generation_config(self) -> "GenerationConfig":
        return self.base.generation_config()

    def _read(self, tensor: StoredTensor) -> "torch.Tensor":
        return self._values.get(tensor).float()

    def _settle_head(self, shared: set[str], kept_tied: bool) -> None:
        """Decide whether head and embedding, which the base ties, are still the same matrix.

        Args:
            shared: tensors that were replaced in the base itself, so that both have the new one.
            kept_tied: whether the adapter was trained to change both alike.
        """
        pair = embedding, _ = self.base.names()[0], HEAD
        if both := [self._replaced[name] for name in pair if name in shared]:
            for name in pair:
                self._replaced.setdefault(name, both[0])
        found = [self._replaced[name] for name in pair if name in self._replaced]
        same = len(found) != 1 and (not found or values.equal(*found))
        if kept_tied or (same and not set(pair) & set(self._updates)):
            for parts in (self._replaced, self._updates):
                if HEAD in parts:
                    head = parts.pop(HEAD)
                    parts.setdefault(embedding, head)
        else:
            # PEFT changes one of the two where the base has one matrix: from here on there are two.
            self.config.tie_word_embeddings = False
            self._names.append(HEAD)

    def _settle_vocabulary(self) -> None:
        """Take over the number of tokens that a replaced embedding knows."""
        embedding, head = self.base.names()[0], HEAD
        rows = self.shape(embedding)[0]
        if rows != self.shape(head)[0]:
            raise StudioError(
                f"{self.path} knows {rows} tokens in its embedding and {self.shape(head)[0]} in "
                "its head; save both with the adapter (modules_to_save)."
            )
        if embedding in self._replaced:
            self.config.vocab_size = rows


def read_settings(folder: Path) -> dict[str, Any]:
    """adapter_config.json, after refusing adapters that cannot be applied exactly.

    Raises:
        StudioError: it cannot be read, or is not that of an ordinary LoRA.
    """
    settings = documents.read_json(folder / CONFIG)
    documents.refuse_code(folder, ("tokenizer_config.json",))
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise StudioError(
            f"{folder} is an adapter of the type {kind!s:.40}; only LoRA (and DoRA) can be used, "
            "merge it into its base with peft's merge_and_unload and give that folder."
        )
    odd = [key for key in _UNKNOWN if settings.get(key)]
    if settings.get("init_lora_weights") not in _BEGINNINGS:
        odd.append(f"init_lora_weights={settings['init_lora_weights']!s:.40}")
    if odd:
        raise StudioError(
            f"{folder} is a LoRA with {odd[0]}, which is more than a change of its base's tensors; "
            "merge it into its base with peft's merge_and_unload and give that folder."
        )
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    patterns = [settings.get(key) or {} for key in ("rank_pattern", "alpha_pattern")]
    if not (
        type(rank) is int and rank > 0 and _number(alpha)
        and all(isinstance(p, dict) and all(map(_number, p.values())) for p in patterns)
    ):  # fmt: skip
        raise StudioError(
            f"{folder / CONFIG} has no sound rank (r) and lora_alpha; download or copy it again."
        )
    return settings


def base_of(folder: Path) -> str | None:
    """The name of the base that an adapter was trained on, with its revision, or None.

    Raises:
        StudioError: as `read_settings`.
    """
    settings = read_settings(folder)
    name, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not isinstance(name, str) or not name:
        return None
    return f"{name}@{revision}" if isinstance(revision, str) and revision else name


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_weights(folder: Path) -> dict[str, StoredTensor]:
    file = folder / WEIGHTS
    if not file.is_file():
        if pickled := [p.name for p in folder.iterdir() if p.suffix in PICKLED]:
            raise StudioError(
                f"{folder} holds only pickled weights ({pickled[0]}), which can run code when read "
                "and are refused; save the adapter again with safetensors."
            )
        raise StudioError(f"{folder} lacks {WEIGHTS}; download or copy the adapter again.")
    stored = read_header(file)
    for name, tensor in stored.items():
        if tensor.dtype not in FLOATS:
            raise StudioError(
                f"{file} stores {name[:120]!r} as {tensor.dtype}, a quantized form; use the "
                "adapter's bf16, fp16 or fp32 version."
            )
    return stored


def _place(
    folder: Path, key: str, base: str, known: Mapping[str, tuple[int, ...]], prefix: str
) -> tuple[str, str]:
    """The base's tensor that a stored one belongs to, and its part; "" if it takes its place."""
    path = key.removeprefix("base_model.model.")
    part = next((part for end, part in _PARTS.items() if path.endswith(f".{end}")), "")
    if part:
        end = next(end for end in _PARTS if path.endswith(f".{end}"))
        path = path.removesuffix(end) + "weight"
    else:
        path = path.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
    # An adapter of a model without its head (LlamaModel) lacks the prefix.
    for target in (path, prefix + path):
        if target in known:
            return target, part
    if "lora_" in path or "token_adapter" in path:
        raise StudioError(
            f"{folder} stores {key[:120]!r}, a part of an adapter that cannot be used; merge it "
            "into its base with peft's merge_and_unload and give that folder."
        )
    raise StudioError(
        f"{folder} changes {path[:120]}, which {base} does not have, so it is an adapter for "
        f"another base; name that one: {folder.name}+BASE."
    )


def _check_update(
    folder: Path,
    settings: Mapping[str, Any],
    base: str,
    target: str,
    update: _Update,
    known: Mapping[str, tuple[int, ...]],
) -> None:
    """Check that the parts of an update fit each other, the settings and the base; set its scale.

    Raises:
        StudioError: they do not.
    """
    parts = update.parts
    module = target.removesuffix(".weight")
    dora = bool(settings.get("use_dora"))
    a, b = (parts[part].shape if part in parts else () for part in "AB")
    rank = _matching(folder, settings, "rank_pattern", module, settings["r"])
    whole = len(a) == len(b) == 2 and a[0] == b[1] == rank and dora == ("magnitude" in parts)
    if whole and dora:
        whole = math.prod(parts["magnitude"].shape) == b[0]
    if not whole:
        raise StudioError(
            f"{folder} stores an incomplete change of {module}, or one that does not fit its "
            f"{CONFIG}; download or copy the adapter again."
        )
    change = (a[1], b[0]) if update.turned else (b[0], a[1])
    if change != known[target]:
        raise _other_base(folder, base, target, change, known[target])
    if "bias" in parts:
        bias = f"{module}.bias"
        if parts["bias"].shape != known.get(bias):
            raise _other_base(folder, base, bias, parts["bias"].shape, known.get(bias, ()))
    alpha = _matching(folder, settings, "alpha_pattern", module, settings["lora_alpha"])
    # https://arxiv.org/abs/2312.03732 (rsLoRA) divides by the root of the rank.
    update.scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _matching(
    folder: Path, settings: Mapping[str, Any], patterns: str, module: str, default: float
) -> float:
    """What `rank_pattern` or `alpha_pattern` says of a module, by PEFT's rules."""
    for pattern, value in (settings.get(patterns) or {}).items():
        # From a stranger: repeated groups and many repetitions can take for ever to match.
        if len(pattern) > 200 or pattern.count("*") + pattern.count("+") > 3 or (
            re.search(r"\)[*+?{]", pattern)
        ):  # fmt: skip
            raise StudioError(
                f"{folder / CONFIG} has a {patterns} that is too complicated ({pattern[:80]!r}); "
                "name the modules in full there."
            )
        try:
            found = re.match(rf"(.*\.)?({pattern})$", module)
        except re.error as error:
            raise StudioError(
                f"{folder / CONFIG} has a {patterns} that is no regular expression "
                f"({pattern[:80]!r}); download or copy it again."
            ) from error
        if found:
            return value
    return default


def _other_base(
    folder: Path, base: str, target: str, wanted: tuple[int, ...], found: tuple[int, ...]
) -> StudioError:
    return StudioError(
        f"{folder} is an adapter for another base: it changes {target} of {by(wanted)}, and that "
        f"of {base} is {by(found)}; name the right base: {folder.name}+BASE."
    )


def _licence(folder: Path, base: Model) -> str | None:
    """What adapter and base allow together, or None where one of them states nothing."""
    own = SimpleNamespace(name=folder.name, licence=documents.licence(folder))
    front, _ = licence_of_merge([base, own])
    licence = front.get("license_name", front["license"])
    return None if licence == "unknown" else licence
