"""Families of tiny vision-language models, and pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vlm.families import make_family


@pytest.fixture(scope="session")
def vlm_factory(tmp_path_factory) -> Callable[..., Path]:
    """`vlm_factory("llava", tied=True)` → a folder with base, ja and vlm; made once. Read-only."""
    made: dict[tuple, Path] = {}

    def factory(kind: str, *, tied: bool = False) -> Path:
        if (kind, tied) not in made:
            made[kind, tied] = make_family(kind, tmp_path_factory.mktemp(kind), tied=tied)
        return made[kind, tied]

    return factory


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    """Three pictures of different shapes: square, wide and high."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("pictures")
    files = []
    for number, (size, colour) in enumerate(
        [((40, 40), "red"), ((90, 40), "green"), ((30, 100), "blue")]
    ):
        picture = Image.new("RGB", size, "white")
        ImageDraw.Draw(picture).ellipse((5, 5, size[0] // 2, size[1] // 2), fill=colour)
        files.append(folder / f"{number}.png")
        picture.save(files[-1])
    return files
