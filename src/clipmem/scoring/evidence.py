"""What the other pairs say of a pair, without a model: captions predicted from images, and images from captions.

Every prediction leaves out the pair itself and about a hundred others, drawn at random. So it serves for any caption of
these on any of their images: a caption is planted on an image by comparing it with what is predicted there, nothing is
computed again, and a swapped pair looks exactly as if the captions had been swapped. With only the pair itself left
out, predictions would tell which one it was, most of all where the others say little.

When not to trust it: a singleton has no other pair as evidence.
"""

import contextlib
import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int

from clipmem._version import __version__
from clipmem.base import slices
from clipmem.base.errors import Unfinished
from clipmem.base.folder import Job
from clipmem.base.hashing import json_sha256
from clipmem.base.paths import atomic_file
from clipmem.base.random import generator
from clipmem.base.tables import open_array, scratch_array
from clipmem.models.signals import Signals
from clipmem.stats.agreement import TEMPERATURE, directions, directions_into, softmax_agreement, softmax_means
from clipmem.stats.cells import EXACT, Cells, Sorted, near_means
from clipmem.stats.leave_one_out import Features, leave_one_out, leave_one_out_scores

NEAR = 5  # testifying neighbors
TOGETHER, SMALLEST = 128, 10  # pairs that are left out together: at most a twentieth of all, or `SMALLEST`
COMPARED = 4000  # pairs by which features are chosen
_BLOCK, _PRODUCTS = 8192, 2048  # rows at once; captions, and images, all of which are compared
_SPAN = 65_536  # rows of cells that are a task
# how well a caption fits an image, cosines in [-1, 1], higher = better: it against the mean caption of similar images;
# the image against the mean image of similar captions; both against those predicted from the other by ridge regression
FITS = ("image-neighbors", "word-neighbors", "left-out", "left-out-image")
_SUMMED = 3  # of these for a suggestion
Progress = Callable[[float], object]


def ignore(_: float) -> None:
    """Report nothing."""


