"""The one place where our code opens a picture: bytes of unknown origin in, an RGB image out.

Knows what may be decoded (five raster formats, a number of bytes and of pixels) and says in one
sentence why anything else may not. Refuses to know what a picture is for, and where it lies beyond
its file's name: what an error says may be shown to whoever sent the picture.

Nothing is decoded before its header has been read and found within the limits.
"""

import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Largest file, in bytes.
MAX_BYTES = 20_000_000
#: Largest picture, in pixels; decoded it takes three bytes for each.
MAX_PIXELS = 40_000_000
#: How many times as long as the short side the long one may be.
MAX_RATIO = 50

#: Pillow knows some forty formats; all others of its decoders stay out of reach.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
#: How files of these formats begin: what begins so and cannot be read is damaged, not foreign.
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")
_READABLE = "PNG, JPEG, WebP, GIF or BMP"


def decode(picture: Path | bytes) -> "Image":
    """The picture as it is meant to be seen: RGB, upright, transparency on white.

    Of the embedded metadata only EXIF's orientation is heeded; colour profiles are not.

    Raises:
        StudioError: it is missing, empty, too large, damaged, animated, meant for print (CMYK), or
            of no format that can be read.
    """
    from PIL import ImageOps

    image = _load(picture)
    with suppress(Exception):  # metadata may be nonsense where the picture is not
        image = ImageOps.exif_transpose(image)
    return _rgb(image)


def check(picture: Path | bytes) -> None:
    """Raise what :func:`decode` would, in less time: JPEGs are read through at an eighth the size.

    Raises:
        StudioError: as :func:`decode`.
    """
    _load(picture, draft=True)


def read(picture: Path | bytes) -> bytes:
    """The encoded bytes of a picture, unopened but within the limit of size.

    Raises:
        StudioError: the file is missing or cannot be read, is empty, or is too large.
    """
    name = _name(picture)
    if isinstance(picture, bytes):
        data = picture
    elif picture.is_dir():
        raise StudioError(f"{name} is a folder; name a picture.")
    elif not picture.is_file():
        raise StudioError(f"There is no picture {name}; check the name of the file.")
    else:
        try:
            with picture.open("rb") as file:
                data = file.read(MAX_BYTES + 1)  # no more, even if the file grows meanwhile
        except OSError as error:
            raise StudioError(
                f"{name} cannot be read ({error.strerror}); change that, or pick another picture."
            ) from error
    if not data:
        raise StudioError(f"{name} is empty (zero bytes); pick another picture.")
    if len(data) > MAX_BYTES:
        raise StudioError(
            f"{name} is larger than {MAX_BYTES // 1_000_000} MB; save it smaller, as a JPEG say."
        )
    return data


def thumbnail(picture: Path | bytes, size: int) -> bytes:
    """The picture as PNG bytes, at most ``size`` pixels wide and high; raises as :func:`decode`."""
    image = decode(picture)
    image.thumbnail((size, size))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _load(picture: Path | bytes, draft: bool = False) -> "Image":
    """Pillow's image of the first and only frame, its pixels loaded."""
    from PIL import Image

    name, data = _name(picture), read(picture)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(name) from error
    except Exception as error:  # decoders meet damage with whatever they stumble over
        raise _unknown(name, data) from error
    _check(name, image)
    try:
        # an MPO is a phone's photograph with a second one, for depth or brightness, behind it
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        if not animated:
            if draft:
                image.draft(None, (image.width // 8, image.height // 8))
            image.load()
    except Exception as error:
        raise _damaged(name) from error
    if animated:
        raise StudioError(f"{name} is animated; save one frame of it as a picture of its own.")
    return image


def _name(picture: Path | bytes) -> str:
    """What an error calls it: the file's own name, never the folders it lies in."""
    if isinstance(picture, bytes):
        return "The picture"
    name = picture.name
    return name if len(name) <= 60 else f"{name[:40]}…{picture.suffix[:8]}"


def _check(name: str, image: "Image") -> None:
    """Refuse by what the header says."""
    short, long = sorted(image.size)
    if short * long > MAX_PIXELS:
        raise _too_many_pixels(name)
    if long > MAX_RATIO * short:
        raise StudioError(
            f"{name} is {image.width} × {image.height} pixels, too long and thin to be seen; crop "
            f"it until its long side is at most {MAX_RATIO} times the short one."
        )
    if image.mode == "CMYK":
        # Whether the values are inverted is a guess, and their colours depend on a press: a model
        # that is asked for a colour would be asked about another one.
        raise StudioError(
            f"{name} is in CMYK, the colours of printing presses; save it in RGB, as screens use."
        )


def _too_many_pixels(name: str) -> StudioError:
    return StudioError(
        f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels; save it smaller."
    )


def _damaged(name: str) -> StudioError:
    return StudioError(f"{name} is damaged or cut off; get the file again, or pick another.")


def _unknown(name: str, data: bytes) -> StudioError:
    """Why Pillow could make nothing of a file, as far as its first bytes tell."""
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head or (head.startswith(b"<?xml") and b"<svg" in data[:65536].lower()):
        return StudioError(f"{name} is an SVG drawing; save it as PNG.")
    if data[4:8] == b"ftyp":
        kind = "an AVIF" if data[8:11] == b"avi" else "a HEIC"
        return StudioError(f"{name} is {kind} picture, which cannot be read; save it as JPEG.")
    if data.startswith(_MAGIC) or (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
        return _damaged(name)
    return StudioError(
        f"{name} is no picture of a format that can be read; save it as {_READABLE}."
    )


def _rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would clip them, not scale them
        import numpy

        grey = numpy.asarray(image).astype(numpy.int64).clip(0, 65535) >> 8
        image = Image.fromarray(grey.astype(numpy.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("RGB")
