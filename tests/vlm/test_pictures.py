"""Pictures: what is decoded comes out as it is meant to be seen, and the rest is one sentence."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from studio.errors import StudioError
from vlm import pictures

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """Colours that no run of equal bytes can stand for."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG whose header may promise what its data does not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def sentence(picture) -> str:
    """What is said of a picture that is refused: one sentence, by `check` and by `decode` alike."""
    with pytest.raises(StudioError) as refused:
        pictures.decode(picture)
    with pytest.raises(StudioError) as checked:
        pictures.check(picture)
    said = str(refused.value)
    assert said == str(checked.value)
    assert said.endswith(".") and "\n" not in said and ". " not in said
    return said


# ── what is seen ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_keep_every_pixel(format, tmp_path):
    image = noise()
    data = encoded(image, format, **({"lossless": True} if format == "WEBP" else {}))
    (tmp_path / "picture").write_bytes(data)
    for picture in (data, tmp_path / "picture"):  # the name of a file says nothing
        seen = pictures.decode(picture)
        assert seen.mode == "RGB" and seen.size == (40, 30)
        assert np.array_equal(seen, image)
    pictures.check(data)


def test_a_jpeg_keeps_its_colours():
    seen = pictures.decode(encoded(Image.new("RGB", (40, 30), (200, 40, 90)), "JPEG"))
    assert np.abs(np.asarray(seen).astype(int) - (200, 40, 90)).max() <= 3


def test_a_gif_of_one_frame_is_a_picture():
    seen = pictures.decode(encoded(Image.new("RGB", (8, 6), RED), "GIF"))
    assert seen.size == (8, 6) and seen.getpixel((4, 3)) == RED


def test_exif_turns_a_photograph_upright():
    image = Image.new("RGB", (40, 20), WHITE)
    image.paste(RED, (0, 0, 20, 20))  # red on the left …
    exif = Image.Exif()
    exif[0x0112] = 6  # … of what is to be turned by 90° clockwise
    for format in ("PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        seen = pictures.decode(encoded(image, format, exif=exif, **options))
        assert seen.size == (20, 40)
        assert seen.getpixel((10, 5)) == RED and seen.getpixel((10, 35)) == WHITE
    assert pictures.decode(encoded(image, "JPEG", exif=exif)).size == (20, 40)


def test_nonsense_in_the_metadata_hides_no_picture():
    for exif in (b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff", b"Exif\x00\x00II" + b"\xff" * 30):
        assert pictures.decode(encoded(noise(), "JPEG", exif=exif)).size == (40, 30)


def test_transparency_is_white_whatever_says_so():
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    grey = Image.new("LA", (4, 4), (0, 0))
    palette = clear.quantize(4)
    for picture in (encoded(clear), encoded(clear, "WEBP", lossless=True), encoded(palette)):
        seen = pictures.decode(picture)
        assert seen.getpixel((0, 0)) == RED and seen.getpixel((2, 2)) == WHITE
    assert pictures.decode(encoded(half)).getpixel((0, 0)) == pytest.approx((255, 127, 127), abs=1)
    assert pictures.decode(encoded(grey)).getpixel((1, 1)) == WHITE
    one = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3))
    assert pictures.decode(one).getpixel((1, 1)) == WHITE


def test_sixteen_bits_of_grey_are_scaled():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    seen = np.asarray(pictures.decode(encoded(Image.fromarray(ramp))))
    assert np.array_equal(seen[..., 0], ramp >> 8) and np.array_equal(seen[..., 0], seen[..., 2])


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_every_mode_comes_out_as_rgb(mode):
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (4, 0, 8, 8))
    seen = pictures.decode(encoded(image.convert(mode)))
    assert seen.mode == "RGB"
    assert seen.getpixel((1, 1)) == (0, 0, 0) and seen.getpixel((6, 1)) == WHITE


def test_a_phones_photograph_with_a_second_one_behind_it_is_the_first():
    data = encoded(
        Image.new("RGB", (32, 32), RED),
        "MPO",
        save_all=True,
        append_images=[Image.new("RGB", (32, 32), "blue")],
    )
    red, _, blue = pictures.decode(data).getpixel((16, 16))
    assert red > 240 and blue < 15


def test_thumbnails_fit_and_keep_their_proportions():
    small = Image.open(io.BytesIO(pictures.thumbnail(encoded(noise(400, 100)), 64)))
    assert small.format == "PNG" and small.size == (64, 16)
    assert Image.open(io.BytesIO(pictures.thumbnail(encoded(noise(8, 8)), 64))).size == (8, 8)


# ── what is refused ───────────────────────────────────────────────────────────────────────────