class Evidence:
    """Unit features of images x and captions t, and their predictions from the other pairs, centered.

    Attributes:
        image: x, shape (n, p).
        caption: t, shape (n, d).
        fold: Number of the pairs left out together, shape (n,).
        features: Name of the features x among `signals.evidence`: those that predict captions best.
        near: The nearest images of other folds of each, shape (n, NEAR); -1 where there are fewer.
        fits: The `FITS` of each pair, shape (4, n); with a model that did not train on the pairs, in one more row its
            cosine of image and caption.
        sums: The summed fit of each pair, shape (n,), as in `all_fits`.
        strength: Lengths of the four predictions: short where the other pairs contradict each other or tell nothing.
        pieces: Arrays of more than `EXACT` pairs, in the folder of the signals or in one of its own.
    """

    def __init__(self, signals: Signals, progress: Progress = ignore) -> None:
        n = len(signals.uids)
        count = max(2, n // min(TOGETHER, max(SMALLEST, n // 20)))
        self.fold = np.empty(n, dtype=np.int64)
        self.fold[generator(signals.seed, "left out together").permutation(n)] = np.arange(n) % count
        self.pieces: Any = None if n <= EXACT else _Pieces(signals)
        predict = partial(_compare_near, self.pieces) if self.pieces else _compare_all
        features = signals.evidence
        told = {name: _told(x, signals.words, self.fold) if len(features) > 1 else 0.0 for name, x in features.items()}
        self.features = max(told, key=told.__getitem__)
        compared = predict(features[self.features], signals.words, self.fold, progress)
        self.image, self.caption, self.near, parts = compared
        (self._captions, self._images, self._ridge, self._ridge_image), strength = zip(*parts, strict=True)
        self.strength = strength
        self._model: tuple[np.ndarray, ...] = ()
        if signals.unseen and signals.image is not None and signals.text is not None:
            self._model = signals.image.cpu().numpy(), signals.text.cpu().numpy()
        self.fits = self.fit(np.arange(n), np.arange(n))
        self._weight = self._weight_of_model() if self._model else 0.0
        self.sums = self.fits[:_SUMMED].sum(axis=0) + self._weight * self.fits[-1]

    def fit(self, image: Int[np.ndarray, " k"], caption: Int[np.ndarray, " k"]) -> Float64[np.ndarray, "fits k"]:
        """Return the rows of `fits` for image i and caption j, of two pairs of the same fold or of one."""
        values = np.empty((len(FITS) + bool(self._model), len(image)))
        for rows in slices(len(image), _BLOCK):
            i, j = image[rows], caption[rows]
            words, pixels = self.caption[j], self.image[i]
            predicted = self._captions[i], self._images[j], self._ridge[i], self._ridge_image[j]
            for row, a, b in zip(values[: len(FITS)], predicted, (words, pixels) * 2, strict=True):
                row[rows] = np.einsum("kd,kd->k", a, b)
            if self._model:
                values[-1, rows] = np.einsum("kd,kd->k", *self._embedded(i, j))
        return values

    def inputs(self, image: Int[np.ndarray, " k"], caption: Int[np.ndarray, " k"]) -> Float64[np.ndarray, "k q"]:
        """Return the fits as columns, and how much the other pairs know: lengths of the predictions from either."""
        fits = self.fits[:, image] if image is caption else self.fit(image, caption)
        lengths = (length[index] for length, index in zip(self.strength, (image, caption) * 2, strict=True))
        return np.stack([*fits, *lengths], axis=1)

    def all_fits(
        self, images: Int[np.ndarray, " k"], captions: Int[np.ndarray, " m"]
    ) -> Iterator[tuple[slice, slice, Float32[np.ndarray, "a b"]]]:
        """Yield the summed fit of captions to images, without the ridge prediction of images, for slices of both."""
        for some in slices(len(captions), _PRODUCTS):
            words, predicted = self.caption[captions[some]], self._images[captions[some]]
            for few in slices(len(images), _PRODUCTS):
                rows = images[few]
                captioned = self._captions[rows] + self._ridge[rows]
                fits = captioned @ words.T + self.image[rows] @ predicted.T
                if self._weight:
                    u, v = self._embedded(rows, captions[some])
                    fits += np.float32(self._weight) * (u @ v.T)
                yield few, some, fits

    def _embedded(
        self, image: Int[np.ndarray, " k"], caption: Int[np.ndarray, " m"]
    ) -> list[Float32[np.ndarray, "_ d"]]:
        """Return unit embeddings of images, and of captions, by the model."""
        rows = zip(self._model, (image, caption), strict=True)
        return [_unit(x[index].astype(np.float32))[0] for x, index in rows]

    def _weight_of_model(self) -> float:
        """Return the weight of the model's cosine M beside the sum S of the first three fits, 0 if it tells nothing.

        Fisher's discriminant of observed and swapped captions: with C the mean of the covariances of (S, M) of both,
        and (a, b) = C⁻¹ (mean of the observed pairs - mean of the swapped ones), the weight is max(0, b) / a.
        """
        order = np.argsort(self.fold, kind="stable")[:COMPARED]
        together = np.diff(self.fold[order]) == 0
        image, caption = order[1:][together], order[:-1][together]
        fits = self.fits[:, image], self.fit(image, caption)
        observed, swapped = (np.stack([values[:_SUMMED].sum(axis=0), values[-1]]) for values in fits)
        inverse = np.linalg.pinv(np.cov(observed) + np.cov(swapped))
        others, model = inverse @ (observed.mean(axis=1) - swapped.mean(axis=1))
        return max(0.0, float(model / others)) if others > 0 else 0.0

    def agreement(self, query: Float[torch.Tensor, "n p"]) -> list[Float[np.ndarray, " n"]]:
        """Return softmax agreements of other vectors of the images with the captions; of many, without their folds."""
        if self.pieces is None:
            words = torch.from_numpy(self.caption).double()
            return [softmax_agreement(a, b).numpy() for a, b in ((query, words), (words, query))]
        [unit] = self.pieces(_directions, query.numpy(), "embeddings")
        means = self.pieces.near(((unit, self.caption, NEAR), (self.caption, unit, 1)), self.fold)
        return [
            np.concatenate([np.einsum("kd,kd->k", a[part], b[part]) for part in slices(len(a), _BLOCK)])
            for (a, *_), b in zip(means, (self.caption, unit), strict=True)
        ]

    def alike(self, caption: Int[np.ndarray, " k"], others: Int[np.ndarray, " m"]) -> Float32[np.ndarray, "k m"]:
        """Return the cosine of the images that captions predict: high for captions of the same sort of thing."""
        return self._ridge_image[caption] @ self._ridge_image[others].T


def _told(image: Float[np.ndarray, "n p"], words: Features, fold: Int[np.ndarray, " n"]) -> float:
    """Return how well features of images predict captions without the pair: a mean cosine over evenly spaced pairs."""
    rows = np.arange(len(fold))[:: -(-len(fold) // COMPARED)]
    return -float(leave_one_out_scores(image[rows], words[rows], group=fold[rows], kernel="rbf").mean())


_Unit = tuple[Float32[np.ndarray, "n _"], Float32[np.ndarray, " n"]]  # unit rows, and lengths
# captions by images, images by words, both by ridge regression
_Compared = tuple[Float32[np.ndarray, "n p"], Float32[np.ndarray, "n d"], Int[np.ndarray, "n k"], tuple[_Unit, ...]]


def _compare_all(raw: Features, words: Features, fold: Int[np.ndarray, " n"], progress: Progress) -> _Compared:
    """Predict from all pairs of other folds, in memory."""
    x, t = (torch.from_numpy(np.asarray(rows[:], dtype=np.float64)) for rows in (raw, words))
    image, caption = directions(x, "images"), directions(t, "captions")
    captions, near = _means(x, t, fold, progress)
    predicted, ridge = _means(t, x, fold, progress)[0], list[_Unit]()
    for features, targets in ((x.numpy(), t.numpy()), (t.numpy(), x.numpy())):
        ridge.append(_ridge(features, targets, fold, np.empty(targets.shape, dtype=np.float32)))
        progress(1 / 4)
    parts = _unit(captions), _unit(predicted), *ridge
    return image.numpy().astype(np.float32), caption.numpy().astype(np.float32), near, parts


def _compare_near(
    pieces: "_Pieces", raw: Features, words: Features, fold: Int[np.ndarray, " n"], progress: Progress
) -> _Compared:
    """Predict from the pairs in near cells, and by ridge regression, in memory maps."""
    [image], [caption] = pieces(_directions, raw, "images"), pieces(_directions, words, "captions")
    parts = pieces.near(((image, caption, NEAR), (caption, image, 1)), fold, progress)
    for features, targets in ((raw, words), (words, raw)):
        parts.append(pieces(_ridge, features, targets, fold))
        progress(1 / 4)
    return image, caption, parts[0][2], tuple(part[:2] for part in parts)


_Side = tuple[np.ndarray, np.ndarray, int]  # unit rows, their values, number of nearest rows


class _Pieces:
    """Arrays that take long, as pieces of a folder: `.npy` files without pickles, memory-mapped.

    Their names say what they were computed from: other inputs make others. What is unreadable is computed again.
    """

    def __init__(self, signals: Signals) -> None:
        self.job = Job(signals.scratch or Path(tempfile.mkdtemp()))
        if signals.scratch is None:
            weakref.finalize(self, shutil.rmtree, self.job.path, ignore_errors=True)
        self._device, self._run = signals.device, signals.run

    def __call__(self, function: Callable[..., tuple[np.ndarray, ...]], *inputs: Any) -> Any:
        """Return the arrays of a function, the first of them as long as its first input."""
        return self._open(self._files(self._name(function, *inputs), function, *inputs))

    def near(self, sides: Sequence[_Side], fold: Int[np.ndarray, " n"], progress: Progress = ignore) -> list[Any]:
        """Return near means of length 1, their lengths, and k nearest rows, for each query, values and k.

        The rows of some consecutive cells are a task of the runner of the signals.

        Raises:
            Unfinished: The runner is for a share of the tasks, which are done.
        """
        tasks, spans, names = dict[int, tuple[Any, ...]](), dict[str, list[str]](), list[str]()
        for query, value, k in sides:
            sort = self._name(_sort, query, value, fold)
            names.append(name := f"{sort}-{k}-{self._device}")
            if self._find(name):
                progress(1 / 4)
                continue
            files = self._files(sort, _sort, query, value, fold)
            sizes = open_array(files[1], None)
            cuts = np.unique(np.searchsorted(np.cumsum(sizes), np.arange(0, len(fold), _SPAN))).tolist()
            spans[name] = [sort, *(f"{name}-{first:06d}" for first in cuts)]
            for span, cells in zip(spans[name][1:], map(slice, cuts, [*cuts[1:], len(sizes)]), strict=True):
                task = self.job, span, files, cells, k, self._device
                tasks[len(tasks)] = () if self._find(span, int(sizes[cells].sum())) else task

        if share := self._run(_near_span, tasks, lambda rows: progress(rows / len(fold) / 4)):
            remaining = sum(not self.job.is_done(span) for of_side in spans.values() for span in of_side)
            raise Unfinished(share, remaining, len(tasks))
        for name, (sort, *of_side) in spans.items():
            parts, start = [self._open(self.job.outputs(span)[0]) for span in of_side], 0
            order, (mean, near) = self._open(self.job.outputs(sort)[0])[0], parts[0]
            whole = scratch_array((len(fold), mean.shape[1])), np.empty((len(fold), near.shape[1]), dtype=np.int64)
            for part in parts:
                rows = order[start : start + len(part[0])]
                whole[0][rows], whole[1][rows], start = *part, start + len(rows)
            _write(self.job, name, *_unit(whole[0]), whole[1])
            for piece in (sort, *of_side):
                self.job.discard(piece)
        return [self._open(self._find(name)) for name in names]

    def _files(self, name: str, function: Callable[..., tuple[np.ndarray, ...]], *inputs: Any) -> list[Path]:
        return self._find(name, len(inputs[0])) or _write(self.job, name, *function(*inputs))

    def _name(self, function: Callable[..., object], *inputs: Any) -> str:
        identities = [_identity(x) if isinstance(x, np.ndarray) else x for x in inputs]
        return f"{function.__name__.strip('_')}-{json_sha256([__version__, function.__name__, identities])[:32]}"

    def _find(self, name: str, rows: int = 0) -> list[Path]:
        """Return the files of a piece that is finished and readable, and has so many rows; else none."""
        files = self.job.outputs(name)[0] if self.job.is_done(name) else []
        with contextlib.suppress(OSError, ValueError, EOFError):
            if files and len(self._open(files)[0]) >= rows:
                return files
        return []

    def _open(self, files: Sequence[Path]) -> tuple[np.ndarray, ...]:
        return tuple(open_array(file, "c") for file in files)


def _write(job: Job, name: str, *arrays: np.ndarray) -> list[Path]:
    """Write the arrays of a piece, and its marker."""
    files = [job.path / f"{name}-{index}.npy" for index in range(len(arrays))]
    for file, array in zip(files, arrays, strict=True):
        with atomic_file(file) as stream:
            np.save(stream, array, allow_pickle=False)
    job.finish(name, files, 0.0)
    return files


def _near_span(
    job: Job, name: str, files: Sequence[Path], cells: slice, k: int, device: str, *, progress: Callable[[int], object]
) -> None:
    """Write the near means of the rows of some cells, and the nearest rows, in the order of the cells."""
    by_cell, start = Sorted(*(open_array(file, "c") for file in files)), 0
    n = int(by_cell.sizes[cells].sum())
    mean, near = np.empty((n, by_cell.values.shape[1]), dtype=np.float32), np.empty((n, k), dtype=np.int64)
    for block in near_means(by_cell, k, temperature=TEMPERATURE, device=device, cells=cells):
        rows = slice(start, start := start + len(block.rows))
        mean[rows], near[rows] = block.mean, block.near
        progress(len(block.rows))
    _write(job, name, mean, near)


def _identity(x: np.ndarray) -> dict[str, object]:
    blocks = (np.ascontiguousarray(x[rows]) for rows in slices(x.shape[0], _BLOCK))
    hashes = [f"{block.dtype.str} {hashlib.sha256(block.data).hexdigest()}" for block in blocks]
    return {"shape": list(x.shape), "sha256": json_sha256(hashes)}


def _directions(x: Features, name: str) -> tuple[Float32[np.ndarray, "n d"]]:
    return (directions_into(scratch_array(x.shape), x, name),)


def _sort(query: Float32[np.ndarray, "n p"], value: Float32[np.ndarray, "n d"], fold: Int[np.ndarray, " n"]) -> Sorted:
    return Cells(query).sorted(value, fold)


def _ridge(features: Features, targets: Features, fold: Int[np.ndarray, " n"], out: np.ndarray | None = None) -> _Unit:
    out = scratch_array(targets.shape) if out is None else out
    leave_one_out(features, targets, group=fold, kernel="rbf", out=out)
    return _unit(out)


def _means(
    query: torch.Tensor, value: torch.Tensor, fold: Int[np.ndarray, " n"], progress: Progress
) -> tuple[Float32[np.ndarray, "n d"], Int[np.ndarray, "n k"]]:
    blocks, k = list[tuple[np.ndarray, np.ndarray]](), min(NEAR, len(fold) - int(np.bincount(fold).max()))
    for _, mean, near in softmax_means(query, [directions(value, "value")], k, group=fold):
        blocks.append((mean.numpy().astype(np.float32), near.numpy()))
        progress(len(mean) / len(fold) / 4)
    means, near = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return means, near


def _unit(x: Float32[np.ndarray, "n d"]) -> _Unit:
    """Divide rows by their lengths in place, and return both."""
    lengths = np.empty(len(x), dtype=np.float32)
    for rows in slices(len(x), _BLOCK):
        length = np.linalg.norm(x[rows], axis=1)
        x[rows] /= np.where(length > 0, length, 1)[:, None]
        lengths[rows] = length
    return x, lengths
