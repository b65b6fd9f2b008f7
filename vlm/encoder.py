"""Contrastive encoders: pictures and texts in, vectors of one space out, by open_clip.

Knows where encoders come from and which files of theirs may be opened; refuses to know what their
vectors are compared for. An encoder is a folder as open_clip writes it (``open_clip_config.json``,
``open_clip_model.safetensors``, a tokenizer), bundled or the user's own; a hub repository of that
form; or one of open_clip's pretrained tags, which are such repositories.

open_clip by itself would fall back to pickled weights wherever it finds no safetensors, and hand a
configuration's wish for remote code to transformers. Neither happens here.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.models import hub
from studio.models.headers import PICKLED
from studio.workspace import ASSETS
from vlm import pictures

if TYPE_CHECKING:
    import numpy as np
    import torch

#: The encoder that comes with the project.
BUNDLED = "bonsai-clip"

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
#: How many pictures and how many texts are encoded together.
PICTURES, TEXTS = 32, 256
#: How many vectors of each are remembered.
REMEMBERED = 20_000

_opened: dict[str, "Encoder"] = {}
_opening = Lock()


class Encoder:
    """An open_clip model on the CPU, in fp32, with its picture transform and its tokenizer.

    Vectors are remembered by content, so that the pictures of a task are encoded once a process.
    One encoder may serve several threads; they wait for each other.

    >>> encoder = Encoder.open("bonsai-clip")
    >>> seen = encoder.pictures([Path("torii.png")])
    >>> encoder.texts(["鳥居", "寿司"]) @ seen[0]  # cosines

    Attributes:
        width: the number of dimensions of a vector.
    """

    def __init__(self, model, transform, tokenizer):
        self._model, self._transform, self._tokenizer = model.eval(), transform, tokenizer
        self._pictures: dict[str, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}
        self._busy = Lock()
        self.width = self.texts([""]).shape[1]

    @classmethod
    def open(cls, name: str | Path) -> "Encoder":
        """The encoder called ``name``, opened once a process.

        ``name`` is ``bonsai-clip``, a folder, an architecture and a pretrained tag of open_clip
        (``ViT-B-32/laion2b_s34b_b79k``), or a hub id (``llm-jp/llm-jp-clip-vit-base-patch16``).
        It stays on the CPU, where it takes nothing from the models that are being evolved.

        Raises:
            StudioError: there is none of that name, it cannot be had, or it has no safetensors.
        """
        with _opening:
            if str(name) not in _opened:
                _opened[str(name)] = _open(str(name))
            return _opened[str(name)]

    def pictures(self, items: Sequence[Path | bytes]) -> "np.ndarray":
        """Unit vectors of pictures: float32 [n, width].

        Raises:
            StudioError: one of them cannot be decoded, see :mod:`vlm.pictures`.
        """
        keys = [hashlib.sha256(pictures.read(item)).hexdigest() for item in items]
        return self._vectors(keys, items, self._encode_pictures, self._pictures, PICTURES)

    def texts(self, items: Sequence[str]) -> "np.ndarray":
        """Unit vectors of texts, cut off where the model's context ends: float32 [n, width]."""
        clean = [text.encode("utf-8", "replace").decode() for text in items]  # no lone surrogates
        return self._vectors(clean, clean, self._encode_texts, self._texts, TEXTS)

    def _encode_pictures(self, batch: list[Path | bytes]) -> "torch.Tensor":
        import torch

        seen = [self._transform(pictures.decode(item)) for item in batch]
        return self._model.encode_image(torch.stack(seen))

    def _encode_texts(self, batch: list[str]) -> "torch.Tensor":
        return self._model.encode_text(self._tokenizer(batch))

    def _vectors(
        self,
        keys: Sequence[str],
        items: Sequence,
        encode: "Callable[[list], torch.Tensor]",
        remembered: "dict[str, np.ndarray]",
        size: int,
    ) -> "np.ndarray":
        """The vectors of items, which are ``encode``d where their keys are not ``remembered``."""
        import numpy as np
        import torch

        if not keys:
            return np.empty((0, self.width), np.float32)
        with self._busy, torch.inference_mode():
            given = dict(zip(keys, items, strict=True))
            new = [key for key in given if key not in remembered]
            for start in range(0, len(new), size):
                batch = new[start : start + size]
                vectors = encode([given[key] for key in batch]).float()
                vectors = torch.nn.functional.normalize(vectors, dim=-1).numpy()
                remembered.update(zip(batch, vectors, strict=True))
            result = np.stack([remembered[key] for key in keys])
            for key in list(remembered)[: max(0, len(remembered) - REMEMBERED)]:
                del remembered[key]  # the oldest
            return result


