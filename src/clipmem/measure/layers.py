"""LayerMem of every layer of both towers, its difference from the layer before, and the layers' mean UnitMem.

LayerMem(x) = L(g; x) - L(f; x) with L the mean distance of a layer's output for the views of x from that for x itself,
both averaged over tokens and at length 1. (The published script puts tokens side by side instead of averaging
them.) Higher: the embedding of x moves less under the model that trained on it.

LayerMem is about one tower's input, not about the pair. Two models differ in how still they hold *any* input, and with
few seeds that offset is larger than what a pair adds: read the candidates' row against those of pairs that both saw
(shared) or neither saw (external), never alone. Layers are not independent: an upper one sees what the lower ones did.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float64, Int

from clipmem.measure.hooks import TOWERS, UNIT_KINDS, Site
from clipmem.measure.localized import Measure
from clipmem.measure.sweep import Distances, Points
from clipmem.stats.comparisons import holm, welch
from clipmem.stats.intervals import crossed_mean

EMBEDDING = "embedding"
LAYERS_SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(("role", "tower"), pl.String),
    "layer": pl.Int64,
    "kind": pl.String,
    "n": pl.Int64,
    **dict.fromkeys(("layermem", "low", "high", "delta", "delta_low", "delta_high"), pl.Float64),
    "n_units": pl.Int64,
    **dict.fromkeys(("unitmem_mean", "unitmem_low", "unitmem_high"), pl.Float64),
    **dict.fromkeys(("reference_unitmem_mean", "reference_unitmem_low", "reference_unitmem_high"), pl.Float64),
    **dict.fromkeys(("control_difference", "control_p", "control_p_holm"), pl.Float64),
}
LAYERMEM = Measure("layermem", "LayerMem", -2.0, 2.0, "the model that saw the input moves it less under augmentation")

_Scores = dict[Site | str, Float64[np.ndarray, "seed n"]]
# groups of the columns, and the names of mean, low and high
_Average = Callable[
    [Float64[np.ndarray, "seed n"], Int[np.ndarray, " n"], tuple[str, str, str]], dict[str, float | None]
]


def layer_table(
    points: Points,
    distances: Mapping[str, Mapping[int, Distances]],
    units: pl.DataFrame,
    *,
    unit_role: str,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Average LayerMem over the pairs of each role and UnitMem over the units of each layer, with intervals."""

    def average(
        values: Float64[np.ndarray, "seed n"], groups: Int[np.ndarray, " n"], names: tuple[str, str, str]
    ) -> dict[str, float | None]:
        there = np.isfinite(values).all(axis=0)
        if not there.any():
            return dict.fromkeys(names)
        found = crossed_mean(values[:, there], groups[there], confidence=confidence)
        return dict(zip(names, found[:3], strict=True))

    groups, roles = np.unique(np.array(points.groups), return_inverse=True)[1], np.array(points.roles)
    scores = _scores(distances)
    rows: list[dict[str, object]] = []
    for role in dict.fromkeys(points.roles):
        own = roles == role
        for place, values in scores.items():
            row: dict[str, object] = {"role": role, **_place(place, scores)}
            row["n"] = int(np.isfinite(values[:, own]).all(axis=0).sum())
            row |= average(values[:, own], groups[own], ("layermem", "low", "high"))
            before = _layer_before(place, scores)
            if before is not None:
                step = values[:, own] - scores[before][:, own]
                row |= average(step, groups[own], ("delta", "delta_low", "delta_high"))
            if role == "candidate":
                row |= _against_control(values.mean(axis=0), roles)
            if role == unit_role and isinstance(place, Site) and place.kind in UNIT_KINDS:
                row |= _unit_columns(place, units, average)
            rows.append(row)
    table = pl.DataFrame([{name: row.get(name) for name in LAYERS_SCHEMA} for row in rows], schema=LAYERS_SCHEMA)
    adjusted = holm(table["control_p"].fill_null(np.nan).to_numpy())
    return table.with_columns(pl.Series("control_p_holm", adjusted, pl.Float64).fill_nan(None))


def _scores(distances: Mapping[str, Mapping[int, Distances]]) -> _Scores:
    """Subtract: L(g) - L(f) of every pair, for each seed, at each place; by tower, the embedding after the layers."""
    f, g = distances["f"], distances["g"]
    places = sorted(next(iter(f.values())), key=lambda place: (TOWERS.index(_tower(place)), isinstance(place, str)))
    return {place: np.stack([g[seed][place] - f[seed][place] for seed in sorted(f)]) for place in places}


def _tower(place: Site | str) -> str:
    return place if isinstance(place, str) else place.tower


def _place(place: Site | str, scores: _Scores) -> dict[str, object]:
    if isinstance(place, Site):
        return {"tower": place.tower, "layer": place.layer, "kind": place.kind}
    layers = [site.layer for site in scores if isinstance(site, Site) and site.tower == place]
    return {"tower": place, "layer": max(layers, default=0) + 1, "kind": EMBEDDING}


def _layer_before(place: Site | str, scores: _Scores) -> Site | None:
    if isinstance(place, str):
        return None
    key = (place.tower, place.layer - 1, place.kind)
    return next((site for site in scores if isinstance(site, Site) and site[:3] == key), None)


def _against_control(values: Float64[np.ndarray, " n"], roles: np.ndarray) -> dict[str, object]:
    """Test the candidates against the external pairs at a place, seeds averaged: the control has the same models."""
    there = np.isfinite(values)
    a, b = values[there & (roles == "candidate")], values[there & (roles == "external")]
    if not (len(a) and len(b)):
        return {}
    found = welch(a, b)
    return {"control_difference": found.difference, "control_p": found.p}


def _unit_columns(site: Site, units: pl.DataFrame, average: _Average) -> dict[str, object]:
    columns: dict[str, object] = {}
    own = (pl.col("tower") == site.tower) & (pl.col("layer") == site.layer) & (pl.col("kind") == site.kind)
    for side, prefix in (("f", "unitmem"), ("g", "reference_unitmem")):
        table = units.filter(own & (pl.col("side") == side)).sort("seed", "unit")
        if table.is_empty():
            continue
        values = table["unitmem"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        values = values.reshape(table["seed"].n_unique(), -1)
        columns["n_units"] = values.shape[1]
        names = (f"{prefix}_mean", f"{prefix}_low", f"{prefix}_high")
        columns |= average(values, np.arange(values.shape[1]), names)
    return columns


def tower_sslmem(
    distances: Mapping[str, Mapping[int, Distances]], uids: Sequence[str], tower: str
) -> dict[str, float | None]:
    """Return each pair's SSLMem of a tower, mean over seeds; None where the pair has no view."""
    values = _scores(distances)[tower].mean(axis=0)
    return {uid: float(value) if np.isfinite(value) else None for uid, value in zip(uids, values, strict=True)}
