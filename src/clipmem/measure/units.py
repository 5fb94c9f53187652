"""UnitMem and ClassMem of every unit of both towers, in a stream, and LayerMem of every layer.

Compare models only over the same points and views. With few points mu_max is small by chance and UnitMem is low.

LayerMem(x) = L(g; x) - L(f; x) with L the mean distance of a layer's output for the views of x from that for x itself,
both averaged over tokens and at length 1. (The published script puts tokens side by side instead of averaging
them.) Higher: the embedding of x moves less under the model that trained on it.

LayerMem is about one tower's input, not about the pair. Two models differ in how still they hold *any* input, and with
few seeds that offset is larger than what a pair adds: read the candidates' row against those of pairs that both saw
(shared) or neither saw (external), never alone. Layers are not independent: an upper one sees what the lower ones did.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int

from clipmem.base.errors import require_range
from clipmem.base.sections import LocalizeSection
from clipmem.base.tables import SCHEMAS
from clipmem.data.pairs import Pairs
from clipmem.measure.sweep import EMBEDDING, TOWERS, UNIT_KINDS, Block, Site, blocks
from clipmem.models.protocol import DualEncoder
from clipmem.stats.comparisons import holm, welch
from clipmem.stats.intervals import crossed_mean
from clipmem.stats.unitmem import ClassMemState, UnitMemState

HOLD_BYTES = 384 * 2**20  # activations of a tower held for exact medians; beyond that, a sketch within 1%


class UnitTracker:
    """Collects the blocks of a tower and returns the table of its units."""

    def __init__(self, pairs: Pairs, unit_pairs: Bool[np.ndarray, " n"], *, hold_bytes: int = HOLD_BYTES) -> None:
        require_range("pairs for UnitMem", int(unit_pairs.sum()), 2, hint="Choose another role.")
        self._unit_pairs, self._hold_bytes, self._points = unit_pairs, hold_bytes, 0
        table = pairs.table.filter(unit_pairs)
        self._uids, labels = table["uid"].to_list(), table["label"].to_list()
        self._classes = sorted(set(labels) - {""})
        number = {label: index for index, label in enumerate(self._classes)}
        self._labels = torch.tensor([number.get(label, -1) for label in labels])
        self._units: dict[Site, UnitMemState] = {}
        self._class_means: dict[Site, ClassMemState] = {}

    def add(self, block: Block) -> None:
        """Add the next block; pairs that are not chosen are skipped."""
        if not self._units:
            total = sum(values.shape[1] for values in block.units.values())
            for site, values in block.units.items():
                count = values.shape[1]
                self._units[site] = UnitMemState(count, hold_bytes=self._hold_bytes * count // total)
                if len(self._classes) > 1:
                    self._class_means[site] = ClassMemState(len(self._classes), count)
        rows = torch.from_numpy(np.flatnonzero(self._unit_pairs[block.rows]))
        labels = self._labels[self._points : self._points + len(rows)]
        for site, values in block.units.items():
            self._units[site].update(values[rows], first_row=self._points)
            if site in self._class_means:
                self._class_means[site].update(values[rows[labels >= 0]], labels[labels >= 0])
        self._points += len(rows)

    def finish(self, side: str, seed: int) -> pl.DataFrame:
        """Return the table of the tower's units, and free the states."""
        frames = [pl.DataFrame(schema=SCHEMAS["localize/units"])]
        for site in list(self._units):
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
                "uid": [self._uids[row] if row >= 0 else None for row in mean.argmax.tolist()],
                "label": [self._classes[k] if k >= 0 else None for k in classes.argmax.tolist()] if classes else None,
            }
            # a dead unit has no pair, and no value to average
            alive, names = pl.Series((~mean.dead).numpy()), ("unitmem", "unitmem_median", "classmem")
            table = pl.DataFrame(columns, schema=SCHEMAS["localize/units"])
            frames.append(table.with_columns(pl.when(alive).then(pl.col(name)).alias(name) for name in names))
        return pl.concat(frames)


# L(m; x) of every pair at each site; NaN for a pair without views
Distances = dict[Site, Float64[np.ndarray, " n"]]


