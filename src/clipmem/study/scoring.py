"""Scoring with existing models: `clipmem.score`, `clipmem score` and `clipmem embed`."""

import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from clipmem._version import __version__
from clipmem.base.atomic import atomic_write, is_free
from clipmem.base.errors import ClipmemWarning, InputError, shorten
from clipmem.base.hashing import data_fingerprint, file_sha256, json_sha256
from clipmem.base.job import Job, cut, refuse_other
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.require import require
from clipmem.base.tables import read_table, write_table
from clipmem.data.quarantine import Problem
from clipmem.models.layout import CARD, is_layout, part_files, read_card, write_card, write_part
from clipmem.models.means import Means
from clipmem.scoring import summary
from clipmem.scoring.alignments import ALIGNMENTS, Embedded
from clipmem.scoring.design import ScoreTables, combine
from clipmem.scoring.executor import Comparison, Executed, Executor
from clipmem.scoring.pairs import QUARANTINE, Bank, Pairs, read_quarantine, write_quarantine
from clipmem.scoring.protocols.four_way import twins
from clipmem.scoring.sides import NOT_THERE, ModelSide, Side, StoredSide, read_block, usable
from clipmem.stats.alignment import alignment
from clipmem.study import early
from clipmem.study.score_inputs import DECODED, LISTS, Data, Settings, compare, compare_arrays, read_pairs
from clipmem.train.paired import TrainingSet

Arrays = tuple[Any, Any] | tuple[Any, Any, Any]
Model = str | Path | Arrays
FORMAT = 1
PART = 8192  # pairs in a part


