"""The ranking of suspect captions: a fixed, label-free combination of pair scores, calibrated on planted errors."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from clipmem.base.errors import InputError, require, require_range
from clipmem.base.hashing import numbered, same_words
from clipmem.base.progress import Quiet, Reporter, by_work
from clipmem.curation.share import CLEAR, PLANTINGS, plant, posterior, share_of
from clipmem.curation.suspects import LISTED, Curation, counted
from clipmem.models.signals import Signals
from clipmem.scoring.evidence import EXACT, Evidence
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.pair_scores.base import Kind, Need, PairScore

SMALLEST = 100
ODDS, STACKED = "planted-odds", 2.0  # name of the classifier's log odds, and their weight
SUSPECT = 0.5  # smallest probability of a suspect
SUGGESTED = 10**9  # comparisons for suggestions: above, with captions of evenly spaced pairs
# time per pair of the steps, measured (1 = 1 µs): features of images, four predictions, plantings
_IMAGES, _COMPARE, _PLANT = 1200.0, 1000.0, 600.0


class Ranked(NamedTuple):
    """A score of the pairs, and its part in the combination.

    Attributes:
        name: Its name.
        kind: What is wrong with a pair that it ranks first.
        weight: Weight of its ranks in the combination; 0 = not part of it.
        needs: The signals that it reads.
        score: Higher = more suspect, NaN = unknown, shape (n,).
        certain: The suspects by its rule.
        agreement: Factor of the weight in [0, 1], see `agreeing`.
    """

    name: str
    kind: Kind
    weight: float
    needs: frozenset[Need]
    score: Float64[np.ndarray, " n"]
    certain: Bool[np.ndarray, " n"]
    agreement: float = 1.0

    @classmethod
    def of(cls, item: PairScore, signals: Signals) -> "Ranked":
        """Score pairs."""
        score = item.score(signals)
        rule = item.certain(signals, score) if item.weight else None
        certain = np.zeros(len(score), dtype=np.bool_) if rule is None else rule
        return cls(item.name, item.kind, item.weight, item.needs, score, certain)

    @property
    def rank(self) -> Float64[np.ndarray, " n"]:
        """Ranks in (0, 1), ties shared; unknown ones are in the middle."""
        ranks, scored = np.full(len(self.score), 0.5), ~np.isnan(self.score)
        ranks[scored] = (rankdata(self.score[scored]) - 0.5) / max(1, scored.sum())
        return ranks

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
    largest value. Scores by a model count as far as they agree with the other pairs (`agreeing`). Probabilities and the
    expected number of mismatched captions come from captions planted on other images (`curate.planting`). Of models,
    only one that did not train on the pairs has a say in these: another one is no longer surprised by a mismatched
    caption that it trained on.

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
    finders = [item for name in PAIR_SCORES if "mismatched captions" in (item := PAIR_SCORES[name]).good_for]
    lacking = {item.name: item.lacks(signals) for item in finders}
    usable = [item.name for item in finders if item.weight and not lacking[item.name]]
    items = [PAIR_SCORES[name]() for name in sorted({*usable, *detectors})]
    embedded = [item.name for item in items if "embeddings" in item.needs]
    work = {"images": _IMAGES if signals.pixels else 0.0, "compare": _COMPARE + n / 30, "plant": _PLANT}
    advance = by_work(reporter, "detect", n, "pairs", {**work, **dict.fromkeys(embedded, n / 30)})
    if (decode := signals.pixels) is not None:

        def watched(rows: np.ndarray) -> np.ndarray:
            advance("images", len(rows) / n)
            return decode(rows)

        signals = replace(signals, pixels=watched)
    ranked = list[Ranked]()
    with threadpool_limits(1 if n <= EXACT else None, user_api="blas"):  # as in `plant`
        evidence = signals.once(Evidence, partial(advance, "compare"))
        for item in items:
            ranked.append(Ranked.of(item, signals))
            if item.name in embedded:
                advance(item.name, 1.0)
    texts = numbered(same_words(captions[0]) for captions in signals.captions)
    planted = plant(evidence, texts, signals.seed, plantings, lambda share: advance("plant", share))
    members, z = [score for score in ranked if score.weight], planted.observed
    odds = Ranked(ODDS, "mismatched", STACKED, frozenset(), z, np.zeros(n, dtype=np.bool_))
    members = agreeing(members, odds)
    combined = [*members, odds] if combine == "stacked" else members
    weights = {part.name: part.weight * part.agreement for part in combined}
    score = sum((weights[part.name] * part.rank for part in combined), np.zeros(n)) / sum(weights.values())
    special = [part for part in members if part.kind != "mismatched"]
    share = share_of(planted, confidence)
    probability = posterior(planted, share.assumed, score, ~np.any([part.high for part in special], axis=0))
    ruled = np.any([part.certain for part in members], axis=0)
    probability = np.where(ruled, 1.0, np.minimum(probability, np.nextafter(1, 0)))  # 1 by a rule alone
    suspect = probability >= SUSPECT
    first = np.lexsort((-score, -probability))[:LISTED]
    rows = np.union1d(np.flatnonzero(suspect), first)
    suggested = _suggest(evidence, signals, texts, rows, probability) if share.clear else [None] * len(rows)
    near = [[signals.uids[k] for k in others if k >= 0] for others in evidence.near[rows]]
    reasons = _reasons(rows, members).with_columns(
        neighbors=pl.Series(near, dtype=pl.List(pl.String)), suggested_caption=pl.Series(suggested, dtype=pl.String)
    )
    # a join takes several times the memory, and so do chunks
    index = np.full(n, len(rows))
    index[rows] = np.arange(len(rows))
    spread = pl.concat([reasons, reasons.clear(1)], rechunk=True).with_columns(pl.col("neighbors").fill_null([]))[index]
    table = pl.DataFrame({"uid": signals.uids, "score": score, "is_suspect": suspect, "probability": probability})
    table = table.hstack(spread).with_columns(
        pl.Series(f"{part.name.replace('-', '_')}_score", part.score) for part in (*ranked, odds)
    )
    reporter.end("detect", time.monotonic() - started)
    document = {
        "pairs": n,
        "combination": weights,
        "detectors": [part.name for part in ranked],
        "evidence": evidence.features,
        "unavailable": {name: needs for name, needs in lacking.items() if needs},
        "expected": share._asdict()
        | {"confidence": confidence, "pairs": [round(n * value) for value in share[:3]]}
        | {"told": share.separation >= CLEAR},
        **counted(table),
        "seconds": time.monotonic() - started,
    }
    return Curation(table, document)


def agreeing(members: Sequence[Ranked], odds: Ranked) -> list[Ranked]:
    """Give scores by a model the weight that they have on these data, by agreement with the odds.

    With r the correlation of its ranks with those of the odds, the factor of a score by a model is max(0, r) / m, at
    most 1, where m is the mean r of the scores by images and words alone. A model that knows nothing of these images,
    or that learned their mismatched captions, would otherwise dilute what the other pairs say.
    """
    likely = odds.rank

    def correlation(part: Ranked) -> float:
        rank = part.rank
        varies = np.ptp(rank) > 0 and np.ptp(likely) > 0
        return float(np.corrcoef(rank, likely)[0, 1]) if varies else 0.0

    alone = [part for part in members if part.kind == odds.kind and part.needs == frozenset({"images"})]
    usual = sum(map(correlation, alone)) / max(1, len(alone))
    return [
        part._replace(agreement=min(1.0, max(0.0, correlation(part)) / usual))
        if usual > 0 and part.needs - {"images", "pixels"}
        else part
        for part in members
    ]


def _reasons(rows: Int[np.ndarray, " k"], members: Sequence[Ranked]) -> pl.DataFrame:
    """Say what is wrong with some pairs, and by which two scores in the combination, that rank a pair highest.

    The kind is that of the special score that adds most to the combination, else mismatched.
    """
    names = np.array([part.name for part in members])
    order = np.argsort(-np.stack([part.agreement * part.priority[rows] for part in members]), axis=0, kind="stable")[:2]
    special = [part for part in members if part.kind != "mismatched"]
    adds = [np.where(part.high[rows] | part.certain[rows], part.weight * part.priority[rows], 0) for part in special]
    kinds = np.array(["mismatched", *(part.kind for part in special)])[np.argmax([np.zeros(len(rows)), *adds], axis=0)]
    columns = {"kind": kinds.tolist(), "reason": names[order[0]].tolist(), "second_reason": names[order[-1]].tolist()}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _suggest(
    evidence: Evidence, signals: Signals, texts: np.ndarray, rows: np.ndarray, probability: Float64[np.ndarray, " n"]
) -> list[str | None]:
    """Suggest the caption that fits a pair's image best, if it fits as well as the median of the other pairs."""
    fine = np.flatnonzero(probability < SUSPECT)
    if not len(fine):
        return [None] * len(rows)
    usual = float(np.median(evidence.sums[fine]))
    others = fine[:: -(-len(fine) * len(rows) // SUGGESTED)]  # not the captions of other suspects
    best, most = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), -np.inf)
    for images, captions, fits in evidence.all_fits(rows, others):
        fits[texts[rows[images], None] == texts[others[captions]]] = -np.inf
        largest = fits.max(axis=1)
        best[images] = np.where(largest > most[images], others[captions][fits.argmax(axis=1)], best[images])
        most[images] = np.maximum(largest, most[images])
    return [signals.captions[int(j)][0] if fit >= usual else None for j, fit in zip(best, most, strict=True)]
