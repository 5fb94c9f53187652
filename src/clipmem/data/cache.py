"""The pixel cache: every picture of a study decoded once, in one memory-mapped uint8 array that all models read."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from clipmem.base.errors import InputError
from clipmem.data.decoding import DecodeError, decode
from clipmem.store.atomic import atomic_file

_BLOCK = 512


def build_cache(
    path: Path,
    references: Sequence[str],
    read: Callable[[Sequence[str]], Sequence[bytes]],
    *,
    size: int,
    progress: Callable[[int], object] = lambda _: None,
    left_out: Callable[[int, DecodeError], object] | None = None,
) -> None:
    """Decode pictures block by block and write them as one `.npy` file, atomically.

    Args:
        path: The file to write.
        references: The pictures, in the order of the rows.
        read: Gives the encoded bytes of references, as `Source.read`.
        size: Side of the square, in pixels.
        progress: Called with the number of pictures done since the last call.
        left_out: Called with the position of a picture that does not decode, and why: it gets no row. None: the first
            such picture is an error.

    Raises:
        DecodeError: A picture does not decode, and `left_out` is None.
    """
    with atomic_file(path) as stream:
        stream.write(_header(len(references), size))
        written = 0
        for start in range(0, len(references), _BLOCK):
            block = references[start : start + _BLOCK]
            for place, (reference, data) in enumerate(zip(block, read(block), strict=True), start=start):
                try:
                    pixels = decode(data, size, name=f"picture {reference!r}")
                except DecodeError as error:
                    if left_out is None:
                        raise
                    left_out(place, error)
                    continue
                stream.write(np.ascontiguousarray(pixels).tobytes())
                written += 1
            progress(len(block))
        # the number of rows is known only now; numpy leaves room for it
        stream.seek(0)
        stream.write(_header(written, size))


def _header(n: int, size: int) -> bytes:
    """Return the header of the cache file; it is as long for every `n`."""
    stream = io.BytesIO()
    shape = (n, size, size, 3)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


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
