"""Nearest pairs by stored embeddings, exactly, in blocks; and flat maps of the embeddings.

Similarity of two pairs under one model = dot product of their mean unit embeddings, over views or captions, in [-1, 1]:
the mean cosine. It is taken from the files of the first seed as they are: rows are read in blocks, never mapped as a
whole, and only their lengths stay in memory, so that a million pairs of width 512 need megabytes.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64, Int, Int64
from threadpoolctl import threadpool_limits

from clipmem.base.errors import InputError, require, require_one_of, shorten
from clipmem.base.folder import SIDES
from clipmem.base.random import generator
from clipmem.base.tables import open_array
from clipmem.report.explorer.subject import Subject

SPACES = ("image", "text")
_BLOCK = 2048  # rows read at once: 4 MB at width 512
_THREADS = 2
_SAMPLE = 20_000  # pairs that axes are fitted on
_SMALLEST = 10  # pairs, for a map


class Neighbor(TypedDict):
    """A row, and its similarity to another, as JSON."""

    row: int
    similarity: float


class Vectors:
    """An embedding file, and the viewed row that each of its rows belongs to; -1: none."""

    def __init__(self, file: Path, owner: Int64[np.ndarray, " m"], rows: int) -> None:
        array = open_array(file, "r")
        fits = array.dtype == np.float32 and array.size == len(owner) * array.shape[-1]
        got, hint = f"{array.dtype} of shape {array.shape}", "Delete the folder of embeddings and run the study again."
        require(fits, f"embeddings in {file}", got, f"float32, {len(owner):,} rows", hint)
        self.file, self.owner, self.rows, self.array = file, owner, rows, array.reshape(len(owner), -1)
        self._start = getattr(array, "offset", 0)
        self._lengths: np.ndarray | None = None

    def _read(self, start: int, end: int) -> Float32[np.ndarray, "block d"]:
        """Return rows, which are not mapped."""
        if not self._start:  # a small file is in memory
            return self.array[start:end]
        width = self.array.shape[1]
        values = np.fromfile(self.file, np.float32, (end - start) * width, offset=self._start + start * width * 4)
        return values.reshape(-1, width)

    def products(self, directions: Float32[np.ndarray, "d q"]) -> Float64[np.ndarray, "n q"]:
        """Return the mean product of each pair's unit embeddings with each direction; NaN for pairs without any."""
        products = np.empty((len(self.owner), directions.shape[1]), dtype=np.float32)
        has_lengths, lengths = self._lengths is not None, self._lengths
        lengths = np.empty((len(products), 1), dtype=np.float32) if lengths is None else lengths

        def part(first: int, end: int) -> None:
            for start in range(first, end, _BLOCK):
                where = slice(start, min(start + _BLOCK, end))
                block = self._read(where.start, where.stop)
                np.dot(block, directions, out=products[where])
                if not has_lengths:
                    lengths[where, 0] = np.sqrt(np.einsum("bd,bd->b", block, block))

        edges = np.linspace(0, len(products), _THREADS + 1).astype(int).tolist()
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(part, edges[:-1], edges[1:]))
        self._lengths, valid = lengths, self.owner >= 0
        np.divide(products, lengths, out=products, where=lengths > 0)
        products[~(lengths > 0)[:, 0]] = 0
        count = np.bincount(self.owner[valid], minlength=self.rows)
        total = np.stack([np.bincount(self.owner[valid], x[valid], minlength=self.rows) for x in products.T], axis=1)
        return np.divide(total, count[:, None], out=np.full(total.shape, np.nan), where=count[:, None] > 0)

    def similarities(self, row: int) -> Float64[np.ndarray, " n"]:
        """Return the similarity of every pair to that of a row; NaN for pairs without embeddings."""
        return self.products(self.means(np.array([row])).T)[:, 0]

    def means(self, rows: Int[np.ndarray, " k"]) -> Float32[np.ndarray, "k d"]:
        """Return the mean unit embeddings of pairs; zeros for those without embeddings."""
        position = np.full(self.rows + 1, -1)  # the last is for owner -1
        position[rows] = np.arange(len(rows))
        total, count = (np.zeros((len(rows), width), np.float32) for width in (self.array.shape[1], 1))
        wanted = np.flatnonzero(position[self.owner] >= 0)
        for start in range(0, len(wanted), _BLOCK):
            indices = wanted[start : start + _BLOCK]
            block, where = np.array(self.array[indices]), position[self.owner[indices]]
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            first = np.flatnonzero(np.diff(where, prepend=-1))  # rows of a pair follow each other
            np.add.at(total, where[first], np.add.reduceat(block, first, axis=0))
            np.add.at(count, where, 1)
        return total / np.maximum(count, 1)


