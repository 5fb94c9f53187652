"""From encoded pictures to uint8 squares, with checks on the header before any pixel is decoded.

Geometry and arithmetic are open_clip's own preprocessing (unless told otherwise, shortest side to `size`, bicubic,
centre crop): opaque RGB, RGBA, CMYK and grey pictures give the same bytes. Four things differ on purpose: orientation
in EXIF is obeyed, transparent parts show white, palettes and bitmaps are scaled as colours and not by the nearest
index, and 16-bit grey is scaled to 8 bits, not clipped.

When not to trust it: colour profiles are ignored, as open_clip does. A picture that was cut off after its last pixel
decodes, and nothing is said.
"""

import io
import struct
import warnings
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clipmem.base.errors import InputError, shorten
from clipmem.base.pictures import Geometry, Interpolation, ResizeMode

FORMATS = ("WEBP", "PNG", "JPEG", "GIF", "BMP", "TIFF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20

# the reasons, each the same text for all records with that problem, so that they can be counted
EMPTY = "empty file"
MANY_BYTES = "too many bytes"
MANY_PIXELS = "too many pixels"
UNKNOWN = "not a picture of a known format"
TRUNCATED = "truncated picture"
DAMAGED = "damaged picture"
SCALE = "samples without a known scale"

_FIRST = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_TILE_SIDES = (322, 323)  # TIFF tags: a tile may be larger than its picture
_BITS_PER_SAMPLE = 258
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# what Pillow's readers raise on broken files (bytes changed at random, as in tests/properties)
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error,
    OverflowError, MemoryError, AttributeError, NotImplementedError, ZeroDivisionError, RuntimeError,
)  # fmt: skip


class DecodeError(InputError):
    """A picture that cannot be used."""

    def __init__(self, name: str, reason: str, *, got: str, expected: str = "", hint: str) -> None:
        super().__init__(name, got=got, expected=expected, hint=hint)
        self.reason = reason


class Header(NamedTuple):
    """What the first bytes of a picture say: its format, and its sides in pixels as they are stored."""

    format: str
    width: int
    height: int


def decode(
    data: bytes,
    size: int,
    *,
    name: str = "picture",
    resize_mode: ResizeMode = "shortest",
    interpolation: Interpolation = "bicubic",
) -> UInt8[np.ndarray, "size size 3"]:
    """Decode one picture."""
    _check_bytes(data, name)
    geometry = Geometry(size, resize_mode, interpolation)
    try:
        with warnings.catch_warnings():
            # Pillow warns of broken EXIF and of its own, higher cap: what matters is raised
            warnings.simplefilter("ignore")
            picture = _opened(data, name)
            picture.load()
            return np.array(_square(_upright(_colours(picture), picture), geometry).convert("RGB"))
    except DecodeError:
        raise
    except _BROKEN as error:
        raise _broken(data, name, error) from error


