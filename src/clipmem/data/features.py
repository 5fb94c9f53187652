"""Features of images and captions without a model: what their pixels and words alone say.

When not to trust it: drawings and icons of one style share colors and edges; photographs of one thing need not.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, UInt8

from clipmem.base import slices
from clipmem.base.errors import InputError, require
from clipmem.base.tables import scratch_array
from clipmem.data.duplicates import cell_sums

PIXELS, HOG, COLORS, WORDS = 100, 200, 40, 400  # largest numbers of components
TERMS = 8192  # most frequent words and bigrams: with three times as many the components take twice as long
COLOR_WEIGHT = 0.7
SAMPLE = 20_000  # evenly spaced rows that components are fitted on
_SIDE, _CELL, _BINS, _LEVELS = 64, 8, 9, 4
_GRAY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
HELD = 30_000  # most rows in memory
_BLOCK, _TEXTS = 256, 8192  # images and captions at a time
_FLAT = 1e-9  # share of the total variance below which a component is rounding

Pixels = UInt8[np.ndarray, "k size size 3"]


def image_features(read: Callable[[Int[np.ndarray, " k"]], Pixels], n: int) -> Float32[np.ndarray, "n p"]:
    """Describe images by 16 x 16 pixels, edge directions and colors.

    Principal components of three blocks, side by side, each scaled to total variance weight²:

    - up to 100 of the 16 x 16 RGB cells, weight 1;
    - up to 200 of histograms of oriented gradients, weight 1: gray of 64 x 64 pixels, central differences, unsigned
      direction in 9 bins with linear votes weighted by magnitude, summed over 8 x 8 cells, the root of the shares;
    - up to 40 of color histograms with 4³ bins, the root of the shares, weight 0.7.

    Images of another size are averaged by area. Components are fitted on 20,000 evenly spaced images at most.

    Args:
        read: Decodes the images of some rows, shape (k, size, size, 3), such as an array's `__getitem__`.
        n: Number of images.

    Returns:
        Centered features, p <= 340, fewer for few or similar images.

    Raises:
        InputError: There are fewer than 3 images, or they are all the same.
    """
    require(n >= 3, "images", f"{n}", "3 or more", "Give more pairs.")
    sample = np.array(_spread(n))
    described = (_blocks(read(sample[k])) for k in slices(len(sample), _BLOCK))
    raw = [np.concatenate(block) for block in zip(*described, strict=True)]
    bases: list[tuple[np.ndarray, np.ndarray]] = []
    for block, most, weight in zip(raw, (PIXELS, HOG, COLORS), (1.0, 1.0, COLOR_WEIGHT), strict=True):
        # the first principal axes as columns, scaled to a total variance of weight² of what they keep
        mean = block.mean(axis=0, dtype=np.float64)
        value, axis = np.linalg.eigh((block - mean).T @ (block - mean) / len(block))
        value, axis = value[::-1][:most], axis[:, ::-1][:, :most]
        significant = value > max(_FLAT * value.sum(), 1e-12)
        axis = axis[:, significant] * (weight / np.sqrt(value[significant].sum() or 1.0))
        axis *= np.sign(np.take_along_axis(axis, np.abs(axis).argmax(axis=0)[None], axis=0))
        bases.append((mean, axis))
    got = f"{n} images with the same pixels"
    require(sum(basis.shape[1] for _, basis in bases), "images", got, "images that differ", "Check the data.")
    shape = n, sum(basis.shape[1] for _, basis in bases)
    features = np.empty(shape, dtype=np.float32) if n <= HELD else scratch_array(shape)
    for rows in slices(n, _BLOCK):
        blocks = [block[rows] for block in raw] if n == len(sample) else _blocks(read(np.arange(n)[rows]))
        features[rows] = np.hstack([(x - mean) @ basis for x, (mean, basis) in zip(blocks, bases, strict=True)])
    return features


def _blocks(pixels: Pixels) -> list[Float32[np.ndarray, "k q"]]:
    """Return the cells, gradient histograms and color histograms of some images."""
    n, size = pixels.shape[:2]
    even = pixels if size == _SIDE else cell_sums(pixels, _SIDE, _SIDE) / size**2
    cells = cell_sums(pixels, 16, 16).reshape(n, -1) / size**2
    level = (even * (_LEVELS / 256)).astype(np.int64) @ [_LEVELS**2, _LEVELS, 1]
    colors = _histogram(level.reshape(n, -1), _LEVELS**3)
    dy, dx = np.gradient(even @ _GRAY, axis=(1, 2))
    angle = np.arctan2(dy, dx) * (_BINS / np.pi) % _BINS
    low = angle.astype(np.int64)
    cell = np.add.outer(np.arange(_SIDE) // _CELL * (_SIDE // _CELL), np.arange(_SIDE) // _CELL) * _BINS
    length, share, bins = np.hypot(dy, dx), angle - low, (_SIDE // _CELL) ** 2 * _BINS
    votes = sum(
        _histogram((cell + direction % _BINS).reshape(n, -1), bins, (length * weight).reshape(n, -1))
        for direction, weight in ((low, 1 - share), (low + 1, share))
    )
    total = np.sum(votes, axis=1, keepdims=True)
    gradients = np.sqrt(votes / np.where(total > 0, total, 1))
    return [block.astype(np.float32) for block in (cells, gradients, np.sqrt(colors))]


def _histogram(
    index: Int[np.ndarray, "k q"], bins: int, weight: Float64[np.ndarray, "k q"] | None = None
) -> Float64[np.ndarray, "k bins"]:
    flat = index + np.arange(len(index))[:, None] * bins
    counted = np.bincount(flat.ravel(), None if weight is None else weight.ravel(), len(index) * bins)
    return counted.reshape(len(index), bins) / (index.shape[1] if weight is None else 1)


def caption_features(captions: Sequence[Sequence[str]]) -> Float[np.ndarray, "n p"]:
    """Describe the captions of each pair by their words and pairs of neighboring words.

    Unit tf-idf vectors, (1 + ln count) (1 + ln((1 + n) / (1 + pairs with the term))), over the words and bigrams of all
    captions of a pair, in lower case, reduced by a truncated singular value decomposition. Vocabulary (the 8,192 most
    frequent terms) and components are fitted on 20,000 evenly spaced pairs at most; a term of one pair tells nothing
    about others and is left out.

    Args:
        captions: Captions of each pair, shape (n,).

    Returns:
        Features, p <= 400, fewer for few pairs or words, float64; of more than 30,000 pairs, a float32 memory map. Zero
        for a pair without a known word.

    Raises:
        InputError: No word is in two pairs, or no such word tells pairs apart.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import
    from sklearn.utils.extmath import randomized_svd

    n = len(captions)
    sample = [captions[row] for row in _spread(n)]

    def terms(texts: Sequence[str]) -> Iterator[str]:
        for words in (re.findall(r"\w+", text.lower()) for text in texts):
            yield from words
            yield from map(" ".join, pairwise(words))

    build, effort = cast(Any, TfidfVectorizer), cast(Any, 2)
    vectorizer = build(analyzer=terms, min_df=2, max_features=TERMS, sublinear_tf=True, dtype=np.float32)
    try:
        weights = vectorizer.fit_transform(sample).astype(np.float64)
    except ValueError as error:
        hint = "Use captions in words, separated by spaces."
        raise InputError("captions", got="no word in two pairs", expected="common words", hint=hint) from error
    differ = (weights.max(axis=0) != weights.min(axis=0)).nnz > 0
    require(differ, "captions", f"the same words in all {n} pairs", "captions that differ", "Check the column.")
    _, _, axes = randomized_svd(weights, min(WORDS, *weights.shape), n_iter=effort, random_state=0)
    features = np.empty((n, len(axes))) if n <= HELD else scratch_array((n, len(axes)))
    for rows in slices(n, _TEXTS):
        features[rows] = vectorizer.transform(captions[rows]) @ axes.T
    return features


def _spread(n: int) -> list[int]:
    return [k * n // min(n, SAMPLE) for k in range(min(n, SAMPLE))]
