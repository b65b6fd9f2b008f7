"""Whether models can be merged with one another, and if not, the first reason in a sentence.

It compares opened checkpoints: form, the settings that one configuration can hold only once, and
vocabularies, unless they are to be aligned (`studio.models.vocabulary`). It reads no weights and
knows nothing about merge methods.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest

from studio.errors import StudioError
from studio.models.model import Model, frame_of
from studio.models.vocabulary import SAME, token_tensors

#: Settings that change what the weights compute, in words. The merged model has one value of each,
#: so sources that were trained with different ones cannot be mixed.
SETTINGS = {
    "num_attention_heads": "attention heads",
    "num_key_value_heads": "key-value heads",
    "head_dim": "head size",
    "intermediate_size": "feed-forward size",
    "hidden_act": "activation",
    "hidden_activation": "activation",
    "rms_norm_eps": "normalisation epsilon",
    "layer_norm_eps": "normalisation epsilon",
    "rope_parameters": "rope parameters",
    "sliding_window": "sliding window",
    "layer_types": "attention pattern",
    "attn_logit_softcapping": "attention softcap",
    "final_logit_softcapping": "logit softcap",
    "query_pre_attn_scalar": "attention scale",
    "attention_multiplier": "attention scale",
    "embedding_multiplier": "embedding scale",
    "residual_multiplier": "residual scale",
    "logits_scaling": "logit scale",
    "logit_scale": "logit scale",
}


#: Settings that a frame decides (`studio.models.model.Frame`): no tensor's shape depends on them,
#: and whoever grafts a language model into a vision-language model has it read positions as that
#: does, as the paper's EvoVLM-JP did.
OF_THE_FRAME = {"rope_parameters", "sliding_window", "layer_types"}


def check_compatible(base: Model | None, sources: Sequence[Model], vocabulary: str = SAME) -> None:
    """Check that all sources, and the base if there is one, can be merged with one another.

    Everything is compared with the base or, without one, with the first source. Dtypes may differ,
    and so may tying (a merge of tied and untied models is untied) and how many rows follow the
    tokens of an embedding. Where one of them is a vision-language model, how positions are read is
    its own.

    Args:
        vocabulary: as in `studio.models.vocabulary.align`; only with "same" all need have one.

    Raises:
        StudioError: no sources, or the first difference found: architecture, number of layers,
            hidden size, a setting of `SETTINGS`, a tensor's shape, or the vocabulary.
    """
    if not sources:
        raise StudioError("There are no models to merge; pick at least one source.")
    first, *others = members = [base, *sources] if base is not None else list(sources)
    keys = [key for key in SETTINGS if not (frame_of(members) and key in OF_THE_FRAME)]
    for other in others:
        for difference in _differences(first, other, keys):
            raise StudioError(
                f"{first.name} and {other.name} cannot be merged: {difference}; pick models "
                "fine-tuned from the same base."
            )
    if vocabulary != SAME or not others:
        return
    tokens = first.tokenizer().get_vocab()
    for other in others:
        difference = _vocabulary_difference(tokens, other.tokenizer().get_vocab())
        if difference:
            option = "base" if base is not None else "the name of a source"
            raise StudioError(
                f"{first.name} and {other.name} have different vocabularies: {difference}; match "
                f"their tokens with 'vocabulary: union' (or {option}) in the recipe, or pick "
                "models that share one tokenizer."
            )


#: Architectures whose layers can stand in any order: their blocks read through a norm and add what
#: they found to the residual stream, so that scales fold into the weights (DESIGN.md).
PATH_ARCHITECTURES = (
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM",
)  # fmt: skip
#: Settings of what surrounds the layers, which is the main model's alone, or of single layers.
_NOT_A_LAYERS = {
    "layer_types", "final_logit_softcapping", "embedding_multiplier", "logits_scaling",
    "logit_scale",
}  # fmt: skip


def check_path(sources: Sequence[Model]) -> None:
    """Check that layers of all sources can stand on one path; the first is the main model.

    Numbers of layers, vocabularies and dtypes may differ; what one configuration can hold only once
    may not.

    Raises:
        StudioError: no sources, one listed twice, an architecture whose layers cannot be
            rearranged, or the first difference found: architecture, hidden size, a setting of
            `SETTINGS`, a kind of attention the main model has no layer of, or a tensor's shape.
    """
    if not sources:
        raise StudioError("A path needs at least one source; name the models that lend layers.")
    main = sources[0]
    for source in sources:
        if source.architecture not in PATH_ARCHITECTURES:
            raise StudioError(
                f"The layers of {source.name} cannot be rearranged: a {source.architecture} is not "
                f"built of plain pre-norm blocks; pick models of one of {_list_of_path_models()}."
            )
        if source.layers < 2:
            raise StudioError(
                f"{source.name} has a single layer, and a path keeps the first and the last layer "
                "of its main model; pick a deeper model."
            )
    folders = [source.path.resolve() for source in sources]
    for index, folder in enumerate(folders):
        if folder in folders[:index]:
            raise StudioError(
                f"The source {sources[index].name} is listed twice; list each source once, its "
                "layers can be repeated anyway."
            )
    for other in sources[1:]:
        for difference in _path_differences(main, other):
            raise StudioError(
                f"Layers of {main.name} and {other.name} cannot stand on one path: {difference}; "
                "pick models that share one architecture and its settings."
            )


def _list_of_path_models() -> str:
    return ", ".join(name.removesuffix("ForCausalLM") for name in PATH_ARCHITECTURES)


def _path_differences(a: Model, b: Model) -> Iterator[str]:
    """What keeps a layer of the second from standing among those of the first, lazily."""
    if a.architecture != b.architecture:
        yield f"the first is a {a.architecture}, the second a {b.architecture}"
    beside = _NOT_A_LAYERS | (OF_THE_FRAME if a.frame else set())
    yield from _different_settings(a, b, [key for key in SETTINGS if key not in beside])
    kinds = [set(getattr(model.config, "layer_types", None) or ()) for model in (a, b)]
    if more := kinds[1] - kinds[0]:
        yield f"only the second has layers of {min(more)}, which the first cannot prepare"
    shapes = [
        {
            name.partition(".0.")[2]: model.shape(name)
            for name in model.names()
            if name.startswith("model.layers.0.")
        }
        for model in (a, b)
    ]
    yield from _different_shapes(*shapes)


def _differences(a: Model, b: Model, keys: Iterable[str]) -> Iterator[str]:
    """What differs, most telling first; lazily, since only the first is said."""
    if a.architecture != b.architecture:
        yield f"the first is a {a.architecture}, the second a {b.architecture}"
    if a.layers != b.layers:
        yield f"the first has {a.layers} layers, the second {b.layers}"
    yield from _different_settings(a, b, keys)
    # a tied head is not listed among the names, and has a shape all the same
    names = dict.fromkeys([*a.names(), *b.names()])
    yield from _different_shapes(*(_shapes(model, names) for model in (a, b)))


def _different_settings(a: Model, b: Model, keys: Iterable[str]) -> Iterator[str]:
    if a.config.hidden_size != b.config.hidden_size:
        yield (
            f"the first has hidden size {a.config.hidden_size}, the second {b.config.hidden_size}"
        )
    for key in keys:
        one, two = getattr(a.config, key, None), getattr(b.config, key, None)
        if one != two:
            yield (
                f"{SETTINGS[key]} ({key}) differs, {_said(one, two)} in the first, "
                f"{_said(two, one)} in the second"
            )


Shapes = Mapping[str, tuple[int, ...]]


def _shapes(model: Model, names: Iterable[str]) -> Shapes:
    """Shapes by name; without the rows where a row is a token's, which `align` sees to."""
    shapes, rowed = {}, token_tensors(model)
    for name in names:
        with suppress(KeyError):
            shape = model.shape(name)
            shapes[name] = shape[1:] if name in rowed else shape
    return shapes


