"""The ranked list of suspect captions: a fixed, label-free combination of pair scores, calibrated on planted errors.

What people marked by hand decides those pairs, and, with enough marks, reorders the others. When not to trust it:
people mark what they were shown, usually the head of the list, so marks say nothing about pairs unlike those. The order
that is learned from them is taken only if it ranks the marked pairs clearly better.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64
from pydantic import BaseModel
from scipy.stats import norm, rankdata

from clipmem.base.errors import InputError, require, require_range
from clipmem.base.hashing import numbered, same_words
from clipmem.base.progress import Quiet, Reporter, by_work
from clipmem.base.random import generator
from clipmem.curation.share import PLANTINGS, Share, plant, posterior, share_of
from clipmem.models.signals import Signals
from clipmem.scoring.evidence import Evidence, evidence_of
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.pair_scores.base import Kind, PairScore

SMALLEST = 100
ODDS, STACKED = "planted-odds", 2.0  # name of the classifier's log odds, and their weight
SUSPECT = 0.5  # smallest probability of a suspect
MOST = 100_000  # evenly spaced pairs whose captions are suggested
# time per pair of the steps, measured (1 = 1 µs): features of images, four predictions, plantings
_IMAGES, _COMPARE, _PLANT = 1200.0, 1000.0, 600.0
LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


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
        document: Numbers for readers: scores used, expected number of mismatched captions with its interval, precision
            at several lengths of the list, seconds.
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


class Ranked(NamedTuple):
    """A score of the pairs, and its part in the combination.

    Attributes:
        name: Its name.
        kind: What is wrong with a pair that it ranks first.
        weight: Weight of its ranks in the combination; 0 = not part of it.
        score: Higher = more suspect, NaN = unknown, shape (n,).
        rank: Ranks in (0, 1), ties shared; unknown ones are in the middle.
        certain: The suspects by its rule.
    """

    name: str
    kind: Kind
    weight: float
    score: Float64[np.ndarray, " n"]
    rank: Float64[np.ndarray, " n"]
    certain: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, item: PairScore, signals: Signals) -> "Ranked":
        """Score pairs."""
        score = item.score(signals)
        rule = item.certain(signals, score) if item.weight else None
        certain = np.zeros(len(score), dtype=np.bool_) if rule is None else rule
        return cls(item.name, item.kind, item.weight, score, _ranks(score), certain)

    @property
    def priority(self) -> Float64[np.ndarray, " n"]:
        """The ranks, those of suspects by rule above all others."""
        return self.rank + self.certain

    @property
    def high(self) -> Bool[np.ndarray, " n"]:
        """The pairs above the median."""
        return self.score > np.nanmedian(self.score)


def curate(
    signals: Signals,
    *,
    detectors: Sequence[str] = (),
    combine: str = "stacked",
    confidence: float = 0.95,
    plantings: int = PLANTINGS,
    reporter: Reporter | None = None,
) -> Curation:
    """Rank pairs by how likely their captions are wrong, and say why, without labels.

    The score is the weighted sum of the ranks of all pair scores with a weight whose signals are there, divided by its
    largest value. Probabilities and the expected number of mismatched captions come from captions planted on other
    images (`curate.planting`), without the model: a model that trained on a mismatched caption no longer looks
    surprised by it.

    Args:
        signals: What is known of the pairs: images, a model's embeddings, or both.
        detectors: Names of further pair scores that are wanted; they do not change the combination.
        combine: `stacked` adds the ranks by a classifier of planted against observed pairs to the sum, with weight 2;
            `ranks` leaves them out.
        confidence: Of the interval of the expected number, between 0 and 1.
        plantings: Swapped captions of each kind per image.
        reporter: Progress reporter.

    Raises:
        InputError: There are fewer than 100 pairs, captions or images are all the same, there are no images and no
            model, or a wanted score lacks a signal.
    """
    started, reporter = time.monotonic(), reporter or Quiet()
    n = len(signals.uids)
    require(n >= SMALLEST, "pairs", f"{n}", f"{SMALLEST} or more", "Give more pairs: a few say nothing of each other.")
    require(0 < confidence < 1, "confidence", f"{confidence}", "a number between 0 and 1", "Use 0.95.")
    require_range("plantings", plantings, 1, hint="Use 2.")
    require(combine in ("ranks", "stacked"), "combine", repr(combine), "ranks or stacked", "Use stacked.")
    if signals.pixels is None and signals.image is None:
        raise InputError("curate", got="no images and no model", expected="one of them", hint="Give the images.")
    for name in detectors:
        missing = ", ".join(PAIR_SCORES[name].lacks(signals))
        hint = "Give a run or a model that has it, or omit the score."
        require(not missing, f"pair score {name}", f"no {missing}", "the signals that it needs", hint)
    declared = {name: PAIR_SCORES[name] for name in PAIR_SCORES}
    lacking = {name: item.lacks(signals) for name, item in declared.items() if "mismatched captions" in item.good_for}
    usable = [name for name, needs in lacking.items() if not needs and declared[name].weight]
    items = [declared[name]() for name in sorted({*usable, *detectors})]
    embedded = [item.name for item in items if "embeddings" in item.needs]
    work = {"images": _IMAGES if signals.pixels else 0.0, "compare": _COMPARE + n / 30, "plant": _PLANT}
    advance = by_work(reporter, "detect", n, "pairs", {**work, **dict.fromkeys(embedded, n / 30)})
    if (decode := signals.pixels) is not None:

        def watched(rows: np.ndarray) -> np.ndarray:
            advance("images", len(rows) / n)
            return decode(rows)

        signals = replace(signals, pixels=watched)
    evidence, ranked = evidence_of(signals, lambda share: advance("compare", share)), list[Ranked]()
    for item in items:
        ranked.append(Ranked.of(item, signals))
        if item.name in embedded:
            advance(item.name, 1.0)
    texts = numbered(same_words(captions[0]) for captions in signals.captions)
    planted = plant(evidence, texts, signals.seed, plantings, lambda share: advance("plant", share))
    members, z = [score for score in ranked if score.weight], planted.observed
    odds = Ranked(ODDS, "mismatched", STACKED, z, _ranks(z), np.zeros(n, dtype=np.bool_))
    combined = [*members, odds] if combine == "stacked" else members
    score = np.sum([part.weight * part.rank for part in combined], axis=0) / sum(part.weight for part in combined)
    special = [part for part in members if part.kind != "mismatched"]
    share = share_of(planted, confidence)
    probability = posterior(planted, share.assumed, score, ~np.any([part.high for part in special], axis=0))
    ruled = np.any([part.certain for part in members], axis=0)
    probability[ruled] = 1.0
    suspect = probability >= SUSPECT
    rows = np.flatnonzero(suspect)
    # the two scores in the combination that rank a pair highest
    names = np.array([part.name for part in members])
    order = np.argsort(-np.stack([part.priority for part in members]), axis=0, kind="stable")[:2]
    # the kind of the special score that adds most to the combination, else mismatched
    adds = [np.where(part.high, part.weight * part.priority, 0) for part in special]
    kinds = np.array(["mismatched", *(part.kind for part in special)])[np.argmax([np.zeros(n), *adds], axis=0)]
    why = {"kind": kinds.tolist(), "reason": names[order[0]].tolist(), "second_reason": names[order[-1]].tolist()}
    evident = zip(evidence.near, suspect, strict=True)
    table = pl.DataFrame(
        {
            "uid": list(signals.uids),
            "score": score,
            "is_suspect": suspect,
            "probability": probability,
            **{name: [x if y else None for x, y in zip(values, suspect, strict=True)] for name, values in why.items()},
            "neighbors": pl.Series(
                [[signals.uids[k] for k in near if k >= 0] if listed else [] for near, listed in evident],
                dtype=pl.List(pl.String),
            ),
            "suggested_caption": _suggest(evidence, signals, texts, rows if share.clear else rows[:0], probability),
            **{f"{part.name.replace('-', '_')}_score": part.score for part in (*ranked, odds)},
        },
        schema_overrides=dict.fromkeys(("kind", "reason", "second_reason", "suggested_caption"), pl.String),
    )
    reporter.end("detect", time.monotonic() - started)
    document = {
        "pairs": n,
        "combination": {part.name: part.weight for part in combined},
        "detectors": [part.name for part in ranked],
        "evidence": evidence.features,
        "unavailable": {name: needs for name, needs in lacking.items() if needs},
        "expected": share._asdict() | {"confidence": confidence, "pairs": [round(n * value) for value in share[:3]]},
        **counted(table),
        "by_rule": int(ruled.sum()),
        "seconds": time.monotonic() - started,
    }
    return Curation(table, document)


def _ranks(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return ranks in (0, 1), ties shared; unknown ones are in the middle."""
    ranks, scored = np.full(len(x), 0.5), ~np.isnan(x)
    ranks[scored] = (rankdata(x[scored]) - 0.5) / max(1, scored.sum())
    return ranks


