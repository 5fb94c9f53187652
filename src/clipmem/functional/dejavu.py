"""Déjà Vu memorization: does a caption bring back objects of *its* picture that the caption does not tell?

For each training pair, the k public images nearest to its caption are found under f (which saw the pair) and under
g (which did not). The objects in those images are the prediction; they are compared with the objects in the pair's
own image (Jayaraman, Guo & Chaudhuri, NeurIPS 2024). What g predicts is what anybody could guess from the caption;
what f adds is memorized.

- population precision gap = share of pairs with precision(f) > precision(g), less the share with precision(f) <
  precision(g);
- population recall gap = the same for recall;
- AUC gap = area under P(recall >= t), t from 0 to 1, of f less that of g;
- top-x % gaps = mean precision, recall and F-score of f less those of g, over the x % of the pairs ranked as most
  memorized.

One-model test: instead of g, a text-only model finds the public *captions* nearest to the caption; the objects of
their images are the prediction. Nothing else changes (`nearest`, then the functions here).

When not to trust it: it sees only objects that the label list knows, depends on how rich the public set is, and
every x > 0 of "top" selects pairs by the same data that it then averages, so the top gaps are above 0 for two
unrelated models as well: show those of g against another g beside them. All gaps are differences of two models: 0
is "no more than g"; `dejavu_intervals` says how sure each is. The authors' code leaves out pairs without an object; so
does this. Its AUC is a sum over 100 bins that lies above the area by up to a hundredth of the range of recalls; here
the area is exact, which makes it the mean recall (`recall_area` has both).
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.functional.checks import as_finite, check_not_empty

FRACTIONS = (0.001, 0.01, 0.1)

Ranking = Literal["gap", "correct", "distance"]


class TopGaps(NamedTuple):
    """Gaps over the pairs ranked highest: mean precision, mean recall and their F-score, f less g."""

    fraction: float
    pairs: int
    precision: float
    recall: float
    f_score: float


class DejaVu(NamedTuple):
    """Déjà Vu memorization of one pair of models.

    Attributes:
        precision_gap: Population precision gap, in [-1, 1].
        recall_gap: Population recall gap, in [-1, 1].
        auc_gap: Area under P(recall >= t) of f less that of g, in [-1, 1].
        top: Gaps at the top, one entry a fraction.
        kept: Rows of the pairs that count (they have an object), shape (kept,).
        precision_sign: sign(precision(f) - precision(g)) of each of them; its mean is `precision_gap`, so
            `bootstrap_mean(precision_sign[None], groups, seed=...)` gives its interval.
        recall_sign: The same for recall; its mean is `recall_gap`.
        recall_difference: recall(f) - recall(g); its mean is `auc_gap`.
        extra: Objects right under f less objects right under g, whole numbers: the score of each pair.
        precision: Precision of each of them under f and under g, shape (2, kept).
        recall: The same for recall.
        order: Which of them stand at the top by the ranking, first ones first: numbers from 0 to kept - 1.
    """

    precision_gap: float
    recall_gap: float
    auc_gap: float
    top: tuple[TopGaps, ...]
    kept: Int[np.ndarray, "kept"]
    precision_sign: Float64[np.ndarray, "kept"]
    recall_sign: Float64[np.ndarray, "kept"]
    recall_difference: Float64[np.ndarray, "kept"]
    extra: Int[np.ndarray, "kept"]
    precision: Float64[np.ndarray, "side kept"]
    recall: Float64[np.ndarray, "side kept"]
    order: Int[np.ndarray, "kept"]


def predict_objects(
    neighbours: Int[Tensor, "q k"], objects: Bool[Tensor, "p object"], *, top: int | None = None
) -> Bool[Tensor, "q object"]:
    """Predict the objects of a picture from those of its caption's nearest public images.

    All objects that any of them has (published code), or the `top` most frequent ones. Equal counts: the object
    that the nearer neighbour has, then the lower column.

    Args:
        neighbours: Rows of `objects`, nearest first, from `nearest`, shape (q, k).
        objects: Which object is in which public image, shape (p, object).
        top: How many to predict at most; None: all.

    Returns:
        Predicted objects, shape (q, object).

    Raises:
        InputError: A neighbour is out of range, or `top` is below 1.

    Example:
        >>> objects = torch.tensor([[True, False, False], [True, True, False]])
        >>> predict_objects(torch.tensor([[0, 1]]), objects).tolist()
        [[True, True, False]]
    """
    outside = (neighbours < 0) | (neighbours >= len(objects))
    if bool(outside.any()):
        where = torch.nonzero(outside)[0]
        raise InputError(
            "neighbours",
            got=f"{int(neighbours[tuple(where)])} at index {where.tolist()}",
            expected=f"rows from 0 to {len(objects) - 1}",
            hint="Find them among the public images that the objects belong to.",
        )
    if top is not None and top < 1:
        raise InputError("top", got=f"{top}", expected="a whole number >= 1, or None", hint="Use 10, or None for all.")
    q, k = neighbours.shape
    count = torch.zeros(q, objects.shape[1], dtype=torch.int64, device=objects.device)
    first = torch.full_like(count, k)
    for rank in range(k):  # one neighbour at a time: (q, k, object) is never held
        present = objects[neighbours[:, rank].long()]
        first = torch.where(present & (count == 0), rank, first)
        count += present
    if top is None or top >= objects.shape[1]:
        return count > 0
    order = (-(count * (k + 1) + (k - first))).sort(dim=1, stable=True).indices[:, :top]
    chosen = torch.zeros_like(count, dtype=torch.bool).scatter_(1, order, value=True)
    return chosen & (count > 0)


def _rates(
    true: Bool[np.ndarray, "kept object"], predicted: Bool[np.ndarray, "kept object"]
) -> tuple[Float64[np.ndarray, "kept"], Float64[np.ndarray, "kept"], Int[np.ndarray, "kept"]]:
    """Return precision (0 where nothing is predicted), recall and the number of objects that are right."""
    right = (true & predicted).sum(axis=1)
    return right / np.maximum(predicted.sum(axis=1), 1), right / true.sum(axis=1), right


def recall_area(recall: Float[np.ndarray, "n"], *, bins: int | None = None) -> float:
    """Area under P(recall >= t) for t from 0 to 1.

    ∫ P(R >= t) dt = mean R. With `bins` the sum of the authors' code: bins of equal width from the least to the
    largest recall, P taken at each bin's left edge, so it is above the area by at most the width of a bin.

    Args:
        recall: Recall of each pair, in [0, 1], shape (n,).
        bins: None for the exact area; 100 for the published sum.

    Returns:
        The area, in [0, 1] when exact.

    Raises:
        InputError: There is no pair, a value is not finite or outside [0, 1], or `bins` is below 1.

    Example:
        >>> recall_area(np.array([0.0, 0.5, 1.0])), round(recall_area(np.array([0.0, 0.5, 1.0]), bins=100), 4)
        (0.5, 0.5067)
    """
    recall = as_finite("recall", recall)
    check_not_empty("recall", recall)
    if recall.min() < 0 or recall.max() > 1:
        raise InputError(
            "recall",
            got=f"values from {recall.min():.6g} to {recall.max():.6g}",
            expected="values from 0 to 1",
            hint="Give shares of the objects.",
        )
    if bins is None:
        return float(recall.mean())
    if bins < 1:
        raise InputError("bins", got=f"{bins}", expected="a whole number >= 1, or None", hint="Use 100, or None.")
    counts, edges = np.histogram(recall, bins)
    beyond = counts[::-1].cumsum()[::-1] / len(recall)
    return float(edges[0] + beyond @ np.diff(edges))


def _ranked(
    by: Ranking,
    right: Int[np.ndarray, "kept"],
    extra: Int[np.ndarray, "kept"],
    distance: Float64[np.ndarray, "kept"] | None,
) -> Int[np.ndarray, "kept"]:
    if by == "distance":
        if distance is None:
            raise InputError(
                "distance", got="none", expected="one a pair", hint="Give the distance of each caption's nearest image."
            )
        return np.argsort(distance, kind="stable")
    return np.argsort(-(right if by == "correct" else extra), kind="stable")


def _f_score(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _check_objects(true: Tensor, target: Tensor, reference: Tensor) -> None:
    for name, predicted in (("target", target), ("reference", reference)):
        if predicted.shape != true.shape:
            raise InputError(
                name,
                got=f"shape {tuple(predicted.shape)}",
                expected=f"shape {tuple(true.shape)}, that of the true objects",
                hint="Predict the same objects for the same pairs.",
            )
    if not bool(true.any()):
        raise InputError(
            "true objects",
            got=f"no object in {len(true)} pairs",
            expected="at least one pair with an object",
            hint="Check the labels: pairs without an object do not count.",
        )


def dejavu(
    true: Bool[Tensor, "n object"],
    target: Bool[Tensor, "n object"],
    reference: Bool[Tensor, "n object"],
    *,
    fractions: tuple[float, ...] = FRACTIONS,
    ranking: Ranking = "gap",
    distance: Float[np.ndarray, "n"] | None = None,
) -> DejaVu:
    """Compare the objects predicted under f with those predicted under g.

    precision = |true ∩ predicted| / |predicted| (0 when nothing is predicted), recall = |true ∩ predicted| /
    |true|; the gaps are those of the module (Jayaraman et al., NeurIPS 2024, section 4). Higher is more memorized.

    Args:
        true: Objects in each pair's own image, shape (n, object).
        target: Objects predicted under f, from `predict_objects`, shape (n, object).
        reference: Objects predicted under g, or under the text-only model of the one-model test, shape (n, object).
        fractions: Shares of the pairs to look at, each in (0, 1]; at least one pair is taken.
        ranking: What puts a pair at the top: "gap" objects right under f less under g, "correct" objects right under f,
            "distance" the nearest neighbour under f. Equal pairs: the first one first.
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
    _check_objects(true, target, reference)
    if ranking not in ("gap", "correct", "distance"):
        raise InputError(
            "ranking", got=repr(ranking), expected="'gap', 'correct' or 'distance'", hint="Choose one of them."
        )
    wrong = [fraction for fraction in fractions if not 0 < fraction <= 1]
    if wrong:
        raise InputError("fractions", got=f"{wrong[0]}", expected="numbers above 0, at most 1", hint="Use 0.01.")
    kept = np.flatnonzero(true.cpu().numpy().any(axis=1))
    own, by_f, by_g = (objects.cpu().numpy()[kept] for objects in (true, target, reference))
    precision_f, recall_f, right_f = _rates(own, by_f)
    precision_g, recall_g, right_g = _rates(own, by_g)
    extra = right_f - right_g
    near = None if distance is None else as_finite("distance", distance)[kept]
    order = _ranked(ranking, right_f, extra, near)
    tops: list[TopGaps] = []
    for fraction in fractions:
        top = order[: max(1, int(len(kept) * fraction))]
        p_f, p_g, r_f, r_g = (float(x[top].mean()) for x in (precision_f, precision_g, recall_f, recall_g))
        tops.append(TopGaps(fraction, len(top), p_f - p_g, r_f - r_g, _f_score(p_f, r_f) - _f_score(p_g, r_g)))
    precision_sign, recall_sign = np.sign(precision_f - precision_g), np.sign(recall_f - recall_g)
    difference = recall_f - recall_g
    return DejaVu(
        float(precision_sign.mean()),
        float(recall_sign.mean()),
        float(difference.mean()),
        tuple(tops),
        kept,
        precision_sign,
        recall_sign,
        difference,
        extra,
        np.stack([precision_f, precision_g]),
        np.stack([recall_f, recall_g]),
        order,
    )
