"""Read the files of a finished run folder that a report needs: tables and JSON in, nothing computed.

Not a way to load models or embeddings, and no check that the folder is of one piece: the manifest's owner
does that.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipmem.base.errors import InputError, shorten
from clipmem.report.localized import Localized, read_localized
from clipmem.store.tables import read_table

FORMAT = 1
ROLES = ("candidate", "independent", "shared", "external")
_AGAIN = "Run the study again on this folder: finished stages are not repeated."


@dataclass(frozen=True)
class TrainingLog:
    """The log of one model, one entry a step, each of shape (steps,).

    `side` is the name of the folder under `models`: "f", "g", "r" or "without-" and a uid's start.
    """

    side: str
    seed: int
    step: NDArray[np.float64]
    epoch: NDArray[np.float64]
    loss: NDArray[np.float64]


@dataclass(frozen=True)
class RunFiles:
    """What a report reads from a run folder."""

    folder: Path
    recipe_text: str
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    pairs: pl.DataFrame
    splits: pl.DataFrame
    scores: pl.DataFrame
    seed_scores: pl.DataFrame | None  # of a subsample study only: the others' pages do not show single models
    localized: Localized
    logs: tuple[TrainingLog, ...]


def read_run(folder: Path) -> RunFiles:
    """Read the run folder.

    Args:
        folder: A run folder in which the stages up to the summary are finished.

    Raises:
        InputError: A file is missing, unreadable, or of a newer format than this version knows.
    """
    recipe_text = _text(folder / "recipe.toml")
    try:
        recipe = tomllib.loads(recipe_text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{folder / 'recipe.toml'}", got=shorten(str(error)), expected="TOML", hint=_AGAIN) from error
    summary = read_summary(folder)
    in_and_out = summary.get("protocol") == "subsample"
    return RunFiles(
        folder=folder,
        recipe_text=recipe_text,
        recipe=recipe,
        manifest=_versioned(folder / "manifest.json"),
        summary=summary,
        pairs=read_table(folder / "pairs.parquet", "pairs"),
        splits=read_table(folder / "splits.parquet", "splits"),
        scores=read_table(folder / "scores.parquet", "scores"),
        seed_scores=read_table(folder / "seed_scores.parquet", "seed_scores") if in_and_out else None,
        localized=read_localized(folder),
        logs=_logs(folder / "models"),
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """Read `summary.json` and check that it can be reported.

    Raises:
        InputError: The file is missing, is not JSON, is newer than format 1, or has no candidates.
    """
    path = folder / "summary.json"
    summary = _versioned(path)
    if "candidate" not in summary.get("roles", {}):
        raise InputError(
            f"{path}",
            got=f"roles {sorted(summary.get('roles', {}))}",
            expected="the role 'candidate' among them",
            hint="Score a study whose split has candidates.",
        )
    return summary


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(
            f"report of {path.parent}",
            got=f"no file {path.name}",
            expected="a finished run folder",
            hint=_AGAIN,
        )
    return path.read_text(encoding="utf-8")


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(where, got=shorten(text, 40), expected="JSON", hint=_AGAIN) from error
    if not isinstance(value, dict):
        raise InputError(where, got=shorten(value, 40), expected="a JSON object", hint=_AGAIN)
    return value


def _versioned(path: Path) -> dict[str, Any]:
    value = _json(_text(path), str(path))
    version = value.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise InputError(
            f"format of {path}",
            got=shorten(version),
            expected=f"a whole number ≤ {FORMAT}",
            hint="Install a newer clipmem to read this folder.",
        )
    return value


def _logs(models: Path) -> tuple[TrainingLog, ...]:
    """Read every `models/SIDE/seed-K/log.jsonl`, by side and seed; a folder without models has none."""
    logs: list[TrainingLog] = []
    for path in models.glob("*/seed-*/log.jsonl"):
        match = re.fullmatch(r"seed-(\d+)", path.parent.name)
        if match is None:
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        steps = [_json(line, f"{path} line {number}") for number, line in enumerate(lines, start=1)]
        if not steps:
            continue
        step, epoch, loss = (
            np.array([_number(entry, key, path) for entry in steps], dtype=np.float64)
            for key in ("step", "epoch", "loss")
        )
        logs.append(TrainingLog(path.parent.parent.name, int(match[1]), step, epoch, loss))
    return tuple(sorted(logs, key=lambda log: (log.side, log.seed)))


def _number(entry: Mapping[str, Any], key: str, path: Path) -> float:
    value = entry.get(key)
    if not isinstance(value, int | float):
        raise InputError(f"{path}", got=f"{key} = {shorten(value)}", expected="a number", hint=_AGAIN)
    return float(value)
