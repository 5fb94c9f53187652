"""The ranked list of suspect captions: a fixed, label-free combination of detectors, calibrated on planted errors."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypedDict

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64
from pydantic import TypeAdapter
from scipy.stats import rankdata

from clipmem.base.errors import InputError, require, require_range
from clipmem.base.hashing import numbered, same_words
from clipmem.base.progress import Quiet, Reporter, by_work
from clipmem.curation.detectors import DETECTORS
from clipmem.curation.detectors.base import lacks
from clipmem.curation.evidence import Evidence, evidence_of
from clipmem.curation.share import PLANTINGS, plant, posterior, share_of
from clipmem.models.signals import Signals

SMALLEST = 100
ODDS, STACKED = "planted-odds", 2.0  # name of the classifier's log odds, and their weight
SUSPECT = 0.5  # smallest probability of a suspect
MOST = 100_000  # evenly spaced pairs whose captions are suggested
# time per pair of the steps, measured (1 = 1 µs): features of images, four predictions, plantings
_IMAGES, _COMPARE, _PLANT = 1200.0, 1000.0, 600.0
LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Expected(TypedDict):
    """`curation.share.Share`, its confidence, and its first three as numbers of pairs."""

    share: float
    low: float
    high: float
    found: bool
    clear: bool
    separation: float
    assumed: float
    confidence: float
    pairs: tuple[int, int, int]


class Ranking(TypedDict):
    """What a ranking's document must have to be shown again; a folder that somebody sent may have anything."""

    expected: Expected
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
            `probability` (that the caption is wrong, calibrated; 1 by a detector's rule), `kind` (exchanged, vague,
            duplicate, hygiene; null), `reason` and `second_reason` (ids of templates), `neighbors` (uids that testify),
            `suggested_caption` (or null; none where planted captions are not told from right ones), and one column
            `NAME_score` per detector.
        document: Numbers for readers: detectors used, expected number of wrong captions with its interval, precision
            at several lengths of the list, seconds.
    """

    table: pl.DataFrame
    document: dict[str, Any]

    def check(self) -> None:
        """Raise a ValueError if this, read from files, is no ranking."""
        TypeAdapter(Ranking).validate_python(self.document)
        if any(self.table.schema.get(name) != kind for name, kind in COLUMNS.items()):
            raise ValueError("a column has another type")
        if any(self.table[name].has_nulls() for name in _WHOLE):
            raise ValueError("a value is missing")


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

    The score is the weighted sum of the ranks of all detectors with a weight whose signals are there, divided by its
    largest value. Probabilities and the expected number of wrong captions come from captions planted on other images
    (`curate.planting`), without the model: a model that trained on a wrong caption no longer looks surprised by it.

    Args:
        signals: What is known of the pairs: images, a model's embeddings, or both.
        detectors: Further detectors whose scores are wanted; they do not change the combination.
        combine: `stacked` adds the ranks by a classifier of planted against observed pairs to the sum, with weight 2;
            `ranks` leaves them out.
        confidence: Of the interval of the expected number, between 0 and 1.
        plantings: Planted captions of each kind per image.
        reporter: Progress reporter.

    Raises:
        InputError: There are fewer than 100 pairs, captions or images are all the same, there are no images and no
            model, or a wanted detector lacks a signal.
    """
    started, reporter = time.monotonic(), reporter or Quiet()
    n = len(signals.uids)
    require(n >= SMALLEST, "pairs", f"{n}", f"{SMALLEST} or more", "Give more pairs: a few say nothing of each other.")
    require(0 < confidence < 1, "confidence", f"{confidence}", "a number between 0 and 1", "Use 0.95.")
    require_range("plantings", plantings, 1, hint="Use 2.")
    require(combine in ("ranks", "stacked"), "combine", repr(combine), "ranks or stacked", "Use stacked.")
    if signals.pixels is None and signals.image is None:
        raise InputError("curate", got="no images and no model", expected="one of them", hint="Give the images.")
    missing = {name: lacks(DETECTORS[name], signals) for name in DETECTORS}
    for name in detectors:
        _ = DETECTORS[name]
        got, hint = f"no {', '.join(missing[name])}", "Give a run or a model that has it, or omit the detector."
        require(not missing[name], f"detector {name}", got, "the signals that it needs", hint)
    chosen = [name for name in DETECTORS if not missing[name] and (DETECTORS[name].weight or name in detectors)]
    scores = dict[str, Float64[np.ndarray, "n"]]()
    with_model = {name: n / 30 for name in chosen if "embeddings" in DETECTORS[name].needs}
    work = {"images": _IMAGES if signals.pixels else 0.0, "compare": _COMPARE + n / 30, "plant": _PLANT, **with_model}
    advance = by_work(reporter, "detect", n, "pairs", work)
    if (decode := signals.pixels) is not None:

        def watched(rows: np.ndarray) -> np.ndarray:
            advance("images", len(rows) / n)
            return decode(rows)

        signals = replace(signals, pixels=watched)
    evidence = evidence_of(signals, lambda share: advance("compare", share))
    for name in chosen:
        scores[name] = DETECTORS[name]().score(signals)
        if name in with_model:
            advance(name, 1.0)
    texts = numbered(same_words(own[0]) for own in signals.captions)
    planted = plant(evidence, texts, signals.seed, plantings, lambda share: advance("plant", share))
    weights = {name: DETECTORS[name].weight for name in chosen if DETECTORS[name].weight}
    ranks = {name: _ranks(scores[name]) for name in weights}
    summed = {**weights, ODDS: STACKED} if combine == "stacked" else weights
    scores[ODDS] = planted.observed
    every = ranks | {ODDS: _ranks(planted.observed)}
    score = np.sum([weight * every[name] for name, weight in summed.items()], axis=0) / sum(summed.values())
    special = {name: scores[name] > np.nanmedian(scores[name]) for name in weights if _is_special(name)}
    share = share_of(planted, confidence)
    other = np.any(list(special.values()), axis=0) if special else np.zeros(n, dtype=np.bool_)
    probability = posterior(planted, share.assumed, score, ~other)
    rules = {name: rule for name in weights if (rule := DETECTORS[name]().certain(signals, scores[name])) is not None}
    ruled = np.logical_or.reduce([np.zeros(n, dtype=np.bool_), *rules.values()])
    probability[ruled] = 1.0
    ranks |= {name: ranks[name] + rule for name, rule in rules.items()}  # the detector that decided comes first
    suspect = probability >= SUSPECT
    rows = np.flatnonzero(suspect)
    reasons, testimony = _reasons(weights, ranks), zip(evidence.near, suspect, strict=True)
    table = pl.DataFrame(
        {
            "uid": list(signals.uids),
            "score": score,
            "is_suspect": suspect,
            "probability": probability,
            "kind": _where(suspect, _kinds(special, weights, ranks, n)),
            "reason": _where(suspect, reasons[0]),
            "second_reason": _where(suspect, reasons[1]),
            "neighbors": pl.Series(
                [[signals.uids[k] for k in near if k >= 0] if own else [] for near, own in testimony],
                dtype=pl.List(pl.String),
            ),
            "suggested_caption": _suggest(evidence, signals, texts, rows if share.clear else rows[:0], probability),
            **{f"{name.replace('-', '_')}_score": values for name, values in scores.items()},
        },
        schema_overrides=dict.fromkeys(("kind", "reason", "second_reason", "suggested_caption"), pl.String),
    )
    reporter.end("detect", time.monotonic() - started)
    document = {
        "pairs": n,
        "combination": summed,
        "detectors": chosen,
        "evidence": evidence.features,
        "unavailable": {name: needs for name, needs in missing.items() if needs},
        "expected": share._asdict() | {"confidence": confidence, "pairs": [round(n * one) for one in share[:3]]},
        **counted(table),
        "by_rule": int(ruled.sum()),
        "seconds": time.monotonic() - started,
    }
    return Curation(table, document)