def _open(name: str) -> Encoder:
    import open_clip

    name = name.removeprefix("hf-hub:").removeprefix("local-dir:")  # as open_clip's users write
    folder = ASSETS / "clip" / name if name == BUNDLED else Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(name, folder)
    if name == BUNDLED:
        raise StudioError(
            f"The bundled encoder {folder} is missing; get the project's assets folder again."
        )
    architecture, slash, rest = name.partition("/")
    if architecture in open_clip.list_models():
        return _from_tag(architecture, rest)
    if slash and rest and "/" not in rest and not name.startswith((".", "~")):
        return _from_hub(name)
    raise StudioError(
        f"There is no encoder {name!r}; write {BUNDLED}, a folder that open_clip wrote, an "
        "architecture and a tag such as ViT-B-32/laion2b_s34b_b79k, or a hub id."
    )


def _from_folder(name: str, folder: Path, tokenizer: str | None = None) -> Encoder:
    """A folder as open_clip writes it; ``tokenizer`` is where its tokenizer is, if not there."""
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))["model_cfg"]
        text = dict(config["text_cfg"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudioError(
            f"{name} has no {CONFIG} that says what model it is; name a folder or repository that "
            "open_clip wrote."
        ) from error
    if not (folder / WEIGHTS).is_file():
        raise _no_safetensors(name, [file.name for file in folder.iterdir()])
    schema = f"local-dir:{folder}"
    return _made(name, text, schema, tokenizer or schema)


def _from_hub(name: str) -> Encoder:
    folder = _fetch(name, CONFIG).parent
    _fetch(name, WEIGHTS)
    return _from_folder(name, folder, tokenizer=f"hf-hub:{name}")


def _from_tag(architecture: str, tag: str) -> Encoder:
    import open_clip

    settings = open_clip.get_pretrained_cfg(architecture, tag)
    # "owner/name/" or "owner/name/file.bin", beside which the safetensors lie under the same name
    repository, _, file = settings.get("hf_hub", "").rpartition("/")
    if not repository:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        known = f"choose one of {', '.join(tags)}" if tags else "choose another architecture"
        what = "is to be had as pickled weights only, which are refused" if settings else "is none"
        raise StudioError(f"Of open_clip's {architecture} the tag {tag!r} {what}; {known}.")
    weights = _fetch(repository, f"{Path(file).stem}.safetensors" if file else WEIGHTS)
    looks = ("mean", "std", "interpolation", "resize_mode")
    return _made(
        f"{architecture}/{tag}",
        open_clip.get_model_config(architecture)["text_cfg"],
        architecture,
        architecture,
        pretrained=str(weights),
        force_quick_gelu=bool(settings.get("quick_gelu")),
        **{f"image_{look}": settings.get(look) for look in looks},
    )


def _made(name: str, text: dict, model: str, tokenizer: str, **options) -> Encoder:
    """The encoder of open_clip's names for a model and a tokenizer, once nothing can go amiss."""
    import open_clip

    _refuse_code(name, text)
    safely = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
    try:
        return Encoder(
            *open_clip.create_model_from_pretrained(model, **options),
            open_clip.get_tokenizer(tokenizer, **safely),
        )
    except Exception as error:  # open_clip, timm and transformers raise what they like
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudioError(
            f"{name} cannot be opened as an open_clip model ({reason[:200]}); get it again, or "
            "choose another."
        ) from error


def _refuse_code(name: str, text: dict) -> None:
    """StudioError if a text tower or a tokenizer would run code, or unpickle, what is fetched."""
    wishes = text.get("tokenizer_kwargs") or {}
    refused = StudioError(
        f"{name} wants to run code that comes with it, which is refused; choose another encoder."
    )
    if wishes.get("trust_remote_code") or wishes.get("reduction_mask") == "syntax":
        raise refused  # the syntax mask fetches NLTK's pickled taggers
    if tower := text.get("hf_model_name"):
        from transformers import AutoConfig

        try:
            AutoConfig.from_pretrained(tower, trust_remote_code=False)
        except ValueError as error:
            raise refused from error
        except OSError as error:
            raise StudioError(
                f"The configuration of {name}'s text tower, {tower}, could not be had from the "
                "hub; connect to the internet, or choose another encoder."
            ) from error


def _fetch(repository: str, file: str) -> Path:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return hub.download(repository, None, file)
    except StudioError as error:
        if isinstance(error.__cause__, RemoteEntryNotFoundError) and file != CONFIG:
            raise _no_safetensors(repository, []) from error
        raise


def _no_safetensors(name: str, files: Sequence[str]) -> StudioError:
    pickled = any(file.endswith(PICKLED) for file in files)
    what = "only pickled weights, which can run code when read and are refused" if pickled else ""
    return StudioError(
        f"{name} has no {WEIGHTS}{f', {what}' if what else ''}; choose an encoder with safetensors."
    )
