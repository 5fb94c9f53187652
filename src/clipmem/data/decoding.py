"""From encoded pictures to uint8 squares, with checks on the header before any pixel is decoded.

Geometry is open_clip's: unless told otherwise, shortest side to `size` (bicubic), centre crop. Transparent pictures are
put on white.
"""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from clipmem.base.errors import InputError, shorten
from clipmem.base.pictures import Geometry, Interpolation, ResizeMode

FORMATS = ("WEBP", "PNG", "JPEG", "GIF", "BMP", "TIFF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20


def decode(
    data: bytes,
    size: int,
    *,
    name: str = "picture",
    resize_mode: ResizeMode = "shortest",
    interpolation: Interpolation = "bicubic",
) -> UInt8[np.ndarray, "size size 3"]:
    """Decode one picture.

    Args:
        data: The encoded picture.
        size: Side of the square, in pixels.
        name: What to call the picture in a message.
        resize_mode: What happens to the longer side (see `Geometry`).
        interpolation: How pixels are weighed in scaling.

    Returns:
        RGB values, shape (size, size, 3).

    Raises:
        InputError: The bytes are not a picture of a known format, are truncated, or are too many.
    """
    if len(data) > MAX_BYTES:
        raise InputError(
            name, got=f"{len(data):,} bytes", expected=f"at most {MAX_BYTES:,}", todo="Remove that picture."
        )
    try:
        with warnings.catch_warnings():
            # our own, lower cap is checked below, from the header
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_large(name, f"{picture.width} x {picture.height} pixels")
            whole = _on_white(ImageOps.exif_transpose(picture))
            return np.array(_square(whole, Geometry(size, resize_mode, interpolation)))
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # far above the cap: Pillow itself stops at the header
        raise _too_large(name, str(error)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            name,
            got=f"{len(data):,} bytes that do not decode ({shorten(str(error))})",
            expected=f"a picture: {', '.join(FORMATS)}",
            todo="Remove or mend that picture.",
        ) from error


def _too_large(name: str, got: str) -> InputError:
    return InputError(
        name, got=got, expected=f"at most {MAX_PIXELS:,} pixels in all", todo="Scale it down or remove it."
    )


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _square(picture: Image.Image, geometry: Geometry) -> Image.Image:
    size, mode, _ = geometry
    weighed = Image.Resampling[geometry.interpolation.upper()]
    if mode == "squash":
        return picture if picture.size == (size, size) else picture.resize((size, size), weighed)
    if mode == "longest":
        ratio = max(picture.size) / size
        picture = picture.resize((max(1, round(picture.width / ratio)), max(1, round(picture.height / ratio))), weighed)
        square = Image.new("RGB", (size, size))
        square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
        return square
    short = min(picture.size)
    if short != size:
        # as torchvision's Resize: the long side is truncated, not rounded
        width, height = (size if side == short else int(size * side / short) for side in picture.size)
        picture = picture.resize((width, height), weighed)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return picture.crop((left, top, left + size, top + size))
