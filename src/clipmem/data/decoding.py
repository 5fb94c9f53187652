"""Decode images to uint8 squares, checking their headers first.

Preprocessing is open_clip's (by default shortest side to `size`, bicubic, center crop): opaque RGB, RGBA, CMYK and gray
images give the same bytes. Four things differ on purpose: EXIF orientation is applied, transparency becomes white,
palettes and bitmaps are resized as colors, and 16-bit gray is scaled to 8 bits rather than clipped.

When not to trust it: color profiles are ignored, as in open_clip.
"""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Generator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from clipmem.base.errors import InputError, shorten

FORMATS = ("WEBP", "PNG", "JPEG", "GIF", "BMP", "TIFF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20

# reasons, counted over records
EMPTY = "empty file"
MANY_BYTES = "too many bytes"
MANY_PIXELS = "too many pixels"
UNKNOWN = "not an image of a known format"
TRUNCATED = "truncated image"
DAMAGED = "damaged image"
SCALE = "samples without a known scale"

_MAGIC = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF",
    b"BM": "BMP", b"II*\x00": "TIFF", b"MM\x00*": "TIFF",
}  # fmt: skip
_TILE_SIDES = (322, 323)  # TIFF tags: a tile may be larger than its image
_BITS_PER_SAMPLE = 258
_TURNS = dict(enumerate((
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
), start=2))  # fmt: skip
# raised by Pillow's readers on broken files
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error,
    OverflowError, MemoryError, AttributeError, NotImplementedError, ZeroDivisionError, RuntimeError,
)  # fmt: skip
ResizeMode = Literal["shortest", "squash", "longest"]
Interpolation = Literal["bicubic", "bilinear"]


class Geometry(NamedTuple):
    """Resizing to a square, with open_clip's names.

    Attributes:
        size: Side of the square, in pixels.
        resize_mode: `shortest` scales the shorter side to `size` and crops the center; `squash` scales both sides to
            `size`; `longest` scales the longer side to `size` and pads with black.
        interpolation: Resampling filter.
    """

    size: int
    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"

    @property
    def name(self) -> str:
        """A short name for files, without the defaults."""
        values = self._asdict().items()
        return "-".join(f"{value}" for name, value in values if value != self._field_defaults.get(name))


class DecodeError(InputError):
    """An image that cannot be used."""

    def __init__(self, name: str, reason: str, *, got: str, expected: str = "", hint: str) -> None:
        super().__init__(name, got=got, expected=expected, hint=hint)
        self.reason = reason


class Header(NamedTuple):
    """Format and stored size of an image, in pixels."""

    format: str
    width: int
    height: int


def decode(
    data: bytes,
    size: int,
    *,
    name: str = "image",
    resize_mode: ResizeMode = "shortest",
    interpolation: Interpolation = "bicubic",
) -> UInt8[np.ndarray, "size size 3"]:
    """Decode one image to RGB; for an animation, its first frame."""
    geometry = Geometry(size, resize_mode, interpolation)
    with _opened(data, name) as image:
        image.load()
        return np.array(_square(_upright(_colors(image), image), geometry).convert("RGB"))


def shrink(data: bytes, size: int, *, name: str = "image") -> Image.Image:
    """Decode one image for showing it: RGB, upright, its longest side at most `size`, never enlarged."""
    with _opened(data, name) as image:
        image.draft("RGB", (2 * size, 2 * size))  # JPEG decodes at a half, a quarter or an eighth
        image.load()
        thumbnail = _upright(_colors(image), image).convert("RGB")
        thumbnail.thumbnail((size, size))
        return thumbnail


def read_header(data: bytes, *, name: str = "image") -> Header:
    """Check an image and read its size without decoding pixels."""
    with _opened(data, name) as image:
        return Header(image.format or "", image.width, image.height)


