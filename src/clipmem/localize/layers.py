"""LayerMem of every layer of both towers, its difference from the layer before, and the layers' mean UnitMem.

LayerMem(x) = L(g; x) - L(f; x) with L the mean distance of a layer's output for the views of x from that for x itself,
both averaged over tokens and at length 1. (The published script puts tokens side by side instead of averaging them:
`ViewSettings.flatten` does so for the image tower.) Higher: the model that saw x holds it stiller.

LayerMem is about one tower's input, not about the pair. Two models differ in how still they hold *any* input, and with
few seeds that offset is larger than what a pair adds: read the candidates' row against those of pairs that both saw
(shared) or neither saw (external), never alone. Layers are not independent: an upper one sees what the lower ones did.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float64, Int

from clipmem.base.random import derive_seed
from clipmem.functional import Interval, bootstrap_mean, holm, welch
from clipmem.localize.hooks import TOWERS, UNIT_KINDS, Site, by_layer
from clipmem.localize.sweep import Distances, Points

EMBEDDING = "embedding"
LAYERS_SCHEMA: dict[str, type[pl.DataType]] = {
    "role": pl.String,
    "tower": pl.String,
    "layer": pl.Int64,
    "kind": pl.String,
    "n": pl.Int64,
    "layermem": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "delta": pl.Float64,
    "delta_low": pl.Float64,
    "delta_high": pl.Float64,
    "n_units": pl.Int64,
    "unitmem_mean": pl.Float64,
    "unitmem_low": pl.Float64,
    "unitmem_high": pl.Float64,
    "reference_unitmem_mean": pl.Float64,
    "reference_unitmem_low": pl.Float64,
    "reference_unitmem_high": pl.Float64,
    "control_difference": pl.Float64,
    "control_p": pl.Float64,
    "control_p_holm": pl.Float64,
}
_NONE: tuple[None, None, None] = (None, None, None)


class _Averages:
    """Interval means over seeds and pairs of a role."""

    def __init__(self, groups: Int[np.ndarray, " n"], *, seed: int, draws: int, confidence: float) -> None:
        self._groups, self._seed, self._draws, self._confidence = groups, seed, draws, confidence

    def pairs(self, values: Float64[np.ndarray, "seed n"]) -> tuple[int, float | None, float | None, float | None]:
        """Return (pairs with a value, mean, low, high)."""
        there = np.isfinite(values).all(axis=0)
        if not there.any():
            return 0, *_NONE
        mean, low, high = self._mean(values[:, there], self._groups[there])
        return int(there.sum()), mean, low, high

    def units(self, values: Float64[np.ndarray, "seed unit"]) -> tuple[float | None, float | None, float | None]:
        """Return (mean, low, high) over seeds and units; a unit that is dead under a seed is left out."""
        there = np.isfinite(values).all(axis=0)
        if not there.any():
            return _NONE
        return self._mean(values[:, there], np.arange(int(there.sum())))

    def _mean(self, values: Float64[np.ndarray, "seed n"], groups: Int[np.ndarray, " n"]) -> Interval:
        # one stream for all: rows are compared with each other, and then share their draws
        return bootstrap_mean(
            values, groups, seed=derive_seed(self._seed, "layers"), draws=self._draws, confidence=self._confidence
        )


def layer_table(
    points: Points,
    distances: Mapping[str, Mapping[int, Distances]],
    units: pl.DataFrame,
    *,
    unit_role: str,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Average LayerMem over the pairs of each role and UnitMem over the units of each layer, with intervals.

    Args:
        points: The pairs.
        distances: Side (`f`, `g`) → seed → L of every pair at every site (see `sweep_model`).
        units: The table of units, of both sides and all seeds.
        unit_role: The role that UnitMem was taken over; in the rows of other roles UnitMem is null.
        seed: Seed of the bootstrap.
        draws: Draws of the bootstrap.
        confidence: Level of the intervals.

    Returns:
        One row a role, tower, layer and kind, and one a tower for its embedding (kind `embedding`, the layer after the
        last: the tower's SSLMem). `low` to `high` is for layermem, over seeds and groups of pairs; `unitmem_*` is under
        f, `reference_unitmem_*` under g, over seeds and units. delta is null in the first layer. `control_*`, in the
        candidates' rows: layermem minus that of the external pairs, Welch's p over pairs, and that p adjusted by Holm;
        the family is all rows of the candidates, of both towers.
    """
    groups = np.unique(np.array(points.groups), return_inverse=True)[1]
    roles = np.array(points.roles)
    scores = _scores(distances)
    sites = [place for place in scores if isinstance(place, Site)]
    unitmem = {key[0]: table for key, table in units.partition_by("side", as_dict=True).items()}
    rows: list[dict[str, object]] = []
    for role in dict.fromkeys(points.roles):
        own = roles == role
        average = _Averages(groups[own], seed=seed, draws=draws, confidence=confidence)
        for tower in TOWERS:
            inside = [site for site in sites if site.tower == tower]
            for site, before in by_layer(inside):
                values = scores[site][:, own]
                step = average.pairs(values - scores[before][:, own])[1:] if before else _NONE
                row = _row(role, tower, site.layer, site.kind, average.pairs(values), step)
                if role == unit_role and site.kind in UNIT_KINDS:
                    row |= _unit_columns(site, unitmem, average)
                rows.append(row)
            if tower in scores:
                last = max((site.layer for site in inside), default=0)
                rows.append(_row(role, tower, last + 1, EMBEDDING, average.pairs(scores[tower][:, own]), _NONE))
    return _against_control(pl.DataFrame(rows, schema=LAYERS_SCHEMA), scores, roles)


