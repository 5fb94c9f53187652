"""Localize a finished four-way run: write `localize/{units,layers,towers}.parquet` and `towers.json`."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import polars as pl

from clipmem._version import __version__
from clipmem.base.errors import require
from clipmem.base.folder import SIDES, RunFolder
from clipmem.base.hashing import json_sha256
from clipmem.base.random import generator
from clipmem.base.recipes import Recipe
from clipmem.base.sections import LocalizeSection
from clipmem.base.tables import SCHEMAS
from clipmem.data.pairs import Pairs
from clipmem.measure import towers
from clipmem.measure.sweep import TOWERS
from clipmem.measure.units import Distances, layer_table, sweep_model, tower_sslmem
from clipmem.models import passes
from clipmem.models.protocol import DualEncoder
from clipmem.stats.intervals import seed_interval
from clipmem.train.objectives import OBJECTIVES

SETTINGS_FILE = "localize/settings.json"


def untrained_text(recipe: Recipe) -> str:
    """Return why the text tower is not localized; "" if it is."""
    objective = recipe.train.objective
    if OBJECTIVES[objective].uses_text:
        return ""
    return f"objective {objective!r} trains no text tower: f and g have the same initial one"


def views_of(recipe: Recipe) -> LocalizeSection:
    """Return the views of `[localize]`, with its own crops or those of training."""
    section, crops = recipe.localize, recipe.train.model_dump(include={"crop_scale", "crop_ratio", "flip"})
    return section if section.crop == "own" else section.model_copy(update=crops)


def localize(
    folder: RunFolder,
    pairs: Pairs,
    recipe: Recipe,
    load_encoder: Callable[[str, int], DualEncoder],
    *,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Localize the memorization of a finished four-way run and write the tables; units are over the candidates.

    The table of the pairs, in the order of the embeddings, has `role`, `group`, `label` and the row in `pixels`, `row`.
    """
    seeds, confidence = recipe.train.seeds, recipe.score.confidence
    means: dict[str, dict[int, towers.Means]] = {side: {} for side in SIDES}
    for side, seed in product(SIDES, seeds):
        means[side][seed] = towers.means_of(passes.load(folder.embedding_dir(side, seed)))
        n, expected = len(means[side][seed].image), f"{len(pairs)}, one per row of the split table"
        require(n == len(pairs), f"embeddings of {side}, seed {seed}", f"{n} pairs", expected, "Run the study again.")
    sample = sample_pairs(pairs, recipe)
    candidates = (sample.table["role"] == "candidate").to_numpy()
    views, names = views_of(recipe), _towers(recipe)
    distances: dict[str, dict[int, Distances]] = {side: {} for side in SIDES}
    frames: list[pl.DataFrame] = []
    for seed, side in product(seeds, SIDES):
        encoder = load_encoder(side, seed)
        encoder.module.to(device)
        frame, distances[side][seed] = sweep_model(
            encoder, sample, views, unit_pairs=candidates, model=(side, seed), towers=names, progress=progress
        )
        frames.append(frame)
    units = pl.concat(frames)
    layers = layer_table(sample, distances, units, confidence=confidence)
    files = [folder.write("localize/units", units), folder.write("localize/layers", layers)]
    if not untrained_text(recipe):
        uids, roles, groups = (pairs.table[name].to_list() for name in ("uid", "role", "group"))
        shares = towers.swap(means["f"], means["g"], roles, weight=recipe.score.weight)
        judged = towers.reliability(shares, roles, next(iter(means["f"].values())).image.shape[1])
        columns: dict[str, list[object]] = {"uid": uids, "role": roles, "reliable": [judged["reliable"]] * len(pairs)}
        columns["clipmem"] = shares.clipmem.mean(axis=0).tolist()
        for tower, values in (("image", shares.image), ("text", shares.text)):
            sslmem = tower_sslmem(distances, sample.uids.to_list(), tower)
            interval = seed_interval(values, confidence)
            columns[f"{tower}_share"] = values.mean(axis=0).tolist()
            columns[f"{tower}_low"], columns[f"{tower}_high"] = interval.low.tolist(), interval.high.tolist()
            columns[f"{tower}_sslmem"] = [sslmem.get(uid) for uid in uids]
        table = pl.DataFrame(columns, SCHEMAS["localize/towers"]).with_columns(pl.col(pl.Float64).fill_nan(None))
        document = judged | {"roles": towers.summarize(shares, roles, groups, confidence=confidence)}
        files += [folder.write("localize/towers", table), folder.write_json("localize/towers.json", document)]
    return [*files, folder.write_json(SETTINGS_FILE, describe(pairs, recipe))]


def _towers(recipe: Recipe) -> tuple[str, ...]:
    return TOWERS[:1] if untrained_text(recipe) else TOWERS


def describe(pairs: Pairs, recipe: Recipe) -> dict[str, object]:
    """Return the content of `settings.json`: pairs, views, and what else determines the tables."""
    sample = sample_pairs(pairs, recipe)
    document = {
        "format": 1,
        "clipmem": __version__,
        "views": views_of(recipe).model_dump(include={"views", "crop_scale", "crop_ratio", "flip"}),
        "pairs_per_role": recipe.localize.pairs,
        "weight": recipe.score.weight,
        "confidence": recipe.score.confidence,
        "seed": recipe.split.seed,
        "untrained_text": untrained_text(recipe),
        "towers": _towers(recipe),
        "points": len(sample),
        "points_sha256": json_sha256(sample.uids.to_list()),
    }
    return json.loads(json.dumps(document))


def work(pairs: Pairs, recipe: Recipe) -> int:
    """Return the total number of pairs that `localize` reports to `progress`."""
    return len(sample_pairs(pairs, recipe)) * len(recipe.train.seeds) * len(SIDES) * len(_towers(recipe))


def sample_pairs(pairs: Pairs, recipe: Recipe) -> Pairs:
    """Sample at most `localize.pairs` pairs of each role, keeping their order."""
    rows, roles = list[int](), pairs.table["role"]
    for role in roles.unique(maintain_order=True):
        stream = generator(recipe.split.seed, "localize sample", role)
        rows += stream.permutation((roles == role).arg_true().to_numpy())[: recipe.localize.pairs].tolist()
    return replace(pairs, table=pairs.table[sorted(rows)])
