"""Déjà Vu memorization: does a caption bring back objects of *its* image that the caption does not tell?

For each training pair, the k held-out images nearest to its caption are found under f (which saw the pair) and under
g (which did not). The objects in those images are the prediction; they are compared with the objects in the pair's
own image (Jayaraman, Guo & Chaudhuri, NeurIPS 2024). What g predicts is what anybody could guess from the caption;
what f adds is memorized.

- population precision gap = share of pairs with precision(f) > precision(g), less the share with precision(f) <
  precision(g);
- population recall gap = the same for recall;
- AUC gap = area under P(recall >= t), t from 0 to 1, of f minus that of g;
- top-x % gaps = mean precision, recall and F-score of f less those of g, over the x % of the pairs to which f adds the
  most objects.

When not to trust it: it sees only objects that the label list knows, depends on how rich the public set is, and
every x > 0 of "top" selects pairs by the same data that it then averages, so the top gaps are above 0 for two
unrelated models as well: show those of g against another g beside them. All gaps are differences of two models: 0
is "no more than g"; `dejavu_intervals` says how sure each is. The authors' code leaves out pairs without an object; so
does this. Its AUC is a sum over 100 bins that lies above the area by up to a hundredth of the range of recalls; here
the area is exact: ∫ P(R >= t) dt is the mean recall.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import require, require_range
from clipmem.base.random import bootstrap_counts, generator
from clipmem.stats.checks import check_confidence, check_same_length
from clipmem.stats.intervals import Interval, crossed_mean
from clipmem.stats.similarity import check_width, normalize
from clipmem.stats.tensor_checks import check_index

FRACTIONS = (0.001, 0.01, 0.1)
_CELLS = 2_000_000  # resampled pairs, or cosines, held at a time
Objects = Bool[Tensor, "n object"]  # of each pair
_DECIMALS = 12  # cosines are compared to this precision: copies of an image must tie in any block


class Neighbors(NamedTuple):
    """The k nearest public rows of each query and their cosines, nearest first, shape (q, k)."""

    rows: Int[Tensor, "q k"]
    similarity: Float64[Tensor, "q k"]


def nearest(query: Float[Tensor, "q d"], public: Float[Tensor, "p d"], k: int, *, cells: int = _CELLS) -> Neighbors:
    """Find the k public points with the largest cosine to each query; for Déjà Vu, the images nearest to each caption.

    The search is exact. Time is proportional to queries times public points: for billions of products use an
    approximate index, and report it.

    Args:
        query: Embeddings, any length, shape (q, d).
        public: Embeddings, any length, shape (p, d).
        k: Number of neighbors, 1 to p.
        cells: Cosines held at a time, about; it never changes the result.

    Returns:
        Indices and cosines in [-1, 1], nearest first. Equal cosines (to 12 decimals): the lower index first.

    Raises:
        InputError: Widths differ, `k` or `cells` is out of range, or a row is zero or not finite.

    Example:
        >>> nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0], [2.0, 0.0]]), 2).rows.tolist()
        [[1, 2]]
    """
    check_width("public points", public.shape[1], query.shape[1])
    require_range("k", k, 1, len(public), "Ask for fewer neighbors.")
    require_range("cells", cells, 1, hint="Use 2,000,000.")
    columns = normalize(public.double(), name="public points").T
    rows = torch.empty(len(query), k, dtype=torch.long, device=query.device)
    similarity = torch.empty(len(query), k, dtype=torch.float64, device=query.device)
    block = max(1, cells // len(public))
    for part in slices(len(query), block):
        queries = normalize(query[part].double(), name="queries")
        cosine = torch.round(queries @ columns, decimals=_DECIMALS).clamp(-1, 1)
        best = cosine.sort(dim=1, descending=True, stable=True)
        rows[part], similarity[part] = best.indices[:, :k], best.values[:, :k]
    return Neighbors(rows, similarity)


def predict_objects(neighbors: Int[Tensor, "q k"], objects: Bool[Tensor, "p object"]) -> Bool[Tensor, "q object"]:
    """Predict the objects of an image: all that any of its caption's nearest held-out images has (published code).

    Args:
        neighbors: Rows of `objects`, from `nearest`, shape (q, k).
        objects: Which object is in which public image, shape (p, object).

    Returns:
        Predicted objects, shape (q, object).

    Raises:
        InputError: A neighbor is out of range.

    Example:
        >>> objects = torch.tensor([[True, False, False], [True, True, False]])
        >>> predict_objects(torch.tensor([[0, 1]]), objects).tolist()
        [[True, True, False]]
    """
    hint = "Find them among the held-out images that the objects belong to."
    check_index("neighbors", neighbors.flatten(), 0, len(objects), hint)
    predicted = objects.new_zeros(len(neighbors), objects.shape[1])
    for rows in neighbors.T.long():  # one neighbor at a time: (q, k, object) is never held
        predicted |= objects[rows]
    return predicted


class TopGaps(NamedTuple):
    """Gaps over the pairs to which f adds most: mean precision, mean recall and their F-score, f minus g."""

    fraction: float
    pairs: int
    precision: float
    recall: float
    f_score: float


class DejaVu(NamedTuple):
    """Déjà Vu memorization of one pair of models; `kept` are the rows of the pairs that count (they have an object).

    Attributes:
        precision_gap: Population precision gap, in [-1, 1].
        recall_gap: Population recall gap, in [-1, 1].
        auc_gap: Area under P(recall >= t) of f minus that of g, in [-1, 1].
        top: Gaps at the top, one entry a fraction.
        extra: Correct objects under f minus those under g, whole numbers: the score of each pair, which ranks it.
        precision: Precision of each of them under f and under g, shape (2, kept); `recall` likewise.
    """

    precision_gap: float
    recall_gap: float
    auc_gap: float
    top: tuple[TopGaps, ...]
    kept: Int[np.ndarray, " kept"]
    extra: Int[np.ndarray, " kept"]
    precision: Float64[np.ndarray, "side kept"]
    recall: Float64[np.ndarray, "side kept"]


def _ranked(extra: Int[np.ndarray, " kept"]) -> Int[np.ndarray, " kept"]:
    """Return the pairs to which f adds the most objects first; of equal pairs the first."""
    return np.argsort(-extra, kind="stable")


def _gaps(rates: Float64[np.ndarray, "*draw rate side"]) -> Float64[np.ndarray, "*draw kind"]:
    """Return the gaps of precision, recall and F-score from mean precision and mean recall under f and under g."""
    total = rates.sum(axis=-2, keepdims=True)
    f_score = 2 * rates.prod(axis=-2, keepdims=True) / np.where(total > 0, total, 1)
    means = np.concatenate([rates, f_score], axis=-2)
    return means[..., 0] - means[..., 1]


def dejavu(true: Objects, target: Objects, reference: Objects, *, fractions: tuple[float, ...] = FRACTIONS) -> DejaVu:
    """Compare the objects predicted under f with those predicted under g.

    precision = |true ∩ predicted| / |predicted| (0 when nothing is predicted), recall = |true ∩ predicted| /
    |true|; the gaps are those of the module (Jayaraman et al., NeurIPS 2024, section 4). Higher is more memorized.

    Args:
        true: Objects in each pair's own image, shape (n, object).
        target: Objects predicted under f, from `predict_objects`, shape (n, object).
        reference: Objects predicted under g, shape (n, object).
        fractions: Shares of the pairs to look at, each in (0, 1]; at least one pair is taken.

    Returns:
        All gaps, and the values of each pair.

    Raises:
        InputError: Shapes differ, no pair has an object, or a fraction is out of range.

    Example:
        >>> true = torch.tensor([[True, True], [True, False]])
        >>> result = dejavu(true, true, torch.tensor([[True, False], [True, False]]))
        >>> result.precision_gap, result.recall_gap, result.auc_gap, result.extra.tolist()
        (0.0, 0.5, 0.25, [1, 0])
    """
    for name, predicted in (("target", target), ("reference", reference)):
        got, hint = f"shape {tuple(predicted.shape)}", "Predict the same objects for the same pairs."
        require(predicted.shape == true.shape, name, got, f"shape {tuple(true.shape)}, that of the true objects", hint)
    hint = "Check the labels: pairs without an object do not count."
    got = f"no object in {len(true)} pairs"
    require(bool(true.any()), "true objects", got, "one pair or more with an object", hint)
    for fraction in fractions:
        require(0 < fraction <= 1, "fractions", f"{fraction}", "numbers above 0, at most 1", "Use 0.01.")
    rows = np.flatnonzero(true.cpu().numpy().any(axis=1))
    objects, *predictions = (matrix.cpu().numpy()[rows] for matrix in (true, target, reference))
    correct = np.stack([(objects & predicted).sum(axis=1) for predicted in predictions])
    precision = correct / np.maximum([predicted.sum(axis=1) for predicted in predictions], 1)
    recall, extra = correct / objects.sum(axis=1), correct[0] - correct[1]
    order, tops = _ranked(extra), list[TopGaps]()
    for fraction in fractions:
        top = order[: max(1, int(len(rows) * fraction))]
        gaps = _gaps(np.stack([precision, recall])[:, :, top].mean(axis=2))
        tops.append(TopGaps(fraction, len(top), *gaps.tolist()))
    precision_gap, recall_gap = (float(np.sign(rate[0] - rate[1]).mean()) for rate in (precision, recall))
    auc_gap = float((recall[0] - recall[1]).mean())
    return DejaVu(precision_gap, recall_gap, auc_gap, tuple(tops), rows, extra, precision, recall)


class TopIntervals(NamedTuple):
    """Gaps over the pairs ranked highest, averaged over seeds; `pairs` is how many those are."""

    fraction: float
    pairs: int
    precision: Interval
    recall: Interval
    f_score: Interval


class DejaVuIntervals(NamedTuple):
    """Gaps of Déjà Vu memorization, averaged over seeds, each with its interval (see `DejaVu`)."""

    precision_gap: Interval
    recall_gap: Interval
    auc_gap: Interval
    top: tuple[TopIntervals, ...]


def _resampled_tops(
    results: Sequence[DejaVu], codes: Int[np.ndarray, " kept"], seed: int, draws: int
) -> Float64[np.ndarray, "draw fraction kind"]:
    """Resample groups, rank each draw again, and return the gaps over its own top, averaged over seeds.

    A draw has every pair w_i times. Its top is the first max(1, ⌊x Σ w⌋) copies in the order of the ranking.
    """
    stream, step = generator(seed, "bootstrap", "groups"), max(1, _CELLS // len(codes))
    gaps: list[Float64[np.ndarray, "draw fraction kind"]] = []
    for start in range(0, draws, step):
        times = bootstrap_counts(stream, min(step, draws - start), int(codes.max()) + 1)[:, codes]
        total = times.sum(axis=1, keepdims=True)
        sizes = [np.maximum(1, (total * top.fraction).astype(np.int64)) for top in results[0].top]
        by_seed: list[Float64[np.ndarray, "draw fraction kind"]] = []
        for result in results:
            order = _ranked(result.extra)
            copies, rates = times[:, order], np.concatenate([result.precision, result.recall])[:, order]
            before = np.cumsum(copies, axis=1) - copies
            means = [np.clip(size - before, 0, copies) @ rates.T / size for size in sizes]
            by_seed.append(_gaps(np.stack(means, axis=1).reshape(len(times), -1, 2, 2)))
        gaps.append(np.mean(by_seed, axis=0))
    return np.concatenate(gaps)


def dejavu_intervals(
    results: Sequence[DejaVu], groups: Int[np.ndarray, " n"], *, seed: int, draws: int = 2000, confidence: float = 0.95
) -> DejaVuIntervals:
    """Average the gaps over seeds, with their intervals.

    The population gaps and the AUC gap are means over pairs and have the interval of `crossed_mean`. The gaps at the
    top are not, because another sample of pairs has another top. They have a percentile interval over pairs only: each
    of `draws` draws takes as many groups as there are, with replacement, and is ranked again. With fewer than about 10
    pairs at the top it is too narrow, and with a single pair it only shows which other pairs could have been first.

    Args:
        results: One result of `dejavu` a seed, for the same pairs and fractions.
        groups: Group of each of the n pairs, shape (n,).
        seed: Seed of the draws.
        draws: Number of draws.
        confidence: Coverage of the intervals, between 0 and 1.

    Returns:
        Every gap with its interval; low and high are None with one group.

    Raises:
        InputError: As for `crossed_mean`; there is no seed, or the seeds have other pairs.

    Example:
        >>> true = torch.tensor([[True, True], [True, False]])
        >>> result = dejavu(true, true, torch.tensor([[True, False], [True, False]]))
        >>> dejavu_intervals([result], np.array([0, 1]), seed=0).recall_gap.mean
        0.5
    """
    check_confidence(confidence)
    require(draws >= 1, "draws", f"{draws}", "a whole number >= 1", "Use 2000.")
    require(len(results) > 0, "seeds", "none", "one result a seed", "Compare at least one pair of models.")
    rows, hint = results[0].kept, "Give every seed the same objects."
    for result in results:
        got = f"{len(result.kept)} pairs in one seed, {len(rows)} in the first"
        require(np.array_equal(result.kept, rows), "kept", got, "the same pairs in every seed", hint)
    if rows[-1] >= len(groups):
        check_same_length("pairs", int(rows[-1]) + 1, "groups", len(groups))
    codes = np.unique(groups[rows], return_inverse=True)[1]
    precision = np.stack([result.precision[0] - result.precision[1] for result in results])
    recall = np.stack([result.recall[0] - result.recall[1] for result in results])
    gaps = [crossed_mean(x, codes, confidence=confidence) for x in (np.sign(precision), np.sign(recall), recall)]
    fractions = [top[:2] for top in results[0].top]
    bounds: Any = np.full((2, len(fractions), 3), None)  # one group has no spread
    if codes.max() > 0 and fractions:
        ends = [(1 - confidence) / 2, (1 + confidence) / 2]
        bounds = np.quantile(_resampled_tops(results, codes, seed, draws), ends, axis=0)
    tops: list[TopIntervals] = []
    for index, (fraction, pairs) in enumerate(fractions):
        means = np.mean([result.top[index][2:] for result in results], axis=0)
        kinds = zip(means.tolist(), *bounds[:, index].tolist(), strict=True)
        tops.append(TopIntervals(fraction, pairs, *[Interval(mean, low, high) for mean, low, high in kinds]))
    return DejaVuIntervals(gaps[0], gaps[1], gaps[2], tuple(tops))
