"""The list of suspects: in order, counted, and changed by what people marked; without torch, for the explorer.

What people marked by hand decides those pairs, and, with enough marks, reorders the others. When not to trust it:
people mark what they were shown, usually the head of the list, so marks say nothing about pairs unlike those. The order
that is learned from them is taken only if it ranks the marked pairs clearly better.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float64
from pydantic import BaseModel
from scipy.stats import norm, rankdata

from clipmem.base.errors import InputError, require
from clipmem.base.marks import latest_marks
from clipmem.base.random import generator
from clipmem.curation.aim import Aim
from clipmem.stats.checks import Mask

SUSPECTS, DOCUMENT = "suspects.parquet", "curate.json"
RANKING = "ranking.parquet"  # before marks, with each pair's first caption
LISTED = 10_000  # first pairs of a ranking, which have reasons whether they are suspects or not
LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Share(NamedTuple):
    """Share of mismatched captions.

    Attributes:
        share: The estimate, for mismatched captions half of which are swapped at random.
        low: Lower end of the interval: all are swapped at random; 0 if not `found`.
        high: Upper end: all are swapped with those of the same sort of thing.
        found: Whether there are more than chance gives: more than a share of 1.5% explains with the given confidence.
        clear: Whether swapped captions are told from right ones well enough for a number; with few different captions
            "none" needs an upper end below 1.5%.
        separation: AUROC of planted against right captions, given `share`.
        assumed: Share that the probabilities of pairs assume: 0 if none are found, less than `share` if not `clear`.
    """

    share: float
    low: float
    high: float
    found: bool
    clear: bool
    separation: float
    assumed: float


class Ranking(BaseModel):
    """What a ranking's document must have to be shown again; a folder that somebody sent may have anything."""

    share: Share
    confidence: float
    pairs: tuple[int, int, int]
    by_rule: int
    problems: int


_WHOLE = {"uid": pl.String, "score": pl.Float64, "is_suspect": pl.Boolean, "probability": pl.Float64}
COLUMNS = pl.Schema(
    {
        **_WHOLE,
        **dict.fromkeys(("kind", "reason", "second_reason", "suggested_caption", "caption"), pl.String),
        "neighbors": pl.List(pl.String),
    }
)


class Curation(NamedTuple):
    """Suspect captions of a data set.

    Attributes:
        table: One row per pair in the order of the signals: `uid`, `score` (higher = more suspect), `is_suspect`,
            `probability` (that the caption is wrong, calibrated; 1 by a rule), `kind` (mismatched, vague,
            duplicate, hygiene; null), `reason` and `second_reason` (ids of templates), `neighbors` (uids that testify),
            `suggested_caption` (or null; none where swapped captions are not told from right ones), and one column
            `NAME_score` per pair score.
        document: Numbers for readers: scores used, expected number of mismatched captions with its interval, seconds.
    """

    table: pl.DataFrame
    document: dict[str, Any]

    def check(self) -> None:
        """Raise a ValueError, KeyError or TypeError if this, read from files, is no ranking."""
        expected = self.document["expected"]
        share = {name: expected[name] for name in Share._fields}
        Ranking.model_validate({**self.document, **expected, "share": share})
        if any(self.table.schema.get(name) != kind for name, kind in COLUMNS.items()):
            raise ValueError("a column has another type")
        if any(self.table[name].has_nulls() for name in _WHOLE):
            raise ValueError("a value is missing")


def read_ranking(folder: Path) -> Curation:
    """Read the ranking before marks in a folder that `clipmem curate` wrote.

    Raises:
        InputError: It has none.
    """
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        ranking = Curation(pl.read_parquet(folder / RANKING), document)
        ranking.check()
    except (OSError, ValueError, LookupError, TypeError, RecursionError, pl.exceptions.PolarsError) as error:
        hint = "Run clipmem curate again: marks are kept."
        raise InputError(f"{folder}", got="no ranking", expected="that of clipmem curate", hint=hint) from error
    return ranking


def order_of(table: pl.DataFrame) -> pl.Series:
    """Return rows as the list is read: suspects first, also those by rule, whose scores may be low; then by score."""
    return table.select(pl.arg_sort_by("is_suspect", "score", "uid", descending=[True, True, False])).to_series()


