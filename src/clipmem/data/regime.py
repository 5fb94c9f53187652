"""The regime of a data set: whether its pairs are one of a kind, or have twins that teach a model the same thing.

When not to trust it: images are compared as near-duplicates only, so drawings or photographs of one thing are twins by
their captions alone, and captions in other words count as different. Samples find fewer twins than there are. Words are
runs of letters and digits: a caption without spaces is one word.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from clipmem.base.random import generator

NEAR = 0.8  # cosine of two captions that say nearly the same
ONE_OF_A_KIND, REDUNDANT = 1 / 3, 2 / 3  # share of pairs with a twin, below and from
COMMON = 0.1  # share of pairs above which a word tells nothing
SEARCHED = 2000  # captions whose neighbors are searched
MOST = 200_000  # captions whose words are counted
_BLOCK = 50  # searched captions at a time


def regime_of(captions: pl.Series, image_groups: Sequence[str]) -> dict[str, Any]:
    """Tell where pairs stand between one of a kind and redundant, from their first captions and groups of near images.

    Captions are compared without case and outer spaces. Two are near if their cosine is at least 0.8, with weights
    log(n / pairs with the word) of the words of each, without words in more than a tenth of the pairs (and in more than
    ten). Equal captions are near.

    Args:
        captions: First caption of each pair, shape (n,), n >= 1.
        image_groups: Group of near-duplicate images of each compared image; any names, maybe of a sample, maybe none.

    Returns:
        pairs: n. same_caption: share of pairs with an equal caption in another pair. caption_twins: median number of
        those other pairs. near_caption, near_twins: the same for near captions, of `searched` random pairs.
        nearest_caption: their median cosine with the nearest other caption. near_image: share of `images` with a near
        image in another pair; None if there are none. words: `distinct` ones, share found in one pair `once`, and share
        of pairs with such a word `rare_pairs`, of `pairs` pairs (every k-th, above 200,000; near captions are searched
        among these). twins: the largest of the three shares, each a lower bound of the share of pairs with a twin.
        verdict: "one of a kind" if twins < 1/3, "redundant" if >= 2/3, else "mixed".
    """
    text = captions.str.to_lowercase().str.strip_chars()
    same = _sizes(text) - 1
    counted = text.gather_every(-(-len(text) // MOST))
    words, weights = _words(counted)
    searched = np.sort(generator(0, "regime").permutation(len(counted))[:SEARCHED])
    near, cosine = _neighbors(weights, counted.rank("dense").to_numpy(), searched)
    images = _sizes(pl.Series(image_groups, dtype=pl.String)) > 1
    shares = {
        "same_caption": float((same > 0).mean()),
        "near_caption": float((near > 0).mean()),
        "near_image": float(images.mean()) if len(images) else None,
    }
    twins = max(share or 0.0 for share in shares.values())
    return {
        "pairs": len(text),
        **shares,
        "caption_twins": float(np.median(same)),
        "near_twins": float(np.median(near)),
        "nearest_caption": float(np.median(cosine)),
        "searched": len(searched),
        "images": len(images),
        "words": words,
        "twins": twins,
        "verdict": "one of a kind" if twins < ONE_OF_A_KIND else "redundant" if twins >= REDUNDANT else "mixed",
    }


def _sizes(values: pl.Series) -> np.ndarray:
    """Return for each value how often it occurs."""
    return values.alias("value").to_frame().select(pl.len().over("value")).to_series().to_numpy().astype(np.int64)


def _words(captions: pl.Series) -> tuple[dict[str, Any], csr_array]:
    """Count words, and return the captions' unit vectors over them, shape (n, word)."""
    n = len(captions)
    table = pl.DataFrame({"pair": np.arange(n), "word": captions.str.extract_all(r"[\p{L}\p{M}\p{N}]+")})
    table = table.explode("word").drop_nulls().unique().with_columns(pl.col("word").rank("dense") - 1)
    pair, word = table["pair"].to_numpy(), table["word"].cast(pl.Int64).to_numpy()
    pairs = np.bincount(word)
    rare = np.bincount(pair, weights=pairs[word] == 1, minlength=n)
    weight = np.where(pairs > max(COMMON * n, 10), 0.0, np.log(n / np.maximum(pairs, 1)))[word]
    length = np.sqrt(np.bincount(pair, weights=weight**2, minlength=n))[pair]
    value = np.divide(weight, length, out=np.zeros_like(weight), where=length > 0)
    counts = {
        "distinct": len(pairs),
        "once": float((pairs == 1).mean()) if len(pairs) else 0.0,
        "rare_pairs": float((rare > 0).mean()),
        "pairs": n,
    }
    return counts, csr_array((value, (pair, word)), shape=(n, len(pairs)))


def _neighbors(weights: csr_array, same: np.ndarray, searched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for the searched captions, how many others are near, and the cosine with the nearest other."""
    near, nearest, turned = [np.zeros(0, dtype=np.int64)], [np.zeros(0)], weights.T.tocsr()
    for start in range(0, len(searched), _BLOCK):
        rows = searched[start : start + _BLOCK]
        cosine = (weights[rows] @ turned).toarray()
        cosine[same[rows][:, None] == same] = 1.0  # also where no word tells anything
        cosine[np.arange(len(rows)), rows] = 0.0
        near.append((cosine >= NEAR).sum(axis=1))
        nearest.append(cosine.max(axis=1))
    return np.concatenate(near), np.concatenate(nearest)
