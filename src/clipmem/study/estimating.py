"""Scores of single pairs from f and a few half-models: signals, every estimator, and its expected agreement."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from clipmem.models.protocol import softmax_scale
from clipmem.models.signals import Halves, Signals
from clipmem.scoring.design import ScoreTables
from clipmem.scoring.estimators import ESTIMATORS, Estimated, Estimator
from clipmem.stats.alignment import AlignmentParts, alignment
from clipmem.stats.reliability import Agreement, agreement, noise_of
from clipmem.study.plan import PlannedStudy
from clipmem.train.objectives import OBJECTIVES

DOCUMENT, TABLE = "estimate.json", "estimates"


def signals_of(study: PlannedStudy, parts: Sequence[AlignmentParts]) -> Signals:
    """Collect the signals of a study whose first model is f, with its complementary half-models if it has any."""
    pool, f, rows = study.role != "external", study.models[0], study.design.couples.ravel()
    values = np.stack([alignment(one, weight=study.recipe.score.weight).numpy() for one in parts])
    # one half-model may be better than another throughout
    values -= values[:, ~pool].mean(axis=1, keepdims=True)
    member = study.design.sign[rows][:, pool] > 0
    halves = Halves(values[rows][:, pool], member, proxy=bool(study.recipe.halves.proxy))
    scale = softmax_scale(study.load(f)) if OBJECTIVES[study.recipe.train.objective].softmax else None
    found = signals_under_first(study, pool, values[0, pool])
    return replace(found, logit_scale=scale, halves=halves if len(rows) else None)


def signals_under_first(study: PlannedStudy, own: np.ndarray, aligned: np.ndarray) -> Signals:
    """Collect what the first model of a study says of some pairs: a mask of the split table, and their alignment."""
    f = study.models[0]
    means, rows, images = study.means(f, own), study.rows[own], study.pixels()
    return Signals(
        uids=[uid for uid, mine in zip(study.pair_uids, own, strict=True) if mine],
        captions=[captions for captions, mine in zip(study.captions, own, strict=True) if mine],
        group=study.group[own],
        image=means.image,
        text=means.text,
        alignment=aligned,
        pixels=lambda chosen: images[rows[chosen]],
        trajectory=study.trajectory(f, own) if f.uids else None,
        seed=study.recipe.split.seed,
    )


def refine(
    study: PlannedStudy, parts: Sequence[AlignmentParts], made: ScoreTables, chosen: str
) -> tuple[ScoreTables, list[Path]]:
    """Replace the scores of the pool by those of an estimator, and write those of all estimators with their agreement.

    The scores of external pairs, the control, stay raw differences.
    """
    signals = signals_of(study, parts)
    found, files = estimate(study, signals, chosen)
    scores = made.scores.join(rows_of(signals, chosen, found), on="uid", how="left", maintain_order="left")
    half = float(norm.ppf((1 + study.recipe.score.confidence) / 2))
    estimated = pl.col("score").is_not_null()
    columns = {
        "clipmem": pl.col("score"),
        "stderr": pl.col("stderr_right"),
        "low": pl.col("score") - half * pl.col("stderr_right"),
        "high": pl.col("score") + half * pl.col("stderr_right"),
    }
    scores = scores.with_columns(
        pl.when(estimated).then(value).otherwise(name).alias(name) for name, value in columns.items()
    )
    return made._replace(scores=scores.select(made.scores.columns)), files


def estimate(study: PlannedStudy, signals: Signals, chosen: str) -> tuple[Estimated, list[Path]]:
    """Apply every estimator that the signals allow; write their scores and expected agreements, return the chosen."""
    level, halves = study.recipe.score.confidence, signals.halves
    available = {name: ESTIMATORS[name]() for name in ESTIMATORS if lacks(ESTIMATORS[name], signals) == []}
    # sums of matrix products depend on the number of threads, which the environment may set otherwise
    with threadpool_limits(study.execution.threads * study.execution.workers, user_api="blas"):
        found = {name: estimator.estimate(signals) for name, estimator in available.items()}
    effect, agreements = halves.effect if halves else np.zeros((0, len(signals.uids))), dict[str, Any]()
    noise = noise_of(effect) if len(effect) > 1 else None
    for name, one in found.items():
        agreed = expected_agreement(signals, one, level)
        agreements[name] = agreed and agreed._asdict()
    tables = [rows_of(signals, name, one) for name, one in found.items()]
    document = {
        "format": 1,
        "estimator": chosen,
        "half_models": 2 * len(effect),
        "proxy": study.recipe.halves.proxy or None,
        "cost": cost_of(study),
        "calibrated": found[chosen].calibrated,
        "reliability": noise and noise.reliability,
        "agreement": agreements,
        "confidence": level,
    }
    files = [study.folder.write(TABLE, pl.concat(tables)), study.folder.write_json(DOCUMENT, document)]
    return found[chosen], files


def expected_agreement(signals: Signals, found: Estimated, confidence: float = 0.95) -> Agreement | None:
    """Estimate the agreement of an estimator's scores with the truth from the half-models alone; None if not known."""
    halves = signals.halves
    if halves is None or len(halves.effect) < 2:
        return None
    predicted = found.score if found.predicted is None else found.predicted
    how: dict[str, Any] = {"own": found.own, "left_out": found.left_out, "seed": signals.seed}
    return agreement(halves.effect, predicted, signals.group, **how, confidence=confidence)


def lacks(estimator: type[Estimator], signals: Signals) -> list[str]:
    """Return the needs of an estimator that the signals do not meet."""
    there = {
        "embeddings": signals.image,
        "logit scale": signals.logit_scale,
        "alignment": signals.alignment,
        "images": signals.pixels,
        "trajectory": signals.trajectory,
        "half-models": signals.halves,
    }
    return sorted(need for need in estimator.needs if there[need] is None)


def rows_of(signals: Signals, name: str, found: Estimated) -> pl.DataFrame:
    """Return the rows of an estimator in the table `estimates`."""
    error = np.full(len(found.score), np.nan) if found.stderr is None else found.stderr
    columns = {"uid": signals.uids, "estimator": [name] * len(found.score), "score": found.score, "stderr": error}
    return pl.DataFrame(columns).with_columns(pl.col("score", "stderr").fill_nan(None))


def cost_of(study: PlannedStudy) -> float:
    """Cost of the half-models in trainings of f: presentations, each weighted by a pair's counted operations."""
    spent: dict[bool, float] = {True: 0.0, False: 0.0}
    first = {model.model: model for model in study.models}
    operations = {name: study.start_of(model).operations() for name, model in first.items()}
    for model, sign in zip(study.models, study.design.sign, strict=True):
        shown = len(model.uids) * study.recipe.train.epochs
        if not model.exists:
            shown = study.folder.read_json(f"models/{model.side}/seed-{model.seed}/record.json")["presentations"]
        spent[bool(sign.any())] += shown * operations[model.model]
    return spent[True] / spent[False]
