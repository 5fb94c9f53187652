"""Estimates without twins and without training: what one existing model, pixels and words say of each pair."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from clipmem.base.errors import require
from clipmem.base.hashing import image_part, numbered
from clipmem.base.paths import atomic_write, check_new_table
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.tables import write_table
from clipmem.data.decoding import Geometry
from clipmem.data.pairs import BLOCK, Pairs
from clipmem.data.quarantine import Problem, write_quarantine
from clipmem.models.embeddings import NO_DIRECTION, Model, embed
from clipmem.models.protocol import softmax_scale
from clipmem.models.signals import Signals
from clipmem.report.formats import count
from clipmem.scoring.estimators import ESTIMATORS
from clipmem.scoring.protocols.halves import SMALLEST
from clipmem.scoring.recorded import read_trajectory
from clipmem.stats.ranking import spearman
from clipmem.study import estimating
from clipmem.study.plan import PlannedStudy
from clipmem.study.score_inputs import Data, Embedder, Settings, read_pairs

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
    check_new_table(out)
    settings = Settings.of(captions=captions, device=device)
    pairs, reporter = read_pairs(data, captions, "--data", ("--out", out)), reporter or Quiet()
    opened = settings.open(model) if model else None
    folder = out.with_suffix(".parts")  # of the model's embeddings, until the estimates are written
    signals, problems = collect(pairs, opened, folder, settings, reporter, least=SMALLEST)
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
        "files": opened.content() if opened else None,
    }
    write_table(out, "estimates", scores)
    atomic_write(out.with_suffix(".json"), (json.dumps(about, indent=1, allow_nan=False) + "\n").encode())
    listed = out.with_suffix(".quarantine.parquet") if problems else None
    if listed:
        write_quarantine(listed, problems)
    if isinstance(opened, Model):
        shutil.rmtree(folder)
    texts = dict(zip(signals.uids, signals.captions, strict=True))
    return Estimates(scores, about, {uid: texts[uid] for uid in _first(scores, CHOSEN)}, listed)


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


def collect(
    pairs: Pairs, model: Embedder | None, folder: Path, settings: Settings, reporter: Reporter, *, least: int
) -> tuple[Signals, list[Problem]]:
    """Collect what a model, if there is one, pixels and words say of all usable pairs; and list the others.

    Args:
        pairs: The pairs.
        model: A model, or stored embeddings.
        folder: New folder for the model's embeddings, or that of a stopped call.
        settings: Settings of the embeddings.
        reporter: Progress reporter.
        least: Smallest number of usable pairs.

    Raises:
        InputError: There are fewer than `least` usable pairs.
    """
    if isinstance(model, Model):
        [stored] = embed([model], pairs, [folder], settings.made_with(), reporter=reporter)
        problems, table = list(stored.problems), pairs.table.filter(pairs.uids.is_in(stored.uids.implode()))
    else:
        stored, problems, tables = model, list(pairs.problems), list[pl.DataFrame]()
        started = time.monotonic()
        reporter.begin("embed", len(pairs), "pairs")
        for decoded in pairs.blocks(range(len(pairs)), BLOCK, [_SMALL]):
            problems += decoded.problems
            tables.append(decoded.table)
            reporter.advance(len(decoded) + len(decoded.problems))
        reporter.end("embed", time.monotonic() - started)
        table = pl.concat(tables)
    means = None
    if stored is not None:
        rows = stored.rows(table["uid"])
        missing = table.filter(pl.Series(rows < 0))
        problems += [Problem(pairs.data, key, f"not among the embeddings in {stored.name}") for key in missing["key"]]
        table = table.filter(pl.Series(rows >= 0))
        means = stored.read(rows[rows >= 0])
        ok = pl.Series(means.ok.numpy(), dtype=pl.Boolean)
        problems += [Problem(pairs.data, key, NO_DIRECTION) for key in table["key"].filter(~ok)]
        table, means = table.filter(ok), means.select(torch.nonzero(means.ok)[:, 0])
    hint, got = "Give more pairs.", count(table.height, "usable pair")
    require(table.height >= least, f"data {pairs.name}", got, f"{least} or more", hint)
    usable = replace(pairs, table=table)
    signals = Signals(
        uids=table["uid"].to_list(),
        captions=usable.captions,
        group=numbered(map(image_part, table["uid"])),
        image=means and means.image,
        text=means and means.text,
        logit_scale=softmax_scale(model.encoder) if isinstance(model, Model) else None,
        pixels=lambda chosen: usable.decoded(chosen, [_SMALL]).pixels[_SMALL],
    )
    return signals, problems
