"""A recipe's plan: what its searches take of a device's memory, and the batch that fits.

Knows the recipe's stages and tasks; what tensors take is `studio.evolve.memory`'s. Refuses to load
a model or to generate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.errors import StudioError
from studio.evolve import spaces
from studio.evolve.memory import Need, available, need
from studio.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from studio.models import Model
    from studio.tasks.base import Task

#: The batch that is tried first where the recipe says 'auto'.
LARGEST = 256
#: Tokens planned for where the tasks cannot be read here: of prompt and of answer.
UNKNOWN = (512, 256)


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    Attributes:
        needs: by stage, baselines left out: they take what the searches they stand beside take.
        sources: bytes of the largest model that is scored as it is, unquantized.
        prompt, answer: tokens of the longest prompt and answer, or what was assumed.
        memory: bytes to fit into.
        batch: sequences to answer at a time.
    """

    needs: dict[str, Need]
    sources: int
    prompt: int
    answer: int
    memory: int
    batch: int

    @property
    def peak(self) -> int:
        """Bytes at the most."""
        return max(self.sources, *(n.peak(max(1, self.batch)) for n in self.needs.values()))

    @property
    def fits(self) -> bool:
        return self.batch > 0


def plan(
    recipe: Recipe,
    models: "Sequence[Model]",
    tasks: "Sequence[Task] | None",
    memory: int | None = None,
    device: "torch.device | str | None" = None,
    precision: str | None = None,
    sharers: int = 1,
) -> Plan:
    """Plan a recipe.

    Args:
        models: of `spaces.open_models`.
        tasks: of the recipe; None where they cannot be read here.
        memory: bytes to fit into; what is free on the device when left out.
        device: default CUDA, then Apple GPU, then CPU.
        precision: another than the recipe's.
        sharers: how many processes do the same on that device, and have a share of what is free.

    Raises:
        StudioError: the models do not fit each other, or not even one sequence fits the memory
            (only where ``memory`` is left out: asking about another machine is no mistake).
    """
    precision = precision or recipe.precision
    recipe = recipe.model_copy(update={"precision": precision})
    base = recipe.base_storage if recipe.quantized else "packed"
    prompt, answer = lengths(models, tasks)
    winners: dict[str, Any] = {}
    needs = {}
    for number, stage in enumerate(s for s in recipe.stages() if not s.baseline):
        space = spaces.build_space(recipe, stage, models, winners)
        needs[stage.name] = need(
            space, precision, base, prompt, answer, device, recipe.decoding.beams
        )
        genome = np.random.default_rng(number).uniform(space.lower, space.upper)
        plain = spaces.unquantized(recipe, space.sources)
        winners[stage.name] = space.checkpoint(genome, plain, stage.name)
    sources = models[1:] if recipe.base else models
    entry = 4 if spaces.unquantized(recipe, sources) == "fp32" else 2
    largest = LARGEST if recipe.batch_size == "auto" else recipe.batch_size
    there = available(device) // sharers if memory is None else memory
    batch = min(n.batch(there, largest) for n in needs.values())
    if batch == 0 and memory is None:
        short = max(n.peak(1) for n in needs.values())
        raise StudioError(
            f"This needs {short / 1e9:.1f} GB of memory with one question at a time, and "
            f"{there / 1e9:.1f} GB are free; use a smaller precision (nf4), base_storage: paged, "
            "fewer sources, or a larger device."
        )
    heaviest = max(m.parameters + (m.frame.parameters if m.frame else 0) for m in models)
    return Plan(needs, heaviest * entry, prompt, answer, there, batch)


def lengths(models: "Sequence[Model]", tasks: "Sequence[Task] | None") -> tuple[int, int]:
    """Tokens of the longest prompt, its picture included, and of the longest answer."""
    from studio.evolve import library
    from studio.evolve.evaluate import prompts_for

    speaker = next((model for model in models if model.frame is not None), models[-1])
    if not tasks:
        prompt, answer = UNKNOWN
        return prompt + (speaker.frame.tokens() if speaker.frame else 0), answer
    tokenizer, processor = speaker.tokenizer(), speaker.processor()
    prompt = answer = 1
    for task in tasks:
        if not hasattr(task, "max_new_tokens"):
            prompt, answer = max(prompt, UNKNOWN[0]), max(answer, UNKNOWN[1])
            continue
        answer = max(answer, task.max_new_tokens)
        examples = task.examples("dev")
        texts = prompts_for(tokenizer, task, examples, processor)
        # the longest texts have the most tokens, but for a few: the plan leaves room for those
        asked = sorted(zip(texts, examples, strict=True), key=lambda pair: len(pair[0]))
        for text, example in asked[-32:]:
            shown = [example.picture] if processor and example.picture else []
            inputs = library.encode(tokenizer, [text], [shown], processor)
            prompt = max(prompt, inputs["input_ids"].shape[1])
    return prompt, answer
