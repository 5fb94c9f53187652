"""Read the tables and JSON of finished run folders, for reports and comparisons; nothing is computed here."""

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipmem.base import manifest
from clipmem.base.declared import declared
from clipmem.base.errors import InputError, shorten
from clipmem.base.folder import SIDES, RunFolder
from clipmem.base.paths import reading
from clipmem.base.require import require, require_columns
from clipmem.base.tables import SCHEMAS, read_table
from clipmem.report.audits import AuditedRun
from clipmem.report.runs import FinishedRun, utility_by_seed

FORMAT = 1
ROLES = ("candidate", "independent", "shared", "external")
UTILITY_FILES = {"evaluate/utility.json": "", "evaluate/retained.json": "retained_"}  # with the prefix of metrics
_AGAIN = "Run the study again in this folder: finished stages are not repeated."
_LOCALIZE_AGAIN = "Run `clipmem localize` on this folder again."
_STAGES = ("decode", "plan", "train", "embed", "score", "evaluate")
_COLUMNS = {
    "units": ("side", "seed", "tower", "layer", "kind", "unit", "unitmem", "classmem", "mu_max", "mu_rest", "uid"),
    "layers": (
        *("role", "tower", "layer", "kind", "n", "layermem", "low", "high", "delta", "delta_low", "delta_high"),
        *("n_units", "unitmem_mean", "unitmem_low", "unitmem_high"),
    ),
    "towers": ("uid", "role", "clipmem", "image_share", "text_share", "reliable"),
}


class TrainingLog(NamedTuple):
    """The log of one model, one entry per step; `side` is the name of its folder under `models`."""

    side: str
    seed: int
    step: NDArray[np.float64]
    epoch: NDArray[np.float64]
    loss: NDArray[np.float64]


@dataclass(frozen=True)
class Localized:
    """The tables of `localize/` (None where missing) and its documents ({} where missing)."""

    units: pl.DataFrame | None = None
    layers: pl.DataFrame | None = None
    towers: pl.DataFrame | None = None
    shares: Mapping[str, Any] = field(default_factory=dict[str, Any])  # towers.json
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    side_by_side: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def left_out(self) -> str:
        """Why the text tower, and with it the tower swap, was left out; "" if it was not."""
        return self.settings.get("untrained_text") or ""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run folder; what few sections need is read on first use."""

    folder: Path
    recipe_text: str
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    pairs: pl.DataFrame
    splits: pl.DataFrame
    scores: pl.DataFrame
    localized: Localized
    images: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    credits: Sequence[str] = ()

    @cached_property
    def seed_scores(self) -> pl.DataFrame:
        """Alignment by seed, from `seed_scores.parquet`."""
        return read_table(self.folder / "seed_scores.parquet", "seed_scores")

    @cached_property
    def logs(self) -> tuple[TrainingLog, ...]:
        """Every `models/SIDE/seed-K/log.jsonl`, by side and seed."""
        found: list[TrainingLog] = []
        for path in (self.folder / "models").glob("*/seed-*/log.jsonl"):
            seed = re.fullmatch(r"seed-(\d+)", path.parent.name)
            lines = enumerate(_text(path).splitlines(), start=1)
            steps = [_object(line, f"{path} line {number}") for number, line in lines]
            if seed and steps:
                columns = (np.array([_number(one, key, path) for one in steps]) for key in ("step", "epoch", "loss"))
                found.append(TrainingLog(path.parent.parent.name, int(seed[1]), *columns))
        return tuple(sorted(found, key=lambda log: (log.side, log.seed)))

    @cached_property
    def audited(self) -> dict[str, Any]:
        """`audit/audit.json`, with the pairs of highest risk as `top`; {} without an audit."""
        path = self.folder / "audit" / "audit.json"
        if not path.is_file():
            return {}
        pairs = read_table(self.folder / "audit" / "pairs.parquet", "audit/pairs")
        return _versioned(path) | {"top": pairs.head(10).to_dicts()}

    @property
    def roles(self) -> list[str]:
        """The roles in the summary, in display order."""
        return [role for role in ROLES if role in self.summary["roles"]]

    def trained_captions(self, uid: str) -> list[str]:
        """Return the captions that a pair was trained with: another pair's if planted."""
        source = self._sources.get(uid, uid)
        what = "splits.parquet column captions_from"
        hint = "Run the study again in a new folder: the tables of this one do not match."
        require(source in self.captions, what, shorten(source), "the uid of a pair in pairs.parquet", hint)
        return self.captions[source]

    @cached_property
    def captions(self) -> dict[str, list[str]]:
        """Every pair's own captions, by uid."""
        return {uid: captions or [] for uid, captions in self.pairs.select("uid", "captions").iter_rows()}

    @cached_property
    def _sources(self) -> dict[str, str]:
        return dict(self.splits.select("uid", "captions_from").iter_rows())


