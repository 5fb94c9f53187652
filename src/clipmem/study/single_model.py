"""Ranking of pairs without a reference model and training: what one existing model, pixels and words say of each."""

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from clipmem.base.errors import require
from clipmem.base.hashing import image_part, numbered
from clipmem.base.paths import write_json
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.tables import Column, scratch_array, write_table
from clipmem.data.decoding import Geometry
from clipmem.data.pairs import BLOCK, Pairs, ShardedPairs
from clipmem.data.skipped import Problem, write_skipped
from clipmem.models.embeddings import Embeddings, Model, embed
from clipmem.models.layout import read_card
from clipmem.models.protocol import softmax_scale
from clipmem.models.signals import Signals
from clipmem.report.formats import count
from clipmem.report.sections.commands import Scored
from clipmem.scoring.aligning import Reader
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.protocols.halves import SMALLEST
from clipmem.stats.ranking import spearman
from clipmem.study import estimating
from clipmem.study.plan import PlannedStudy
from clipmem.study.score_inputs import Data, Embedder, Settings, pairs_of
from clipmem.train.recorder import read_trajectory

Collected = tuple[Signals, list[Problem]]
_SMALL = Geometry(64, "squash", "bicubic")  # model-free features


def write_ranking(
    model: str,
    data: Data | None,
    out: Path,
    settings: Settings,
    *,
    trajectory: Path | None = None,
    reporter: Reporter | None = None,
) -> Scored:
    """Rank pairs by what one model, if any, pixels and words say of them; write every such score.

    `trajectory` is a file of `AlignmentRecorder`; of the settings it reads `captions` and `device`.

    Raises:
        InputError: There are fewer than 200 usable pairs, or nothing can be learned from captions or images.
    """
    opened, reporter = settings.open(model) if model else None, reporter or Quiet()
    settings.check_work(embeds=isinstance(opened, Model))
    pairs = pairs_of([opened] if opened else [], data, settings, "--data", listed=not settings.part)
    pairs.refuse("--out", out)
    folder = out.with_suffix(".parts")  # of the model's embeddings, until the estimates are written
    signals, problems = collect(pairs, opened, folder, settings, reporter, least=SMALLEST)
    if trajectory is not None:
        signals = replace(signals, trajectory=read_trajectory(trajectory, signals.uids))
    reporter.begin("estimate")
    estimated = estimating.estimates(signals)
    scores = estimating.table_of(signals, estimated)
    best = max(estimated, key=lambda name: PAIR_SCORES[name].new_data.get("mean", -1.0))
    about: dict[str, object] = {
        "format": 1,
        "model": model or None,
        "data": pairs.name,
        "pairs": len(signals.uids),
        "problems": len(problems),
        "estimator": best,
        "estimators": list(estimated),
        "rank_correlations": {
            name: spearman(estimated[best].score, other.score) for name, other in estimated.items() if name != best
        },
        "files": opened.content() if opened else None,
    }
    write_table(out, "estimates", scores)
    write_json(out.with_suffix(".json"), about)
    write_skipped(listed := out.with_suffix(".skipped.parquet"), problems)
    if isinstance(opened, Model):
        shutil.rmtree(folder)
    return _scored(scores, about, zip(signals.uids, signals.captions, strict=True), listed if problems else None)


def estimates_of(path: Path) -> Scored:
    """Read the estimates of a study without shadow models from its run folder."""
    study = PlannedStudy(path)
    scores, document = study.folder.read(estimating.TABLE), study.folder.read_json(estimating.DOCUMENT)
    captions, listed = zip(study.pair_uids, study.captions, strict=True), study.folder.path / "skipped.parquet"
    about: dict[str, object] = {**document, "model": "f", "pairs": scores["uid"].n_unique(), "problems": 0}
    return _scored(scores, about, captions, listed)


