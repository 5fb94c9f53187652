"""Estimates of CLIPMem from f and a few shadow models: signals, every score that they allow, its expected agreement.

And what the training pairs did to the similarity of a held-out image and caption (`clipmem score RUN --trace`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from clipmem.base import slices
from clipmem.base.errors import require
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.random import generator
from clipmem.base.tables import write_parquet
from clipmem.data.features import caption_features, image_features
from clipmem.models.protocol import softmax_scale
from clipmem.models.signals import Halves, Signals
from clipmem.scoring.design import ScoreTables
from clipmem.scoring.pair_scores import PAIR_SCORES, Estimated, usable
from clipmem.stats.agreement import directions
from clipmem.stats.alignment import AlignmentParts, alignment
from clipmem.stats.reliability import Agreement, agreement, noise_of
from clipmem.stats.tracing import common, fit, lds
from clipmem.study.plan import PlannedStudy
from clipmem.train.objectives import OBJECTIVES
from clipmem.train.paired import TrainingSet

DOCUMENT, TABLE = "estimate.json", "estimates"
SHOWN = 5
_CELLS, _BOTH = 2**21, 4  # queries x pairs at a time; the feature s t of `common`: TracIn's for a linear last layer


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


def trace(folder: Path, query: str, out: Path, reporter: Reporter | None = None) -> dict[str, object]:
    """Estimate what each training pair does to the similarity of an image and a caption, and write it to a table.

    The weights are fitted on the run's held-out pairs, and on as many of their images with captions of others.

    Args:
        folder: A finished run of protocol halves, with four or more shadow models.
        query: uid of a held-out pair; or two of them, as UID:UID: image of the first and caption of the second, such as
            the caption that was retrieved instead.
        out: The table: uid, and effect on the similarity, less its means over the held-out captions and images.
        reporter: Progress reporter.

    Returns:
        Uids, caption and similarity (under f) of the query; mean LDS of the held-out pairs, with its 95% interval over
        them, and that of the product of both similarities under f; the pairs with the largest and smallest effects.

    Raises:
        InputError: The run has no such models, or a text tower that was not trained, or the query is no held-out pair.
    """
    study, reporter = PlannedStudy(folder), reporter or Quiet()
    study.check_text("--trace")
    external = study.role == "external"
    held, pool = np.flatnonzero(external), np.flatnonzero(~external)
    couples = study.design.couples
    couples = couples[np.ptp(study.design.sign[couples[:, 0]][:, pool], axis=1) > 0]  # not f and g
    got, hint = f"{2 * len(couples)} shadow models", "Run it with --set protocol=halves --set halves.pairs=4."
    require(len(couples) > 1, f"run {folder}", got, "4 or more", hint)
    places = {study.pair_uids[row]: k for k, row in enumerate(held.tolist())}
    uids = [query] * 2 if query in places else query.split(":", 1)
    for uid in uids:
        hint = "Take uids with the role external in scores.parquet."
        require(uid in places, "--trace", repr(uid), "a pair that no model trained on", hint)
    order = generator(study.recipe.split.seed, "trace").permutation(len(held))
    image = np.concatenate([np.arange(len(held)), order, [places[uids[0]]]])
    caption = np.concatenate([np.arange(len(held)), np.roll(order, 1), [places[uids[1]]]])

    def similarity(model: TrainingSet) -> Float64[np.ndarray, " query"]:
        means = study.means(model, external)
        u, v = means.image.double().numpy(), means.text.double().numpy()
        return (u[image] * v[caption]).sum(axis=1) - u[image] @ v.mean(axis=0) - v[caption] @ u.mean(axis=0)

    d = np.stack([similarity(study.models[a]) - similarity(study.models[b]) for a, b in couples])
    member = np.where(study.design.sign[couples[:, 0]][:, pool] > 0, 1.0, -1.0)
    images, captions = _sides(study)

    def features(rows: slice) -> Float64[np.ndarray, "f query n"]:
        queries = (images, held[image[rows]]), (captions, held[caption[rows]])
        return common(*([(side[which], side[pool]) for side in sides] for sides, which in queries))

    reporter.begin("trace", len(image), "queries")
    started, blocks = time.monotonic(), list[np.ndarray]()
    for rows in slices(len(image), max(1, _CELLS // len(pool))):
        blocks.append((features(rows) @ member.T).transpose(2, 1, 0))
        reporter.advance(blocks[-1].shape[1])
    reporter.end("trace", time.monotonic() - started)
    x = np.concatenate(blocks, axis=1)
    fitted = fit(x[:, :-1], d[:, :-1])
    effect = np.einsum("f,fn->n", fitted.weight, features(slice(-1, None))[:, 0])
    pairs = slice(len(held))
    texts = study.captions
    table = pl.DataFrame({"uid": [study.pair_uids[row] for row in pool], "effect": effect})
    write_parquet(out, table.sort("effect", "uid", descending=[True, False]))
    ranked = [(float(effect[k]), study.pair_uids[pool[k]], texts[pool[k]][0]) for k in np.argsort(-effect).tolist()]
    row, text = (int(held[places[uid]]) for uid in uids)
    return {
        "format": 1,
        "run": str(folder),
        "image": uids[0],
        "caption": uids[1],
        "text": texts[text][0],
        "similarity": float(images[0][row] @ captions[0][text]),
        "pairs": len(pool),
        "held_out": len(held),
        "shadow_models": 2 * len(couples),
        "lds": _mean(fitted.lds[pairs]),
        "lds_of_similarity": _mean(lds(x[:, pairs, _BOTH], d[:, pairs])),
        "raised": ranked[:SHOWN],
        "lowered": ranked[: -SHOWN - 1 : -1],
    }


def _sides(study: PlannedStudy) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return unit rows of the images of all pairs, under f and by pixels, and of captions, under f and by words."""
    means, pixels, rows = study.means(study.models[0], study.role != ""), study.pixels(), study.rows
    shapes = image_features(lambda index: pixels[rows[index]], len(rows))
    words = np.asarray(caption_features(study.captions)[:])
    images = [means.image, directions(torch.from_numpy(shapes), "images")]
    captions = [means.text, directions(torch.from_numpy(words), "captions")]
    return [side.double().numpy() for side in images], [side.double().numpy() for side in captions]


def _mean(values: Float64[np.ndarray, " query"]) -> dict[str, float]:
    mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}
