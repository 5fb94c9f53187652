"""Estimates of CLIPMem from f and a few shadow models: signals, every score that they allow, its expected agreement.

And what the training pairs did to the similarity of a held-out image and caption (`clipmem score RUN --trace`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from scipy.stats import t
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
from clipmem.stats.intervals import Interval, crossed_mean
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
    estimated, files = estimate(study, signals, estimator)
    table, value, error = table_of(signals, {estimator: estimated}), pl.col("score"), pl.col("stderr_right")
    scores = tables.scores.join(table, on="uid", how="left", maintain_order="left")
    half = float(t.ppf((1 + study.recipe.score.confidence) / 2, estimated.df)) * error
    columns = {"clipmem": value, "stderr": error, "low": value - half, "high": value + half}
    scores = scores.with_columns(
        pl.when(value.is_not_null()).then(column).otherwise(name).alias(name) for name, column in columns.items()
    )
    return tables._replace(scores=scores.select(tables.scores.columns)), files


def estimate(study: PlannedStudy, signals: Signals, estimator: str) -> tuple[Estimated, list[Path]]:
    """Write all estimates that the signals allow and their expected agreements; return the named one, and the files."""
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
    return estimated[estimator], [study.folder.write(TABLE, table), study.folder.write_json(DOCUMENT, document)]


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


class Traced(NamedTuple):
    """What the training pairs did to similarities of held-out images and captions.

    Attributes:
        shadow_models: Number of shadow models.
        similarity: Similarities that were asked for, under f, shape (k,).
        effect: Effect of each training pair on these, shape (k, n).
        lds: Mean LDS (of differences) of the held-out pairs, with its interval over groups of them.
        lds_of_similarity: The same of the product of both similarities under f instead of effects.
    """

    shadow_models: int
    similarity: Float64[np.ndarray, " k"]
    effect: Float64[np.ndarray, "k n"]
    lds: Interval
    lds_of_similarity: Interval


def traced(study: PlannedStudy, asked: Sequence[tuple[int, int]] = (), reporter: Reporter | None = None) -> Traced:
    """Fit what each training pair does to a similarity, on the held-out pairs and as many mixed ones.

    Args:
        study: A finished run of protocol halves, with four or more shadow models.
        asked: Similarities to trace: numbers of an image and of a caption among the held-out pairs.
        reporter: Progress reporter.

    Raises:
        InputError: The run has no such models.
    """
    external, reporter = study.role == "external", reporter or Quiet()
    held, pool = np.flatnonzero(external), np.flatnonzero(~external)
    couples = study.design.couples
    couples = couples[np.ptp(study.design.sign[couples[:, 0]][:, pool], axis=1) > 0]  # not f and g
    got, hint = f"{2 * len(couples)} shadow models", "Run it with --set protocol=halves --set halves.pairs=4."
    require(len(couples) > 1, f"run {study.path}", got, "4 or more", hint)
    order, questions = generator(study.recipe.split.seed, "trace").permutation(len(held)), len(asked)
    image = np.concatenate([np.arange(len(held)), order, [pair[0] for pair in asked]]).astype(np.int64)
    caption = np.concatenate([np.arange(len(held)), np.roll(order, 1), [pair[1] for pair in asked]]).astype(np.int64)

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

    fitted_on = slice(len(image) - questions)
    reporter.begin("trace", fitted_on.stop, "queries")
    started, blocks = time.monotonic(), list[np.ndarray]()
    for rows in slices(fitted_on.stop, max(1, _CELLS // len(pool))):
        blocks.append((features(rows) @ member.T).transpose(2, 1, 0))
        reporter.advance(blocks[-1].shape[1])
    reporter.end("trace", time.monotonic() - started)
    x = np.concatenate(blocks, axis=1)
    fitted, pairs, group = fit(x, d[:, fitted_on]), slice(len(held)), study.group[held]
    return Traced(
        shadow_models=2 * len(couples),
        similarity=np.array([images[0][held[a]] @ captions[0][held[b]] for a, b in asked]),
        effect=np.einsum("f,fqn->qn", fitted.weight, features(slice(fitted_on.stop, None))),
        lds=crossed_mean(fitted.lds[None, pairs], group),
        lds_of_similarity=crossed_mean(lds(x[:, pairs, _BOTH], d[:, pairs])[None], group),
    )


def trace(folder: Path, query: str, out: Path, reporter: Reporter | None = None) -> dict[str, object]:
    """Estimate what each training pair does to the similarity of an image and a caption, and write it to a table.

    Args:
        folder: A finished run of protocol halves, with four or more shadow models.
        query: uid of a held-out pair; or two of them, as UID:UID: image of the first and caption of the second, such as
            the caption that was retrieved instead.
        out: The table: uid, and effect on the similarity, less its means over the held-out captions and images.
        reporter: Progress reporter.

    Returns:
        Uids, caption and similarity (under f) of the query; both LDS of `Traced`; the pairs with the largest and
        smallest effects.

    Raises:
        InputError: The run has no such models or no trained text tower, the query is no held-out pair, or `out` exists.
    """
    study = PlannedStudy(folder)
    study.check_text("--trace")
    require(not out.exists(), f"--out {out}", "an existing file", "a new file", "Choose another name.")
    held, pool = (np.flatnonzero(rows) for rows in (study.role == "external", study.role != "external"))
    places = {study.pair_uids[row]: k for k, row in enumerate(held.tolist())}
    uids = [query] * 2 if query in places else query.split(":", 1)
    for uid in uids:
        hint = "Take uids with the role external in scores.parquet."
        require(uid in places, "--trace", repr(uid), "a pair that no model trained on", hint)
    answer, texts = traced(study, [(places[uids[0]], places[uids[1]])], reporter), study.captions
    [effect] = answer.effect
    table = pl.DataFrame({"uid": [study.pair_uids[row] for row in pool], "effect": effect})
    write_parquet(out, table.sort("effect", "uid", descending=[True, False]))
    ranked = [(float(effect[k]), study.pair_uids[pool[k]], texts[pool[k]][0]) for k in np.argsort(-effect).tolist()]
    return {
        "format": 1,
        "run": str(folder),
        "image": uids[0],
        "caption": uids[1],
        "text": texts[held[places[uids[1]]]][0],
        "similarity": float(answer.similarity[0]),
        "pairs": len(pool),
        "held_out": len(held),
        "shadow_models": answer.shadow_models,
        "lds": answer.lds._asdict(),
        "lds_of_similarity": answer.lds_of_similarity._asdict(),
        "raised": ranked[:SHOWN],
        "lowered": ranked[: -SHOWN - 1 : -1],
    }


def _sides(study: PlannedStudy) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return unit rows of the images of all pairs, under f and by pixels, and of captions, under f and by words."""
    means, pixels, rows = study.means(study.models[0], study.role != ""), study.pixels(), study.rows
    shapes = image_features(lambda index: pixels[rows[index]], len(rows))
    words = caption_features(study.captions)
    images = [means.image, directions(torch.from_numpy(shapes), "images")]
    captions = [means.text, directions(torch.from_numpy(words), "captions")]
    return [side.double().numpy() for side in images], [side.double().numpy() for side in captions]