def read_header(data: bytes, *, name: str = "picture") -> Header:
    """Check a picture as `decode` does and read its size, without decoding a pixel.

    Example:
        >>> stream = io.BytesIO()
        >>> Image.new("RGB", (40, 30)).save(stream, "PNG")
        >>> read_header(stream.getvalue())
        Header(format='PNG', width=40, height=30)
    """
    _check_bytes(data, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = _opened(data, name)
    except DecodeError:
        raise
    except _BROKEN as error:
        raise _broken(data, name, error) from error
    return Header(picture.format or "", picture.width, picture.height)


def _check_bytes(data: bytes, name: str) -> None:
    if not data:
        raise DecodeError(name, EMPTY, got="0 bytes", expected="a picture", hint="Remove or mend that picture.")
    if len(data) > MAX_BYTES:
        raise DecodeError(
            name, MANY_BYTES, got=f"{len(data):,} bytes", expected=f"at most {MAX_BYTES:,}", hint="Remove that picture."
        )


def _opened(data: bytes, name: str) -> Image.Image:
    """Open a picture, which reads its header only, and refuse one too large, or whose samples have no known scale."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:  # far above the cap: Pillow itself stops at the header
        raise _too_large(name, str(error)) from error
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,)) if picture.mode.startswith("I;16") else ()
    wide = picture.mode in {"I", "F"} and picture.format != "PNG"  # PNG has 16 bits in whatever mode they are read
    if wide or (bits and tuple(bits) != (16,)):
        raise DecodeError(
            name,
            SCALE,
            got=f"gray of mode {picture.mode}{f' with {bits[0]} bits' if bits else ''}",
            expected="8 bits, or 16 without a sign, in a sample",
            hint="Save it with 8 bits in a sample.",
        )
    tile = [int(tags.get(tag, 0)) for tag in _TILE_SIDES]
    for what, (width, height) in (("pixels", picture.size), ("pixels in a tile", tile)):
        if width * height > MAX_PIXELS:
            raise _too_large(name, f"{width} x {height} {what}")
    return picture


def _too_large(name: str, got: str) -> DecodeError:
    return DecodeError(
        name,
        MANY_PIXELS,
        got=got,
        expected=f"at most {MAX_PIXELS:,} pixels in all",
        hint="Scale it down or remove it.",
    )


def _broken(data: bytes, name: str, error: BaseException) -> DecodeError:
    form = _looks_like(data)
    if not form:
        reason = UNKNOWN
    else:
        reason = TRUNCATED if "truncated" in str(error).lower() or _is_cut_off(data, form) else DAMAGED
    return DecodeError(
        name,
        reason,
        got=f"{len(data):,} bytes that do not decode ({shorten(str(error))})",
        expected=f"a picture: {', '.join(FORMATS)}",
        hint="Remove or mend that picture.",
    )


def _looks_like(data: bytes) -> str:
    """Name the format whose first bytes these are; "" for none."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    # two letters alone could begin any text: a bitmap has zeros in the reserved bytes of its header
    if data.startswith(b"BM") and data[6:10] == bytes(4):
        return "BMP"
    return next((form for first, form in _FIRST.items() if data.startswith(first)), "")


def _is_cut_off(data: bytes, form: str) -> bool:
    """Tell whether a file that does not decode lacks the end that its format has."""
    if form == "WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    if form == "BMP":
        return len(data) < int.from_bytes(data[2:6], "little")
    ends = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x3b"}
    return form in ends and ends[form] not in data[-64:]


def _colours(picture: Image.Image) -> Image.Image:
    """Turn any mode into one that can be scaled, what is transparent into white."""
    if picture.mode == "CMYK":  # open_clip scales the four inks, and then mixes them
        return picture
    if picture.mode.startswith("I"):
        return _from_wide_grey(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _from_wide_grey(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits: v * 255 / 65535, rounded. Pillow's own conversion would clip at 255."""
    values = np.asarray(picture)
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    hidden = picture.info.get("transparency")
    if isinstance(hidden, int):
        grey = np.where(values == hidden, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _upright(pixels: Image.Image, picture: Image.Image) -> Image.Image:
    """Turn the pixels as the EXIF data of the loaded picture say; EXIF that does not read says nothing."""
    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except _BROKEN:
        return pixels
    return pixels if turn is None else pixels.transpose(turn)


def _square(picture: Image.Image, geometry: Geometry) -> Image.Image:
    size, mode, _ = geometry
    weighed = Image.Resampling[geometry.interpolation.upper()]
    if mode == "squash":
        return picture if picture.size == (size, size) else picture.resize((size, size), weighed)
    if mode == "longest":
        ratio = max(picture.size) / size
        picture = picture.resize((max(1, round(picture.width / ratio)), max(1, round(picture.height / ratio))), weighed)
        square = Image.new(picture.mode, (size, size))
        square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
        return square
    short = min(picture.size)
    if short != size:
        # as torchvision's Resize: the long side is truncated, not rounded
        width, height = (size if side == short else int(size * side / short) for side in picture.size)
        picture = picture.resize((width, height), weighed)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return picture.crop((left, top, left + size, top + size))
