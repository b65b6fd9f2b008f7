"""Pictures: emoji of several artists, drawn on white squares, and their names in two languages.

Knows the npm packages, their licences, and how several of a thing are laid out on one canvas;
knows no task and no model. `bundle` writes assets/pictures, `library` gives every emoji of every
training style to whoever trains a tower.

Needs npm and, for drawings that come as SVG, `pip install resvg_py`.
"""

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import world
from PIL import Image

WORK = Path(__file__).resolve().parents[1] / "unfinished" / "vlm"
SIZE, DRAWN = 72, 64  # pixels: the canvas, and the drawing in its middle
BUNDLED = ("noto", "openmoji", "fluent", "twemoji")
HELD_OUT = "twemoji"  # seen by no training and by no dev example
NAMES = "emojibase-data-17.0.0"
THINGS = (3, 4, 5, 6, 7)  # CLDR: animals and nature, food, travel, activities, objects

# style → npm package and where in it the drawings are
PACKAGES = {
    "noto": ("emoji-datasource-google-16.0.0", "package/img/google/64/"),
    "openmoji": ("openmoji-17.0.0", "package/color/svg/"),
    "fluent": ("fluentui-emoji-1.3.0", "package/icons/modern/"),
    "twemoji": ("emoji-datasource-twitter-16.0.0", "package/img/twitter/64/"),
    # these four only help to train the tower
    "fluent-flat": ("fluentui-emoji-1.3.0", "package/icons/flat/"),
    "openmoji-black": ("openmoji-17.0.0", "package/black/svg/"),
    "noto-2018": ("emoji-datasource-google-4.1.0", "package/img/google/64/"),
    "emojione": ("emojione-2.2.7", "package/assets/png/"),
}
# copies of one drawing: the middle of each in parts of the canvas, and their size in pixels
LAYOUTS = {
    2: (32, ((0.27, 0.5), (0.73, 0.5))),
    3: (30, ((0.5, 0.27), (0.27, 0.73), (0.73, 0.73))),
    4: (30, ((0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73))),
    5: (24, ((0.2, 0.2), (0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (0.8, 0.8))),
}


def key_of(emoji: str) -> str:
    """An emoji's code points without the variation selector: "26e9", "1f1ef-1f1f5"."""
    return "-".join(f"{ord(c):04x}" for c in emoji if ord(c) != 0xFE0F)


def package(name: str) -> Path:
    """The tarball of an npm package, fetched once."""
    folder = WORK / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    tarball = folder / f"{name}.tgz"
    if not tarball.exists():
        subprocess.run(
            ["npm", "pack", "@".join(name.rsplit("-", 1))], cwd=folder, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return tarball


@cache
def names() -> dict[str, tuple[str, list[str], str, list[str]]]:
    """key → (English label, its tags, Japanese label, its tags), of things alone."""
    ours = {key_of(thing.emoji) for thing in world.things()}
    labels = {}
    with tarfile.open(package(NAMES)) as archive:
        for language in ("en", "ja"):
            rows = json.load(archive.extractfile(f"package/{language}/data.json"))
            labels[language] = {row["hexcode"]: row for row in rows}
    found = {}
    for code, row in labels["en"].items():
        twin = labels["ja"].get(code, row)
        key = key_of(row["emoji"])
        if row.get("group") not in THINGS and key not in ours:
            continue
        found[key] = (
            row["label"], row.get("tags", []), twin["label"], twin.get("tags", []),
        )  # fmt: skip
    found[key_of("🎌")] = ("crossed flags", ["japanese"], "祝日", ["日の丸", "旗"])
    return found


def canvas(drawing: Image.Image) -> Image.Image:
    """A drawing with transparency (RGBA) in the middle of a white square, RGB."""
    drawing = drawing.convert("RGBA")
    if max(drawing.size) != DRAWN:
        drawing = drawing.resize((DRAWN, DRAWN), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", (SIZE, SIZE), "white")
    edge = (SIZE - DRAWN) // 2
    white.alpha_composite(drawing, (edge, edge))
    return white.convert("RGB")


def several(picture: Image.Image, count: int) -> Image.Image:
    """`count` (2 to 5) small copies of a picture on one canvas."""
    size, places = LAYOUTS[count]
    small = picture.resize((size, size), Image.Resampling.LANCZOS)
    out = Image.new("RGB", picture.size, "white")
    for x, y in places:
        out.paste(small, (round(x * SIZE - size / 2), round(y * SIZE - size / 2)))
    return out


def draw(style: str) -> Iterator[tuple[str, Image.Image]]:
    """Every (key, picture) that a style has a drawing and CLDR a name for."""
    name, folder = PACKAGES[style]
    slugs = {_slug(label): key for key, (label, *_) in names().items()}
    with tarfile.open(package(name)) as archive:
        for member in archive:
            if not member.name.startswith(folder) or not member.isfile():
                continue
            stem, suffix = member.name.removeprefix(folder).rsplit(".", 1)
            if "/" in stem or suffix not in ("png", "svg"):
                continue
            if style.startswith("fluent"):
                key = slugs.get(stem, slugs.get(stem.removesuffix("-default"), ""))
            else:
                key = "-".join(part for part in stem.lower().split("-") if part != "fe0f")
            if key not in names():
                continue
            data = archive.extractfile(member).read()
            if suffix == "svg":
                import resvg_py

                data = bytes(resvg_py.svg_to_bytes(data.decode(), width=DRAWN, height=DRAWN))
            yield key, canvas(Image.open(io.BytesIO(data)))


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "").replace("'", "")).strip("-")


@cache
def library(style: str) -> dict[str, np.ndarray]:
    """key → picture uint8 [72, 72, 3], drawn once and then kept as an .npz file."""
    file = WORK / "pictures" / f"{style}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn = dict(draw(style))
        stack = np.stack([np.array(picture) for picture in drawn.values()])
        np.savez_compressed(file, keys=np.array(list(drawn)), pictures=stack)
    with np.load(file) as saved:
        return dict(zip(saved["keys"].tolist(), saved["pictures"], strict=True))


def bundle(out: Path) -> None:
    """Write assets/pictures: <style>/<id>.png, counted things as <id>-<n>.png, and index.jsonl."""
    tasks = [thing for thing in world.things() if thing.part != "practice"]
    for style in BUNDLED:
        folder = out / style
        folder.mkdir(parents=True, exist_ok=True)
        for thing in tasks:
            picture = Image.fromarray(library(style)[key_of(thing.emoji)])
            _save(picture, folder / f"{thing.id}.png")
            if thing.id in world.COUNTED:
                for count in world.COUNT_WORDS:
                    _save(several(picture, count), folder / f"{thing.id}-{count}.png")
    rows = [
        {"id": t.id, "emoji": t.emoji, "en": t.en, "ja": t.ja, "culture": t.culture} for t in tasks
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "index.jsonl").write_text(text, encoding="utf-8", newline="\n")


def _save(picture: Image.Image, file: Path) -> None:
    picture.quantize(128, dither=Image.Dither.NONE).convert("RGB").save(file, optimize=True)