@contextlib.contextmanager
def _opened(data: bytes, name: str) -> Generator[Image.Image]:
    """Read an image's header; refuse what cannot be used, and convert Pillow's errors to `DecodeError`."""
    if not data:
        raise DecodeError(name, EMPTY, got="0 bytes", expected="an image", hint="Remove or replace that image.")
    if len(data) > MAX_BYTES:
        got, expected = f"{len(data):,} bytes", f"at most {MAX_BYTES:,}"
        raise DecodeError(name, MANY_BYTES, got=got, expected=expected, hint="Remove that image.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of broken EXIF and of its own size limit
            warnings.simplefilter("ignore")
            yield _usable(Image.open(io.BytesIO(data), formats=FORMATS), name)
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except DecodeError:
        raise
    except _BROKEN as error:
        raise _broken(data, name, error) from error


def image_format(data: bytes) -> str:
    """Return the format of an image by its first bytes: JPEG, PNG, GIF, WEBP, BMP, TIFF or ""."""
    if data.startswith(b"RIFF"):
        return "WEBP" if data[8:12] == b"WEBP" else ""
    for magic, form in _MAGIC.items():  # faster than a generator
        if data.startswith(magic):
            return form
    return ""


def _usable(image: Image.Image, name: str) -> Image.Image:
    """Refuse too many pixels and samples without a known scale."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,)) if image.mode.startswith("I;16") else ()
    wide = image.mode in {"I", "F"} and image.format != "PNG"  # PNG has 16 bits in any mode
    if wide or (bits and tuple(bits) != (16,)):
        got = f"gray of mode {image.mode}{f' with {bits[0]} bits' if bits else ''}"
        expected, hint = "8 bits or unsigned 16 bits per sample", "Save it with 8 bits per sample."
        raise DecodeError(name, SCALE, got=got, expected=expected, hint=hint)
    tile = [int(tags.get(tag, 0)) for tag in _TILE_SIDES]
    for unit, (width, height) in (("pixels", image.size), ("pixels in a tile", tile)):
        if width * height > MAX_PIXELS:
            raise _too_large(name, f"{width} x {height} {unit}")
    return image


def _too_large(name: str, got: str) -> DecodeError:
    expected = f"at most {MAX_PIXELS:,} pixels in total"
    return DecodeError(name, MANY_PIXELS, got=got, expected=expected, hint="Scale it down or remove it.")


def _broken(data: bytes, name: str, error: BaseException) -> DecodeError:
    form, reason = image_format(data), DAMAGED
    # a file that does not decode may lack its end: bytes that it states, or its format's end marker
    stated = {"WEBP": int.from_bytes(data[4:8], "little") + 8, "BMP": int.from_bytes(data[2:6], "little")}
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x3b"}.get(form, b"")
    is_cut_off = len(data) < stated.get(form, 0) or end not in data[-64:]
    # any text may begin with BM: bitmaps also have zeros in the reserved bytes of the header
    if not form or (form == "BMP" and data[6:10] != bytes(4)):
        reason = UNKNOWN
    elif "truncated" in str(error).lower() or is_cut_off:
        reason = TRUNCATED
    got = f"{len(data):,} bytes that do not decode ({shorten(str(error))})"
    expected = f"an image: {', '.join(FORMATS)}"
    return DecodeError(name, reason, got=got, expected=expected, hint="Remove or replace that image.")


def _colors(image: Image.Image) -> Image.Image:
    """Convert any mode to one that can be resized, with transparency as white."""
    if image.mode == "CMYK":  # open_clip resizes before it converts
        return image
    if image.mode.startswith("I"):
        # 16-bit gray to 8 bits: v * 255 / 65535, rounded. Pillow's own conversion would clip at 255
        values, hidden = np.asarray(image), image.info.get("transparency")
        gray = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
        gray = np.where(values == hidden, np.uint8(255), gray) if isinstance(hidden, int) else gray
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of the loaded image; unreadable EXIF is ignored."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN:
        return pixels
    return pixels if turn is None else pixels.transpose(turn)


def _square(image: Image.Image, geometry: Geometry) -> Image.Image:
    size, mode, _ = geometry
    resampling = Image.Resampling[geometry.interpolation.upper()]
    if mode == "squash":
        return image if image.size == (size, size) else image.resize((size, size), resampling)
    if mode == "longest":
        ratio = max(image.size) / size
        image = image.resize((max(1, round(image.width / ratio)), max(1, round(image.height / ratio))), resampling)
        square = Image.new(image.mode, (size, size))
        square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        return square
    short = min(image.size)
    if short != size:
        # as torchvision's Resize: the long side is truncated, not rounded
        width, height = (size if side == short else int(size * side / short) for side in image.size)
        image = image.resize((width, height), resampling)
    x, y = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((x, y, x + size, y + size))
