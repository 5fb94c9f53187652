"""The reference of Déjà Vu's one-model test: which public captions a text-only model finds nearest to a caption.

The published test takes a text embedder that was trained on other text (Jayaraman et al., NeurIPS 2024). Nothing of
that kind comes with this package, and nothing is downloaded. So the reference is, unless the user gives vectors of an
embedder of their own, TF-IDF: scikit-learn's `TfidfVectorizer` on runs of 2 to 4 characters inside words, in small
letters, fitted on the public captions.

When not to trust it: TF-IDF knows which letters two captions share, and no meaning: "sofa" and "couch" are strangers.
It guesses worse than the published embedder where captions paraphrase, and it may guess better than f where names share
words (on the emoji it does). So a gap of the one-model test holds the difference of the two guessers besides
memorization. The pairs that f did not train on have the first alone: read the candidates' gaps beside theirs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int

from clipmem.base.errors import InputError, shorten
from clipmem.data.user_tables import known_uids, read_columns
from clipmem.functional import nearest

TFIDF = "TF-IDF of 2 to 4 characters, fitted on the public captions"
_SETTING = "[dejavu] text_embeddings"
_DECIMALS = 12  # as in `nearest`: cosines that differ by less are equal


class TextNeighbours(NamedTuple):
    """Rows of the k nearest public captions, nearest first; `public` where there is no further one.

    `lonely` counts the queries that have none at all.
    """

    rows: Int[np.ndarray, "q k"]
    lonely: int


def tfidf_neighbours(
    queries: Sequence[Sequence[str]], public: Sequence[Sequence[str]], k: int, *, block: int = 1024
) -> TextNeighbours:
    """Find the public pairs whose captions are nearest to a pair's captions by the cosine of their TF-IDF vectors.

    v(c) = unit vector of (how often run r is in c) * (ln((1 + P) / (1 + P_r)) + 1) over the runs r of 2 to 4 characters
    that public captions have, P captions, P_r of them with r (scikit-learn's smooth idf); a pair with several captions
    has their mean. A public pair without a common run is no neighbour: its cosine is 0, and so is that of all others.

    Example:
        >>> tfidf_neighbours([["red car"], ["zzz"]], [["a dog"], ["a blue car"], ["red"]], 2).rows.tolist()
        [[2, 1], [3, 3]]
    """
    if not 1 <= k <= len(public):
        raise InputError(
            "k", got=f"{k}", expected=f"a whole number from 1 to {len(public)}", hint="Ask for fewer neighbours."
        )
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import, and only needed here

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), dtype=np.float64)
    vectorizer.fit([caption for own in public for caption in own])
    there, asked = (_pair_vectors(vectorizer, captions) for captions in (public, queries))
    found = np.full((len(queries), k), len(public))
    for start in range(0, len(queries), block):
        rows = asked[start : start + block]
        index = np.empty((rows.shape[0], 0), dtype=np.int64)
        cosine = np.empty((rows.shape[0], 0))
        for first in range(0, len(public), block):
            tile = there[first : first + block]
            cosine = np.hstack([cosine, np.round((rows @ tile.T).toarray(), _DECIMALS)])
            index = np.hstack(
                [index, np.broadcast_to(np.arange(first, first + tile.shape[0]), (len(index), tile.shape[0]))]
            )
            best = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
            cosine, index = np.take_along_axis(cosine, best, axis=1), np.take_along_axis(index, best, axis=1)
        found[start : start + block] = np.where(cosine > 0, index, len(public))
    return TextNeighbours(found, int((found[:, 0] == len(public)).sum()))


def _pair_vectors(vectorizer: Any, captions: Sequence[Sequence[str]]) -> Any:
    """Return a sparse unit vector a pair: the mean of its captions' vectors; zero where no run is known."""
    from scipy import sparse
    from sklearn.preprocessing import normalize

    each = vectorizer.transform([caption for own in captions for caption in own])
    counts = np.array([len(own) for own in captions])
    pair = np.repeat(np.arange(len(captions)), counts)
    shares = sparse.csr_matrix((1 / counts[pair], (pair, np.arange(len(pair)))), shape=(len(captions), len(pair)))
    return normalize(shares @ each)


def vector_neighbours(
    queries: Float64[np.ndarray, "q d"], public: Float64[np.ndarray, "p d"], k: int
) -> TextNeighbours:
    """Find the nearest public captions by the vectors of a text embedder; see `clipmem.functional.nearest`."""
    return TextNeighbours(nearest(torch.from_numpy(queries), torch.from_numpy(public), k).rows.numpy(), 0)


def read_vectors(path: str, uids: Sequence[str]) -> Float64[np.ndarray, "n d"]:
    """Read a user's text embeddings, one vector for the captions of each pair."""
    file = Path(path)
    if file.suffix == ".npy":
        return _checked(_npy(file, len(uids)), path)
    table = read_columns(file, _SETTING, ("uid", "embedding"))
    named = known_uids(table, uids, _SETTING)
    missing = sorted(set(uids) - set(named))
    if missing:
        raise InputError(
            _SETTING,
            got=f"no vector for {len(missing):,} of {len(uids):,} pairs, the first of them {shorten(missing[0])}",
            expected="one vector a pair",
            hint="Embed the captions of all pairs.",
        )
    row = {uid: place for place, uid in enumerate(named)}
    column = table["embedding"]
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if not isinstance(column.dtype, pl.List) or not column.dtype.inner.is_numeric():  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError(
            _SETTING,
            got=f"column 'embedding' of {column.dtype}",
            expected="lists of numbers",
            hint="Write it as those.",
        )
    widths = column.list.len().unique()
    if len(widths) != 1 or column.null_count():
        raise InputError(
            _SETTING, got="vectors of several widths", expected="one width", hint="Embed all captions by one model."
        )
    values = column.explode().cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(len(named), -1)
    return _checked(values[[row[uid] for uid in uids]], path)


def _npy(file: Path, pairs: int) -> np.ndarray:
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            _SETTING, got=f"{str(file)!r}: {shorten(str(error))}", expected="an array in .npy", hint="Check the path."
        ) from error
    if values.ndim != 2 or len(values) != pairs:
        raise InputError(
            _SETTING,
            got=f"an array of shape {values.shape} in {file}",
            expected=f"({pairs}, d): a row a pair, in the order of pairs.parquet",
            hint="Write it so, or as Parquet with uid and embedding.",
        )
    return values


def _checked(values: np.ndarray, path: str) -> Float64[np.ndarray, "n d"]:
    values = values.astype(np.float64)
    bad = ~np.isfinite(values).all(axis=1) | ~values.any(axis=1)
    if bad.any():
        raise InputError(
            _SETTING,
            got=f"{int(bad.sum())} vectors in {path} that are 0 or not finite",
            expected="finite vectors, none of them 0",
            hint="Embed those captions again.",
        )
    return values
