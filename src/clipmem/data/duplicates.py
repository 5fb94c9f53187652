"""Exact and near duplicates: images so alike that a model which saw one has seen the other.

The thresholds were tuned on the 1,906 shipped Noto images (`tests/science/test_duplicate_rates.py` has the table). They
join 56 of 1,814,553 pairs of different concepts, and find 99 to 100% of re-encoded, halved and darker copies, 87% of
brighter ones, and 72% of copies cropped by one pixel of 64 on each side. A gray hash proposes pairs; color thumbnails
decide.

When not to trust it: mirrored, rotated, recolored or strongly cropped copies and other photographs of the same object
are not found, and line drawings on white tolerate little cropping. Where group keys are known (an album, a product),
give them: `duplicate_groups` joins by them as well.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clipmem.base.errors import require, require_range, shorten
from clipmem.base.hashing import numbered

DISTANCE = 6  # of 64 hash bits
CORRELATION = 0.98
STEP = 2  # minimum increase of gray that sets a bit, in levels of 255
CONTRAST = 4.0  # root mean square, in levels: flatter images have no content to compare
THUMBNAIL = 16
_GRAY = np.array([299.0, 587.0, 114.0])  # ITU-R BT.601 luma in thousandths: integers give exact sums
_BLOCK = 512  # images per block
_PAIRS = 1 << 20  # proposed pairs per block: 8 MB per array


def cell_sums(pixels: UInt8[np.ndarray, "n size size 3"], rows: int, columns: int) -> Float64[np.ndarray, "n r c 3"]:
    """Sum each cell of a rows x columns grid: size² times the cell's mean; border pixels count by overlap."""
    size = pixels.shape[1]

    def weights(cells: int) -> Float64[np.ndarray, "k size"]:
        low = np.maximum.outer(np.arange(cells) * size, np.arange(size) * cells)
        high = np.minimum.outer(np.arange(1, cells + 1) * size, np.arange(1, size + 1) * cells)
        return np.maximum(high - low, 0).astype(np.float64)

    # float32 is exact for integers below 2^24: images up to 256 x 256
    kind = np.float32 if 255 * size * size < 2**24 else np.float64
    flat = pixels.reshape(len(pixels), size, size * 3).astype(kind)
    upright = weights(rows).astype(kind) @ flat
    across = weights(columns).astype(kind) @ upright.reshape(len(pixels), rows, size, 3)
    return across.astype(np.float64)


def difference_hash(pixels: UInt8[np.ndarray, "n size size 3"]) -> UInt64[np.ndarray, " n"]:
    """Hash images so that near-duplicates differ in few bits (dHash with a step).

    The image is averaged to 8 x 9 gray cells G; bit (r, c) = [G(r, c + 1) - G(r, c) > 2 levels].
    """
    _check_size(pixels)
    gray = cell_sums(pixels, 8, 9) @ _GRAY
    bits = np.diff(gray, axis=2) > STEP * 1000 * pixels.shape[1] ** 2
    return np.packbits(bits.reshape(len(pixels), 64), axis=1).view(">u8").ravel().astype(np.uint64)


def thumbnails(pixels: UInt8[np.ndarray, "n size size 3"]) -> UInt8[np.ndarray, "n 768"]:
    """Average images to 16 x 16 RGB cells, flattened."""
    _check_size(pixels)
    cells = cell_sums(pixels, THUMBNAIL, THUMBNAIL) / pixels.shape[1] ** 2
    return np.rint(cells).astype(np.uint8).reshape(len(pixels), 3 * THUMBNAIL**2)


