"""Sources become models here: bundled ones, folders, GGUF files, adapters and hub repositories.

This room answers what a model is and hands out its tensors under canonical names; it knows nothing
about merging, tasks or runs. Importing it is cheap: torch and transformers load with the first
model.

>>> from studio.models import open_source
>>> model = open_source("bonsai-base")  # doctest: +SKIP
>>> model.get("model.norm.weight").shape  # doctest: +SKIP
torch.Size([192])
"""

from studio.models.checkpoint import Checkpoint
from studio.models.compatibility import check_compatible
from studio.models.model import Model
from studio.models.opening import describe, open_source
from studio.models.sources import bundled, resolve

__all__ = [
    "Checkpoint", "Model", "bundled", "check_compatible", "describe", "open_source", "resolve",
]  # fmt: skip
