"""Sources become checkpoints here: bundled models, local folders and hub repositories.

This room answers what a model is and hands out its tensors under canonical names; it knows nothing
about merging, tasks or runs. Importing it is cheap: torch and transformers load with the first
model.

>>> from studio.models import Checkpoint
>>> checkpoint = Checkpoint.open("bonsai-base")  # doctest: +SKIP
>>> checkpoint.get("model.norm.weight").shape  # doctest: +SKIP
torch.Size([192])
"""

from studio.models.checkpoint import Checkpoint, describe
from studio.models.compatibility import check_compatible
from studio.models.model import Model
from studio.models.sources import bundled, resolve

__all__ = ["Checkpoint", "Model", "bundled", "check_compatible", "describe", "resolve"]