def _against_control(
    table: pl.DataFrame,
    scores: Mapping[Site | str, Float64[np.ndarray, "seed n"]],
    roles: np.ndarray,
) -> pl.DataFrame:
    """Test the candidates against the external pairs at every place, seeds averaged: the control has the same models.

    That is what takes the models' own offset out. The test takes pairs as independent.
    """
    means: dict[tuple[str, int, str], Float64[np.ndarray, " n"]] = {}
    for place, values in scores.items():
        if isinstance(place, Site):
            means[place.tower, place.layer, place.kind] = values.mean(axis=0)
    columns: dict[str, list[float | None]] = {name: [] for name in ("control_difference", "control_p")}
    for row in table.iter_rows(named=True):
        values = scores[row["tower"]].mean(axis=0) if row["kind"] == EMBEDDING else None
        values = means[row["tower"], row["layer"], row["kind"]] if values is None else values
        there = np.isfinite(values)
        a, b = values[there & (roles == "candidate")], values[there & (roles == "external")]
        found = welch(a, b) if row["role"] == "candidate" and len(a) and len(b) else None
        columns["control_difference"].append(None if found is None else found.difference)
        columns["control_p"].append(None if found is None else found.p)
    adjusted = holm(np.array([np.nan if p is None else p for p in columns["control_p"]]))
    return table.with_columns(
        *(pl.Series(name, values, pl.Float64) for name, values in columns.items()),
        pl.Series("control_p_holm", adjusted, pl.Float64).fill_nan(None),
    )


def _scores(distances: Mapping[str, Mapping[int, Distances]]) -> dict[Site | str, Float64[np.ndarray, "seed n"]]:
    """Subtract: L(g) - L(f) of every pair, for each seed, at each place."""
    seeds = sorted(distances["f"])
    places = list(distances["f"][seeds[0]].values)
    return {
        place: np.stack([distances["g"][seed].values[place] - distances["f"][seed].values[place] for seed in seeds])
        for place in places
    }


def _row(
    role: str,
    tower: str,
    layer: int,
    kind: str,
    score: tuple[int, float | None, float | None, float | None],
    step: tuple[float | None, float | None, float | None],
) -> dict[str, object]:
    names = ("n", "layermem", "low", "high")
    row: dict[str, object] = {"role": role, "tower": tower, "layer": layer, "kind": kind}
    row |= dict(zip(names, score, strict=True))
    row |= dict(zip(("delta", "delta_low", "delta_high"), step, strict=True))
    return {name: row.get(name) for name in LAYERS_SCHEMA}


def _unit_columns(site: Site, unitmem: Mapping[object, pl.DataFrame], average: _Averages) -> dict[str, object]:
    columns: dict[str, object] = {}
    for side, prefix in (("f", "unitmem"), ("g", "reference_unitmem")):
        table = unitmem.get(side)
        if table is None:
            continue
        own = table.filter(
            (pl.col("tower") == site.tower) & (pl.col("layer") == site.layer) & (pl.col("kind") == site.kind)
        ).sort("seed", "unit")
        seeds = own["seed"].n_unique()
        values = own["unitmem"].cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(seeds, -1)
        columns["n_units"] = values.shape[1]
        columns |= dict(zip((f"{prefix}_{end}" for end in ("mean", "low", "high")), average.units(values), strict=True))
    return columns


def tower_sslmem(
    distances: Mapping[str, Mapping[int, Distances]], uids: Sequence[str], tower: str
) -> dict[str, float | None]:
    """Return each pair's SSLMem of a tower, mean over seeds; None where the pair has no view.

    Args:
        distances: As for `layer_table`.
        uids: The pairs, in the order of the distances.
        tower: `image` or `text`.
    """
    values = _scores(distances)[tower].mean(axis=0)
    return {uid: float(value) if np.isfinite(value) else None for uid, value in zip(uids, values, strict=True)}
