"""The gallery: the bundled pictures, in a sensible order or sorted by a word.

Knows the index that lies beside the pictures, and what likeness is measured with: the bundled
encoder or, where that is missing, the pictures' names. Refuses to know how a picture is shown and
what is asked about it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from studio.errors import StudioError
from studio.workspace import ASSETS

PICTURES = ASSETS / "pictures"
#: The artists' folders; what is asked of whoever shows their pictures is to name them.
STYLES = {
    "noto": "Noto Emoji (Apache-2.0)",
    "openmoji": "OpenMoji (CC BY-SA 4.0)",
    "fluent": "Fluent Emoji (MIT)",
    "twemoji": "Twemoji (CC BY 4.0)",
}


@dataclass(frozen=True)
class Picture:
    """One thing as one artist drew it; ``en`` and ``ja`` are its names."""

    thing: str
    style: str
    en: str
    ja: str
    culture: bool

    @property
    def path(self) -> Path:
        return PICTURES / self.style / f"{self.thing}.png"


def pictures(style: str | None = None) -> list[Picture]:
    """One picture of every thing, Japanese culture first.

    Args:
        style: an artist's folder; None lets the artists take turns.

    Raises:
        StudioError: there is no such style, or the index is missing or damaged.
    """
    if style is not None and style not in STYLES:
        raise StudioError(f"There is no style {style!r}; choose one of {', '.join(STYLES)}.")
    turns = list(STYLES) if style is None else [style]
    things = sorted(_things(), key=lambda thing: not thing["culture"])
    return [_picture(thing, turns[n % len(turns)]) for n, thing in enumerate(things)]


def search(query: str, style: str | None = None) -> tuple[list[Picture], bool]:
    """Pictures of one style, or of all, the likest to a word in English or Japanese first.

    Returns:
        the pictures; and whether the encoder has sorted them. Where there is none, those whose
        names hold the word come first.

    Raises:
        StudioError: as :func:`pictures`.
    """
    styles = list(STYLES) if style is None else [style]
    found = [picture for each in styles for picture in pictures(each)]
    try:
        order = _by_likeness(query, tuple(picture.path for picture in found))
    except (StudioError, ImportError):  # the encoder is not here, or open_clip is not
        return sorted(found, key=lambda picture: not _is_called(picture, query)), False
    return [found[index] for index in order], True


def _by_likeness(query: str, paths: Sequence[Path]) -> list[int]:
    from vlm.clip_score import rank
    from vlm.encoder import BUNDLED, Encoder

    return [index for index, _ in rank(query, paths, Encoder.open(BUNDLED))]


def _is_called(picture: Picture, query: str) -> bool:
    return query.strip().casefold() in f"{picture.en} {picture.ja} {picture.thing}".casefold()


@cache
def _things() -> list[dict]:
    index = PICTURES / "index.jsonl"
    try:
        things = [json.loads(line) for line in index.read_text("utf-8").splitlines()]
        for thing in things:
            _picture(thing, "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudioError(
            f"The index of the bundled pictures, {index.name}, is missing or damaged; get the "
            "project's assets folder again."
        ) from error
    return things


def _picture(thing: dict, style: str) -> Picture:
    return Picture(thing["id"], style, thing["en"], thing["ja"], bool(thing["culture"]))
