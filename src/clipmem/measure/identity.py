"""Which images and captions are the same, so that none is counted as wrong for being another pair's.

When not to trust it: images are the same if their bytes are. A re-encoded copy, or a paraphrase of a caption, counts as
another one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from clipmem.base.hashing import image_part, same_words
from clipmem.base.require import require


class Identity(NamedTuple):
    """Class numbers, 0 or larger: the same for the same image, and for the same caption, in the order of embeddings."""

    image: Int[np.ndarray, " n"]
    text: Int[np.ndarray, " m"]


def identity_of(uids: Sequence[str], captions: Sequence[Sequence[str]]) -> Identity:
    """Number the images of pairs by their bytes (part of the uid), and their captions by `same_words`, pair by pair."""
    return Identity(
        _numbers([image_part(uid) for uid in uids]),
        _numbers([same_words(caption) for own in captions for caption in own]),
    )


def _numbers(names: Sequence[str]) -> Int[np.ndarray, " n"]:
    place = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], dtype=np.int64)


class Links(NamedTuple):
    """Which image classes (rows) and caption classes (columns) belong together, and the class of each item."""

    table: csr_array
    image: Int[np.ndarray, " n"]
    text: Int[np.ndarray, " m"]


def links_of(same: Identity, text_pair: Int[np.ndarray, " m"]) -> Links:
    """Link an image and a caption if some pair has the same image and, among its captions, the same caption.

    So the right images of a caption are those of all pairs with this caption, and the right captions of an image are
    those of all pairs with this image.
    """
    got = f"{len(same.image)} images and {len(same.text)} captions, with {len(text_pair)} pair indices"
    known = len(same.text) == len(text_pair) and text_pair.max(initial=-1) < len(same.image)
    require(known, "identity", got, "a class for each image and caption", "Number them in the order of embeddings.")
    image, text = (np.unique(one, return_inverse=True)[1] for one in same)
    shape = (int(image.max(initial=-1)) + 1, int(text.max(initial=-1)) + 1)
    linked = coo_array((np.ones(len(text), dtype=np.bool_), (image[text_pair], text)), shape=shape)
    return Links(linked.tocsr(), image, text)


def concepts_of(
    first: Sequence[str], tested: Bool[np.ndarray, " n"], data: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the concept of each tested pair, "" for none, and the name of each concept.

    A concept is a first caption, up to `same_words`, that at least two pairs of the data have.
    """
    times = Counter(same_words(caption) for caption in data)
    keys = [same_words(caption) if test else "" for caption, test in zip(first, tested, strict=True)]
    keys = [key if times[key] > 1 else "" for key in keys]
    names = {key: [caption.strip()] for key, caption in zip(reversed(keys), reversed(first), strict=True) if key}
    return keys, names


def dependent_groups(
    groups: Int[np.ndarray, " n"], same: Identity, text_pair: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " n"]:
    """Join groups of near-duplicates that have an image or a first caption in common: their queries are the same."""
    n, first = len(groups), np.unique(text_pair, return_index=True)[1]
    codes = [np.unique(one, return_inverse=True)[1] for one in (groups, same.image, same.text[first])]
    nodes = np.concatenate([code + n * (k + 1) for k, code in enumerate(codes)])
    edges = coo_array((np.ones(3 * n), (np.tile(np.arange(n), 3), nodes)), shape=(4 * n, 4 * n))
    return connected_components(edges, directed=False)[1][:n].astype(np.int64)
