"""Estimates of CLIPMem from f and a few shadow models: signals, every score that they allow, its expected agreement."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from clipmem.models.protocol import softmax_scale
from clipmem.models.signals import Halves, Signals
from clipmem.scoring.design import ScoreTables
from clipmem.scoring.pair_scores import PAIR_SCORES, Estimated, usable
from clipmem.stats.alignment import AlignmentParts, alignment
from clipmem.stats.reliability import Agreement, agreement, noise_of
from clipmem.study.plan import PlannedStudy
from clipmem.train.objectives import OBJECTIVES

DOCUMENT, TABLE = "estimate.json", "estimates"


def signals_of(study: PlannedStudy, parts: Sequence[AlignmentParts]) -> Signals:
    """Collect the signals of a study whose first model is f, with its complementary shadow models if it has any."""
    pool, f, rows = study.role != "external", study.models[0], study.design.couples.ravel()
    values = np.stack([alignment(part, weight=study.recipe.score.weight).numpy() for part in parts])
    # one shadow model may be better than another throughout
    values -= values[:, ~pool].mean(axis=1, keepdims=True)
    member = study.design.sign[rows][:, pool] > 0
    halves = Halves(values[rows][:, pool], member, proxy=bool(study.recipe.halves.proxy))
    scale = softmax_scale(study.load(f)) if OBJECTIVES[study.recipe.train.objective].softmax else None
    signals = signals_under_first(study, pool, values[0, pool])
    return replace(signals, logit_scale=scale, halves=halves if len(rows) else None)


def signals_under_first(study: PlannedStudy, mask: np.ndarray, aligned: np.ndarray) -> Signals:
    """Collect what the first model of a study says of some pairs: a mask of the split table, and their alignment."""
    f = study.models[0]
    means, rows, images = study.means(f, mask), study.rows[mask], study.pixels()
    return Signals(
        uids=[uid for uid, inside in zip(study.pair_uids, mask, strict=True) if inside],
        captions=[captions for captions, inside in zip(study.captions, mask, strict=True) if inside],
        group=study.group[mask],
        image=means.image,
        text=means.text,
        alignment=aligned,
        pixels=lambda index: images[rows[index]],
        trajectory=study.trajectory(f, mask) if f.uids else None,
        seed=study.recipe.split.seed,
    )


def refine(
    study: PlannedStudy, parts: Sequence[AlignmentParts], tables: ScoreTables, estimator: str
) -> tuple[ScoreTables, list[Path]]:
    """Replace the scores of the pool by the chosen estimates, and write all estimates with their agreement.

    The scores of external pairs, the control, stay raw differences.
    """
    signals = signals_of(study, parts)
    table, files = estimate(study, signals, estimator)
    scores = tables.scores.join(table.filter(estimator=estimator), on="uid", how="left", maintain_order="left")
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
    return tables._replace(scores=scores.select(tables.scores.columns)), files


def estimate(study: PlannedStudy, signals: Signals, estimator: str) -> tuple[pl.DataFrame, list[Path]]:
    """Write all estimates that the signals allow and their expected agreements; return the table, and the files."""
    level, halves = study.recipe.score.confidence, signals.halves
    # sums of matrix products depend on the number of threads, which the environment may set otherwise
    with threadpool_limits(study.execution.threads * study.execution.workers, user_api="blas"):
        estimated = estimates(signals)
    effect = halves.effect if halves else np.zeros((0, len(signals.uids)))
    noise = noise_of(effect) if len(effect) > 1 else None
    agreements = {name: expected_agreement(signals, scores, level) for name, scores in estimated.items()}
    table = table_of(signals, estimated)
    document = {
        "format": 1,
        "estimator": estimator,
        "shadow_models": 2 * len(effect),
        "proxy": study.recipe.halves.proxy or None,
        "cost": cost_of(study),
        "calibrated": estimated[estimator].calibrated,
        "reliability": noise and noise.reliability,
        "agreement": {name: agreed and agreed._asdict() for name, agreed in agreements.items()},
        "confidence": level,
    }
    return table, [study.folder.write(TABLE, table), study.folder.write_json(DOCUMENT, document)]


def expected_agreement(signals: Signals, estimated: Estimated, confidence: float = 0.95) -> Agreement | None:
    """Estimate the agreement of estimates with the truth from the shadow models alone; None if not known."""
    halves = signals.halves
    if halves is None or len(halves.effect) < 2:
        return None
    return agreement(halves.effect, estimated, signals.group, seed=signals.seed, confidence=confidence)


def estimates(signals: Signals) -> dict[str, Estimated]:
    """Estimate CLIPMem of every pair by each score for it whose signals are there."""
    return {name: PAIR_SCORES[name]().estimate(signals) for name in usable("memorization", signals)}


def table_of(signals: Signals, estimated: Mapping[str, Estimated]) -> pl.DataFrame:
    """Return the table `estimates`."""
    tables = list[pl.DataFrame]()
    for name, scores in estimated.items():
        error = np.full(len(scores.score), np.nan) if scores.stderr is None else scores.stderr
        columns = {"uid": signals.uids, "estimator": [name] * len(error), "score": scores.score, "stderr": error}
        tables.append(pl.DataFrame(columns))
    return pl.concat(tables).with_columns(pl.col("score", "stderr").fill_nan(None))


def cost_of(study: PlannedStudy) -> float:
    """Cost of the shadow models in trainings of f: samples seen, each weighted by a pair's counted operations."""
    spent: dict[bool, float] = {True: 0.0, False: 0.0}
    first = {model.model: model for model in study.models}
    operations = {name: study.start_of(model).operations() for name, model in first.items()}
    for model, sign in zip(study.models, study.design.sign, strict=True):
        exposures = len(model.uids) * study.recipe.train.epochs
        if not model.exists:
            exposures = study.folder.record(model.side, model.seed)["samples_seen"]
        spent[bool(sign.any())] += exposures * operations[model.model]
    return spent[True] / spent[False]
