"""Scores of pairs by existing models, and embeddings (see `clipmem.score`, `clipmem export embeddings`)."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import polars as pl
import torch

from clipmem._version import __version__
from clipmem.base.errors import InputError, Unfinished, require, shorten
from clipmem.base.folder import Job, refuse_other
from clipmem.base.hashing import file_sha256
from clipmem.base.paths import write_json
from clipmem.base.progress import Reporter
from clipmem.base.tables import read_table, write_table
from clipmem.data.pairs import Pairs
from clipmem.data.skipped import read_skipped, records_sentence, write_skipped
from clipmem.data.sources import open_data
from clipmem.models.embeddings import CHUNK, SKIPPED, Embeddings, Model, embed, in_turn
from clipmem.models.layout import read_card
from clipmem.report.formats import count
from clipmem.report.sections.commands import Scored
from clipmem.scoring import summary
from clipmem.scoring.aligning import Aligned, Reader, align
from clipmem.scoring.alignments import ALIGNMENTS
from clipmem.scoring.design import ScoreTables, combine
from clipmem.scoring.protocols.four_way import paired_design
from clipmem.stats.alignment import AlignmentParts, alignment
from clipmem.study.score_inputs import LISTS, Comparison, Data, Settings, pairs_of
from clipmem.train.objectives import class_head
from clipmem.train.paired import TrainingSet

FORMAT = 1


def _embedded(
    comparison: Comparison, store: Path, job: Job, reporter: Reporter | None
) -> tuple[Comparison, list[Embeddings]]:
    """Embed pairs and bank with the models into folders of the store; return them, listed, and the embeddings."""
    settings, pairs, bank = comparison.settings, comparison.pairs, comparison.bank
    block, method = settings.block, ALIGNMENTS[settings.alignment]()
    models = dict(zip(comparison.names, comparison.models, strict=True))
    live = {name: model for name, model in models.items() if isinstance(model, Model)}
    stored = {name: model for name, model in models.items() if isinstance(model, Embeddings)}
    apart = not comparison.sample and not bank.uids.is_in(pairs.uids.implode()).all()
    made_with = settings.made_with(job.settings()) | ({} if method.means else {"single": True})
    unfinished = None
    with settings.runner(store) if live else contextlib.nullcontext(in_turn) as run:
        for folder, part in [(store / "bank", bank)] * apart + [(store, pairs.shards or pairs)] if live else []:
            of_folders = {folder / name: model for name, model in live.items()}
            try:
                embedded = embed(of_folders, part, made_with, block=block, run=run, reporter=reporter)
            except Unfinished as error:
                unfinished, embedded = error, []
            for name, of_pairs in zip(live, embedded, strict=not unfinished):
                stored[name] = of_pairs.joined(stored[name]) if name in stored else of_pairs
    if unfinished:
        raise unfinished
    if pairs.shards:
        comparison = comparison.listed(Embeddings.open(store / comparison.names[0]))
    return comparison, [stored[name] for name in models]


class OfBank(TypedDict):
    """What the bank's pairs say of scores: their mean, `centered` (see `summary.centered`) and `noise_floor`."""

    control: float | None
    centered: dict[str, object] | None
    noise_floor: dict[str, object] | None


