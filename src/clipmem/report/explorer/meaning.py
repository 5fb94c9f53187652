"""Search by meaning: pairs by the similarity of their images to words, under the model of the stored embeddings.

Similarity of a pair to a text = dot product of the mean unit embedding of its image views with the unit embedding of
the text, in [-1, 1]: the mean cosine. An export has no text tower, but unit embeddings of frequent words of the
captions. There the direction of a query is the mean of those of its words, which orders pairs much like the whole
text (Spearman 0.84 for captions of the emoji and a model trained on them). Both vectors are int8 with a scale each: at
width 512, similarities are off by 0.0005. Wider ones are projected on the 512 main directions of the words.
"""

import base64
import threading
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64, Int

from clipmem.base.errors import InputError, require
from clipmem.report.explorer.neighbors import Embedded, Vectors

LONGEST = 500  # characters of a query
_WORDS, _RARE, _LONG, _WIDTH = 2_000, 1, 40, 512  # words stored, occurrences and characters that are not, numbers
_SUBJECT, _WORD = "search by meaning", r"[\p{L}\p{M}\p{N}_]+"
Texts = Callable[[Sequence[str]], np.ndarray]


class WordVectors(TypedDict):
    """The vectors of words and of images, each as numbers of one `width` and a scale a row, in base64."""

    words: list[str]
    width: int
    vectors: list[str]
    images: list[str]


class Meaning:
    """The text tower of the model whose image embeddings are stored, loaded when it is first needed.

    Args:
        embedded: The embeddings of a run; None without.
        load: Loads the text tower of a side and a seed: what embeds texts, one row each; None without models.
    """

    def __init__(self, embedded: Embedded | None, load: Callable[[str, int], Texts] | None) -> None:
        self._embedded, self._load, self._lock = embedded, load, threading.Lock()
        self._texts: Texts | None = None

    def similarities(self, text: str) -> Float64[np.ndarray, " n"]:
        """Return the similarity of every pair to a text; NaN for pairs without embeddings.

        Raises:
            InputError: The text is empty or too long, or there are no embeddings, or no model that embedded them.
        """
        got, hint = f"{len(text):,} characters", "Say in a few words what the images show."
        require(0 < len(text.strip()) <= LONGEST, _SUBJECT, got, f"1 to {LONGEST}", hint)
        vectors, directions = self._directions([text])
        return vectors.products(directions.T)[:, 0]

    def vectors(self, rows: Int[np.ndarray, " n"], pairs: pl.DataFrame | None) -> WordVectors:
        """Return the vectors of frequent words of the captions of some rows, and of their images, as JSON.

        Raises:
            InputError: As above; or no word occurs twice.
        """
        captions = pl.Series(dtype=pl.List(pl.String)) if pairs is None else pairs["captions"].gather(rows)
        texts = captions.explode().drop_nulls().str.to_lowercase()
        counts = texts.str.extract_all(_WORD).explode().drop_nulls().alias("word").value_counts()
        counts = counts.filter(pl.col("count") > _RARE, pl.col("word").str.len_chars() <= _LONG)
        words = counts.sort("count", "word", descending=[True, False])["word"].head(_WORDS).to_list()
        require(words or self._embedded is None, _SUBJECT, "no word twice", "words in common", "Export more pairs.")
        stored, directions = self._directions(words)
        images = stored.means(rows)
        if images.shape[1] > _WIDTH:
            axes = np.linalg.eigh(directions.T @ directions)[1][:, -_WIDTH:]
            directions, images = directions @ axes, images @ axes
        of_words, of_images = _quantized(directions), _quantized(images)
        return {"words": words, "width": images.shape[1], "vectors": of_words, "images": of_images}

    def _directions(self, texts: Sequence[str]) -> tuple[Vectors, Float32[np.ndarray, "m d"]]:
        """Return the stored image embeddings, and the unit embeddings of texts; zeros for a text without direction."""
        if self._embedded is None or self._load is None:
            got, expected = "no image embeddings of these pairs with their model", "those of a run"
            hint = "Measure the data with clipmem run, which keeps both, and open its folder with clipmem view."
            raise InputError(_SUBJECT, got=got, expected=expected, hint=hint)
        side, folder = next(iter(self._embedded.folders.items()))
        vectors, seed = self._embedded.vectors("image", side), folder.name.removeprefix("seed-")
        with self._lock:
            self._texts = self._texts or self._load(folder.parent.name, int(seed) if seed.isdecimal() else -1)
            embedded = self._texts(texts).astype(np.float32)
        got, hint = f"width {vectors.array.shape[1]}", "Delete the folder of embeddings and run the study again."
        require(got == f"width {embedded.shape[1]}", f"embeddings in {folder}", got, f"{embedded.shape[1]}", hint)
        lengths = np.linalg.norm(embedded, axis=1, keepdims=True)
        return vectors, np.divide(embedded, lengths, out=np.zeros_like(embedded), where=lengths > 0)


def _quantized(vectors: Float32[np.ndarray, "m d"]) -> list[str]:
    """Return vectors as int8, and the scale of each, 0 for zeros; both in base64."""
    scales = np.abs(vectors).max(axis=1, keepdims=True) / 127
    whole = np.rint(np.divide(vectors, scales, out=np.zeros_like(vectors), where=scales > 0))
    return [base64.b64encode(values.tobytes()).decode() for values in (whole.astype(np.int8), scales.astype("<f4"))]