def _suggest(
    evidence: Evidence,
    signals: Signals,
    texts: np.ndarray,
    rows: np.ndarray,
    probability: Float64[np.ndarray, " n"],
) -> list[str | None]:
    """Suggest the caption that fits a suspect's image best, if it fits as well as the median of the other pairs."""
    suggested: list[str | None] = [None] * len(texts)
    fine = np.flatnonzero(probability < SUSPECT)
    others = np.setdiff1d(np.arange(len(texts)), rows)  # not the captions of other suspects
    if not len(rows) or not len(fine) or not len(others):
        return suggested
    usual = float(np.median(np.mean(evidence.own[:3], axis=0)[fine]))
    others = others[:: -(-len(others) // MOST)]
    start = 0
    for fits in evidence.all_fits(rows, others):
        part = rows[start : start + len(fits)]
        start += len(fits)
        fits[texts[part, None] == texts[others]] = -np.inf
        for row, j, fit in zip(part, others[fits.argmax(axis=1)], fits.max(axis=1), strict=True):
            suggested[row] = signals.captions[j][0] if fit >= usual else None
    return suggested


def ordered(table: pl.DataFrame) -> pl.DataFrame:
    """Return the list as it is read: suspects first, also those by rule, whose scores may be low; then by score."""
    return table.sort("is_suspect", "score", "uid", descending=[True, True, False])


def counted(table: pl.DataFrame) -> dict[str, Any]:
    """Count the suspects, by kind too; and the expected share of mismatched captions among the first of the list."""
    suspects, ranked = table.filter("is_suspect"), ordered(table)
    shares = ranked["probability"].cum_sum() / np.arange(1, len(table) + 1)
    return {
        "suspects": suspects.height,
        "kinds": dict(suspects["kind"].drop_nulls().value_counts().sort("kind").iter_rows()),
        "precision": [{"length": k, "precision": shares[k - 1]} for k in LENGTHS if k <= len(table)],
    }


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
    scores: Float64[np.ndarray, "n detector"],
    list_score: Float64[np.ndarray, " n"],
    marked: Bool[np.ndarray, " n"],
    is_wrong: Bool[np.ndarray, " n"],
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
    from sklearn.model_selection import StratifiedKFold

    label = is_wrong[marked]
    if len(label) < ENOUGH or min(label.sum(), (~label).sum()) < FOLDS:
        return None
    scored = np.isfinite(scores)
    rank = rankdata(np.where(scored, scores, np.inf), axis=0)
    share = np.clip((rank - 0.5) / np.maximum(scored.sum(axis=0), 1), 1e-5, 1 - 1e-5)
    x = np.where(scored, norm.ppf(share), 0.0)
    mine, predicted = x[marked], np.zeros(len(label))
    for fitted, tested in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(mine, label):
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(mine[fitted], label[fitted])
        predicted[tested] = model.decision_function(mine[tested])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(mine, label)
    # every wrong pair with every other: 1 if its score is larger, 1/2 if equal; the mean is the AUROC
    sides = ((values[label, None], values[~label]) for values in (predicted, list_score[marked]))
    ahead = np.stack([(a > b) + 0.5 * (a == b) for a, b in sides])
    rng, sizes = generator(0, "marks"), ahead.shape[1:]
    times = [rng.multinomial(size, np.full(size, 1 / size), _DRAWS) / size for size in sizes]
    more = np.einsum("dw,rwf,df->rd", times[0], ahead, times[1])
    auroc, list_auroc = ahead.mean(axis=(1, 2)).tolist()
    return Learned(model.decision_function(x), auroc, list_auroc, bool((more[0] > more[1]).mean() >= _SURE))


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
