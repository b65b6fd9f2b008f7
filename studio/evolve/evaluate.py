"""A resident model and a task's examples in, outcomes out.

Knows how to ask (prompt, generate) and whom to ask for the score. Refuses to know how an answer is
judged (the task does) and what the score is for (the loop does).
"""

import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from studio.errors import StudioError
from studio.evolve import library
from studio.evolve.generate import (
    GREEDY,
    BrokenModel,
    Decoding,
    Response,
    chat_prompt,
    generate,
)
from studio.evolve.memory import available
from studio.runs.records import Evaluation, Outcome
from studio.tasks.base import LiveTask, Measurement, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from studio.tasks.base import Example, Task


def prompts_for(
    tokenizer: "PreTrainedTokenizerBase",
    task: "Task",
    examples: Sequence["Example"],
    processor: "ProcessorMixin | None" = None,
) -> list[str]:
    """Each example's prompt, wrapped in the model's chat template where it has one.

    With a processor, an example's picture comes before its question.
    """
    return [_prompt(tokenizer, task, example, processor) for example in examples]


def _prompt(tokenizer, task, example, processor) -> str:
    sees = processor is not None and example.picture is not None
    voice = processor if sees else tokenizer
    chat = bool(voice.chat_template)
    content: Any = task.prompt(example, chat=chat)
    if sees:
        content = [{"type": "image"}, {"type": "text", "text": content}]
    elif not chat:
        return content
    return chat_prompt(voice, [{"role": "user", "content": content}])


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: "Task | LiveTask",
    examples: Sequence["Example"],
    *,
    subject: str,
    split: str,
    batch_size: int,
    processor: "ProcessorMixin | None" = None,
    decoding: Decoding = GREEDY,
    said: Evaluation | None = None,
    on_halving: Callable[[int], None] = lambda size: None,
    on_token: Callable[[], None] = lambda: None,
    must_end: bool = False,
    known: MutableMapping[int, Response] | None = None,
    cut_loops: bool = False,
) -> Evaluation:
    """Score a model on examples of a task.

    A model whose logits are not finite is a recorded zero, not an error. When a batch does not fit
    the accelerator's memory the batch size is halved and the examples are answered again.

    Args:
        subject: whom the evaluation is recorded for, such as 'candidate:12'.
        split: the label it is recorded under.
        processor: of a model that sees; any other is asked about pictures without being shown them.
        decoding: how answers are searched for; a live task decides itself.
        said: an evaluation of the same model on the same questions, whose responses are scored
            here instead of asking again.
        on_halving: told every new batch size.
        on_token: called before every forward pass; what it raises ends the evaluation.
        must_end: whether a model that ends not a single answer is broken, and scores zero; a live
            task decides itself what ends an answer.
        known: responses to some of the examples, by their place, that need not be asked again;
            grows by every batch. A live task has no use for it.
        cut_loops: whether an answer ends where it only repeats itself; it counts as one that did
            not end. A live task decides itself.

    Raises:
        StudioError: not even one example fits the memory.
    """
    start = time.perf_counter()
    live = isinstance(task, LiveTask)
    broken = said.broken if said else ""
    while True:
        try:
            if said is not None:
                measured = [
                    Measurement(o.response, task.score(example, o.response), o.tokens, o.runaway)
                    for example, o in zip(examples, said.outcomes, strict=True)
                ]
            elif live:
                measured = _measured(model, tokenizer, task, examples, batch_size, on_token)
            else:
                measured = _answered(
                    model,
                    tokenizer,
                    task,
                    examples,
                    processor,
                    decoding,
                    batch_size=batch_size,
                    on_token=on_token,
                    known=known,
                    cut_loops=cut_loops,
                )
        except BrokenModel as error:
            broken = str(error)
            silent = (Score(0.0, {}) if live else task.score(e, "") for e in examples)
            measured = [Measurement("", score) for score in silent]
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if batch_size == 1:
                raise too_large(f"{subject}, with one question at a time,", model) from None
            batch_size //= 2
            del error  # its traceback holds the batch that did not fit
            torch.cuda.empty_cache()
            if known is not None:  # a resumed run would answer all of them in smaller batches
                known.clear()
            on_halving(batch_size)
            continue
        break
    if must_end and not live and not broken:
        if all(m.runaway or m.tokens >= task.max_new_tokens for m in measured):
            broken = f"not one answer ended within {task.max_new_tokens} tokens"
    outcomes = [
        Outcome(example.id, m.score.value, m.response, m.score.details, m.tokens, m.runaway)
        for example, m in zip(examples, measured, strict=True)
    ]
    return Evaluation(
        subject=subject,
        task=task.name,
        split=split,
        score=0.0 if broken else sum(o.score for o in outcomes) / len(outcomes),
        tokens=0 if said else sum(o.tokens for o in outcomes),
        seconds=time.perf_counter() - start,
        broken=broken,
        outcomes=tuple(outcomes),
    )


def _answered(
    model, tokenizer, task, examples, processor, decoding, **options: Any
) -> list[Measurement]:
    """What the model answers to a task's prompts, and what the task makes of it."""
    prompts = prompts_for(tokenizer, task, examples, processor)
    options["max_new_tokens"] = task.max_new_tokens
    pictures = [example.picture if processor else None for example in examples]
    if decoding.greedy and not any(pictures):
        responses = generate(model, tokenizer, prompts, **options)
    else:
        responses = library.generate(
            model, tokenizer, prompts, pictures, processor=processor, decoding=decoding, **options
        )
    return [
        Measurement(r.text, task.score(example, r.text), r.tokens, r.runaway)
        for example, r in zip(examples, responses, strict=True)
    ]


def _measured(model, tokenizer, task, examples, batch_size, on_token) -> list[Measurement]:
    """What a live task measures, watched at every forward pass."""
    with _watched(model, on_token):
        return task.measure(model, tokenizer, list(examples), batch_size)


@contextmanager
def _watched(model: "PreTrainedModel", on_token: Callable[[], None]) -> Iterator[None]:
    """Within: ``on_token`` before every forward pass, and BrokenModel where logits are not finite.

    So whoever runs the model can be stopped, and need not know what a broken one is.
    """

    def before(*_) -> None:
        on_token()

    def after(_module, _arguments, output) -> None:
        if not output.logits[:, -1].amax(-1).isfinite().all():
            raise BrokenModel("the model's logits are not finite")

    hooks = (model.register_forward_pre_hook(before), model.register_forward_hook(after))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def too_large(what: str, model: "PreTrainedModel") -> StudioError:
    """What does not fit the memory, and the numbers."""
    torch.cuda.empty_cache()
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    return StudioError(
        f"{what} does not fit the memory of {model.device}: {available(model.device) / 1e9:.1f} GB "
        f"are free beside a model whose plain parameters take {held / 1e9:.1f} GB; use a smaller "
        "precision (nf4), fewer or smaller sources, or a larger device "
        "(`python -m studio plan RECIPE` says what is needed)."
    )


def out_of_memory(error: Exception) -> bool:
    """CUDA has a class for it; Apple GPUs and the CPU's allocator raise a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )
