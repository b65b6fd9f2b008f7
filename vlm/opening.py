"""A vision-language model's folder, opened as its language model with a frame around it.

Knows how the tensors of one folder fall into two. Refuses to know other kinds of folders, and what
is made of the model.
"""

from pathlib import Path

from studio.models import documents
from studio.models.checkpoint import Checkpoint, build_skeleton, read_config, settle
from studio.models.headers import read_folder
from studio.models.model import HEAD, Model
from vlm.frame import VisionFrame
from vlm.structure import language_config, language_names, match

#: What files of older libraries hold beside the weights: buffers that are computed anew.
_BUFFERS = ("rotary_emb.inv_freq", "position_ids")


def open_folder(name: str, path: Path) -> Model:
    """Open a folder of safetensors that transformers knows as a vision-language model.

    Returns:
        its language model, with a `VisionFrame`; names, shapes and tensors are the language
        model's, so that it can be merged with others of its architecture.

    Raises:
        StudioError: as of `Checkpoint.open`; or the language model inside cannot be found.
    """
    settings = read_config(path)
    documents.refuse_code(path, ("processor_config.json", "preprocessor_config.json"))
    stored = read_folder(path)
    config, model = build_skeleton(path, settings, len(stored), documents.VISION)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    names = match({key: tensor.shape for key, tensor in stored.items()}, expected)
    for key in stored:
        if key not in names and not key.endswith(_BUFFERS):
            raise documents.bad_config(
                path / "config.json",
                f"its {type(model).__name__} has no place for the stored tensor {key[:120]!r}",
            )
    tensors, aliases = settle(path, model, {names[key]: stored[key] for key in names}, expected)

    language = language_names(model)
    head = {target for target, source in model.all_tied_weights_keys.items()
            if source == next(iter(language.values()))}  # fmt: skip
    tied = bool(head & set(aliases))
    if head and not tied:  # the configuration ties what the files hold apart
        language[HEAD] = head.pop()
    inner = config.get_text_config()
    config.tie_word_embeddings = inner.tie_word_embeddings = tied
    inside = {key: tensors[place] for key, place in language.items()}
    plain, architecture = language_config(inner, {key: t.shape for key, t in inside.items()})
    checkpoint = Checkpoint(
        name=name,
        path=path,
        config=plain,
        architecture=architecture,
        licence=documents.licence(path),
        _tensors=inside,
        _aliases={HEAD: next(iter(inside))} if tied else {},
    )
    around = {key: tensors[key] for key in tensors if key not in set(language.values())}
    called = {key: tensor.name for key, tensor in inside.items()}
    checkpoint.frame = VisionFrame(checkpoint, config, type(model).__name__, around, called)
    return checkpoint
