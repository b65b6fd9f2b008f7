"""One tensor's merge: what is read and prepared once, and what a setting makes of it.

Knows the models' tensors of one name and the merge method; refuses to know about genomes, whole
models or files. The live model keeps these for every tensor and merges again and again; export
makes them one at a time. Both do the same arithmetic on the same numbers and agree to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.merge import masks
from studio.merge.methods import Method, cosine_of, truth
from studio.merge.parameter_space import ParameterSpace, Setting

#: Entries merged at a time on one CPU thread: the temporaries stay in its cache.
CPU_CHUNK = 1 << 15
#: Tensors from this size are worth waking the other CPU threads for.
LARGE = 1 << 22
#: Entries merged at a time on a GPU: enough to keep it busy, few enough to bound the temporaries.
GPU_CHUNK = 1 << 24


@dataclass(frozen=True)
class Ingredients:
    """The prepared inputs of one tensor, flat.

    Attributes:
        base: ``[n]`` in the working dtype, or None where the method uses no base.
        vectors: per source ``[n]`` in the working dtype: task vectors, or the sources themselves.
        orders: per source int32 ``[n]`` (`studio.merge.masks`), or None where nothing is masked.
        cosine: between the two whole sources, for slerp.
    """

    method: Method
    base: Tensor | None
    vectors: Sequence[Tensor]
    orders: Sequence[Tensor] | None
    cosine: float | None

    @classmethod
    def prepare(
        cls,
        space: ParameterSpace,
        name: str,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> "Ingredients":
        """Read the tensor ``name`` of every model of the space and prepare it.

        Task vectors are taken in float32 *before* rounding to the working dtype: a fine-tune's
        delta is a few percent of the weights, and would drown in their rounding.
        """
        method = space.method
        vectors = [source.get(name).float().flatten() for source in space.sources]
        base = cosine = orders = None
        if "t" in method.genes:
            cosine = cosine_of(*vectors)
        if method.needs_base:
            base = space.base.get(name).float().flatten()
            vectors = [vector - base for vector in vectors]
            base = base.to(device, dtype)
        vectors = [vector.to(device, dtype) for vector in vectors]
        if method.masks:
            keys = [masks.key(space.seed, index, name) for index in range(len(vectors))]
        if method.masks == "random":
            orders = [masks.random_order(key, vectors[0].numel(), device) for key in keys]
        elif method.masks == "magnitude":
            orders = [
                masks.magnitude_order(vector.float(), key)
                for vector, key in zip(vectors, keys, strict=True)
            ]
        return cls(method, base, vectors, orders, cosine)

    def merge(self, setting: Setting, normalize: bool, out: Tensor) -> None:
        """Write the merged tensor into ``out``, flat ``[n]``, computing in float32."""
        count = out.numel()
        limits = [self._limit(density, count) for density in setting.densities]
        chunk = GPU_CHUNK
        if out.device.type == "cpu":
            chunk = CPU_CHUNK * (torch.get_num_threads() if count >= LARGE else 1)
        for start in range(0, count, chunk):
            piece = slice(start, start + chunk)
            vectors = [vector[piece].float() for vector in self.vectors]
            keep = None
            if self.orders:
                orders = [order[piece] for order in self.orders]
                keep = [
                    truth(torch.le, order, limit).float()
                    for order, limit in zip(orders, limits, strict=True)
                ]
            out[piece] = self.method(
                base=None if self.base is None else self.base[piece].float(),
                sources=vectors,
                deltas=vectors,
                keep=keep,
                weights=setting.weights,
                densities=setting.densities,
                t=setting.t,
                cosine=self.cosine,
                normalize=normalize,
            )

    def _limit(self, density: float, count: int) -> int:
        if self.method.masks == "random":
            return masks.random_limit(density)
        return masks.magnitude_limit(density, count)
