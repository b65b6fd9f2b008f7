"""How much of a device's memory a search takes, before it begins, and which batch fits.

Knows what a resident model, its key-value cache and the passing tensors of a forward pass take,
from configurations and shapes alone. Refuses to read a weight; what is asked of the model comes as
numbers of tokens.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.merge.space import Space

if TYPE_CHECKING:
    import torch

#: Of the memory that is there, how much a plan may use: allocators leave holes.
USABLE = 0.95
#: Without a maximum length, paths are planned for this many times the main model's layers.
PATH_GROWTH = 2
#: Bytes per entry of a piece that a merge holds in passing: vectors, masks, hashes, sums.
_MERGING = 64


@dataclass(frozen=True)
class Need:
    """Bytes of a device's memory.

    Attributes:
        resident: of models and task vectors, all the time.
        merging: of a candidate's merge, in passing.
        scoring: of one sequence being answered: cache, activations, logits.
        unpacking: of one layer's weights while they are multiplied with, in passing.
    """

    resident: int
    merging: int
    scoring: int
    unpacking: int

    def peak(self, batch: int) -> int:
        """The most that a search takes with ``batch`` sequences at a time."""
        return self.resident + max(self.merging, self.unpacking + batch * self.scoring)

    def batch(self, memory: float, largest: int) -> int:
        """The largest batch that fits, at most ``largest``; 0 if not even one sequence does."""
        left = USABLE * memory - self.resident
        if left < self.merging:
            return 0
        return max(0, min(largest, int((left - self.unpacking) / self.scoring)))


def need(
    space: Space,
    precision: str,
    base: str,
    prompt: int,
    answer: int,
    device: "torch.device | str | None" = None,
    beams: int = 1,
) -> Need:
    """What a search of ``space`` takes.

    Args:
        precision, base: as `LiveModel`'s.
        prompt: tokens of the longest prompt, those of its picture included.
        answer: tokens of the longest answer.
        device: default CUDA, then Apple GPU, then CPU.
        beams: answers that are followed at a time for each prompt.
    """
    import torch

    from studio.evolve import leading, products, unpadded
    from studio.merge.ingredients import GPU_CHUNK
    from studio.models.packed_model import compute_dtype
    from studio.models.precision import QUANTIZED, default_device, dtype_of

    device = device or default_device()
    packed = precision in QUANTIZED
    entry = (compute_dtype(device) if packed else dtype_of(precision)).itemsize
    template = space.template
    matrices = [math.prod(template.shape(name)) for name in template.names() if ".layers." in name]
    # int8 is unpacked by way of float32
    unpacked = {"nf4": entry, "int8": entry + 4}.get(precision, 0)
    merging = GPU_CHUNK * _MERGING if space.kind == "parameter" else 0
    resident = space.memory(precision, base, device)
    scoring = beams * _sequence(template.config, _layers(space), entry, prompt, answer)
    if space.frame is not None:
        scoring += entry * space.frame.passing()
    elif str(device) == "cpu" and not packed:
        # what is decoded without padding: weights and, of paths, first layers a second time
        held = entry * template.parameters
        resident += held if held <= products.MOST else 0
        resident += torch.get_num_threads() * leading.ROOM if space.kind != "parameter" else 0
        kept = _cached(template.config, 4) * _layers(space) * (prompt + answer)
        scoring = max(scoring, math.ceil((1 + 1 / unpadded.READ) * kept))
    return Need(
        resident=resident,
        merging=min(merging, _MERGING * max(matrices)),
        scoring=scoring,
        unpacking=max(matrices) * unpacked,
    )


def _layers(space: Space) -> int:
    """Layers of the deepest model that is worth planning for."""
    if space.kind == "parameter":
        return space.template.layers
    return int(min(space.worst()["length"], space.max_length or PATH_GROWTH * space.main.layers))


def _sequence(config, layers: int, entry: int, prompt: int, answer: int) -> int:
    """Bytes that one sequence takes at most, at its first or at its last token."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    pairs = getattr(config, "num_key_value_heads", None) or heads
    cached = _cached(config, entry)
    repeated = 2 * heads * size * entry if pairs != heads else 0  # for all heads, in passing
    attending = 6 * heads * size * entry
    feeding = 3 * config.intermediate_size * entry
    # the first pass: all prompt tokens at once, one layer's activations, and a mask
    passing = 4 * config.hidden_size * entry + max(attending, feeding)
    first = prompt * (layers * cached + passing) + prompt**2
    # the last: one token, over a cache of which each layer is copied as it grows
    last = (prompt + answer) * (layers * cached + cached + repeated)
    return max(first, last) + config.vocab_size * (entry + 4)


def _cached(config, entry: int) -> int:
    """Bytes of a layer's keys and values of one token."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * (getattr(config, "num_key_value_heads", None) or heads) * size * entry


def available(device: "torch.device | str | None" = None) -> int:
    """Bytes of memory that are free now: on a GPU, or in the machine."""
    import torch

    from studio.models.precision import default_device

    if torch.device(device or default_device()).type == "cuda":
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available