def counted(table: pl.DataFrame) -> dict[str, Any]:
    """Count the suspects, those by rule, and by kind."""
    suspects = table.filter("is_suspect")
    kinds = dict(suspects["kind"].drop_nulls().value_counts().sort("kind").iter_rows())
    return {"suspects": suspects.height, "by_rule": suspects.filter(by_rule()).height, "kinds": kinds}


def by_rule() -> pl.Expr:
    """Return whether pairs are suspects by a rule: certain, and vague or no captions. Nothing is estimated of these."""
    return ((pl.col("probability") == 1) & (pl.col("kind") != "mismatched")).fill_null(value=False)


def choose(curation: Curation, aim: Aim) -> Curation:
    """Return the list with other suspects: the first pairs by probability, as many as an aim needs.

    `top` takes so many. Of the n pairs that no rule flags, with p_1 >= p_2 >= ... and S_k = p_1 + ... + p_k,
    `precision` takes the largest k with S_k / k >= value, `recall` the smallest one with S_k / S_n >= value, none if
    all p are 0; and both take the pairs that a rule flags.

    Raises:
        InputError: It needs more pairs than have reasons: 10,000, or those with a probability of .5 or more.
    """
    table, limit = curation.table, max(LISTED, curation.table["is_suspect"].sum())
    order = table.with_row_index("row").sort("probability", "score", descending=True, maintain_order=True)
    others = order if aim.name == "top" else order.filter(~by_rule())
    sums, n = others["probability"].to_numpy().cumsum(), others.height  # sums are rounded: 4.2 of six is .7
    number = min(int(aim.value), n)
    if aim.name == "precision":
        number = int((sums / np.arange(1, n + 1) >= aim.value - 1e-12).sum())
    elif aim.name == "recall":
        number = int(np.searchsorted(sums, aim.value * sums[-1] - 1e-12)) + 1 if sums.any() else 0
    rows = pl.concat([others["row"].head(number), *([] if aim.name == "top" else [order.filter(by_rule())["row"]])])
    got, hint = f"a list of {len(rows):,} pairs", "Take the first ones, clean the data, and rank them again."
    require(len(rows) <= limit, f"--suspects {aim.name}={aim.value:g}", got, f"at most {limit:,}", hint)
    is_suspect = pl.int_range(table.height, dtype=pl.get_index_type()).is_in(rows.implode())
    changed = table.with_columns(is_suspect=is_suspect)
    return Curation(changed, {**curation.document, **counted(changed)})


class Rates(NamedTuple):
    """What is expected of the first `length` pairs of a list that no rule flags.

    Attributes:
        length: Number of pairs.
        precision: Mean probability of these pairs: the share of them that is mismatched.
        low: Lower end of its interval.
        high: Upper end.
        recall: Sum of their probabilities over that of all pairs: the share of all mismatched captions among them.
    """

    length: int
    precision: float
    low: float
    high: float
    recall: float


def expectations(curation: Curation, lengths: Sequence[int]) -> list[Rates]:
    """Return what is expected of the first pairs that no rule flags; nothing without mismatched captions.

    At an end of the share's interval, probabilities are multiplied by its ratio to the assumed share, up to 1; those by
    marks stay. Lengths are 1 to all such pairs; others are left out. On drawings with 5 to 30% swapped captions, the
    interval held the precision of 45 of 48 lists. Precision and recall were off by .05 and .03 in the median, both by
    .16 at most (tests/science/test_curate_share.py): where all are swapped at random, more are in the list than
    expected.
    """
    share = curation.document["expected"]
    if not (share["found"] and share["assumed"]):
        return []
    told = curation.table.select("uid", "score", "is_suspect", "probability", "kind")
    p = told[order_of(told)].filter(~by_rule())["probability"].to_numpy()
    listed = np.array([k for k in lengths if 1 <= k <= len(p)], dtype=np.int64)
    ends = (np.where(p < 1, np.minimum(p * share[end] / share["assumed"], 1), p) for end in ("low", "high"))
    means = (values.cumsum()[listed - 1] / listed for values in (p, *ends))
    rates = [values.tolist() for values in (listed, *means, p.cumsum()[listed - 1] / p.sum())]
    return list(map(Rates, *rates))