def _scored(
    scores: pl.DataFrame, about: dict[str, object], captions: Iterable[tuple[str, Sequence[str]]], listed: Path | None
) -> Scored:
    """Add the captions of the ten highest pairs, and the agreement to expect."""
    name = str(about["estimator"])  # in a run folder, perhaps one that clipmem has no longer
    about = {**about, "new_data": dict(PAIR_SCORES[name].new_data) or None if name in PAIR_SCORES else None}
    ranked = scores.filter(estimator=about["estimator"]).sort("score", "uid", descending=[True, False])
    first = ranked["uid"].head(10).to_list()
    texts = {uid: every for uid, every in captions if uid in first}
    return Scored(scores, about, {uid: texts[uid] for uid in first}, listed)


def _embed(model: Model, pairs: Pairs | ShardedPairs, out: Path, settings: Settings, reporter: Reporter) -> Embeddings:
    made_with = settings.made_with(read_card(out))
    with settings.runner(out) as run:
        return embed({out: model}, pairs, made_with, run=run, reporter=reporter)[0]


def collect(
    pairs: Pairs, model: Embedder | None, folder: Path, settings: Settings, reporter: Reporter, *, least: int
) -> Collected:
    """Collect what a model, if there is one, pixels and words say of all usable pairs; and list the others.

    `folder` is new, or that of a stopped call: it gets the embeddings of a model.

    Raises:
        InputError: There are fewer than `least` usable pairs.
    """
    stored, problems, table = model, list(pairs.problems), pairs.table
    if isinstance(model, Model):
        stored = _embed(model, pairs.shards or pairs, folder, settings, reporter)
        problems = list(stored.problems)
        others = table.filter(~pl.col("uid").is_in(stored.uids.implode()))["uid"].to_list() if pairs.shards else []
        if others:  # images with captions in several shards, and what is unreadable
            reasons = {problem[1:] for problem in problems}
            again = _embed(model, pairs.select(others, pairs.name), folder / "merged", settings, reporter)
            stored, problems = stored.joined(again), problems + [x for x in again.problems if x[1:] not in reasons]
            table = table.filter(pl.col("uid").is_in(stored.uids.implode()))
    elif pairs.source is not None:
        tables, started = list[pl.DataFrame](), time.monotonic()
        reporter.begin("embed", len(pairs), "pairs")
        for decoded in pairs.blocks(range(len(pairs)), BLOCK, [_SMALL]):
            problems += decoded.problems
            tables.append(decoded.table)
            reporter.advance(len(decoded) + len(decoded.problems))
        reporter.end("embed", time.monotonic() - started)
        table = pl.concat(tables)
    usable, arrays = replace(pairs, table=table), list[np.ndarray]()
    if isinstance(stored, Embeddings):
        rows, done = np.empty(len(usable), dtype=np.int64), 0
        for chunk, [means] in Reader([stored], [None]).chunks(usable, problems):
            arrays = arrays or [scratch_array((len(usable), values.shape[1])) for values in means[:2]]
            for array, values in zip((rows, *arrays), (chunk, *means[:2]), strict=True):
                array[done : done + len(chunk)] = values
            done += len(chunk)
        usable, arrays = replace(pairs, table=table[rows[:done]]), [array[:done] for array in arrays]
    hint, got = "Give more pairs.", count(len(usable), "usable pair")
    require(len(usable) >= least, f"data {pairs.name}", got, f"{least} or more", hint)
    signals = Signals(
        uids=Column(usable.uids),
        captions=Column(usable.table["captions"]),
        group=numbered(map(image_part, usable.uids)),
        image=torch.from_numpy(arrays[0]) if arrays else None,
        text=torch.from_numpy(arrays[1]) if arrays else None,
        logit_scale=softmax_scale(model.encoder) if isinstance(model, Model) else None,
        pixels=(lambda index: usable.decoded(index, [_SMALL]).pixels[_SMALL]) if pairs.source is not None else None,
        device=settings.device,
    )
    return signals, list(dict.fromkeys(problems))
