"""What a run was begun with, so that nothing else is taken for it later.

Knows how to tell that a model's files or a task's examples are others than at the start; refuses to
repair that. A resumed run would otherwise mix two sets of questions in one score, and a candidate
rebuilt from its record would be another model than the one that was measured (DESIGN.md, contracts
4 and 5).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.runs.store import Store

if TYPE_CHECKING:
    from studio.models import Model
    from studio.tasks.base import Example


# What is fingerprinted is recorded under the words that an error calls it by: rewording these would
# leave runs recorded under the old words unchecked.


def of_models(models: "Iterable[Model]") -> dict[str, str]:
    """A fingerprint per model."""
    return {f"the model {model.name}": model.fingerprint() for model in models}


def of_examples(splits: "Mapping[tuple[str, str], list[Example]]") -> dict[str, str]:
    """A fingerprint per (task, split): questions, pictures and answers, in their order."""
    return {
        f"the {split} examples of the task {task}": hashlib.blake2b(
            json.dumps([_parts(example) for example in examples]).encode(), digest_size=16
        ).hexdigest()
        for (task, split), examples in splits.items()
    }


def _parts(example: "Example") -> list[str]:
    parts, picture = [example.id, example.question, example.answer], example.picture
    if picture is None:
        return parts
    data = picture.read_bytes() if isinstance(picture, Path) else picture
    return [*parts, hashlib.blake2b(data, digest_size=16).hexdigest()]


def check(store: Store, run: str, now: Mapping[str, str]) -> None:
    """Compare with what the run recorded of the same inputs, if it did.

    Raises:
        StudioError: one of them has changed since the run was begun.
    """
    begun = recorded(store, run)
    for what, fingerprint in now.items():
        if begun.get(what, fingerprint) != fingerprint:
            raise StudioError(
                f"{what[0].upper()}{what[1:]} changed since run {run} was begun; put the old files "
                "back, or start the recipe anew."
            )


def recorded(store: Store, run: str) -> dict[str, str]:
    """The fingerprints a run recorded; empty before its first session."""
    events = (event for event in store.events(run) if event.kind == "inputs")
    first = next(events, None)
    return first.payload["fingerprints"] if first else {}