ENOUGH, FOLDS = 20, 5
_DRAWS, _SURE = 200, 0.95


class Learned(NamedTuple):
    """The order learned from marks: a score for every pair, and how well both rank the marked ones (AUROC).

    Attributes:
        score: Log-odds of a logistic regression over the detectors' normal scores, fitted on all marked pairs.
        auroc: AUROC of cross-validated predictions on the marked pairs.
        list_auroc: AUROC of the list's scores on them.
        better: Whether `auroc` is larger in 95% of bootstrap samples of the marked pairs.
    """

    score: Float64[np.ndarray, " n"]
    auroc: float
    list_auroc: float
    better: bool


def learn(
    scores: Float64[np.ndarray, "n detector"], list_score: Float64[np.ndarray, " n"], marked: Mask, is_wrong: Mask
) -> Learned | None:
    """Fit a ranking to marks.

    Each detector's score becomes Φ⁻¹((rank - 1/2) / n); a detector without a score for a pair gives 0. Predictions for
    the comparison are from 5 folds.

    Args:
        scores: Scores of the detectors, higher = more suspect, NaN for none, shape (n, detectors).
        list_score: Scores of the list, shape (n,).
        marked: Whether a pair is marked wrong or fine, shape (n,).
        is_wrong: Whether it is marked wrong, shape (n,).

    Returns:
        The ranking; None with fewer than 20 marks, or fewer than 5 of either kind.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    label = is_wrong[marked]
    if len(label) < ENOUGH or min(label.sum(), (~label).sum()) < FOLDS:
        return None
    scored = np.isfinite(scores)
    rank = rankdata(np.where(scored, scores, np.inf), axis=0)
    share = np.clip((rank - 0.5) / np.maximum(scored.sum(axis=0), 1), 1e-5, 1 - 1e-5)
    x = np.where(scored, norm.ppf(share), 0.0)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    predicted = np.asarray(cross_val_predict(model, x[marked], label, cv=folds, method="decision_function"))
    # every wrong pair with every other: 1 if its score is larger, 1/2 if equal; the mean is the AUROC
    sides = ((values[label, None], values[~label]) for values in (predicted, list_score[marked]))
    ahead = np.stack([(a > b) + 0.5 * (a == b) for a, b in sides])
    rng, sizes = generator(0, "marks"), ahead.shape[1:]
    times = [rng.multinomial(size, np.full(size, 1 / size), _DRAWS) / size for size in sizes]
    more = np.einsum("dw,rwf,df->rd", times[0], ahead, times[1])
    auroc, list_auroc = ahead.mean(axis=(1, 2)).tolist()
    score = model.fit(x[marked], label).decision_function(x)
    return Learned(score, auroc, list_auroc, bool((more[0] > more[1]).mean() >= _SURE))


def expected_wrong(
    probability: Float64[np.ndarray, " n"], marked: Mask, is_wrong: Mask, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Estimate how many pairs of a list are wrong, from their probabilities and from those that somebody looked at.

    Marks shift all log odds alike: logit p'_i = logit p_i + d, with d ~ N(0, 1) before marks and the d of largest
    posterior density after them. The number is W + sum p'_i over the unmarked pairs, where W pairs are marked wrong.
    Its variance is V + V² / (1 + M), where V and M are the sums of p'(1 - p') over unmarked and marked pairs: chance,
    and the error of d (Laplace's approximation).

    Args:
        probability: Probability that a pair is wrong before marks, shape (n,); taken as between 0.001 and 0.999.
        marked: Whether a pair is marked wrong or fine, shape (n,).
        is_wrong: Whether it is marked wrong, shape (n,).
        confidence: Of the interval, between 0 and 1.

    Returns:
        The number and both ends of its normal interval, each between W and the number of pairs not marked fine.
    """
    p = np.clip(probability, 0.001, 0.999)
    log_odds, shift, information = np.log(p / (1 - p)), 0.0, 1.0
    for _ in range(50):  # Newton's method on a concave function, in steps of at most 1
        fitted = 1 / (1 + np.exp(-log_odds[marked] - shift))
        information = 1 + float((fitted * (1 - fitted)).sum())
        shift += float(np.clip((float((is_wrong[marked] - fitted).sum()) - shift) / information, -1, 1))
    rest = 1 / (1 + np.exp(-log_odds[~marked] - shift))
    count, chance = int((marked & is_wrong).sum()), float((rest * (1 - rest)).sum())
    number = count + float(rest.sum())
    width = float(norm.ppf(0.5 + confidence / 2)) * (chance + chance**2 / information) ** 0.5
    return number, max(float(count), number - width), min(float(count + len(rest)), number + width)


