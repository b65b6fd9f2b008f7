"""What the layers that paths begin with make of the same prompts, kept for the next path.

Knows groups of prompts, layers by what they do (`studio.merge.path` says so), and how much memory
there is. Refuses to know how a layer computes. Nothing else of a candidate outlives it: what is
kept is to the bit what would be made again, for groups are the same whoever reads them.
"""

from collections.abc import Hashable, Sequence
from itertools import takewhile

import numpy as np
import torch

#: Bytes that are kept at most, of the groups that one core reads.
ROOM = 128 << 20


class Leading:
    """What one group of prompts came to, layer by layer.

    Attributes:
        shared: how many layers of the path at hand need not be passed again.
        hidden: what enters a layer, ``[tokens, size]``, by its number.
        heads: its keys, not turned to their places, and values, ``[tokens, 2 · heads · size]``.
    """

    def __init__(self, depth: int):
        self.shared = 0
        self.hidden: dict[int, torch.Tensor] = {}
        self.heads: dict[int, np.ndarray] = {}
        self._depth, self._layers = depth, []

    def begin(self, layers: Sequence[Hashable]) -> None:
        """A path through these layers reads the group now."""
        pairs = zip(self._layers, layers, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        # what comes of the last layer depends on which tokens are asked for
        self.shared = max(0, min(same, len(self.hidden) - 1, len(layers) - 1))
        self._layers = list(layers[: self._depth])
        self.hidden = {n: self.hidden[n] for n in range(self.shared + 1) if n in self.hidden}
        self.heads = {n: self.heads[n] for n in range(self.shared)}

    def keep(self, number: int, hidden: torch.Tensor, heads: np.ndarray) -> None:
        """Note what entered a layer, and what of its keys and values it made."""
        if number <= self._depth:
            self.hidden[number] = hidden
        if number < self._depth:
            self.heads[number] = heads.copy()

    @property
    def size(self) -> int:
        """Bytes kept."""
        return sum(x.nbytes for x in (*self.hidden.values(), *self.heads.values()))


class Shelf:
    """Groups that were read, the last ones, within `ROOM`."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, Leading] = {}

    def group(self, key: Hashable, depth: int) -> Leading:
        """What is known of a group of prompts, which may be nothing."""
        found = self._groups.pop(key, None) or Leading(depth)
        while self._groups and sum(group.size for group in self._groups.values()) > ROOM:
            del self._groups[next(iter(self._groups))]
        self._groups[key] = found
        return found
