"""Localize a finished four-way run: write `localize/{units,layers,towers}.parquet` and `towers.json`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from clipmem._version import __version__
from clipmem.base.errors import require, require_one_of
from clipmem.base.folder import SIDES, RunFolder
from clipmem.base.hashing import json_sha256
from clipmem.base.random import derive_seed, generator
from clipmem.base.tables import write_parquet
from clipmem.data.pairs import Pairs
from clipmem.measure import towers
from clipmem.measure.sweep import TOWERS, ViewSettings
from clipmem.measure.units import Distances, layer_table, sweep_model, tower_sslmem
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
    pairs: Pairs,
    seeds: Sequence[int],
    load_encoder: Callable[[str, int], DualEncoder],
    settings: LocalizeSettings,
    *,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Localize the memorization of a finished four-way run and write the tables.

    The table of the pairs, in the order of the embeddings, has `role`, `group`, `label` and the row in `pixels`, `row`.
    """
    require_one_of("unit_role", settings.unit_role, sorted(set(pairs.table["role"])), "Choose a role of the run.")
    means = _means(folder, pairs, seeds)
    sample = sample_pairs(pairs, settings)
    chosen = (sample.table["role"] == settings.unit_role).to_numpy()
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
    layers = layer_table(sample, distances, units, unit_role=settings.unit_role, confidence=settings.confidence)
    files = [_write(folder, "units", units), _write(folder, "layers", layers)]
    if settings.untrained_text:
        for name in ("towers.parquet", "towers.json"):  # of an older version, which swapped any towers
            (folder.path / "localize" / name).unlink(missing_ok=True)
    else:
        sslmem = {tower: tower_sslmem(distances, sample.uids.to_list(), tower) for tower in TOWERS}
        files += _write_towers(folder, pairs, means, sslmem, settings)
    return [*files, folder.write_json(SETTINGS_FILE, describe(pairs, settings))]


def describe(pairs: Pairs, settings: LocalizeSettings) -> dict[str, Any]:
    """Return the content of `settings.json`: pairs and views."""
    sample = sample_pairs(pairs, settings)
    document = {
        "format": 1,
        "clipmem": __version__,
        **asdict(settings),
        "towers": settings.towers,
        "points": len(sample),
        "points_sha256": json_sha256(sample.uids.to_list()),
    }
    return json.loads(json.dumps(document))


def work(pairs: Pairs, seeds: Sequence[int], settings: LocalizeSettings) -> int:
    """Return the total number of pairs that `localize` reports to `progress`."""
    return len(sample_pairs(pairs, settings)) * len(seeds) * len(SIDES) * len(settings.towers)


def sample_pairs(pairs: Pairs, settings: LocalizeSettings) -> Pairs:
    """Sample at most `pairs_per_role` pairs of each role, keeping their order."""
    rows, roles = list[int](), pairs.table["role"]
    for role in roles.unique(maintain_order=True):
        stream = generator(settings.seed, "localize sample", role)
        rows += stream.permutation((roles == role).arg_true().to_numpy())[: settings.pairs_per_role].tolist()
    return replace(pairs, table=pairs.table[sorted(rows)])


def _means(folder: RunFolder, pairs: Pairs, seeds: Sequence[int]) -> dict[str, dict[int, towers.Means]]:
    means: dict[str, dict[int, towers.Means]] = {side: {} for side in SIDES}
    for side, by_seed in means.items():
        for seed in seeds:
            by_seed[seed] = towers.means_of(passes.load(folder.embedding_dir(side, seed)))
            n, expected = len(by_seed[seed].image), f"{len(pairs)}, one per row of the split table"
            what = f"embeddings of {side}, seed {seed}"
            require(n == len(pairs), what, f"{n} pairs", expected, "Run the study again.")
    return means


def _write_towers(
    folder: RunFolder,
    pairs: Pairs,
    means: Mapping[str, Mapping[int, towers.Means]],
    sslmem: Mapping[str, Mapping[str, float | None]],
    settings: LocalizeSettings,
) -> list[Path]:
    uids, roles, groups = (pairs.table[name].to_list() for name in ("uid", "role", "group"))
    shares = towers.split(means["f"], means["g"], roles, weight=settings.weight)
    width = next(iter(means["f"].values())).image.shape[1]
    judged = towers.reliability(shares, roles, width)
    columns: dict[str, Any] = {
        "uid": uids,
        "role": roles,
        "clipmem": shares.clipmem.mean(axis=0),
        "reliable": [judged.reliable] * len(pairs),
    }
    for tower, values in (("image", shares.image), ("text", shares.text)):
        interval = seed_interval(values, settings.confidence)
        columns[f"{tower}_share"] = values.mean(axis=0)
        columns[f"{tower}_low"], columns[f"{tower}_high"] = interval.low, interval.high
        columns[f"{tower}_sslmem"] = [sslmem[tower].get(uid) for uid in uids]
    table = pl.DataFrame({name: pl.Series(name, columns[name], dtype) for name, dtype in TOWERS_SCHEMA.items()})
    table = table.with_columns(pl.col(pl.Float64).fill_nan(None))
    how: dict[str, Any] = {"confidence": settings.confidence}
    document = towers.summarize(shares, judged, roles, groups, **how)
    how |= {"seed": derive_seed(settings.seed, "localize noise"), "weight": settings.weight}
    document["noise"] = towers.noise_table(means["f"], means["g"], roles, groups, **how)
    return [_write(folder, "towers", table), folder.write_json("localize/towers.json", document)]


def _write(folder: RunFolder, name: str, table: pl.DataFrame) -> Path:
    path = folder.path / "localize" / f"{name}.parquet"
    write_parquet(path, table)
    return path
