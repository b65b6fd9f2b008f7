"""Whether models can be merged with one another, and if not, the first reason in a sentence.

It compares opened checkpoints: form, the settings that one configuration can hold only once, and
vocabularies. It reads no weights and knows nothing about merge methods.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from studio.errors import StudioError
from studio.models.checkpoint import Checkpoint

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


def check_compatible(base: Checkpoint | None, sources: Sequence[Checkpoint]) -> None:
    """Check that all sources, and the base if there is one, can be merged with one another.

    Everything is compared with the base or, without one, with the first source. Dtypes may differ,
    and so may tying: a merge of tied and untied models is untied.

    Raises:
        StudioError: no sources, or the first difference found: architecture, number of layers,
            hidden size, a setting of `SETTINGS`, a tensor's shape, or the vocabulary.
    """
    if not sources:
        raise StudioError("There are no models to merge; pick at least one source.")
    first, *others = [base, *sources] if base is not None else list(sources)
    for other in others:
        for difference in _differences(first, other):
            raise StudioError(
                f"{first.name} and {other.name} cannot be merged: {difference}; pick models "
                "fine-tuned from the same base."
            )
    vocabulary = first.tokenizer().get_vocab()
    for other in others:
        difference = _vocabulary_difference(vocabulary, other.tokenizer().get_vocab())
        if difference:
            raise StudioError(
                f"{first.name} and {other.name} have different vocabularies: {difference}; pick "
                "models that share one tokenizer."
            )


def _differences(a: Checkpoint, b: Checkpoint) -> Iterator[str]:
    """What differs, most telling first; lazily, since only the first is said."""
    if a.architecture != b.architecture:
        yield f"the first is a {a.architecture}, the second a {b.architecture}"
    if a.layers != b.layers:
        yield f"the first has {a.layers} layers, the second {b.layers}"
    if a.config.hidden_size != b.config.hidden_size:
        yield (
            f"the first has hidden size {a.config.hidden_size}, the second {b.config.hidden_size}"
        )
    for key, words in SETTINGS.items():
        one, two = getattr(a.config, key, None), getattr(b.config, key, None)
        if one != two:
            yield (
                f"{words} ({key}) differs, {_said(one, two)} in the first, {_said(two, one)} in "
                "the second"
            )
    names = dict.fromkeys([*a.names(), *b.names()])
    for name in names:
        shapes = []
        for checkpoint in (a, b):
            try:
                shapes.append(checkpoint.shape(name))
            except KeyError:
                yield f"only one of them has the tensor {name}"
        if shapes[0] != shapes[1]:
            one, two = (" × ".join(map(str, shape)) for shape in shapes)
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
