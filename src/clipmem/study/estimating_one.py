"""Estimates without twins and without training: what one existing model, pixels and words say of each pair."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from clipmem.base.atomic import atomic_write
from clipmem.base.hashing import image_part, numbered
from clipmem.base.images import Geometry
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.require import require
from clipmem.base.tables import write_table
from clipmem.data.quarantine import Problem
from clipmem.models.signals import Signals
from clipmem.report.formats import count
from clipmem.scoring.estimators import ESTIMATORS
from clipmem.scoring.pairs import Pairs, write_quarantine
from clipmem.scoring.protocols.halves import SMALLEST
from clipmem.scoring.recorded import read_trajectory
from clipmem.scoring.sides import ModelSide, Side, read_block, usable
from clipmem.stats.ranking import spearman
from clipmem.study import early, estimating
from clipmem.study.plan import PlannedStudy
from clipmem.study.score_inputs import DECODED, Data, Settings, read_pairs

CHOSEN = "closed-form"
_SMALL = Geometry(64, "squash", "bicubic")  # model-free features


@dataclass(frozen=True)
class Estimates:
    """Scores by estimator, the sidecar `about`, captions of the highest pairs, and the quarantine, if there is one."""

    scores: pl.DataFrame
    about: Mapping[str, Any]
    captions: Mapping[str, Sequence[str]]
    quarantine: Path | None = None


def estimate_with(
    model: str,
    data: Data,
    out: Path,
    *,
    trajectory: Path | None = None,
    captions: int | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Estimates:
    """Estimate the order of memorization from one model, and write the scores of every estimator that needs no more.

    Args:
        model: Address of the model that trained on the data; empty: pixels and words alone.
        data: The pairs.
        out: Table of scores: uid, estimator, score, stderr; a sidecar .json tells how it was made.
        trajectory: What the model's training recorded of the pairs: a file of `AlignmentRecorder`.
        captions: Maximum number of captions per pair; None = all.
        device: `auto`, `cpu` or `cuda`.
        reporter: Progress reporter.

    Raises:
        InputError: There are fewer than 200 usable pairs, or nothing can be learned from captions or images.
    """
    early.check_scores(out)
    settings = Settings(captions=captions, device=device).checked()
    pairs, reporter = read_pairs(data, captions, "--data", ("--out", out)), reporter or Quiet()
    side = settings.side(model) if model else None
    signals, problems = embedded(pairs, side, reporter, least=SMALLEST)
    if trajectory is not None:
        signals = replace(signals, trajectory=read_trajectory(trajectory, signals.uids))
    reporter.begin("estimate")
    usable_ones = [name for name in ESTIMATORS if not estimating.lacks(ESTIMATORS[name], signals)]
    found = {name: ESTIMATORS[name]().estimate(signals) for name in usable_ones}
    scores = pl.concat(estimating.rows_of(signals, name, one) for name, one in found.items())
    about = {
        "format": 1,
        "model": model or None,
        "data": pairs.name,
        "pairs": len(signals.uids),
        "problems": len(problems),
        "estimator": CHOSEN,
        "estimators": usable_ones,
        "rank_correlations": {
            name: spearman(found[CHOSEN].score, one.score) for name, one in found.items() if name != CHOSEN
        },
        "files": side.content() if side else None,
    }
    write_table(out, "estimates", scores)
    atomic_write(out.with_suffix(".json"), (json.dumps(about, indent=1, allow_nan=False) + "\n").encode())
    listed = out.with_suffix(".quarantine.parquet") if problems else None
    if listed:
        write_quarantine(listed, problems)
    first = _first(scores, CHOSEN)
    shown = dict(zip(first, pairs.captions(first), strict=True))
    return Estimates(scores, about, shown, listed)


def estimates_of(path: Path) -> Estimates:
    """Read the estimates of a study without half-models from its run folder."""
    study = PlannedStudy(path)
    scores, made = study.folder.read(estimating.TABLE), study.folder.read_json(estimating.DOCUMENT)
    captions, listed = dict(zip(study.pair_uids, study.captions, strict=True)), study.folder.path / "quarantine.parquet"
    about = made | {"model": "f", "pairs": scores["uid"].n_unique(), "problems": 0}
    first = _first(scores, made["estimator"])
    return Estimates(scores, about, {uid: captions[uid] for uid in first}, listed)


def _first(scores: pl.DataFrame, estimator: str) -> list[str]:
    own = scores.filter(pl.col("estimator") == estimator)
    return own.sort("score", "uid", descending=[True, False])["uid"].head(10).to_list()


def embedded(pairs: Pairs, side: Side | None, reporter: Reporter, *, least: int) -> tuple[Signals, list[Problem]]:
    """Embed all pairs with a model, if there is one; return the signals of those that are usable, and the others.

    Raises:
        InputError: There are fewer than `least` usable pairs.
    """
    problems, started = list(pairs.problems), time.monotonic()
    kept, image, text = list[np.ndarray](), list[torch.Tensor](), list[torch.Tensor]()
    reporter.begin("embed", len(pairs), "pairs")
    geometry = side.geometry if isinstance(side, ModelSide) and side.geometry else _SMALL
    for start in range(0, len(pairs), DECODED):
        rows = np.arange(start, min(start + DECODED, len(pairs)))
        block, more = read_block(pairs, rows, [geometry])
        problems += more
        if side is not None:
            block, [one], more = usable([side], block)
            problems += more
            image.append(one.image)
            text.append(one.text)
        kept.append(block.rows)
        reporter.advance(len(rows))
    reporter.end("embed", time.monotonic() - started)
    rows = np.concatenate(kept)
    hint = "Give more pairs."
    require(len(rows) >= least, f"data {pairs.name}", count(len(rows), "usable pair"), f"{least} or more", hint)
    table = pairs.table[rows]
    uids = table["uid"].to_list()

    def pixels(chosen: np.ndarray) -> np.ndarray:
        return read_block(pairs, rows[chosen], [_SMALL])[0].pixels[_SMALL]

    signals = Signals(
        uids=uids,
        captions=table["captions"].to_list(),
        group=numbered(map(image_part, uids)),
        image=torch.cat(image) if image else None,
        text=torch.cat(text) if text else None,
        logit_scale=side.logit_scale if isinstance(side, ModelSide) else None,
        pixels=pixels,
    )
    return signals, problems
