"""UnitMem and ClassMem of every unit of both towers, in a stream, and LayerMem of every layer.

Compare models only over the same points and views. With few points mu_max is small by chance and UnitMem is low.

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
import torch
from jaxtyping import Bool, Float64, Int

from clipmem.base.errors import require_range
from clipmem.measure.sweep import TOWERS, UNIT_KINDS, Block, Distances, Points, Site, ViewSettings, blocks
from clipmem.models.protocol import DualEncoder
from clipmem.stats.comparisons import holm, welch
from clipmem.stats.intervals import crossed_mean
from clipmem.stats.unitmem import ClassMemState, UnitMemState

HOLD_BYTES = 384 * 2**20  # activations of a tower held for exact medians; beyond that, a sketch within 1%
UNITS_SCHEMA: dict[str, type[pl.DataType]] = {
    "side": pl.String,
    "seed": pl.Int64,
    "tower": pl.String,
    "layer": pl.Int64,
    "kind": pl.String,
    "unit": pl.Int64,
    **dict.fromkeys(("unitmem", "unitmem_median", "classmem", "mu_max", "mu_rest", "median_error"), pl.Float64),
    **dict.fromkeys(("uid", "label"), pl.String),
}


class UnitTracker:
    """Collects the blocks of a tower and returns the table of its units."""

    def __init__(self, points: Points, chosen: Bool[np.ndarray, " n"], *, hold_bytes: int = HOLD_BYTES) -> None:
        require_range("pairs for UnitMem", int(chosen.sum()), 2, hint="Choose another role.")
        self._points, self._chosen, self._hold_bytes = points, torch.from_numpy(chosen), hold_bytes
        self._place = np.cumsum(chosen) - 1
        self._owner: list[int] = np.flatnonzero(chosen).tolist()
        self._classes = sorted({points.labels[i] for i in self._owner if points.labels[i]})
        number = {label: index for index, label in enumerate(self._classes)}
        self._label = torch.tensor([number.get(label, -1) for label in points.labels], dtype=torch.long)
        self._units: dict[Site, UnitMemState] = {}
        self._class_means: dict[Site, ClassMemState] = {}

    def add(self, block: Block) -> None:
        """Add a block; pairs that are not chosen are skipped."""
        if not self._units:
            self._begin(block)
        index = torch.arange(block.first, block.first + block.pairs)
        index = index[self._chosen[index]]
        if len(index) == 0:
            return
        labeled = index[self._label[index] >= 0]
        for site, values in block.units.items():
            # rows count the chosen pairs only, which are consecutive within a block
            self._units[site].update(values[index - block.first], first_row=int(self._place[index[0]]))
            if len(self._classes) > 1:
                self._class_means[site].update(values[labeled - block.first], self._label[labeled])

    def _begin(self, block: Block) -> None:
        total = sum(values.shape[1] for values in block.units.values())
        for site, values in block.units.items():
            units = values.shape[1]
            self._units[site] = UnitMemState(units, hold_bytes=self._hold_bytes * units // total)
            if len(self._classes) > 1:
                self._class_means[site] = ClassMemState(len(self._classes), units)

    def finish(self, side: str, seed: int) -> pl.DataFrame:
        """Return the table of the tower's units, and free the states."""
        frames = [self._rows(site, side, seed) for site in list(self._units)]
        return pl.concat(frames) if frames else pl.DataFrame(schema=UNITS_SCHEMA)

    def _rows(self, site: Site, side: str, seed: int) -> pl.DataFrame:
        state = self._units.pop(site)
        mean, median = state.result("mean"), state.result("median")
        classes = self._class_means.pop(site).result("mean") if site in self._class_means else None
        columns = {
            "side": side,
            "seed": seed,
            "tower": site.tower,
            "layer": site.layer,
            "kind": site.kind,
            "unit": list(range(len(mean.value))),
            "unitmem": mean.value.tolist(),
            "unitmem_median": median.value.tolist(),
            "classmem": classes.value.tolist() if classes else None,
            "mu_max": mean.mu_max.tolist(),
            "mu_rest": mean.mu_rest.tolist(),
            "median_error": median.relative_error,
            "uid": [self._points.uids[self._owner[row]] if row >= 0 else None for row in mean.argmax.tolist()],
            "label": [self._classes[k] if k >= 0 else None for k in classes.argmax.tolist()] if classes else None,
        }
        # a dead unit has no pair, and no value to average
        table = pl.DataFrame(columns, schema=UNITS_SCHEMA)
        alive = pl.Series((~mean.dead).numpy())
        return table.with_columns(
            pl.when(alive).then(pl.col(name)).alias(name) for name in ("unitmem", "unitmem_median", "classmem")
        )


def sweep_model(
    encoder: DualEncoder,
    points: Points,
    settings: ViewSettings,
    *,
    chosen: Bool[np.ndarray, " n"] | None,
    side: str = "f",
    seed: int = 0,
    towers: Sequence[str] = TOWERS,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[pl.DataFrame, Distances]:
    """Return the units and distances of a model, from one pass over the points and their views."""
    n = len(points.uids)
    distances: Distances = {}
    frames: list[pl.DataFrame] = []
    for tower in towers:
        tracker = UnitTracker(points, np.ones(n, dtype=bool) if chosen is None else chosen)
        for block in blocks(encoder, points, settings, tower=tower, device=device, progress=progress):
            tracker.add(block)
            for place, values in block.distances.items():
                distances.setdefault(place, np.full(n, np.nan))[block.first : block.first + block.pairs] = (
                    values.numpy()
                )
        frames.append(tracker.finish(side, seed))
    return pl.concat(frames), distances


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