def test_files_that_are_not_there_or_cannot_be_read(tmp_path):
    inner = tmp_path / "secret-folder"
    inner.mkdir()
    missing, empty, closed = (inner / f"{name}.png" for name in ("missing", "empty", "closed"))
    empty.touch()
    assert sentence(missing).startswith("There is no picture missing.png;")
    assert sentence(empty) == "empty.png is empty (zero bytes); pick another picture."
    assert sentence(inner) == "secret-folder is a folder; name a picture."
    assert sentence(b"").startswith("The picture is empty")
    if os.name != "nt" and os.geteuid() != 0:
        closed.write_bytes(encoded(noise()))
        closed.chmod(0)
        assert "closed.png cannot be read (Permission denied)" in sentence(closed)
    if hasattr(os, "mkfifo"):  # reading one would wait for ever
        os.mkfifo(inner / "pipe.png")
        assert "no picture pipe.png" in sentence(inner / "pipe.png")


def test_an_error_names_the_file_and_never_its_folders(tmp_path):
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    long = folder / f"{'x' * 200}.png"
    for data in (b"", b"text", encoded(noise())[:200], png(60_000, 60_000), b"<svg/>"):
        long.write_bytes(data)
        said = sentence(long)
        assert "secret-folder" not in said and "/" not in said
        assert said.startswith("xxxx") and len(said) < 200


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.95])
def test_what_is_cut_off_is_damaged(format, part):
    data = encoded(noise(60, 60), format)
    assert "is damaged or cut off" in sentence(data[: int(len(data) * part)])


def test_flipped_bits_in_a_png_are_damage():
    data = bytearray(encoded(noise()))
    data[len(data) // 2] ^= 0xFF
    assert "is damaged or cut off" in sentence(bytes(data))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=8),
)
def test_any_damage_is_a_picture_or_a_sentence(format, flips):
    data = bytearray(encoded(noise(16, 16), format))
    for place, bits in flips:
        data[place % len(data)] ^= bits
    try:
        assert pictures.decode(bytes(data)).mode == "RGB"
    except StudioError as error:
        assert str(error).endswith(".") and ". " not in str(error)


def test_too_many_bytes(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(pictures.MAX_BYTES + 1)
    assert sentence(path).startswith("large.png is larger than 20 MB;")
    with path.open("wb") as file:
        file.truncate(200 * 2**30)  # sparse, and never read whole
    assert sentence(path).startswith("large.png is larger than 20 MB;")


@pytest.mark.parametrize("size", [(8_000, 5_001), (12_000, 12_000), (60_000, 60_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_a_header_promises_is_refused_before_it_is_unpacked(size):
    """Some hundred bytes each, of which the largest would fill 10 GB."""
    bomb = png(*size)
    gif = b"GIF89a" + struct.pack("<HH", *size) + b"\x80\x00\x00" + b"\x00" * 6 + b","
    gif += struct.pack("<HHHH", 0, 0, *size) + b"\x00\x02\x02\x4c\x01\x00;"
    bmp = bytearray(encoded(noise(2, 2), "BMP"))
    bmp[18:26] = struct.pack("<ii", *size)
    for picture in (bomb, gif, bytes(bmp)):
        assert len(picture) < 200
        assert sentence(picture) == (
            "The picture has more than 40 million pixels; save it smaller."
        )


def test_as_many_pixels_as_allowed_are_decoded():
    wide = png(2_000, 1_000, b"\0" * (1_000 * (1 + 3 * 2_000)))
    assert pictures.decode(wide).size == (2_000, 1_000)


def test_text_that_unpacks_to_much_is_damage():
    """A compressed comment is no way around the limits."""
    comment = b"Comment\0\0" + zlib.compress(b"\0" * 200_000_000, 9)
    chunk = struct.pack(">I", len(comment)) + b"zTXt" + comment
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + comment))
    data = encoded(noise())
    assert "is damaged or cut off" in sentence(data[:33] + chunk + data[33:])


def test_what_is_too_thin_to_be_seen():
    pictures.decode(encoded(Image.new("RGB", (500, 10))))
    assert "is 10 × 501 pixels, too long and thin" in sentence(encoded(Image.new("RGB", (10, 501))))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert sentence(data).startswith("The picture is animated; save one frame")


def test_colours_of_printing_presses_are_refused():
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert "is in CMYK, the colours of printing presses" in sentence(encoded(cyan, "JPEG"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing; save it as PNG."),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a -->\n<SVG/>", "is an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, "is a HEIC picture"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + b"\0" * 40, "is an AVIF picture"),
        (b"<?xml version='1.0'?><html/>", "is no picture of a format that can be read"),
        (b"just text", "is no picture of a format that can be read"),
        (b"%PDF-1.7", "is no picture of a format that can be read"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "is no picture of a format that can be read"),
        (encoded(noise(), "TIFF"), "is no picture of a format that can be read"),
        (encoded(noise(), "PPM"), "is no picture of a format that can be read"),
        (b"\0" * 500, "is no picture of a format that can be read"),
    ],
    ids=["svg", "xml svg", "heic", "avif", "xml", "text", "pdf", "wav", "tiff", "ppm", "zeros"],
)
def test_other_formats(data, said):
    assert said in sentence(data)
