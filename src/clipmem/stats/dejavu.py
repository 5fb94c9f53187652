"""Déjà Vu memorization: does a caption bring back objects of *its* image that the caption does not tell?

For each training pair, the k public images nearest to its caption are found under f (which saw the pair) and under
g (which did not). The objects in those images are the prediction; they are compared with the objects in the pair's
own image (Jayaraman, Guo & Chaudhuri, NeurIPS 2024). What g predicts is what anybody could guess from the caption;
what f adds is memorized.

- population precision gap = share of pairs with precision(f) > precision(g), less the share with precision(f) <
  precision(g);
- population recall gap = the same for recall;
- AUC gap = area under P(recall >= t), t from 0 to 1, of f minus that of g;
- top-x % gaps = mean precision, recall and F-score of f less those of g, over the x % of the pairs ranked as most
  memorized.

When not to trust it: it sees only objects that the label list knows, depends on how rich the public set is, and
every x > 0 of "top" selects pairs by the same data that it then averages, so the top gaps are above 0 for two
unrelated models as well: show those of g against another g beside them. All gaps are differences of two models: 0
is "no more than g"; `dejavu_intervals` says how sure each is. The authors' code leaves out pairs without an object; so
does this. Its AUC is a sum over 100 bins that lies above the area by up to a hundredth of the range of recalls; here
the area is exact: ∫ P(R >= t) dt is the mean recall.

Intervals (`dejavu_intervals`): the population gaps and the AUC gap are means over pairs (`bootstrap_mean`). The gaps at
the top are not: each draw of pairs has another top. So the draw is ranked again, and its own top is averaged: a draw
takes every pair w_i times; its top holds the first max(1, ⌊x Σ w⌋) of the copies in the ranking's order. The top of 200
pairs at 0.1 % is one pair, and then the interval only says which other pairs might have been that one: below some ten
pairs at the top, read it so.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from clipmem.base.errors import InputError, require, require_one_of, require_range
from clipmem.base.random import bootstrap_counts, generator
from clipmem.stats.checks import as_finite, check_confidence, check_draws, check_same_length
from clipmem.stats.intervals import Interval, crossed_mean
from clipmem.stats.similarity import check_width, normalize
from clipmem.stats.tensor_checks import check_index

FRACTIONS = (0.001, 0.01, 0.1)
_CELLS = 2_000_000  # resampled pairs held at a time
_SPARE = 64  # pairs of the ranking that are looked at beyond twice the top

Ranking = Literal["gap", "correct", "distance"]


class TopGaps(NamedTuple):
    """Gaps over the pairs ranked highest: mean precision, mean recall and their F-score, f minus g."""

    fraction: float
    pairs: int
    precision: float
    recall: float
    f_score: float


class DejaVu(NamedTuple):
    """Déjà Vu memorization of one pair of models; `kept` are the rows of the pairs that count (they have an object).

    Attributes:
        precision_gap: Population precision gap, in [-1, 1]: the mean of `precision_sign`.
        recall_gap: Population recall gap, in [-1, 1]: the mean of `recall_sign`.
        auc_gap: Area under P(recall >= t) of f minus that of g, in [-1, 1]: the mean of `recall_difference`.
        top: Gaps at the top, one entry a fraction.
        extra: Objects right under f less objects right under g, whole numbers: the score of each pair.
        precision: Precision of each of them under f and under g, shape (2, kept); `recall` likewise.
        order: Which of them stand at the top by the ranking, first ones first: numbers from 0 to kept - 1.
    """

    precision_gap: float
    recall_gap: float
    auc_gap: float
    top: tuple[TopGaps, ...]
    kept: Int[np.ndarray, " kept"]
    precision_sign: Float64[np.ndarray, " kept"]
    recall_sign: Float64[np.ndarray, " kept"]
    recall_difference: Float64[np.ndarray, " kept"]
    extra: Int[np.ndarray, " kept"]
    precision: Float64[np.ndarray, "side kept"]
    recall: Float64[np.ndarray, "side kept"]
    order: Int[np.ndarray, " kept"]


def predict_objects(
    neighbors: Int[Tensor, "q k"], objects: Bool[Tensor, "p object"], *, top: int | None = None
) -> Bool[Tensor, "q object"]:
    """Predict the objects of an image from those of its caption's nearest public images.

    All objects that any of them has (published code), or the `top` most frequent ones. Equal counts: the object
    that the nearer neighbor has, then the lower column.

    Args:
        neighbors: Rows of `objects`, nearest first, from `nearest`, shape (q, k).
        objects: Which object is in which public image, shape (p, object).
        top: How many to predict at most; None: all.

    Returns:
        Predicted objects, shape (q, object).

    Raises:
        InputError: A neighbor is out of range, or `top` is below 1.

    Example:
        >>> objects = torch.tensor([[True, False, False], [True, True, False]])
        >>> predict_objects(torch.tensor([[0, 1]]), objects).tolist()
        [[True, True, False]]
    """
    hint = "Find them among the public images that the objects belong to."
    check_index("neighbors", neighbors.flatten(), 0, len(objects), hint)
    require_range("top", 1 if top is None else top, 1, hint="Use 10, or None for all.")
    q, k = neighbors.shape
    count = torch.zeros(q, objects.shape[1], dtype=torch.int64, device=objects.device)
    first = torch.full_like(count, k)
    for rank in range(k):  # one neighbor at a time: (q, k, object) is never held
        present = objects[neighbors[:, rank].long()]
        first = torch.where(present & (count == 0), rank, first)
        count += present
    if top is None or top >= objects.shape[1]:
        return count > 0
    order = (-(count * (k + 1) + (k - first))).sort(dim=1, stable=True).indices[:, :top]
    chosen = torch.zeros_like(count, dtype=torch.bool).scatter_(1, order, value=True)
    return chosen & (count > 0)


def _rates(
    true: Bool[np.ndarray, "kept object"], predicted: Bool[np.ndarray, "kept object"]
) -> tuple[Float64[np.ndarray, " kept"], Float64[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
    """Return precision (0 where nothing is predicted), recall and the number of objects that are right."""
    right = (true & predicted).sum(axis=1)
    return right / np.maximum(predicted.sum(axis=1), 1), right / true.sum(axis=1), right


def _ranked(
    by: Ranking,
    right: Int[np.ndarray, " kept"],
    extra: Int[np.ndarray, " kept"],
    distance: Float64[np.ndarray, " kept"] | None,
) -> Int[np.ndarray, " kept"]:
    if by == "distance":
        if distance is None:
            raise InputError("distance", got="none", expected="the distance of each caption's nearest image")
        return np.argsort(distance, kind="stable")
    return np.argsort(-(right if by == "correct" else extra), kind="stable")


def _gaps(rates: Float64[np.ndarray, "draw rate side"]) -> Float64[np.ndarray, "draw kind"]:
    """Gaps of precision, recall and F-score from the mean precision and recall of f and of g."""
    total = rates.sum(axis=1)
    f_score = np.divide(2 * rates.prod(axis=1), total, out=np.zeros_like(total), where=total > 0)
    means = np.concatenate([rates, f_score[:, None]], axis=1)
    return means[..., 0] - means[..., 1]


def dejavu(
    true: Bool[Tensor, "n object"],
    target: Bool[Tensor, "n object"],
    reference: Bool[Tensor, "n object"],
    *,
    fractions: tuple[float, ...] = FRACTIONS,
    ranking: Ranking = "gap",
    distance: Float[np.ndarray, " n"] | None = None,
) -> DejaVu:
    """Compare the objects predicted under f with those predicted under g.

    precision = |true ∩ predicted| / |predicted| (0 when nothing is predicted), recall = |true ∩ predicted| /
    |true|; the gaps are those of the module (Jayaraman et al., NeurIPS 2024, section 4). Higher is more memorized.

    Args:
        true: Objects in each pair's own image, shape (n, object).
        target: Objects predicted under f, from `predict_objects`, shape (n, object).
        reference: Objects predicted under g, shape (n, object).
        fractions: Shares of the pairs to look at, each in (0, 1]; at least one pair is taken.
        ranking: What puts a pair at the top: "gap" correct objects under f minus g, "correct" those under f,
            "distance" the nearest neighbor under f. Equal pairs: the first one first.
        distance: Distance of each caption's nearest public image under f, only for "distance", shape (n,).

    Returns:
        All gaps and what they are means of.

    Raises:
        InputError: Shapes differ, no pair has an object, a fraction or the ranking is out of range, or `distance`
            is missing.

    Example:
        >>> true = torch.tensor([[True, True], [True, False]])
        >>> found = dejavu(true, true, torch.tensor([[True, False], [True, False]]))
        >>> found.precision_gap, found.recall_gap, found.auc_gap, found.extra.tolist()
        (0.0, 0.5, 0.25, [1, 0])
    """
    for name, predicted in (("target", target), ("reference", reference)):
        got, hint = f"shape {tuple(predicted.shape)}", "Predict the same objects for the same pairs."
        require(predicted.shape == true.shape, name, got, f"shape {tuple(true.shape)}, that of the true objects", hint)
    hint = "Check the labels: pairs without an object do not count."
    got = f"no object in {len(true)} pairs"
    require(bool(true.any()), "true objects", got, "one pair or more with an object", hint)
    require_one_of("ranking", ranking, ("gap", "correct", "distance"))
    wrong = next((fraction for fraction in fractions if not 0 < fraction <= 1), None)
    require(wrong is None, "fractions", f"{wrong}", "numbers above 0, at most 1", "Use 0.01.")
    kept = np.flatnonzero(true.cpu().numpy().any(axis=1))
    own, by_f, by_g = (objects.cpu().numpy()[kept] for objects in (true, target, reference))
    precision_f, recall_f, right_f = _rates(own, by_f)
    precision_g, recall_g, right_g = _rates(own, by_g)
    extra = right_f - right_g
    near = None if distance is None else as_finite("distance", distance)[kept]
    order = _ranked(ranking, right_f, extra, near)
    rates = np.stack([[precision_f, precision_g], [recall_f, recall_g]])
    tops: list[TopGaps] = []
    for fraction in fractions:
        top = order[: max(1, int(len(kept) * fraction))]
        precision, recall, f_score = _gaps(rates[None, :, :, top].mean(axis=3))[0].tolist()
        tops.append(TopGaps(fraction, len(top), precision, recall, f_score))
    precision_sign, recall_sign = np.sign(precision_f - precision_g), np.sign(recall_f - recall_g)
    difference = recall_f - recall_g
    gaps = [float(values.mean()) for values in (precision_sign, recall_sign, difference)]
    signs = (precision_sign, recall_sign, difference, extra, rates[0], rates[1], order)
    return DejaVu(gaps[0], gaps[1], gaps[2], tuple(tops), kept, *signs)


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


def _checked(found: Sequence[DejaVu], groups: Int[np.ndarray, " n"]) -> Int[np.ndarray, " kept"]:
    """Return the group of each pair that counts."""
    require(len(found) > 0, "seeds", "none", "one result a seed", "Compare at least one pair of models.")
    kept = found[0].kept
    for one in found[1:]:
        got, hint = f"{len(one.kept)} pairs in one seed, {len(kept)} in the first", "Give every seed the same objects."
        require(np.array_equal(one.kept, kept), "kept", got, "the same pairs in every seed", hint)
    if len(kept) and kept[-1] >= len(groups):
        check_same_length("pairs", int(kept[-1]) + 1, "groups", len(groups))
    return np.unique(groups[kept], return_inverse=True)[1]


def _top_rates(
    times: Int[np.ndarray, "draw kept"], size: Int[np.ndarray, " draw"], one: DejaVu, columns: int
) -> Float64[np.ndarray, "draw rate side"]:
    """Mean precision and recall of f and of g over the first `size` copies of each draw."""
    order = one.order[:columns]
    ranked = times[:, order]
    until = np.cumsum(ranked, axis=1)
    if columns < len(one.order) and bool((until[:, -1] < size).any()):
        return _top_rates(times, size, one, len(one.order))
    inside = np.clip(size[:, None] - (until - ranked), 0, ranked).astype(np.float64)
    values = np.concatenate([one.precision, one.recall])[:, order]
    return (inside @ values.T / size[:, None]).reshape(len(times), 2, 2)


def _drawn_tops(
    found: Sequence[DejaVu], codes: Int[np.ndarray, " kept"], seed: int, draws: int
) -> Float64[np.ndarray, "fraction draw kind"]:
    """Gaps at the top of every draw, averaged over the seeds."""
    fractions = [top.fraction for top in found[0].top]
    drawn: list[Float64[np.ndarray, "fraction draw kind"]] = []
    stream, step = generator(seed, "bootstrap", "groups"), max(1, _CELLS // len(codes))
    for start in range(0, draws, step):
        times = bootstrap_counts(stream, min(step, draws - start), int(codes.max()) + 1)[:, codes]
        tops: list[Float64[np.ndarray, "draw kind"]] = []
        for fraction in fractions:
            size = np.maximum(1, (times.sum(axis=1) * fraction).astype(np.int64))
            columns = min(len(codes), int(2 * fraction * len(codes)) + _SPARE)
            tops.append(np.mean([_gaps(_top_rates(times, size, one, columns)) for one in found], axis=0))
        drawn.append(np.stack(tops))
    return np.concatenate(drawn, axis=1)


def _tops(
    found: Sequence[DejaVu], codes: Int[np.ndarray, " kept"], seed: int, draws: int, confidence: float
) -> Iterator[TopIntervals]:
    several = bool(codes.max() > 0) and bool(found[0].top)  # one group has no spread
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    bounds = np.quantile(_drawn_tops(found, codes, seed, draws), ends, axis=1) if several else None
    for index, top in enumerate(found[0].top):
        kinds: list[Interval] = []
        for kind, name in enumerate(("precision", "recall", "f_score")):
            mean = float(np.mean([getattr(one.top[index], name) for one in found]))
            low, high = (None, None) if bounds is None else (float(end) for end in bounds[:, index, kind])
            kinds.append(Interval(mean, low, high))
        yield TopIntervals(top.fraction, top.pairs, *kinds)


def dejavu_intervals(
    found: Sequence[DejaVu], groups: Int[np.ndarray, " n"], *, seed: int, draws: int = 2000, confidence: float = 0.95
) -> DejaVuIntervals:
    """Average the gaps over seeds, with their intervals.

    Means over pairs have the interval of `crossed_mean`. The gaps at the top have a percentile interval over pairs
    only: each of `draws` draws takes as many groups as there are, with replacement; it is too narrow below about 10.

    `found` is one result of `dejavu` a seed, for the same pairs and fractions; `groups` is the group of each of the n
    pairs, shape (n,). `seed` is that of the draws.

    Returns:
        Every gap with its interval; low and high are None with one group.

    Raises:
        InputError: As for `crossed_mean`; there is no seed, or the seeds have other pairs.

    Example:
        >>> true = torch.tensor([[True, True], [True, False]])
        >>> one = dejavu(true, true, torch.tensor([[True, False], [True, False]]))
        >>> dejavu_intervals([one], np.array([0, 1]), seed=0).recall_gap.mean
        0.5
    """
    check_confidence(confidence)
    check_draws(draws)
    codes = _checked(found, groups)

    def mean_of(rows: list[Float64[np.ndarray, " kept"]]) -> Interval:
        return crossed_mean(np.stack(rows), codes, confidence=confidence)

    return DejaVuIntervals(
        mean_of([one.precision_sign for one in found]),
        mean_of([one.recall_sign for one in found]),
        mean_of([one.recall_difference for one in found]),
        tuple(_tops(found, codes, seed, draws, confidence)),
    )


_DECIMALS = 12  # cosines are compared to this precision: copies of an image must tie in any block


class Neighbors(NamedTuple):
    """The k nearest public rows of each query and their cosines, nearest first, shape (q, k)."""

    rows: Int[Tensor, "q k"]
    similarity: Float64[Tensor, "q k"]


def _best(similarity: Float64[Tensor, "q c"], index: Int[Tensor, "q c"], k: int) -> Neighbors:
    """Return the k best candidates of each query; ties go to the first in `index`."""
    order = similarity.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return Neighbors(index.gather(1, order), similarity.gather(1, order))


def nearest(query: Float[Tensor, "q d"], public: Float[Tensor, "p d"], k: int, *, block: int = 1024) -> Neighbors:
    """Find the k public points with the largest cosine to each query.

    The search is exact, block by block, without the full similarity matrix. Time is proportional to queries times
    public points: for billions of products use an approximate index, and report it.

    For Déjà Vu the queries are captions and the public points are images under the same model.

    Args:
        query: Embeddings, any length, shape (q, d).
        public: Embeddings, any length, shape (p, d).
        k: Number of neighbors, 1 to p.
        block: Queries and public points per tile; memory is 24 block² bytes plus block (d + 2 k) numbers.

    Returns:
        Indices and cosines in [-1, 1], nearest first. Equal cosines (to 12 decimals): the lower index first.

    Raises:
        InputError: Widths differ, `k` or `block` is out of range, or a row is zero or not finite.

    Example:
        >>> nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0], [2.0, 0.0]]), 2).rows.tolist()
        [[1, 2]]
    """
    check_width("public points", public.shape[1], query.shape[1])
    require_range("k", k, 1, len(public), "Ask for fewer neighbors.")
    require_range("block", block, 1, hint="Use 1024.")
    indices: list[Tensor] = []
    cosines: list[Tensor] = []
    for start in range(0, len(query), block):
        block_rows = normalize(query[start : start + block].double(), name="queries")
        best: Neighbors | None = None
        for first in range(0, len(public), block):
            tile = normalize(public[first : first + block].double(), name="public points")
            cosine = torch.round(block_rows @ tile.T, decimals=_DECIMALS).clamp(-1, 1)
            index = torch.arange(first, first + len(tile), device=block_rows.device).expand(cosine.shape)
            if best is not None:  # earlier points first, so that a stable sort prefers them
                index, cosine = torch.cat([best.rows, index], dim=1), torch.cat([best.similarity, cosine], dim=1)
            best = _best(cosine, index, k)
        if best is not None:
            indices.append(best.rows)
            cosines.append(best.similarity)
    if not indices:
        empty = torch.empty(0, k, device=query.device)
        return Neighbors(empty.long(), empty.double())
    return Neighbors(torch.cat(indices), torch.cat(cosines))
