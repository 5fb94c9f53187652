"""UnitMem and ClassMem of every unit of both towers, in a stream, with the pair that drives each unit.

Compare models only over the same points and views. With few points mu_max is small by chance and UnitMem is low.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool

from clipmem.base.require import require_range
from clipmem.measure.hooks import TOWERS, Site
from clipmem.measure.localized import Measure
from clipmem.measure.sweep import Block, Distances, Points, ViewSettings, blocks
from clipmem.models.protocol import DualEncoder
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

UNITMEM = Measure("unitmem", "UnitMem", 0.0, 1.0, "one pair alone drives the unit")
CLASSMEM = Measure("classmem", "ClassMem", 0.0, 1.0, "one class alone drives the unit")


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
