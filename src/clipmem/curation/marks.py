"""What people marked by hand: it decides those pairs, and, with enough marks, reorders the others.

When not to trust it: people mark what they were shown, usually the head of the list, so marks say nothing about pairs
unlike those. The order that is learned from them is taken only if it ranks the marked pairs clearly better.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64
from scipy.stats import norm, rankdata

from clipmem.base.random import generator
from clipmem.curation.ranking import Curation, counted

ENOUGH, FOLDS = 20, 5
_DRAWS, _SURE = 200, 0.95


class Learned(NamedTuple):
    """The order learned from marks: a score for every pair, and how well both rank the marked ones (AUROC).

    Attributes:
        score: Log-odds of a logistic regression over the detectors' normal scores, fitted on all marked pairs.
        own: AUROC of cross-validated predictions on the marked pairs.
        given: AUROC of the list's scores on them.
        better: Whether `own` is larger in 95% of bootstrap samples of the marked pairs.
    """

    score: Float64[np.ndarray, " n"]
    own: float
    given: float
    better: bool


def learn(
    scores: Float64[np.ndarray, "n detector"],
    given: Float64[np.ndarray, " n"],
    marked: Bool[np.ndarray, " n"],
    wrong: Bool[np.ndarray, " n"],
) -> Learned | None:
    """Fit a ranking to marks.

    Each detector's score becomes Φ⁻¹((rank - 1/2) / n); a detector without a score for a pair gives 0. Predictions for
    the comparison are from 5 folds.

    Args:
        scores: Scores of the detectors, higher = more suspect, NaN for none, shape (n, detectors).
        given: Scores of the list, shape (n,).
        marked: Whether a pair is marked wrong or fine, shape (n,).
        wrong: Whether it is marked wrong, shape (n,).

    Returns:
        The ranking; None with fewer than 20 marks, or fewer than 5 of either kind.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    label = wrong[marked]
    if len(label) < ENOUGH or min(label.sum(), (~label).sum()) < FOLDS:
        return None
    known = np.isfinite(scores)
    rank = rankdata(np.where(known, scores, np.inf), axis=0)
    share = np.clip((rank - 0.5) / np.maximum(known.sum(axis=0), 1), 1e-5, 1 - 1e-5)
    x = np.where(known, norm.ppf(share), 0.0)
    mine, predicted = x[marked], np.zeros(len(label))
    for fitted, tested in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(mine, label):
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(mine[fitted], label[fitted])
        predicted[tested] = model.decision_function(mine[tested])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(mine, label)
    ahead = np.stack([_ahead(values, label) for values in (predicted, given[marked])])
    drawn, sizes = generator(0, "marks"), ahead.shape[1:]
    times = [drawn.multinomial(size, np.full(size, 1 / size), _DRAWS) / size for size in sizes]
    more = np.einsum("dw,rwf,df->rd", times[0], ahead, times[1])
    own, before = ahead.mean(axis=(1, 2)).tolist()
    return Learned(model.decision_function(x), own, before, bool((more[0] > more[1]).mean() >= _SURE))


def _ahead(score: Float64[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, "w f"]:
    """Compare every wrong pair with every other: 1 if its score is larger, 1/2 if equal; the mean is the AUROC."""
    a, b = score[wrong, None], score[~wrong]
    return (a > b) + 0.5 * (a == b)


def apply_marks(curation: Curation, marks: Mapping[str, str]) -> Curation:
    """Return the list with pairs marked wrong first, as suspects, and pairs marked fine last, as none.

    A better order learned from the marks (see `learn`) moves the other pairs; the probabilities, the number of suspects
    and so the expected number of wrong captions stay, except for marked pairs. Marks of other pairs are ignored.
    """
    table = curation.table
    wrong = table["uid"].is_in([uid for uid, mark in marks.items() if mark == "wrong"]).to_numpy()
    fine = table["uid"].is_in([uid for uid, mark in marks.items() if mark == "fine"]).to_numpy()
    score = table["score"].to_numpy().astype(np.float64)
    detectors = [name for name in table.columns if name.endswith("_score")]
    values = table.select(pl.col(detectors).cast(pl.Float64).fill_null(float("nan"))).to_numpy()
    learned = learn(values, score, wrong | fine, wrong) if detectors else None
    used = learned is not None and learned.better
    columns: dict[str, Any] = {name: table[name].to_numpy() for name in ("probability", "is_suspect")}
    if learned is not None and used:
        # the largest probabilities, and the suspects, are the first pairs of the new order
        place = np.argsort(np.argsort(-learned.score, kind="stable"), kind="stable")
        columns = {name: -np.sort(-one.astype(np.float64))[place] for name, one in columns.items()}
        score = learned.score
    low, high = float(score.min()), float(score.max())
    score = np.where(wrong, high + 1, np.where(fine, low - 1, score))
    changed = table.with_columns(
        score=pl.Series(score),
        probability=pl.Series(np.where(wrong, 1.0, np.where(fine, 0.0, columns["probability"]))),
        is_suspect=pl.Series(np.where(wrong, True, np.where(fine, False, columns["is_suspect"].astype(np.bool_)))),
    )
    found = {"wrong": int(wrong.sum()), "fine": int(fine.sum()), "used": used}
    found |= {"learned": learned and learned.own, "list": learned and learned.given}
    return Curation(changed, {**curation.document, **counted(changed), "marks": found})
