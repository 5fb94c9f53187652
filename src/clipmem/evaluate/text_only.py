"""The text-only reference of Déjà Vu's one-model test: the public captions nearest to a caption.

When not to trust it: TF-IDF compares letters, not meanings: "sofa" is not nearer to "couch" than to "cat". It predicts
worse than the published embedder for paraphrases, and can predict better than f if names share words (as on the emoji).
So gaps of the one-model test also contain the difference between the two predictors. For pairs that f did not train on
they contain nothing else: compare the candidates' gaps with theirs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int

from clipmem.base.errors import InputError, shorten
from clipmem.base.require import require, require_range
from clipmem.data.user_tables import known_uids, read_table
from clipmem.functional import nearest

TFIDF = "TF-IDF of 2 to 4 characters, fitted on the public captions"
_SETTING = "[dejavu] text_embeddings"
_CELLS = 1 << 24  # cosines held at a time: 128 MB
_DECIMALS = 12  # as in `nearest`


class TextNeighbors(NamedTuple):
    """Rows of the k nearest public captions, nearest first (the number of public pairs if there is none)."""

    rows: Int[np.ndarray, "q k"]
    unmatched: int


def tfidf_neighbors(
    queries: Sequence[Sequence[str]], public: Sequence[Sequence[str]], k: int, *, cells: int = _CELLS
) -> TextNeighbors:
    """Find the public pairs whose captions are nearest to a pair's captions by the cosine of their TF-IDF vectors.

    v(c) = unit vector of (count of r in c) * (ln((1 + P) / (1 + P_r)) + 1) over the character n-grams r (n = 2 to 4) of
    the P public captions, P_r of them with r (scikit-learn's smooth idf); a pair with several captions has their mean.
    Public pairs without a common n-gram are not neighbors. Ties (to 12 decimals) go to the lower row. About `cells`
    cosines are held at a time.
    """
    require_range("k", k, 1, len(public), "Ask for fewer neighbors.")
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), dtype=np.float64)
    vectorizer.fit([caption for own in public for caption in own])
    there, asked = (_pair_vectors(vectorizer, captions) for captions in (public, queries))
    found = np.full((len(queries), k), len(public))
    step = max(1, cells // len(public))
    for start in range(0, len(queries), step):
        cosine = np.round((asked[start : start + step] @ there.T).toarray(), _DECIMALS)
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        found[start : start + step] = np.where(np.take_along_axis(cosine, best, axis=1) > 0, best, len(public))
    return TextNeighbors(found, int((found[:, 0] == len(public)).sum()))


def _pair_vectors(vectorizer: Any, captions: Sequence[Sequence[str]]) -> Any:
    """Return a sparse unit vector per pair, the mean of its captions' vectors; zero without a known n-gram."""
    from scipy import sparse
    from sklearn.preprocessing import normalize

    each = vectorizer.transform([caption for own in captions for caption in own])
    counts = np.array([len(own) for own in captions])
    pair = np.repeat(np.arange(len(captions)), counts)
    shares = sparse.csr_matrix((1 / counts[pair], (pair, np.arange(len(pair)))), shape=(len(captions), len(pair)))
    return normalize(shares @ each)


def vector_neighbors(queries: Float64[np.ndarray, "q d"], public: Float64[np.ndarray, "p d"], k: int) -> TextNeighbors:
    """Find the nearest public captions by the vectors of a text embedder (see `clipmem.functional.nearest`)."""
    return TextNeighbors(nearest(torch.from_numpy(queries), torch.from_numpy(public), k).rows.numpy(), 0)


def read_vectors(path: str, uids: Sequence[str]) -> Float64[np.ndarray, "n d"]:
    """Read text embeddings, one vector per pair."""
    file = Path(path)
    if file.suffix == ".npy":
        return _checked(_npy(file, len(uids)), path)
    table = read_table(file, _SETTING, ("uid", "embedding"))
    named = known_uids(table, uids, _SETTING)
    missing = sorted(set(uids) - set(named))
    some = ", ".join(map(shorten, missing[:1]))
    got = f"no vector for {len(missing):,} of {len(uids):,} pairs, among them {some}"
    require(not missing, _SETTING, got, "one vector per pair", "Embed the captions of all pairs.")
    row = {uid: place for place, uid in enumerate(named)}
    column = table["embedding"]
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    numbers = isinstance(column.dtype, pl.List) and column.dtype.inner.is_numeric()  # pyright: ignore[reportAttributeAccessIssue]
    require(numbers, _SETTING, f"column 'embedding' of {column.dtype}", "lists of numbers", "Store lists of numbers.")
    one_width = column.list.len().n_unique() == 1 and not column.null_count()
    require(one_width, _SETTING, "vectors of several widths", "one width", "Embed all captions with the same model.")
    values = column.explode().cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(len(named), -1)
    return _checked(values[[row[uid] for uid in uids]], path)


def _npy(file: Path, pairs: int) -> np.ndarray:
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        got = f"{str(file)!r}: {shorten(str(error))}"
        raise InputError(_SETTING, got=got, expected="an array in .npy", hint="Check the path.") from error
    right, got = values.ndim == 2 and len(values) == pairs, f"an array of shape {values.shape} in {file}"
    expected = f"({pairs}, d): one row per pair, in the order of pairs.parquet"
    require(right, _SETTING, got, expected, "Reorder the rows, or use Parquet with uid and embedding.")
    return values


def _checked(values: np.ndarray, path: str) -> Float64[np.ndarray, "n d"]:
    values = values.astype(np.float64)
    bad = int((~np.isfinite(values).all(axis=1) | ~values.any(axis=1)).sum())
    got = f"{bad} vectors in {path} that are 0 or not finite"
    require(not bad, _SETTING, got, "finite nonzero vectors", "Embed those captions again.")
    return values