def _different_shapes(a: Shapes, b: Shapes) -> Iterator[str]:
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            yield f"only one of them has the tensor {name}"
        elif a[name] != b[name]:
            one, two = (" × ".join(map(str, shapes[name])) for shapes in (a, b))
            yield f"{name} is {one} in the first, {two} in the second"


def _said(value: object, other: object) -> str:
    """A setting for a sentence; of a table, only the entries that the other has differently."""
    if isinstance(value, dict) and isinstance(other, dict):
        return (
            ", ".join(
                f"{key}={entry}"
                for key, entry in value.items()
                if key not in other or other[key] != entry
            )
            or "without the other's entries"
        )
    return str(value)[:200]


def _vocabulary_difference(one: dict[str, int], two: dict[str, int]) -> str | None:
    for entry_a, entry_b in zip_longest(_by_id(one), _by_id(two)):
        if entry_a != entry_b:
            differing = len(one.items() ^ two.items())
            return (
                f"the first difference is {_token(entry_a)} in the first against "
                f"{_token(entry_b)} in the second, of {differing} entries"
            )
    return None


def _by_id(vocabulary: dict[str, int]) -> list[tuple[int, str]]:
    return sorted((number, token) for token, number in vocabulary.items())


def _token(entry: tuple[int, str] | None) -> str:
    return "no further token" if entry is None else f"token {entry[0]} {entry[1][:40]!r}"