def sweep_model(
    encoder: DualEncoder,
    pairs: Pairs,
    section: LocalizeSection,
    *,
    unit_pairs: Bool[np.ndarray, " n"] | None,
    model: tuple[str, int] = ("f", 0),
    towers: Sequence[str] = TOWERS,
    **how: Any,
) -> tuple[pl.DataFrame, Distances]:
    """Return the units and distances of a model, named by side and seed, from one pass over pairs and their views.

    The table of the pairs has their `label` and their row in `pixels`, `row`; units are over `unit_pairs`. The
    last arguments are those of `blocks`.
    """
    distances: dict[Site, list[np.ndarray]] = {}
    frames: list[pl.DataFrame] = []
    for tower in towers:
        tracker = UnitTracker(pairs, np.ones(len(pairs), dtype=np.bool_) if unit_pairs is None else unit_pairs)
        for block in blocks(encoder, pairs, section, tower=tower, **how):
            tracker.add(block)
            for site, values in block.distances.items():
                distances.setdefault(site, []).append(values.numpy())
        frames.append(tracker.finish(*model))
    return pl.concat(frames), {site: np.concatenate(parts) for site, parts in distances.items()}


def layer_table(
    pairs: Pairs, distances: Mapping[str, Mapping[int, Distances]], units: pl.DataFrame, *, confidence: float = 0.95
) -> pl.DataFrame:
    """Average LayerMem over the pairs of each role, and UnitMem (of the candidates) over units, with intervals."""
    roles = pairs.table["role"].to_numpy()
    groups = np.unique(pairs.table["group"].to_numpy(), return_inverse=True)[1]
    scores = _scores(distances)
    rows: list[dict[str, object]] = []
    for role in dict.fromkeys(roles.tolist()):
        members = roles == role
        for site, values in scores.items():
            row: dict[str, object] = {"role": role, "tower": site.tower, "layer": site.layer, "kind": site.kind}
            row["n"] = int(np.isfinite(values[:, members]).all(axis=0).sum())
            row |= _average(values[:, members], groups[members], ("layermem", "low", "high"), confidence)
            key = (site.tower, site.layer - 1, site.kind)
            before = next((values for other, values in scores.items() if other[:3] == key), None)
            if before is not None:
                step = (values - before)[:, members]
                row |= _average(step, groups[members], ("delta", "delta_low", "delta_high"), confidence)
            if role == "candidate":
                averages, finite = values.mean(axis=0), np.isfinite(values.mean(axis=0))
                a, b = (averages[finite & (roles == name)] for name in ("candidate", "external"))
                if len(a) and len(b):  # the control has the same models
                    test = welch(a, b)
                    row |= {"control_difference": test.difference, "control_p": test.p}
                of_site = units.filter(tower=site.tower, layer=site.layer, kind=site.kind)
                for side, prefix in (("f", "unitmem"), ("g", "reference_unitmem")):
                    of_side = of_site.filter(side=side).sort("seed", "unit")
                    if site.kind in UNIT_KINDS and not of_side.is_empty():
                        names = [f"{prefix}_{end}" for end in ("mean", "low", "high")]
                        seeds = of_side["seed"].n_unique()
                        unitmem = of_side["unitmem"].fill_null(np.nan).to_numpy().reshape(seeds, -1)
                        row["n_units"] = unitmem.shape[1]
                        row |= _average(unitmem, np.arange(unitmem.shape[1]), names, confidence)
            rows.append(row)
    table = pl.DataFrame(rows, schema=SCHEMAS["localize/layers"])
    adjusted = holm(table["control_p"].fill_null(np.nan).to_numpy())
    return table.with_columns(pl.Series("control_p_holm", adjusted, pl.Float64).fill_nan(None))


def _average(
    values: Float64[np.ndarray, "seed n"], groups: Int[np.ndarray, " n"], names: Sequence[str], confidence: float
) -> dict[str, float | None]:
    """Average over seeds and the columns without NaN; return mean, low and high under these names."""
    finite = np.isfinite(values).all(axis=0)
    if not finite.any():
        return dict.fromkeys(names)
    interval = crossed_mean(values[:, finite], groups[finite], confidence=confidence)
    return dict(zip(names, interval[:3], strict=True))


def _scores(distances: Mapping[str, Mapping[int, Distances]]) -> dict[Site, Float64[np.ndarray, "seed n"]]:
    """Subtract: L(g) - L(f) of every pair, for each seed, at each site; by tower, the embedding after the layers."""
    f, g = distances["f"], distances["g"]
    sites = sorted(next(iter(f.values())), key=lambda site: (TOWERS.index(site.tower), site.kind == EMBEDDING))
    return {site: np.stack([g[seed][site] - f[seed][site] for seed in sorted(f)]) for site in sites}


def tower_sslmem(
    distances: Mapping[str, Mapping[int, Distances]], uids: Sequence[str], tower: str
) -> dict[str, float | None]:
    """Return each pair's SSLMem of a tower, mean over seeds; None where the pair has no view."""
    scores = _scores(distances)
    values = next(scores[site] for site in scores if site.tower == tower and site.kind == EMBEDDING).mean(axis=0)
    return {uid: float(value) if np.isfinite(value) else None for uid, value in zip(uids, values, strict=True)}