def correlation(a: UInt8[np.ndarray, "n d"], b: UInt8[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    """Pearson correlation of thumbnails, row by row, over cells and colors."""
    x, y, d = a.astype(np.float64), b.astype(np.float64), a.shape[1]

    def product(u: Float64[np.ndarray, "n d"], v: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
        return d * (u * v).sum(axis=1) - u.sum(axis=1) * v.sum(axis=1)  # integers: exact

    xx, yy = product(x, x), product(y, y)
    content = (xx >= (CONTRAST * d) ** 2) & (yy >= (CONTRAST * d) ** 2)
    return np.where(content, product(x, y) / np.sqrt(np.where(content, xx * yy, 1.0)), 0.0)


def near_pairs(hashes: UInt64[np.ndarray, " n"], *, distance: int = DISTANCE) -> Iterator[Int64[np.ndarray, "pair 2"]]:
    """Yield every pair of hashes that differ in at most `distance` bits once, in blocks.

    Multi-index hashing (Norouzi, Punjani & Fleet 2012): of distance + 1 bands of the 64 bits, such hashes share at
    least one, so that only hashes with a common band are compared.
    """
    require_range("distance", distance, 0, 31, "Use 4 to 10 for near-duplicates.")
    edges = [64 * band // (distance + 1) for band in range(distance + 2)]
    masks = [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
    for band, mask in enumerate(masks):
        order = np.argsort(hashes & mask, kind="stable")
        for first, second in _pairs_within_runs((hashes & mask)[order]):
            i, j = order[first], order[second]
            different = hashes[i] ^ hashes[j]
            # pairs that share an earlier band were yielded there
            words = np.ascontiguousarray(different).view(np.uint16).reshape(-1, 4)
            keep = _BITS[words].sum(axis=1, dtype=np.int64) <= distance
            for earlier in masks[:band]:
                keep &= (different & earlier) != 0
            if keep.any():
                yield np.sort(np.stack([i[keep], j[keep]], axis=1), axis=1)


def _pairs_within_runs(
    values: UInt64[np.ndarray, " n"],
) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
    """Yield all position pairs p < q with equal values in sorted `values`, in blocks."""
    n = len(values)
    position = np.arange(n)
    partners = np.searchsorted(values, values, side="right") - position - 1
    total = np.cumsum(partners)
    start = 0
    while start < n:
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _PAIRS, side="right")))
        count = partners[start:stop]
        first = np.repeat(position[start:stop], count)
        step = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
        if len(first):
            yield first, first + 1 + step
        start = stop


# as fast as `numpy.bitwise_count`, which needs numpy 2
_BITS = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


class Prints(NamedTuple):
    """What is compared of images.

    Attributes:
        names: A hash of the pixels of each.
        hashes: Near-duplicates differ in few of its bits (`difference_hash`).
        small: Their `thumbnails`.
    """

    names: Shaped[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    small: UInt8[np.ndarray, "n 768"]


def prints_of(pixels: UInt8[np.ndarray, "n size size 3"]) -> Prints:
    """Return what is compared of images: 920 bytes of each."""
    _check_size(pixels)
    names = np.array([hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in pixels], dtype="U32")
    blocks = [pixels[start : start + _BLOCK] for start in range(0, len(pixels), _BLOCK)] or [pixels]
    hashes, small = (np.concatenate([of(block) for block in blocks]) for of in (difference_hash, thumbnails))
    return Prints(names, hashes, small)


def duplicate_groups(
    images: UInt8[np.ndarray, "n size size 3"] | Prints,
    *,
    threshold: float = CORRELATION,
    distance: int = DISTANCE,
    keys: Sequence[str] | None = None,
) -> list[str]:
    """Group images that are the same, nearly the same, or share a key; groups that touch become one."""
    names, hashes, small = images if isinstance(images, Prints) else prints_of(images)
    n = len(names)
    require(0 < threshold <= 1, "threshold", shorten(threshold), "above 0, at most 1", "Use 0.95 to 0.99.")
    count = n if keys is None else len(keys)
    require(count == n, "keys", f"{count}", f"one for each of the {n} images", "Give one key per image.")
    unique, representative, group = np.unique(names, return_index=True, return_inverse=True)
    if keys is not None:
        key = numbered(keys)
        nodes = len(unique) + int(key.max(initial=-1)) + 1
        group = _join(group, np.stack([group, key + len(unique)], axis=1), nodes)
    # distinct images only from here: a thousand blank images propose no pair
    labels = np.empty(len(unique), dtype=np.int64)
    labels[np.searchsorted(unique, names)] = group
    hashes, small = hashes[representative], small[representative]
    for pairs in near_pairs(hashes, distance=distance):
        pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
        blocks = [pairs[start : start + 4096] for start in range(0, len(pairs), 4096)]
        alike = [correlation(small[part[:, 0]], small[part[:, 1]]) >= threshold for part in blocks]
        edges = labels[pairs[np.concatenate([np.zeros(0, dtype=np.bool_), *alike])]]
        if len(edges):
            labels = _join(labels, edges, int(labels.max()) + 1)
    # `unique` is sorted: the first member of a group has its smallest hash
    _, first, member = np.unique(labels, return_index=True, return_inverse=True)
    return unique[first[member]][np.searchsorted(unique, names)].tolist()


def _join(labels: Int64[np.ndarray, " n"], edges: Int64[np.ndarray, "edge 2"], nodes: int) -> Int64[np.ndarray, " n"]:
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(nodes, nodes))
    _, component = connected_components(graph, directed=False)
    return component[labels].astype(np.int64)


def _check_size(pixels: UInt8[np.ndarray, "n size size 3"]) -> None:
    size = f"{pixels.shape[1]} x {pixels.shape[2]}"
    require(pixels.shape[1] >= THUMBNAIL, "images", size, "16 x 16 or larger", "Decode at a larger size.")