def _is_special(name: str) -> bool:
    return DETECTORS[name].kind != "exchanged"


def _ranks(x: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return ranks in (0, 1), ties shared; unknown ones are in the middle."""
    found = np.full(len(x), 0.5)
    known = ~np.isnan(x)
    found[known] = (rankdata(x[known]) - 0.5) / max(1, known.sum())
    return found


def _reasons(weights: Mapping[str, float], ranks: Mapping[str, Float64[np.ndarray, " n"]]) -> list[list[str]]:
    """Name the two detectors in the combination that rank each pair highest."""
    names = np.array(list(weights))
    order = np.argsort(-np.stack([ranks[name] for name in weights]), axis=0, kind="stable")[:2]
    return [names[row].tolist() for row in (order[0], order[-1])]


def _kinds(
    special: Mapping[str, Bool[np.ndarray, " n"]],
    weights: Mapping[str, float],
    ranks: Mapping[str, Float64[np.ndarray, " n"]],
    n: int,
) -> list[str]:
    """Name what is wrong: the kind of the special detector that adds most to the score, else exchanged."""
    found, most = ["exchanged"] * n, np.zeros(n)
    for name, where in special.items():
        adds = np.where(where, weights[name] * ranks[name], 0)
        for row in np.flatnonzero(adds > most):
            found[row] = DETECTORS[name].kind
        most = np.maximum(most, adds)
    return found


def _where(chosen: Bool[np.ndarray, " n"], values: Sequence[str]) -> list[str | None]:
    return [value if own else None for value, own in zip(values, chosen, strict=True)]


def _suggest(
    evidence: Evidence,
    signals: Signals,
    texts: np.ndarray,
    rows: np.ndarray,
    probability: Float64[np.ndarray, " n"],
) -> list[str | None]:
    """Suggest the caption that fits a suspect's image best, if it fits as well as the median of the other pairs."""
    found: list[str | None] = [None] * len(texts)
    right = np.flatnonzero(probability < SUSPECT)
    others = np.setdiff1d(np.arange(len(texts)), rows)  # not the captions of other suspects
    if not len(rows) or not len(right) or not len(others):
        return found
    usual = float(np.median(np.mean(evidence.own[:3], axis=0)[right]))
    others = others[:: -(-len(others) // MOST)]
    start = 0
    for fits in evidence.all_fits(rows, others):
        part = rows[start : start + len(fits)]
        start += len(fits)
        fits[texts[part, None] == texts[others]] = -np.inf
        for row, j, fit in zip(part, others[fits.argmax(axis=1)], fits.max(axis=1), strict=True):
            found[row] = signals.captions[j][0] if fit >= usual else None
    return found


def ordered(table: pl.DataFrame) -> pl.DataFrame:
    """Return the list as it is read: suspects first, also those by rule, whose scores may be low; then by score."""
    return table.sort("is_suspect", "score", "uid", descending=[True, True, False])


def counted(table: pl.DataFrame) -> dict[str, Any]:
    """Count the suspects, by kind too; and the expected share of wrong captions among the first of the list."""
    suspects, ranked = table.filter("is_suspect"), ordered(table)
    shares = ranked["probability"].cum_sum() / np.arange(1, len(table) + 1)
    return {
        "suspects": suspects.height,
        "kinds": dict(suspects["kind"].drop_nulls().value_counts().sort("kind").iter_rows()),
        "precision": [{"length": k, "precision": shares[k - 1]} for k in LENGTHS if k <= len(table)],
    }
