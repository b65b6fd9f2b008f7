"""The same merge as an ordinary mergekit configuration, for those who want to run it there.

Knows mergekit's slices and conditional parameters; refuses to import mergekit, which is only a
dependency of the tests that compare the two.
"""

import numpy as np
import yaml

from studio.errors import StudioError
from studio.merge.data_flow import PROJECTIONS, WRITERS, DataFlowSpace
from studio.merge.parameter_space import ParameterSpace, Part, Setting
from studio.merge.space import Space
from studio.models import Model, bundled
from studio.models.adapter import Adapter
from studio.models.gguf import Gguf
from studio.models.vocabulary import Vocabulary, unaligned, vocabulary_of

_RANDOM = """\
# DARE drops entries at random. mergekit draws other masks than EvoLLM Studio (and rescales by the
# share of the L1 norm that was kept instead of 1/density), so that its merge will not be this one
# entry by entry, and its scores will differ a little.
"""
#: Architectures of whose biases mergekit does not know: it leaves them out without a word.
_WITHOUT_BIASES = (
    "LlamaForCausalLM", "Qwen3ForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
)  # fmt: skip
_ALIGNED = "# mergekit gives the merge a row for every token, and none of padding after them.\n"
_BUNDLED = "# Paths of bundled models are relative to the folder of EvoLLM Studio.\n"


def mergekit_obstacle(space: Space) -> str | None:
    """Why mergekit cannot express merges of this space, in a sentence; None where it can."""
    for source in space.sources:
        if hasattr(unaligned(source), "models"):
            return f"{source.name} is a merge that was never written to disk."
    for model in map(unaligned, space.models):
        below = model.base if isinstance(model, Adapter) else model
        if isinstance(below, Gguf):
            return f"mergekit does not read GGUF files, and {below.name} is one."
    if space.frame is not None:
        return f"mergekit does not merge the language model inside a {space.frame.architecture}."
    template = space.template
    biased = any(name.endswith(".bias") for name in template.names())
    if biased and template.architecture in _WITHOUT_BIASES:
        return f"mergekit leaves out the biases of {template.name}."
    if isinstance(space, DataFlowSpace):
        if WRITERS[space.main.architecture] != PROJECTIONS:
            return "mergekit cannot scale what the norms of this architecture write."
        if getattr(space.main.config, "layer_types", None):
            return (
                f"the configuration of {space.main.name} names a kind of attention per layer "
                "(layer_types), which mergekit does not fit to another number of layers."
            )
        return None
    if vocabulary := vocabulary_of(space.models):
        if obstacle := _vocabulary_obstacle(vocabulary):
            return obstacle
    donor = _donor(space)
    if donor.tied != space.tied:
        return (
            f"mergekit takes the configuration of {donor.name}, whose output head is tied to its "
            "embedding, while this merge has a head of its own."
        )
    return None


def _vocabulary_obstacle(vocabulary: Vocabulary) -> str | None:
    giver = vocabulary.giver
    if vocabulary.new:
        return (
            "mergekit gives the new tokens of a union other ids, and finds them in the middle of "
            "words."
        )
    if all(giver is not model for model in vocabulary.members):
        return f"mergekit takes nothing from {giver.name}, which only lends its vocabulary."
    if not vocabulary.matches_strings():
        return "mergekit only matches tokens that are written alike."
    if vocabulary.fills_from_several_sources():
        return "mergekit fills a row that some models lack from the first that has it."
    return None