def apply_marks(curation: Curation, marks: Mapping[str, str]) -> Curation:
    """Return the list with pairs marked wrong first, as suspects, and pairs marked fine last, as none.

    A better order learned from the marks (see `learn`) moves the other pairs; the probabilities, the number of suspects
    and so the expected number of mismatched captions stay, except for marked pairs. Marks of other pairs are ignored.
    """
    table = curation.table
    is_wrong = table["uid"].is_in([uid for uid, mark in marks.items() if mark == "wrong"]).to_numpy()
    is_fine = table["uid"].is_in([uid for uid, mark in marks.items() if mark == "fine"]).to_numpy()
    score = table["score"].to_numpy().astype(np.float64)
    detectors = [name for name in table.columns if name.endswith("_score")]
    values = table.select(pl.col(detectors).cast(pl.Float64).fill_null(float("nan"))).to_numpy()
    learned = learn(values, score, is_wrong | is_fine, is_wrong) if detectors else None
    used = learned is not None and learned.better
    columns = {name: table[name].to_numpy() for name in ("probability", "is_suspect")}
    if learned is not None and used:
        # the largest probabilities, and the suspects, are the first pairs of the new order
        rank = np.argsort(np.argsort(-learned.score, kind="stable"), kind="stable")
        columns = {name: -np.sort(-values.astype(np.float64))[rank] for name, values in columns.items()}
        score = learned.score
    low, high = float(score.min()), float(score.max())
    score = np.where(is_wrong, high + 1, np.where(is_fine, low - 1, score))
    changed = table.with_columns(
        score=pl.Series(score),
        probability=pl.Series(np.where(is_wrong, 1.0, np.where(is_fine, 0.0, columns["probability"]))),
        is_suspect=pl.Series(is_wrong | (~is_fine & columns["is_suspect"].astype(np.bool_))),
    )
    summary = {"wrong": int(is_wrong.sum()), "fine": int(is_fine.sum()), "used": used}
    summary |= {"learned": learned and learned.auroc, "list": learned and learned.list_auroc}
    return Curation(changed, {**curation.document, **counted(changed), "marks": summary})


def review(folder: Path) -> dict[str, Any]:
    """Return the suspects in a folder of `clipmem curate` in order, and how many are wrong.

    `suspects`: uids of the ranking's suspects and of other pairs that somebody marked wrong; `expected`: number, low
    and high (see `expected_wrong`); `curve`: see `expectations`; `learned`: whether marks gave the order.

    Raises:
        InputError: It has no ranking.
    """
    ranking, marks = read_ranking(folder), {uid: mark.mark for uid, mark in latest_marks(folder / SUSPECTS).items()}
    after, before = apply_marks(ranking, marks), ranking.table.filter("is_suspect")
    uids = {kind: [uid for uid, mark in marks.items() if mark == kind] for kind in ("wrong", "fine")}
    is_wrong, is_fine = (before["uid"].is_in(uids[kind]).to_numpy() for kind in ("wrong", "fine"))
    number = expected_wrong(before["probability"].to_numpy(), is_wrong | is_fine, is_wrong)
    listed = {*before["uid"], *uids["wrong"]}
    return {
        "suspects": [uid for uid in after.table["uid"].gather(order_of(after.table)) if uid in listed],
        "expected": dict(zip(("number", "low", "high"), number, strict=True)),
        "curve": [rates._asdict() for rates in expectations(after, LENGTHS)],
        "learned": bool(after.document["marks"]["used"]),
    }
