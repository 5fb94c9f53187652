"""The pixel cache: the decoded images of a study in a memory-mapped uint8 array."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from clipmem.base import slices
from clipmem.base.errors import InputError
from clipmem.base.paths import atomic_file
from clipmem.data.decoding import DecodeError, Geometry, decode

_BLOCK = 512


def build_cache(
    path: Path,
    references: Mapping[int, str],
    read: Callable[[Sequence[str]], Sequence[bytes]],
    geometry: Geometry,
    *,
    progress: Callable[[int], object] = lambda _: None,
    left_out: Callable[[int, DecodeError], object] | None = None,
) -> None:
    """Decode images block by block into one `.npy` file, written atomically; `read` returns encoded images.

    `references` has the image of each row, from 0; images are read in its order (see `Source.storage_order`), which
    does not change the file. `left_out` is called with row and error of an image that does not decode, which gets no
    row; by default the error is raised. `progress` is called with the number of images done since the last call.
    """
    order, size = list(references), geometry.size
    row, broken = size * size * 3, set[int]()
    with atomic_file(path) as stream:
        begin = stream.write(_header(len(references), size))
        for block in (order[part] for part in slices(len(order), _BLOCK)):
            for index, data in zip(block, read([references[index] for index in block]), strict=True):
                try:
                    pixels = decode(data, name=f"image {references[index]!r}", **geometry._asdict())
                except DecodeError as error:
                    if left_out is None:
                        raise
                    left_out(index, error)
                    broken.add(index)
                    continue
                stream.seek(begin + index * row)
                stream.write(np.ascontiguousarray(pixels).tobytes())
            progress(len(block))
        if not broken:
            return
        usable = [index for index in range(len(references)) if index not in broken]
        stream.flush()
        with Path(stream.name).open("rb") as old:
            for number, index in enumerate(usable):
                if number != index:  # close the gaps
                    old.seek(begin + index * row)
                    pixels = old.read(row)
                    stream.seek(begin + number * row)
                    stream.write(pixels)
        stream.flush()
        stream.truncate(begin + len(usable) * row)
        stream.seek(0)
        stream.write(_header(len(usable), size))


def _header(n: int, size: int) -> bytes:
    """Return the header of the cache file, whose length does not depend on `n`."""
    stream = io.BytesIO()
    shape = (n, size, size, 3)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def open_cache(path: Path) -> UInt8[np.ndarray, "n size size 3"]:
    """Open the cache read-only, memory-mapped."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        hint = "Delete it and run the study again: only that stage is repeated."
        raise InputError(f"pixel cache {path}", got=str(error), hint=hint) from error