def mergekit_yaml(space: ParameterSpace, genome: np.ndarray, dtype: str) -> str | None:
    """A mergekit configuration that merges as ``genome`` does, or None (see `mergekit_obstacle`).

    Args:
        dtype: of the result, "float32", "bfloat16" or "float16"; mergekit computes in float32 in
            any case, as the Studio does.

    Raises:
        StudioError: the genome does not belong to the space, or the dtype is another.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise StudioError(f"There is no dtype '{dtype}' here; use float32, bfloat16 or float16.")
    settings = space.part_settings(genome)
    if mergekit_obstacle(space):
        return None
    blocks: dict[str, list[tuple[Part, Setting]]] = {}
    outer = []
    for part, setting in settings:
        if part.layers:
            blocks.setdefault(part.group, []).append((part, setting))
        else:
            outer.append((part, setting))
    # mergekit looks up the parameters of what precedes the layers in the first slice, of what
    # follows them in the last.
    ends = (next(iter(blocks)), list(blocks)[-1])
    document = {
        "merge_method": space.method.name,
        "base_model": _path(_donor(space)),
        "dtype": "float32",
        "slices": [
            _slice(space, parts, outer if group in ends else []) for group, parts in blocks.items()
        ],
    }
    if dtype != "float32":
        document["out_dtype"] = dtype
    if "weight" in space.method.genes:
        document["parameters"] = {"normalize": space.normalize}
    if space.method.masks:  # mergekit takes no notice; for whoever merges this with the Studio
        document["random_seed"] = space.seed
    comment = _made(space)
    if vocabulary := vocabulary_of(space.models):
        of_donor = vocabulary.giver is unaligned(_donor(space))
        document["tokenizer"] = {"source": "base" if of_donor else _path(vocabulary.giver)}
        comment += _ALIGNED
    if space.method.masks == "random":
        comment += _RANDOM
    if any(model.name in bundled() for model in space.models):
        comment += _BUNDLED
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return comment + text


def mergekit_path_yaml(space: DataFlowSpace, genome: np.ndarray, dtype: str) -> str | None:
    """As `mergekit_yaml`, for a path: mergekit's passthrough, a slice per layer.

    Scales are folded: a slice multiplies what its layer writes to the residual stream by 1/c.
    """
    path = space.path(genome)
    if mergekit_obstacle(space):
        return None
    slices = []
    for step in path:
        layers = [step.layer, step.layer + 1]
        entry = {"model": _path(space.sources[step.source]), "layer_range": layers}
        if step.divisor != 1.0:
            scales = [
                {"filter": writer.rpartition(".")[2], "value": 1 / step.divisor}
                for writer in PROJECTIONS
            ]
            entry["parameters"] = {"scale": [*scales, {"value": 1.0}]}
        slices.append({"sources": [entry]})
    document = {
        "merge_method": "passthrough",
        "base_model": _path(space.main),  # whose configuration and tokenizer mergekit copies
        "dtype": "float32",
        "slices": slices,
    }
    if dtype != "float32":
        document["out_dtype"] = dtype
    comment = _made(space)
    if any(model.name in bundled() for model in space.models):
        comment += _BUNDLED
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return comment + text


def _donor(space: ParameterSpace):
    """The model whose config and tokenizer mergekit copies."""
    if space.base:
        return space.base
    # slerp starts from its base_model; linear only takes the configuration from it.
    return space.sources[0] if "t" in space.method.genes else space.template


def _made(space: Space) -> str:
    """The first line: what to do with the file."""
    adapted = any(isinstance(unaligned(model), Adapter) for model in space.models)
    cache = "--lora-merge-cache CACHE_FOLDER " if adapted else ""
    return f"# Made by EvoLLM Studio. Run with: mergekit-yaml {cache}mergekit.yaml OUTPUT_FOLDER\n"


def _path(model: Model) -> str:
    """What mergekit calls a model; an adapter is BASE+ADAPTER."""
    model = unaligned(model)
    if isinstance(model, Adapter):
        return f"{_path(model.base)}+{_place(model, 'adapters')}"
    return _place(model, "models")


def _place(model: Model, shelf: str) -> str:
    name = model.name.partition("+")[0]
    return f"assets/{shelf}/{name}" if name in bundled() else name


def _slice(space: ParameterSpace, parts: list, outer: list) -> dict:
    layers = parts[0][0].layers
    conditions = _conditions(space, parts, outer)
    sources = []
    for index, source in enumerate(space.sources):
        entry = {"model": _path(source), "layer_range": [layers[0], layers[-1] + 1]}
        parameters = {}
        if "weight" in space.method.genes:
            parameters["weight"] = _values(conditions, lambda s, i=index: s.weights[i])
        if "density" in space.method.genes:
            parameters["density"] = _values(conditions, lambda s, i=index: s.densities[i])
        sources.append(entry | ({"parameters": parameters} if parameters else {}))
    if space.base:
        sources.append({"model": _path(space.base), "layer_range": [layers[0], layers[-1] + 1]})
    if "t" in space.method.genes:
        return {"sources": sources, "parameters": {"t": _values(conditions, lambda s: s.t)}}
    return {"sources": sources}


def _conditions(space: ParameterSpace, parts: list, outer: list) -> list:
    """(name filter, Setting) for one slice, in mergekit's order: the first that matches decides."""
    conditions = []
    for part, setting in outer:
        conditions += [(name, setting) for name in part.tensors]
        if space.tied:  # in case a file stores the tied head as well
            conditions.append(("lm_head.weight", setting))
    for part, setting in parts:
        if part.filter is None:  # norms keep the default even where a filter would match their name
            exceptions = [n for n in part.tensors if any(text in n for text in space.filters)]
            conditions += [(name, setting) for name in exceptions]
    conditions += [(part.filter, setting) for part, setting in parts if part.filter is not None]
    conditions += [(None, setting) for part, setting in parts if part.filter is None]
    return conditions


def _values(conditions: list, value) -> float | list[dict]:
    if len(conditions) == 1:
        return value(conditions[0][1])
    return [
        ({"filter": text} if text else {}) | {"value": value(setting)}
        for text, setting in conditions
    ]
