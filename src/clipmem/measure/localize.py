"""Localize a finished four-way run: write `localize/{units,layers,towers}.parquet` and `towers.json`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipmem._version import __version__
from clipmem.base.errors import require, require_one_of
from clipmem.base.folder import SIDES, RunFolder
from clipmem.base.hashing import json_sha256
from clipmem.base.random import derive_seed, generator
from clipmem.base.tables import write_parquet
from clipmem.measure import towers
from clipmem.measure.sweep import TOWERS, Distances, Points, ViewSettings, members
from clipmem.measure.units import layer_table, sweep_model, tower_sslmem
from clipmem.models import passes
from clipmem.models.protocol import DualEncoder
from clipmem.stats.intervals import seed_interval

SETTINGS_FILE = "localize/settings.json"
TOWERS_SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(("uid", "role"), pl.String),
    "clipmem": pl.Float64,
    **dict.fromkeys(("image_share", "image_low", "image_high", "text_share", "text_low", "text_high"), pl.Float64),
    **dict.fromkeys(("image_sslmem", "text_sslmem"), pl.Float64),
    "reliable": pl.Boolean,
}


@dataclass(frozen=True)
class LocalizeSettings:
    """Settings of a localization: views, the role for units, and the maximum number of pairs per role (sampled)."""

    views: ViewSettings = field(default_factory=ViewSettings)
    unit_role: str = "candidate"
    pairs_per_role: int = 1000
    weight: float = 1.0
    confidence: float = 0.95
    seed: int = 0
    untrained_text: str = ""

    @property
    def towers(self) -> tuple[str, ...]:
        """The towers to localize."""
        return TOWERS[:1] if self.untrained_text else TOWERS


def localize(
    folder: RunFolder,
    points: Points,
    seeds: Sequence[int],
    load_encoder: Callable[[str, int], DualEncoder],
    settings: LocalizeSettings,
    *,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Localize the memorization of a finished four-way run and write the tables."""
    require_one_of("unit_role", settings.unit_role, sorted(set(points.roles)), "Choose a role of the run.")
    means = _means(folder, points, seeds)
    sample = sample_points(points, settings)
    chosen = members(sample, settings.unit_role)
    distances: dict[str, dict[int, Distances]] = {side: {} for side in SIDES}
    frames: list[pl.DataFrame] = []
    how: dict[str, Any] = {"towers": settings.towers, "device": device, "progress": progress, "chosen": chosen}
    for seed in seeds:
        for side in SIDES:
            frame, distances[side][seed] = sweep_model(
                load_encoder(side, seed), sample, settings.views, side=side, seed=seed, **how
            )
            frames.append(frame)
    units = pl.concat(frames)
    how = {"unit_role": settings.unit_role, "confidence": settings.confidence}
    layer_rows = layer_table(sample, distances, units, **how)
    sslmem = {tower: tower_sslmem(distances, sample.uids, tower) for tower in settings.towers}
    files = [_write(folder, "units", units), _write(folder, "layers", layer_rows)]
    if settings.untrained_text:
        for name in ("towers.parquet", "towers.json"):  # of an older version, which swapped any towers
            (folder.path / "localize" / name).unlink(missing_ok=True)
    else:
        files += _write_towers(folder, points, means, sslmem, settings)
    return [*files, folder.write_json(SETTINGS_FILE, describe(points, settings))]


def describe(points: Points, settings: LocalizeSettings) -> dict[str, Any]:
    """Return the content of `settings.json`: points and views."""
    document = {
        "format": 1,
        "clipmem": __version__,
        **asdict(settings),
        "towers": settings.towers,
        "points": len(sample_points(points, settings).uids),
        "points_sha256": json_sha256(list(sample_points(points, settings).uids)),
    }
    return json.loads(json.dumps(document))


def work(points: Points, seeds: Sequence[int], settings: LocalizeSettings) -> int:
    """Return the total number of pairs that `localize` reports to `progress`."""
    return len(sample_points(points, settings).uids) * len(seeds) * len(SIDES) * len(settings.towers)


def sample_points(points: Points, settings: LocalizeSettings) -> Points:
    """Sample at most `pairs_per_role` pairs of each role, keeping their order."""
    kept: list[int] = []
    for role in dict.fromkeys(points.roles):
        own = np.flatnonzero(members(points, role))
        stream = generator(settings.seed, "localize sample", role)
        kept += stream.permutation(own)[: settings.pairs_per_role].tolist()
    return points.take(sorted(kept))


def _means(folder: RunFolder, points: Points, seeds: Sequence[int]) -> dict[str, dict[int, towers.Means]]:
    found: dict[str, dict[int, towers.Means]] = {side: {} for side in SIDES}
    for side, by_seed in found.items():
        for seed in seeds:
            one = by_seed[seed] = towers.means_of(passes.load(folder.embedding_dir(side, seed)))
            n, expected = len(one.image), f"{len(points.uids)}, one per row of the split table"
            what = f"embeddings of {side}, seed {seed}"
            require(n == len(points.uids), what, f"{n} pairs", expected, "Run the study again.")
    return found


def _write_towers(
    folder: RunFolder,
    points: Points,
    means: Mapping[str, Mapping[int, towers.Means]],
    sslmem: Mapping[str, Mapping[str, float | None]],
    settings: LocalizeSettings,
) -> list[Path]:
    found = towers.split(means["f"], means["g"], points.roles, weight=settings.weight)
    width = next(iter(means["f"].values())).image.shape[1]
    judged = towers.reliability(found, points.roles, width)
    columns: dict[str, Any] = {
        "uid": list(points.uids),
        "role": list(points.roles),
        "clipmem": found.clipmem.mean(axis=0),
        "reliable": [judged.reliable] * len(points.uids),
    }
    for tower, values in (("image", found.image), ("text", found.text)):
        interval = seed_interval(values, settings.confidence)
        columns[f"{tower}_share"] = values.mean(axis=0)
        columns[f"{tower}_low"], columns[f"{tower}_high"] = interval.low, interval.high
        columns[f"{tower}_sslmem"] = [sslmem[tower].get(uid) for uid in points.uids]
    table = pl.DataFrame({name: pl.Series(name, columns[name], dtype) for name, dtype in TOWERS_SCHEMA.items()})
    table = table.with_columns(pl.col(pl.Float64).fill_nan(None))
    how: dict[str, Any] = {"confidence": settings.confidence}
    document = towers.summarize(found, judged, points.roles, points.groups, **how)
    how |= {"seed": derive_seed(settings.seed, "localize noise"), "weight": settings.weight}
    document["noise"] = towers.noise_table(means["f"], means["g"], points.roles, points.groups, **how)
    return [_write(folder, "towers", table), folder.write_json("localize/towers.json", document)]


def _write(folder: RunFolder, name: str, table: pl.DataFrame) -> Path:
    path = folder.path / "localize" / f"{name}.parquet"
    write_parquet(path, table)
    return path
