"""What findings read of a finished run: memorization and utility by seed, and tables that few of them need."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float64

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.data.cache import open_cache
from clipmem.measure import towers
from clipmem.models import passes

_SIZE = 16  # pixels of an image's side for comparing images


class Measured:
    """A finished run as findings read it; everything is read on first use.

    Args:
        path: The run folder.
    """

    def __init__(self, path: Path) -> None:
        self.run = clipmem.load_run(path)
        self.seeds = sorted(self.run.recipe.train.seeds)

    def uids(self, role: str) -> set[str]:
        """Return the pairs of a role."""
        return set(self.run.splits.filter(pl.col("role") == role)["uid"])

    @cached_property
    def planted(self) -> set[str]:
        """The pairs that trained with another pair's captions."""
        return set(self.run.splits.filter("planted")["uid"])

    @cached_property
    def _alignment(self) -> pl.DataFrame:
        """Alignment under f and g by pair and seed; no rows where utility alone is measured."""
        scored = (self.run.path / "seed_scores.parquet").is_file()
        table = self.run.seed_scores if scored else pl.DataFrame(schema={"uid": pl.String, "seed": pl.Int64})
        return table.sort("seed", "uid")

    def memorization(self, uids: Collection[str], measure: str = "clipmem") -> list[float]:
        """Return the mean of A(f) - A(g) over some pairs for each of `seeds`; [] if it was not measured for them all.

        Args:
            uids: The pairs.
            measure: `clipmem`, on the first captions, or `clipmem_wordings`, on all of them.
        """
        f, g = ("f_wordings", "g_wordings") if measure == "clipmem_wordings" else ("f", "g")
        rows = self._alignment.filter(pl.col("uid").is_in(list(uids)))
        if rows.is_empty() or f not in rows.columns or rows[f].null_count() or rows[g].null_count():
            return []
        means = dict(rows.group_by("seed").agg((pl.col(f) - pl.col(g)).mean()).iter_rows())
        return [float(means[seed]) for seed in self.seeds]

    def half_difference(
        self, candidates: Collection[str], independent: Collection[str], measure: str = "clipmem"
    ) -> list[float]:
        """Return (mean over C - mean over I) / 2 by seed, as `clipmem.functional.half_difference` takes it.

        Without g-only pairs it is the mean over the candidates.
        """
        mean = self.memorization(candidates, measure)
        if not independent:
            return mean
        mirror = self.memorization(independent, measure)
        return [(c - i) / 2 for c, i in zip(mean, mirror, strict=True)] if mean and mirror else []

    def scores(self, seed: int, by: str = "clipmem") -> dict[str, float]:
        """Return a score of every pair under a seed, by uid.

        Args:
            seed: The seed.
            by: `clipmem` for A(f) - A(g), `g-alignment` for -A(g) and `f-alignment` for -A(f).
        """
        f, g = pl.col("f"), pl.col("g")
        score = {"clipmem": f - g, "g-alignment": -g, "f-alignment": -f}[by]
        rows = self._alignment.filter(pl.col("seed") == seed)
        return dict(rows.select("uid", score).iter_rows())

    @property
    def utility(self) -> dict[str, list[float]]:
        """The metrics of f by seed."""
        return self.run.utility

    @property
    def validation(self) -> dict[str, list[float]]:
        """The same on the validation pairs."""
        return self.run.validation

    @cached_property
    def captions(self) -> dict[str, list[str]]:
        """The captions that each pair of the split trains with, by uid."""
        captions = dict(self.run.pairs.select("uid", "captions").iter_rows())
        return {uid: captions[source] for uid, source in self.run.splits.select("uid", "captions_from").iter_rows()}

    @cached_property
    def units(self) -> pl.DataFrame:
        """UnitMem of every unit, of a localized run."""
        return self.run.table("localize/units")

    @cached_property
    def tower_shares(self) -> dict[str, list[float]]:
        """The share of each tower in the candidates' mean CLIPMem by seed (`clipmem.measure.towers`)."""
        folder = RunFolder(self.run.path)
        f, g = (
            {seed: towers.means_of(passes.load(folder.embedding_dir(side, seed))) for seed in self.seeds}
            for side in ("f", "g")
        )
        roles = self.run.splits["role"]
        shares = towers.swap(f, g, roles.to_list(), weight=self.run.recipe.score.weight)
        candidates = (roles == "candidate").to_numpy()
        return {name: getattr(shares, name)[:, candidates].mean(axis=1).tolist() for name in ("text", "image")}

    def small_images(self) -> Float64[np.ndarray, "n size"]:
        """Return the images at about `_SIZE` pixels a side, values in [0, 1], in the order of the split."""
        rows = {uid: k for k, uid in enumerate(self.run.pairs["uid"])}
        pixels = open_cache(self.run.path / "cache" / "pixels.npy")[[rows[uid] for uid in self.run.splits["uid"]]]
        step = max(1, pixels.shape[1] // _SIZE)
        whole = pixels[:, : step * _SIZE, : step * _SIZE].astype(np.float64) / 255
        small = whole.reshape(len(whole), -1, step, whole.shape[2] // step, step, 3).mean(axis=(2, 4))
        return small.reshape(len(small), -1)