def score(
    target: Model | Sequence[Model],
    reference: Model | Sequence[Model],
    data: Data | Sequence[str] | None = None,
    bank: Data | Sequence[Any] | np.ndarray | None = None,
    *,
    out: str | Path | None = None,
    embeddings: str | Path | None = None,
    alignment: str = "clip",
    views: int = 0,
    caption_edits: int = 0,
    captions: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    batch_size: int = 256,
    bank_size: int = 200,
    seed: int = 0,
    weight: float = 1.0,
    confidence: float = 0.95,
    block: int | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> pl.DataFrame:
    """Score pairs with existing models: the alignment under the target minus that under the reference.

    CLIPMem = mean over targets of A(target) - mean over references of A(reference), A = ū·v̄ - w (ū·t̄ + ī·v̄), from -6
    to 6 for w = 1. When not to trust it: any difference between the models other than training on the pairs counts.

    Args:
        target: The model whose memorization is measured: its address (see `docs/given.md`), a folder of embeddings,
            or embeddings as numpy or torch arrays: (image, text) of shapes (n, d) or (n, view, d), and (n, d); with
            several captions (image, text, pair), text (m, d) and the pair of each caption (m,). A list for several.
        reference: The model to compare with, or a list with one for each target.
        data: The pairs: a path, `"emoji"`, keys of `[data]`, or a source. Optional with folders of embeddings; with
            arrays, the uids of their rows, by default "0", "1", ...
        bank: Held-out pairs that no model trained on: a data set, or uids of pairs of the data (a list, or a file);
            with arrays also row numbers, or a mask. None: sample `bank_size` pairs of the data.
        out: Also write the scores to this file; a stopped call resumes.
        embeddings: Store the embeddings in this folder, or read them from it.
        alignment: Alignment score: `clip` (CLIPMem), `cmc`, `sslmem-image` (with 2 or more `views`), `sslmem-text`
            (with several captions, or `caption_edits`) or `confidence` (with labels, and models with a class head). All
            but the first two need models, or arrays with single views.
        views: Random views per image; 0 = the unchanged image.
        caption_edits: Random edits of the caption of single-caption pairs, for `sslmem-text`.
        captions: Maximum number of captions per pair; None = all.
        precision: `fp32`, or `bf16` = autocast.
        batch_size: Images or captions per forward pass.
        bank_size: Number of pairs to sample as the bank, 2 or more.
        seed: Seed of that sample.
        weight: w of the alignment, >= 0.
        confidence: Level of the intervals over several pairs of models.
        block: Pairs in a block; None = 1,024 with image decoding, 8,192 without.
        device: `auto`, `cpu` or `cuda`.
        reporter: Progress reporter.

    Returns:
        The columns of a study's `scores`, one row per usable pair, by uid. `role` is external for pairs in the bank,
        which are scored against the rest of it, and candidate for others. `planted` is false. `clipmem_norm` is null
        without two different candidates; stderr, low and high are null with one pair of models. `clipmem_centered` is
        clipmem minus the 20 % trimmed mean of the bank's pairs (of a bank that is not in the data, minus its mean).

    Raises:
        InputError: A model, the data or a setting is invalid, or `out` was made with other settings.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> image, text, other = (rng.normal(size=(5, 8)) for _ in range(3))
        >>> table = score((image, text), (other, text), bank=[0, 1])
        >>> table["role"].to_list()
        ['external', 'external', 'candidate', 'candidate', 'candidate']
    """
    chosen = Settings(
        *(alignment, views, caption_edits, captions, precision, batch_size),
        *(bank_size, seed, weight, confidence, block, device),
    ).checked()
    lists = {"target": _several(target), "reference": _several(reference)}
    if any(isinstance(one, tuple) for models in lists.values() for one in models):
        comparison = compare_arrays(lists, data, bank, chosen)
    else:
        addresses = {kind: [_address(kind, one) for one in models] for kind, models in lists.items()}
        comparison = compare(
            addresses,
            data,  # pyright: ignore[reportArgumentType]
            bank,  # pyright: ignore[reportArgumentType]
            chosen,
            embeddings=embeddings,
            keep=partial(keep_embeddings, chosen, reporter),
        )
    if out is not None:
        done = finish(comparison, chosen, Path(out), reporter)
        scores, problems = done.scores, read_quarantine(done.quarantine) if done.quarantine else []
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = Executor(comparison, Job(folder), reporter).run()
        scores, problems = _tables(found, chosen)[0], _unexplained(found.problems, comparison)
    if problems:
        said = f"{len(problems):,} records left out, the first {shorten(problems[0].key)}: {problems[0].reason}"
        warnings.warn(ClipmemWarning(said), stacklevel=2)
    return scores


def _tables(found: Executed, settings: Settings) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return the scores, and what the bank's pairs say of them: `centered` (see `summary.centered`) and `noise_floor`.

    A bank that is not in the data has no scores by pair: clipmem_centered is clipmem minus its mean, without an error.
    """
    role = pl.when("inside").then(pl.lit("external")).otherwise(pl.lit("candidate"))
    splits = found.rows.select("uid", role.alias("role"), pl.lit(value=False).alias("planted"))
    models = [TrainingSet(side, k, (), 0) for k in range(len(found.parts) // 2) for side in "fg"]
    design = twins(models, splits.height)
    scores, by_seed = combine(design, splits, found.parts, weight=settings.weight, confidence=settings.confidence)
    if "external" not in splits["role"]:
        scores = scores.with_columns(clipmem_centered=pl.col("clipmem") - pl.lit(_control(found, settings), pl.Float64))
    scored, level = summary.Scored(splits.with_row_index("group"), ScoreTables(scores, by_seed)), settings.confidence
    shift = summary.centered(scored.differences, scored.role, scored.group, None, confidence=level)
    return scores, {"centered": shift, "noise_floor": summary.floor(scored, confidence=level)}


def _control(found: Executed, settings: Settings) -> float | None:
    if found.control is None:
        return None
    aligned = [float(alignment(one, weight=settings.weight)) for one in found.control]
    return float(np.mean(aligned[0::2]) - np.mean(aligned[1::2]))


def _several(models: Any) -> list[Any]:
    return list(models) if isinstance(models, list) else [models]


def _address(kind: str, model: Any) -> str:
    expected = "an address, (image, text) or (image, text, pair), or a list of such"
    right, hint = isinstance(model, str | Path), "Give the arrays of one model as a tuple."
    require(right, kind, shorten(model), expected, hint)
    return str(model)


def embed_pairs(
    model: str, data: Data, out: str | Path, settings: Settings, *, reporter: Reporter | None = None
) -> tuple[int, list[Problem]]:
    """Embed pairs with one model into a folder in clip-retrieval's layout."""
    pairs = read_pairs(data, settings.captions, "--data", ("--out", Path(out)))
    side = settings.side(model)
    if not isinstance(side, ModelSide):
        raise InputError(f"--model {model}", got="a folder of embeddings", expected="a model", hint="Give a model.")
    card = {**settings.made_with(), "data": data_fingerprint(pairs.table["uid"])}
    block = settings.block or DECODED
    problems = embed_into([side], [Path(out)], pairs, card, block=block, reporter=reporter)
    # the source's problems are records that are not in `pairs`
    return len(pairs) - (len(problems) - len(pairs.problems)), problems


@dataclass(frozen=True)
class Scored:
    """A finished comparison."""

    scores: pl.DataFrame
    about: dict[str, Any]
    captions: dict[str, list[str]]
    quarantine: Path | None


def finish(comparison: Comparison, settings: Settings, out: Path, reporter: Reporter | None = None) -> Scored:
    """Run a comparison and write its files, unless it is finished."""
    early.check_scores(out)
    if comparison.data.source is not None:
        comparison.data.source.check_outside(out, "--out")
    about_file, listed = out.with_suffix(".json"), out.with_suffix(".quarantine.parquet")
    job = Job(out.with_suffix(".parts"))
    made_with = _made_with(comparison, settings)
    with job.locked():
        about = _finished(out, about_file, job, made_with)
        if about is None:
            job.resume(made_with)
            found = Executor(comparison, job, reporter).run()
            scores, by_bank = _tables(found, settings)
            problems = _unexplained(found.problems, comparison)
            write_table(out, "scores", scores)
            if problems:
                write_quarantine(listed, problems)
            about = {
                "format": FORMAT,
                "clipmem": __version__,
                **{kind: [side.name for side in comparison.models[k::2]] for k, kind in enumerate(LISTS)},
                "alignment": settings.alignment,
                "compared": ALIGNMENTS[settings.alignment].summary,
                "range": list(ALIGNMENTS[settings.alignment].range),
                "data": comparison.data.name,
                "pairs": scores.height,
                "problems": len(problems),
                "bank": {"name": comparison.bank.pairs.name, "pairs": found.bank, "drawn": comparison.bank.drawn},
                "control": _control(found, settings),
                **by_bank,
                "job": made_with,
                "sha256": file_sha256(out),
            }
            atomic_write(about_file, (json.dumps(about, indent=1, allow_nan=False) + "\n").encode())
    job.remove()
    scores = read_table(out, "scores")
    return Scored(scores, about, _top_captions(scores, comparison.data), listed if about["problems"] else None)


def _made_with(comparison: Comparison, settings: Settings) -> dict[str, Any]:
    contents = {id(side): side.content() for side in comparison.sides}
    names, stored = settings.made_with(), [side for side in comparison.sides if isinstance(side, StoredSide)]
    made = names if any(isinstance(side, ModelSide) for side in comparison.sides) else {}
    for card in [layout.card or {} for side in stored for layout in side.layouts]:
        made = {key: card[key] for key in names if key in card} | made
    return {
        "format": FORMAT,
        **{kind: [contents[id(side)] for side in comparison.models[k::2]] for k, kind in enumerate(LISTS)},
        "data": data_fingerprint(comparison.data.table["uid"]),
        "bank": data_fingerprint(comparison.bank.pairs.table["uid"]),
        "alignment": settings.alignment,
        **made,
        "block": comparison.block,
        "weight": settings.weight,
        "confidence": settings.confidence,
    }


def _finished(out: Path, about_file: Path, folder: Job, made_with: Mapping[str, Any]) -> dict[str, Any] | None:
    hint = "Choose another --out, or delete that file and its .json file."
    about = _read_sidecar(about_file)
    if about is not None and out.is_file() and about["sha256"] == file_sha256(out):
        refuse_other(f"{out} was made with other settings", about["job"], made_with, hint)
        return about
    if folder.settings() is None:
        for file in (out, about_file):
            taken = file.exists() and (file == out or about is None)
            require(not taken, f"{file}", "an existing file", "a new file", hint)
    return None


def _read_sidecar(file: Path) -> dict[str, Any] | None:
    """Read the sidecar of scores; None if clipmem did not write one."""
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(document, dict) and {"clipmem", "job", "sha256", "problems"} <= set(document)
    return document if ours else None


def _unexplained(problems: Sequence[Problem], comparison: Comparison) -> list[Problem]:
    """Drop problems of missing embeddings that the embeddings' own quarantine explains."""
    known: set[tuple[str, str]] = set()
    for side in comparison.sides:
        if isinstance(side, StoredSide):
            for layout in side.layouts:
                known |= {one[:2] for one in read_quarantine(layout.folder / QUARANTINE)}
    return [one for one in problems if not (one.reason.startswith(NOT_THERE) and one[:2] in known)]


def _top_captions(scores: pl.DataFrame, data: Pairs, k: int = 10) -> dict[str, list[str]]:
    top = scores.filter(pl.col("role") == "candidate").sort("clipmem", "uid", descending=[True, False]).head(k)
    uids = top["uid"].to_list()
    return dict(zip(uids, data.captions(uids), strict=True))


def keep_embeddings(
    settings: Settings, reporter: Reporter | None, kept: Path, sides: Mapping[str, list[Side]], pairs: Pairs, bank: Bank
) -> dict[str, list[Side]]:
    """Embed pairs and bank with every model into a folder, and return sides that read them."""
    names = {f"{kind}-{k}": side for kind in LISTS for k, side in enumerate(sides[kind])}
    models = {name: side for name, side in names.items() if isinstance(side, ModelSide)}
    if not models:
        return dict(sides)
    jobs = [(kept, pairs)]
    if not bank.drawn and not bank.pairs.table["uid"].is_in(pairs.table["uid"].implode()).all():
        jobs.append((kept / "bank", bank.pairs))
    for folder, chosen in jobs:
        chosen.problems = embed_into(
            list(models.values()),
            [folder / name for name in models],
            chosen,
            {**settings.made_with(), "data": data_fingerprint(chosen.table["uid"])},
            block=settings.block or DECODED,
            reporter=reporter,
        )
    opened = {
        name: StoredSide(side.name, [folder / name for folder, _ in jobs]) if name in models else side
        for name, side in names.items()
    }
    return {kind: [opened[f"{kind}-{k}"] for k in range(len(sides[kind]))] for kind in LISTS}


def embed_into(
    sides: Sequence[Side],
    folders: Sequence[Path],
    pairs: Pairs,
    card: Mapping[str, Any],
    *,
    block: int,
    part: int = PART,
    reporter: Reporter | None = None,
) -> list[Problem]:
    """Embed pairs with several models, each into its own folder; resumable."""
    reporter = reporter or Quiet()
    parts = -(-len(pairs) // part)
    own = {**card, "pairs": len(pairs), "parts": parts, "part": part}
    cards = [{"name": side.name, "model": side.content(), **own} for side in sides]
    for folder, described in zip(folders, cards, strict=True):
        _check_claim(folder, described)
    digits = len(str(parts))  # as in clip-retrieval
    waiting = [
        (k, rows)
        for k, (_, rows) in enumerate(cut(len(pairs), part, "part"))
        if not all(part_files(folder, k, digits)[2].is_file() for folder in folders)
    ]
    started = time.monotonic()
    reporter.begin("embed", sum(len(rows) for _, rows in waiting), "pairs")
    geometries = sorted({side.geometry for side in sides if side.geometry is not None}) if waiting else []
    for k, rows in waiting:
        problems: list[Problem] = []
        found: list[list[Embedded]] = []
        kept: list[np.ndarray] = []
        for start in range(rows.start, rows.stop, block):
            one, bad = read_block(pairs, np.arange(start, min(start + block, rows.stop)), geometries)
            one, embedded, more = usable(sides, one)
            problems += bad + more
            kept.append(one.rows)
            found += [embedded] if embedded else []
            reporter.advance(min(block, rows.stop - start))
        metadata = _metadata(pairs, np.concatenate(kept))
        for place, folder in enumerate(folders):
            write_card(folder, cards[place])  # not before: a model that fails must not claim the folder
            if problems:
                write_quarantine(folder / "quarantine" / f"quarantine_{k:0{digits}d}.parquet", problems)
            write_part(folder, k, digits, _joined([means[place] for means in found]), metadata)
    every = [*pairs.problems, *_problems(folders[0])]
    for folder in folders:
        if every:
            write_quarantine(folder / QUARANTINE, every)
    reporter.end("embed", time.monotonic() - started)
    return every


def _joined(found: Sequence[Embedded]) -> Means:
    if not found:  # no usable pair in the part: unknown width
        return Means(torch.zeros(0, 1), torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool))
    return Means(*(torch.cat([getattr(one, name) for one in found]) for name in Means._fields))


def _problems(folder: Path) -> list[Problem]:
    files = sorted((folder / "quarantine").glob("*.parquet"))
    return [problem for file in files for problem in read_quarantine(file)]


def _metadata(pairs: Pairs, rows: np.ndarray) -> pl.DataFrame:
    table = pairs.table[rows]
    return table.select(
        pl.col("key").alias("image_path"), pl.col("captions").list.first().alias("caption"), "uid", "captions"
    )


def _check_claim(folder: Path, card: Mapping[str, Any]) -> None:
    there, hint = read_card(folder), "Choose another folder, or delete it."
    free = there is not None or (is_free(folder) and not is_layout(folder))
    got, expected = f"a folder with other files and no {CARD}", "a new folder, or one created by clipmem"
    require(free, f"{folder}", got, expected, "Choose another folder.")
    if there is not None:
        models = [f"{one.get('name', 'a model')} (files {json_sha256(one.get('model'))[:8]})" for one in (there, card)]
        same = there.get("model") == card["model"]
        require(same, f"{folder}", f"embeddings by {models[0]}", f"embeddings by {models[1]}", hint)
        known = {key: value for key, value in there.items() if key not in {"format", "rows", "name"}}
        now = {key: value for key, value in card.items() if key != "name"}
        refuse_other(f"{folder} was made with other settings", known, now, hint)