@dataclass
class Embedded:
    """The embeddings of a run: a folder for each side, and the viewed row of each row of the split table."""

    rows: int
    folders: Mapping[str, Path]
    owner: Int64[np.ndarray, " n"]
    _open: dict[tuple[str, str], Vectors] = field(default_factory=dict[tuple[str, str], Vectors])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def vectors(self, space: str, side: str) -> Vectors:
        """Open the embeddings of images or texts under one side."""
        require_one_of("space", space, SPACES)
        require_one_of("side", side, self.folders)
        file = self.folders[side] / f"{space}.npy"
        with self._lock:
            if (space, side) not in self._open:
                try:
                    pair = open_array(self.folders[side] / "text_pair.npy", None) if space == "text" else None
                    owner = np.repeat(self.owner, open_array(file, "r").shape[1]) if pair is None else self.owner[pair]
                except (OSError, ValueError, EOFError, IndexError) as error:
                    hint = "Delete the folder of embeddings and run the study again."
                    raise InputError(f"embeddings in {file}", got=shorten(str(error)), hint=hint) from error
                self._open[space, side] = Vectors(file, owner, self.rows)
            return self._open[space, side]

    def nearest(self, row: int, space: str, side: str, k: int) -> list[Neighbor]:
        """Return the `k` most similar other pairs of a row, most similar first; ties by row."""
        similarity = self.vectors(space, side).similarities(row)
        similarity[row] = np.nan
        return _entries(similarity, k)

    def nearest_among(self, rows: Int[np.ndarray, " n"], space: str, side: str, k: int) -> Iterator[list[Neighbor]]:
        """Yield the `k` most similar others of each row among `rows`, by their places in `rows`."""
        means = self.vectors(space, side).means(rows)
        for start in range(0, len(rows), 512):
            for number, similarity in enumerate(means[start : start + 512] @ means.T, start):
                similarity[number] = np.nan
                yield _entries(similarity, k)

    def maps(self) -> dict[str, np.ndarray]:
        """Return axes of the image embeddings of the first side: PCA; for few pairs UMAP, where it is installed."""
        if self.rows < _SMALLEST:
            return {}
        vectors = self.vectors("image", next(iter(self.folders)))
        sample = vectors.means(generator(0, "view axes").permutation(self.rows)[:_SAMPLE]).astype(np.float64)
        center = sample.mean(axis=0)
        axes = np.linalg.eigh((sample - center).T @ (sample - center))[1][:, :-3:-1]
        axes = axes * np.where(axes.sum(axis=0) < 0, -1, 1)  # the same signs on every machine
        flat = {"pca": vectors.products(axes.astype(np.float32)) - center @ axes}
        if self.rows <= _SAMPLE and find_spec("umap"):
            import umap  # pyright: ignore[reportMissingImports]

            near = min(15, self.rows - 1)
            fitted = umap.UMAP(near, metric="cosine", random_state=0, n_jobs=1)
            flat["umap"] = fitted.fit_transform(vectors.means(np.arange(self.rows)))
        return {f"{name}_{axis}": points[:, k] for name, points in flat.items() for k, axis in enumerate("xy")}


def _entries(similarity: np.ndarray, k: int) -> list[Neighbor]:
    rows = np.flatnonzero(np.isfinite(similarity))
    if len(rows) > k:
        rows = rows[similarity[rows] >= np.partition(similarity[rows], len(rows) - k)[len(rows) - k]]
    near = rows[np.argsort(-similarity[rows], kind="stable")][:k]
    return [{"row": int(row), "similarity": round(float(similarity[row]), 4)} for row in near]


def embedded(subject: Subject) -> Embedded | None:
    """Open the embeddings of a run: the first seed of f and g, or of the first model; None without."""
    if subject.run is None:
        return None
    files = sorted(subject.path.glob("embeddings/*/seed-*/image.npy"), key=lambda file: (len(str(file)), str(file)))
    by_side = {file.parent.parent.name: file.parent for file in reversed(files)}
    folders = {side: by_side[side] for side in SIDES if side in by_side} or dict(list(by_side.items())[-1:])
    if not folders:
        return None
    rows = subject.scores.select("uid").with_row_index("row")
    owner = subject.run.splits.select("uid").join(rows, on="uid", how="left", maintain_order="left")["row"]
    return Embedded(rows.height, folders, owner.cast(pl.Int64).fill_null(-1).to_numpy())