def read_run(folder: Path, images: Mapping[str, bytes] | None = None, credit_lines: Sequence[str] = ()) -> RunFiles:
    """Read a run folder whose stages up to the summary are finished."""
    summary = read_summary(folder)
    recipe_text = _text(folder / "recipe.toml")
    try:
        recipe = tomllib.loads(recipe_text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{folder / 'recipe.toml'}", got=shorten(str(error)), expected="TOML", hint=_AGAIN) from error
    pairs, splits, scores = (read_table(folder / f"{name}.parquet", name) for name in ("pairs", "splits", "scores"))
    return RunFiles(
        folder=folder,
        recipe_text=recipe_text,
        recipe=recipe,
        manifest=_versioned(folder / "manifest.json"),
        summary=summary,
        pairs=pairs,
        splits=splits,
        scores=scores,
        localized=read_localized(folder),
        images=images or {},
        credits=credit_lines,
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """Read `summary.json` and check that it has candidates."""
    summary = _versioned(folder / "summary.json")
    roles = sorted(summary.get("roles", {}))
    got, hint = f"roles {roles}", "Score a study whose split has candidates."
    require("candidate" in roles, f"{folder / 'summary.json'}", got, "the role 'candidate' among them", hint)
    return summary


def read_localized(folder: Path) -> Localized:
    """Read `localize/` of a run folder, if there is one."""
    place = folder / "localize"
    tables: dict[str, Any] = {name: _table(place / f"{name}.parquet", columns) for name, columns in _COLUMNS.items()}
    files = {"shares": "towers.json", "settings": "settings.json", "side_by_side": "side_by_side.json"}
    documents: dict[str, Any] = {
        name: _object(_text(place / file), str(place / file), _LOCALIZE_AGAIN) if (place / file).is_file() else {}
        for name, file in files.items()
    }
    return Localized(**tables, **documents)


def _table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame | None:
    if not path.is_file():
        return None
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}", got=shorten(str(error)), expected="Parquet", hint=_LOCALIZE_AGAIN) from error
    require_columns(f"{path}", table.columns, columns, _LOCALIZE_AGAIN)
    return table


def _text(path: Path) -> str:
    require(path.is_file(), f"report of {path.parent}", f"no file {path.name}", "a finished run folder", _AGAIN)
    with reading(f"{path}", expected="a file written by clipmem", hint=_AGAIN):
        return path.read_text(encoding="utf-8")


def _object(text: str, where: str, hint: str = _AGAIN) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(where, got=shorten(text, 40), expected="JSON", hint=hint) from error
    require(isinstance(value, dict), where, shorten(value, 40), "a JSON object", hint)
    return value


def _versioned(path: Path) -> dict[str, Any]:
    value = _object(_text(path), str(path))
    version = value.get("format")
    known = isinstance(version, int) and version <= FORMAT
    hint = "Install a newer clipmem to read this folder."
    require(known, f"format of {path}", shorten(version), f"a whole number ≤ {FORMAT}", hint)
    return value


def _number(entry: Mapping[str, Any], key: str, path: Path) -> float:
    value = entry.get(key)
    require(isinstance(value, int | float), f"{path}", f"{key} = {shorten(value)}", "a number", _AGAIN)
    return float(value)  # pyright: ignore[reportArgumentType]  checked above


def is_finished(folder: RunFolder, protocol: str) -> bool:
    """Return whether the last stage of a run whose models are paired by seed is done."""
    return folder.is_done("report" if declared("protocols", protocol).scored else "evaluate")


def read_finished(path: Path) -> FinishedRun:
    """Read a run folder for a comparison; measures that an older clipmem lacked are left out."""
    folder = RunFolder(path)
    recipe, what = folder.recipe(), f"run folder {path}"
    hint = "Compare runs of the protocol four-way, which trains one f and one g for each seed, or audited runs."
    protocol = declared("protocols", recipe.protocol)
    require(protocol.paired, what, f"protocol {recipe.protocol!r}", "one whose models are paired by seed", hint)
    ended = is_finished(folder, recipe.protocol)
    resume = f"Run `clipmem run RECIPE.toml --out {path}` again: it resumes where it stopped."
    require(ended, what, "a run that is not finished", "a run whose stages are done", resume)
    sides = sorted({file.parent.name for file in path.glob("models/*/seed-*")}) or SIDES
    models = [(side, seed) for side in sides for seed in recipe.train.seeds]
    seeds = sorted(recipe.train.seeds)
    spent = folder.seconds()
    documents = {prefix: folder.read_json(file) for file, prefix in UTILITY_FILES.items() if (path / file).is_file()}
    return FinishedRun(
        name=path.resolve().name,
        place=str(path),
        recipe=recipe,
        manifest=manifest.read(folder),
        splits=folder.read("splits"),
        seed_scores=folder.read("seed_scores") if protocol.scored else pl.DataFrame(schema=SCHEMAS["seed_scores"]),
        normalizer=float(folder.read_json("summary.json").get("normalizer", math.nan)),
        records={(side, seed): folder.read_json(f"models/{side}/seed-{seed}/record.json") for side, seed in models},
        markers={(side, seed): folder.read_json(f"stages/train-{side}-seed-{seed}.json") for side, seed in models},
        utility=_by_seed(documents, "metrics", seeds),
        chance={f"{p}{name}": value for p, one in documents.items() for name, value in one.get("chance", {}).items()},
        validation=_by_seed(documents, "validation", seeds),
        # of a resumed stage only the last part is counted
        seconds=sum(spent[stage] for stage in _STAGES if stage in spent),
    )


def read_audited(path: Path) -> AuditedRun | None:
    """Read the audit of a run folder for a comparison; None without one."""
    place = path / "audit"
    if not (place / "audit.json").is_file():
        return None
    pairs = read_table(place / "pairs.parquet", "audit/pairs")
    return AuditedRun(path.resolve().name, _versioned(place / "audit.json"), pairs)


def _by_seed(documents: Mapping[str, Mapping[str, Any]], key: str, seeds: list[int]) -> dict[str, list[float]]:
    """Return f's metrics under a key of the documents of utility, by prefixed name."""
    return {
        f"{prefix}{name}": values
        for prefix, document in documents.items()
        for name, values in utility_by_seed(document, "f", seeds, key).items()
    }
