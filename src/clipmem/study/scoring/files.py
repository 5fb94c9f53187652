"""A comparison made into files, resumable.

Beside `scores.parquet` lie `scores.json`, which says with what it was made and is written last,
`scores.quarantine.parquet` where records were left out, and while it is being made the folder `scores.parts`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from clipmem._version import __version__
from clipmem.base.errors import InputError
from clipmem.base.progress import Reporter
from clipmem.data.quarantine import Problem
from clipmem.store.atomic import atomic_write
from clipmem.store.folder import RunFolder
from clipmem.store.hashing import data_fingerprint, file_sha256
from clipmem.store.tables import read_table, table_bytes
from clipmem.study import early
from clipmem.study.scoring.comparison import LISTS
from clipmem.study.scoring.job import Comparison, Result, Scorer
from clipmem.study.scoring.pairs import Pairs
from clipmem.study.scoring.parts import QUARANTINE, PartsFolder, read_quarantine, refuse_other, write_quarantine
from clipmem.study.scoring.settings import Settings
from clipmem.study.scoring.sides import NOT_THERE, StoredSide

FORMAT = 1


@dataclass(frozen=True)
class Scored:
    """A finished comparison.

    Attributes:
        scores: The table `scores`, sorted by uid.
        about: With what it was made, and what it found: the content of `scores.json`.
        captions: Captions of the pairs that score highest, by uid.
        quarantine: Where the records left out are listed; None where there are none, or no file was asked for.
    """

    scores: pl.DataFrame
    about: dict[str, Any]
    captions: dict[str, list[str]]
    quarantine: Path | None


def finish(comparison: Comparison, settings: Settings, out: Path, reporter: Reporter | None = None) -> Scored:
    """Make a comparison into files, or return the one that is there.

    Args:
        comparison: What to compare.
        settings: With what.
        out: The table of scores to write.
        reporter: Who is told.

    Raises:
        InputError: `out` was made with something else.
    """
    early.check_scores(out)
    about_file, listed = out.with_suffix(".json"), out.with_suffix(".quarantine.parquet")
    folder = PartsFolder(out.with_suffix(".parts"))
    job = _job(comparison, settings)
    with RunFolder(folder.path).locked():
        about = _finished(out, about_file, folder, job)
        if about is None:
            folder.claim(job)
            result = Scorer(comparison, folder, reporter).run()
            _, problems = result.scores, _told(result.problems, comparison)
            atomic_write(out, table_bytes("scores", result.scores))
            if problems:
                write_quarantine(listed, problems)
            about = _about(comparison, job, result, len(problems), out)
            atomic_write(about_file, (json.dumps(about, indent=1, allow_nan=False) + "\n").encode())
        folder.remove()
    scores = read_table(out, "scores")
    return Scored(scores, about, _top_captions(scores, comparison.data), listed if about["left_out"] else None)


def _job(comparison: Comparison, settings: Settings) -> dict[str, Any]:
    """Return everything that decides the scores."""
    return {
        **{kind: [side.content() for side in getattr(comparison, kind)] for kind in LISTS},
        "data": data_fingerprint(comparison.data.table["uid"]),
        "bank": data_fingerprint(comparison.bank.pairs.table["uid"]),
        **settings.made_with(),
        "block": comparison.block,
        "weight": comparison.weight,
        "confidence": comparison.confidence,
    }


def _finished(out: Path, about_file: Path, folder: PartsFolder, job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what an earlier call said of its scores, if they are there and were made with the same.

    Raises:
        InputError: They were made with something else, or nobody says with what.
    """
    hint = "Choose another --out, or delete that file and the .json beside it."
    about = _said(about_file)
    if about is not None and out.is_file() and about["sha256"] == file_sha256(out):
        refuse_other(f"{out} was made", about["job"], json.loads(json.dumps(job)), hint)
        return about
    if folder.begun() is None:
        for file in (out, about_file):
            if file.exists() and (file == out or about is None):
                raise InputError(f"{file}", got="a file that exists", expected="a new name", hint=hint)
    return None


def _said(file: Path) -> dict[str, Any] | None:
    """Read `scores.json`; None where there is none that clipmem wrote."""
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(document, dict) and {"clipmem", "job", "sha256", "left_out"} <= set(document)
    return document if ours else None


def _told(problems: Sequence[Problem], comparison: Comparison) -> list[Problem]:
    """Leave out that a pair is not among the embeddings where it is listed why."""
    known: set[tuple[str, str]] = set()
    for side in comparison.sides:
        if isinstance(side, StoredSide):
            for layout in side.layouts:
                known |= {one[:2] for one in read_quarantine(layout.folder / QUARANTINE)}
    return [one for one in problems if not (one.reason.startswith(NOT_THERE) and one[:2] in known)]


def _about(comparison: Comparison, job: Mapping[str, Any], result: Result, left_out: int, out: Path) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "clipmem": __version__,
        "target": [side.name for side in comparison.target],
        "reference": [side.name for side in comparison.reference],
        "data": comparison.data.name,
        "pairs": result.scores.height,
        "left_out": left_out,
        "bank": {"name": comparison.bank.pairs.name, "pairs": result.bank, "drawn": comparison.bank.drawn},
        "control": result.control,
        "job": dict(job),
        "sha256": file_sha256(out),
    }


def _top_captions(scores: pl.DataFrame, data: Pairs, k: int = 10) -> dict[str, list[str]]:
    top = scores.filter(pl.col("role") == "candidate").sort("clipmem", "uid", descending=[True, False]).head(k)
    uids = top["uid"].to_list()
    return dict(zip(uids, data.captions(uids), strict=True))