def _write_table(aligned: Aligned, settings: Settings, out: Path) -> OfBank:
    """Write the scores, and return what the bank's pairs say of them.

    A bank that is not in the data has no scores by pair: clipmem_centered is clipmem minus its mean, without an error.
    """
    role = pl.when("inside").then(pl.lit("external")).otherwise(pl.lit("candidate"))
    splits = aligned.table.select("uid", role.alias("role"), pl.lit(value=False).alias("planted"))
    order = splits["uid"].arg_sort().to_numpy().astype(np.int64)
    parts = [AlignmentParts(*(part[torch.from_numpy(order)] for part in of_model)) for of_model in aligned.parts]
    aligned.parts.clear()  # as large as the table
    models = [TrainingSet(side, k, (), 0) for k in range(len(parts) // 2) for side in "fg"]
    splits, design = splits[order], paired_design(models, splits.height)
    scores, by_seed = combine(design, splits, parts, weight=settings.weight, confidence=settings.confidence)
    control = None
    if aligned.control is not None:
        values = [float(alignment(of_model, weight=settings.weight)) for of_model in aligned.control]
        control = float(np.mean(values[0::2]) - np.mean(values[1::2]))
    if "external" not in splits["role"]:
        scores = scores.with_columns(clipmem_centered=pl.col("clipmem") - pl.lit(control, pl.Float64))
    write_table(out, "scores", scores)
    scores = scores.select("uid", "clipmem")  # the rest is as large as all that is held of the pairs
    scored, level = summary.Scored(splits.with_row_index("group"), ScoreTables(scores, by_seed)), settings.confidence
    shift = summary.centered(scored, None, confidence=level)
    noise = summary.floor(scored, confidence=level)
    centered, noise_floor = shift and shift.document(), noise and noise.document()
    return {"control": control, "centered": centered, "noise_floor": noise_floor}


def left_out(scored: Scored) -> str:
    """Return how many records have no score, and the first one; "" if none is left out."""
    problems = read_skipped(scored.skipped) if scored.skipped else []
    first = f"the first {shorten(problems[0].key)}: {problems[0].reason}" if problems else ""
    return f"{len(problems):,} records left out, {first}" if problems else ""


def embed_pairs(model: str, data: Data, out: Path, settings: Settings, *, reporter: Reporter | None = None) -> str:
    """Embed pairs with one model into a folder in clip-retrieval's layout; say how many, of how many records."""
    source, opened = open_data(data, shard=""), settings.open(model)
    if isinstance(opened, Embeddings):
        raise InputError(f"--model {model}", got="a folder of embeddings", expected="a model", hint="Give a model.")
    pairs = pairs_of([opened], source, settings, "--data", listed=False)
    pairs.refuse("--out", out)
    pairs = pairs.shards or pairs
    with settings.runner(out) as run:
        made_with, block, hashed = settings.made_with(read_card(out)), settings.block, not settings.part
        [embedded] = embed({out: opened}, pairs, made_with, block=block, run=run, hashed=hashed, reporter=reporter)
    counts = pairs.ledger.facts()
    if isinstance(pairs, Pairs):  # whose images are listed, not decoded
        counts["left_out"] += counts["pairs"] - len(embedded)
        counts["pairs"] = len(embedded)
    records = f"; {records_sentence(counts)}" if counts["read"] != counts["pairs"] else ""
    listed = f"; {count(len(embedded.problems), 'problem')} listed in {out / SKIPPED}" if embedded.problems else ""
    return f"embedded {counts['pairs']:,} pairs into {out}{records}{listed}"


def write_scores(
    comparison: Comparison, out: Path, *, embeddings: Path | None = None, reporter: Reporter | None = None
) -> Scored:
    """Run a comparison and write its files, unless it is finished.

    Without a folder for the embeddings they are in `out` with the ending `.parts` until the scores are written.
    """
    pairs, bank, settings = comparison.pairs, comparison.bank, comparison.settings
    settings.check_work(embeds=any(isinstance(model, Model) for model in comparison.models))
    pairs.refuse("--out", out)
    about_file, listed = out.with_suffix(".json"), out.with_suffix(".skipped.parquet")
    job = Job(out.with_suffix(".parts"))
    made_with = _made_with(comparison, job.settings())
    with contextlib.nullcontext() if settings.part else job.locked():
        about = _finished(out, about_file, job, made_with)
        if about is None:
            job.resume(made_with)
            files = [model.files if isinstance(model, Model) else None for model in comparison.models]
            heads = [class_head(of_model.folder) if of_model else None for of_model in files]
            comparison, stored = _embedded(comparison, embeddings or job.path, job, reporter)
            pairs, bank, reader = comparison.pairs, comparison.bank, Reader(stored, heads, settings.block or CHUNK)
            aligned = align(reader, pairs, bank, ALIGNMENTS[settings.alignment](), reporter=reporter)
            by_bank = _write_table(aligned, settings, out)
            problems = list(dict.fromkeys([*pairs.problems, *bank.problems, *aligned.problems]))
            write_skipped(listed, problems)
            about = {
                "format": FORMAT,
                "clipmem": __version__,
                **{kind: [model.name for model in comparison.models[k::2]] for k, kind in enumerate(LISTS)},
                "alignment": settings.alignment,
                "compared": ALIGNMENTS[settings.alignment].summary,
                "range": list(ALIGNMENTS[settings.alignment].range),
                "data": pairs.name,
                "pairs": aligned.table.height,
                "problems": len(problems),
                "bank": {"name": bank.name, "pairs": aligned.bank, "drawn": comparison.sample},
                **by_bank,
                "highest": _top_captions(read_table(out, "scores"), pairs, stored[0]),
                "job": made_with,
                "sha256": file_sha256(out),
            }
            write_json(about_file, about)
        job.remove()  # before another call may use it
    scores, skipped = read_table(out, "scores"), listed if about["problems"] else None
    return Scored(scores, about, cast(Any, about).get("highest", {}), skipped)


def _made_with(comparison: Comparison, before: Mapping[str, object] | None) -> dict[str, object]:
    models, settings = comparison.models, comparison.settings
    contents = {model: model.content() for model in dict.fromkeys(models)}
    names = settings.made_with(before)
    options = {**names, "block": settings.block} if any(isinstance(model, Model) for model in models) else {}
    for model in models:
        for card in model.cards.values() if isinstance(model, Embeddings) else ():
            options = {key: card[key] for key in names if card and key in card} | options
    return {
        "format": FORMAT,
        **{kind: [contents[model] for model in models[k::2]] for k, kind in enumerate(LISTS)},
        "data": (comparison.pairs.shards or comparison.pairs).fingerprint,
        "bank": comparison.bank.fingerprint if len(comparison.bank) else [settings.bank_size, settings.seed],
        "alignment": settings.alignment,
        **options,
        "weight": settings.weight,
        "confidence": settings.confidence,
    }


def _finished(out: Path, about_file: Path, folder: Job, made_with: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the sidecar of scores that are finished; None if they are not, or clipmem did not write it."""
    hint = "Choose another --out, or delete that file and its .json file."
    about: Any = None
    with contextlib.suppress(OSError, ValueError):
        about = json.loads(about_file.read_text(encoding="utf-8"))
    if not (isinstance(about, dict) and {"clipmem", "job", "sha256", "problems"} <= about.keys()):
        about = None
    if about is not None and out.is_file() and about["sha256"] == file_sha256(out):
        refuse_other(f"{out} was made with other settings", about["job"], made_with, hint)
        return about
    if folder.settings() is None:
        for file in (out, about_file):
            in_use = file.exists() and (file == out or about is None)
            require(not in_use, f"{file}", "an existing file", "a new file", hint)
    return None


def _top_captions(scores: pl.DataFrame, pairs: Pairs, stored: Embeddings, k: int = 10) -> dict[str, list[str]]:
    """Return the captions of the highest candidates by uid, in their order; empty if they are unknown."""
    candidates = scores.lazy().filter(pl.col("role") == "candidate").select("uid", "clipmem")
    top = candidates.top_k(k, by=["clipmem", "uid"], reverse=[False, True]).collect()
    top = top.sort("clipmem", "uid", descending=[True, False])
    if "captions" in pairs.table.columns:
        rows = top.select("uid").join(pairs.table, on="uid", maintain_order="left").select("uid", "captions")
        return dict(rows.iter_rows())
    return dict(zip(top["uid"], stored.captions(stored.rows(top["uid"])), strict=True))
