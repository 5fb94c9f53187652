"""The pixel cache: every picture of a study decoded once, in one memory-mapped uint8 array that all models read."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from clipmem.base.errors import InputError
from clipmem.base.pictures import Interpolation, ResizeMode
from clipmem.data.decoding import decode
from clipmem.store.atomic import atomic_file

_BLOCK = 512


def build_cache(
    path: Path,
    references: Sequence[str],
    read: Callable[[Sequence[str]], Sequence[bytes]],
    *,
    size: int,
    resize_mode: ResizeMode = "shortest",
    interpolation: Interpolation = "bicubic",
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Decode pictures block by block and write them as one `.npy` file, atomically.

    Args:
        path: The file to write.
        references: The pictures, in the order of the rows.
        read: Gives the encoded bytes of references, as `Source.read`.
        size: Side of the square, in pixels.
        resize_mode: What happens to the longer side (see `Geometry`).
        interpolation: How pixels are weighed in scaling.
        progress: Called with the number of pictures done since the last call.
    """
    shape = (len(references), size, size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_file(path) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(references), _BLOCK):
            block = references[start : start + _BLOCK]
            for reference, data in zip(block, read(block), strict=True):
                square = decode(
                    data,
                    size,
                    name=f"picture {reference!r}",
                    resize_mode=resize_mode,
                    interpolation=interpolation,
                )
                stream.write(np.ascontiguousarray(square).tobytes())
            progress(len(block))


def open_cache(path: Path) -> UInt8[np.ndarray, "n size size 3"]:
    """Open the cache read-only, memory-mapped.

    Raises:
        InputError: The file is missing or broken.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"pixel cache {path}",
            got=str(error),
            todo="Delete it and run the study again: only that stage is repeated.",
        ) from error
