"""The model card (README.md) of an exported merge.

Knows how a card is written and what the sources' licences mean for a merge; refuses to measure
anything: scores and lineage come from the run.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from studio.errors import StudioError
from studio.merge.data_flow import DataFlowSpace
from studio.merge.mergekit_config import mergekit_obstacle
from studio.merge.space import Space
from studio.models import bundled
from studio.models.adapter import Adapter
from studio.models.licences import Verdict, judge
from studio.models.sources import split
from studio.models.vocabulary import unaligned, vocabulary_of

if TYPE_CHECKING:
    from studio.merge.fixed import FixedMerge
    from studio.models import Model

_EVOLVED = (
    "evolved with EvoLLM Studio in the {} space of "
    "[Evolutionary Optimization of Model Merging Recipes](https://arxiv.org/abs/2403.13187)"
)
_GIVEN = "made with EvoLLM Studio with the weights given below; nothing was searched"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?=$|/[\w./-]+\.gguf$)", re.ASCII)


def model_card(
    *,
    title: str,
    recipe: str,
    space: Space,
    genome: np.ndarray,
    scores: Sequence[Mapping] = (),
    lineage: Mapping[str, object] | None = None,
) -> str:
    """README.md of a merge, with the front matter the hub reads.

    Args:
        title: name of the merge.
        recipe: the recipe's YAML.
        scores: rows ``{model, task, split, score, low, high, n}``; score and its 95 % interval
            as fractions of 1, of n examples, in the order to print.
        lineage: how a search came upon it, as label → value (run, candidate, optimizer, seed,
            versions); without one the card says that nothing was searched.

    Raises:
        StudioError: the genome does not belong to the space.
    """
    table = space.table(genome)
    verdict = verdict_of(space.models)
    front = {
        **verdict.front,
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text" if space.frame else "text-generation",
        "base_model": _hub_ids(real_models(space.models)),
        "base_model_relation": "merge",
        "tags": ["merge", "evollm-studio", _tag(space)],
    }
    if not front["base_model"]:
        del front["base_model"], front["base_model_relation"]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {_plain(title)}",
        f"{_form(space, genome)}, {_EVOLVED.format(_words(space)) if lineage else _GIVEN}.",
        "## Models and licences",
        _table(["model", "role", "licence"], _model_rows(space)),
        f"**Licence of the merge.** {_plain(verdict.sentence)}",
    ]
    if space.frame:
        parts.append(
            f"**What it sees with.** Vision tower and projector are those of "
            f"{_plain(space.frame.name)} ({space.frame.architecture}), bit for bit; only its "
            "language model was merged."
        )
    vocabulary = vocabulary_of(space.models)
    if vocabulary and (words := vocabulary.sentence()):
        parts.append(f"**Vocabulary.** {_plain(words)}")
    if scores:
        rows = [
            [
                row["model"], row["task"], row["split"],
                f"{row['score']:.1%} ({row['low']:.1%} to {row['high']:.1%})", row["n"],
            ]
            for row in scores
        ]  # fmt: skip
        parts += [
            "## Scores",
            "With 95 % confidence intervals.",
            _table(["model", "task", "split", "score", "examples"], rows),
        ]
    if lineage:
        parts += [
            "## Lineage",
            "\n".join(f"- {_plain(k)}: {_plain(v)}" for k, v in lineage.items()),
        ]
    columns = [c for c in table[0] if any(row[c] is not None for row in table)]
    parts += [
        "## Which layers in which order"
        if isinstance(space, DataFlowSpace)
        else "## What is merged how",
        _table(columns, [[_number(row[c]) for c in columns] for row in table]),
        "`genome.json` has the exact numbers.",
        "## Recipe",
        _fence(recipe, "yaml"),
        _mergekit_sentence(space),
    ]
    return "\n\n".join(parts) + "\n"


def fixed_card(title: str, merge: "FixedMerge") -> str:
    """README.md of the merge that a mergekit configuration describes."""
    method = merge.configuration.method
    verdict = verdict_of(merge.models)
    front = {
        **verdict.front,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": _hub_ids(merge.models),
        "base_model_relation": "merge",
        "tags": ["merge", "evollm-studio", method],
    }
    if not front["base_model"]:
        del front["base_model"], front["base_model_relation"]
    rows = [[model.name, model.licence or "not stated"] for model in merge.models]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {_plain(title)}",
        f"A merge of {len(merge.models)} model(s) with mergekit's method `{method}`, made with "
        "EvoLLM Studio from the configuration below; nothing was searched.",
        "## Models and licences",
        _table(["model", "licence"], rows),
        f"**Licence of the merge.** {_plain(verdict.sentence)}",
        "## Configuration",
        _fence(merge.configuration.text, "yaml"),
        "Computed in float32 and rounded once; mergekit computes in its `dtype`.",
    ]
    if method.startswith("dare"):
        parts[-1] += (
            " mergekit draws other random masks, and rescales what it keeps by the share of the "
            "L1 norm that was kept instead of by 1/density."
        )
    return "\n\n".join(parts) + "\n"


def real_models(models: "Sequence[Model]") -> "list[Model]":
    """The models of others that models are made of, each once."""
    models = [unaligned(model) for model in models]
    real = [part for model in models for part in getattr(model, "models", [model])]
    return list({model.path.resolve(): model for model in real}.values())


def verdict_of(models: "Sequence[Model]") -> Verdict:
    """What the licences of models, and of the models that those are made of, mean for a merge."""
    return judge({model.name: model.licence for model in real_models(models)})


def _form(space: Space, genome: np.ndarray) -> str:
    """What kind of model this is, as the beginning of a sentence."""
    if isinstance(space, DataFlowSpace):
        layers = space.properties(genome)["length"]
        return f"A path of {layers:.0f} layers through {len(space.sources)} model(s)"
    return (
        f"A merge of {len(space.sources)} model(s) with the method `{space.method.name}` "
        f"({space.method.reference})"
    )


def _words(space: Space) -> str:
    return space.kind.replace("_", "-")


def _tag(space: Space) -> str:
    return "data-flow" if isinstance(space, DataFlowSpace) else space.method.name


def _model_rows(space: Space) -> list[list]:
    base = getattr(space, "base", None)
    roles = [(base, "base")] if base else []
    roles += [(source, "source") for source in space.sources]
    rows = []
    for model, role in roles:
        rows.append([model.name, role, model.licence or "not stated"])
        # what a merge among the sources is made of
        for part in getattr(unaligned(model), "models", []):
            rows.append([part.name, f"in {model.name}", part.licence or "not stated"])
    return rows


def _hub_ids(models: "Sequence[Model]") -> list[str]:
    """The repositories that models come from; an adapter's base is one of them."""
    found = []
    for model in models:
        with suppress(StudioError):  # a name that nothing could be opened under
            place = split(model.name).place
            local = place in bundled() or Path(place).expanduser().exists()
            if not local and (match := _HUB_ID.match(place)):
                found.append(match[0])
        if isinstance(model, Adapter):
            found += _hub_ids([model.base])
    return list(dict.fromkeys(found))


def _mergekit_sentence(space: Space) -> str:
    if obstacle := mergekit_obstacle(space):
        return f"There is no mergekit configuration of this merge: {_plain(obstacle)}"
    text = "`mergekit.yaml` is the same merge as a mergekit configuration"
    if not isinstance(space, DataFlowSpace) and space.method.masks == "random":
        text += ", except that mergekit draws other random masks"
    return text + "."


def _number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(value: object) -> str:
    """Text that stays text: one line, with what Markdown or HTML would read made harmless."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", text)


def _fence(text: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
