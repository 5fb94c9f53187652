"""A finished run as `clipmem.run` and `clipmem.load_run` return it. Imports torch only to load a model."""

import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from clipmem import study
from clipmem.base.errors import ClipmemError, InputError, did_you_mean, require, shorten
from clipmem.report.gallery import ranked_candidates
from clipmem.report.page import SHOWN, Html, Plots, pairs_html, run_html
from clipmem.report.run import Run


class FinishedRun(Run):
    """A finished study in a run folder, with its models and what a notebook shows of it.

    Raises:
        InputError: The folder is not a run folder, is unfinished, or was made by another version of clipmem.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        _ = self.recipe, self.manifest, self.summary

    def __repr__(self) -> str:
        sizes = ", ".join(f"{role} {entry.n}" for role, entry in self.summary.roles.items())
        return f"Run({str(self.path)!r}: {sizes}; seeds {self.summary.seeds})"

    def _repr_html_(self) -> str:
        return run_html(self, str(self.show(ranked_candidates(self.scores).head(SHOWN))))

    @property
    def plot(self) -> Plots:
        """Figures as matplotlib axes: `run.plot.roles()`, `.top()`, `.redundancy()`."""
        return Plots(self)

    def show(self, table: pl.DataFrame) -> Html:
        """Show the pairs of a table with `uid` and `clipmem` in a notebook: images, scores, captions trained with.

        Where the images are no longer there, the pairs are shown without.
        """
        require("uid" in table.columns, "table", f"columns {table.columns}", "a column uid", "Use run.top().")
        uids = table["uid"].to_list()
        try:
            images = self.images(uids) if uids else {}
        except (ClipmemError, OSError):
            images = {}
        captions = {uid: self.trained_captions(uid) for uid in uids}
        return Html(pairs_html(table, images, captions, self.summary.noise_floor))

    @property
    def report(self) -> Path:
        """The report's path."""
        return self.path / "report" / "index.html"

    def top(self, k: int = 10, *, role: str = "candidate") -> pl.DataFrame:
        """Return the `k` most memorized pairs of a role, with the captions they were trained with.

        `stderr`, `low` and `high` cover seeds only; `noise_floor` is the half-width h of `functional.noise_floor`.
        """
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError("k", got=shorten(k), expected="a whole number, 1 or more", hint="Use 10, for example.")
        check_role(role, self.scores["role"], "role")
        captions = self.pairs.select(
            pl.col("uid").alias("captions_from"), pl.col("captions").list.head(self.recipe.train.captions)
        )
        floor = self.summary.noise_floor
        return (
            self.scores.filter((pl.col("role") == role) & pl.col("clipmem").is_not_null())
            .join(self.splits.select("uid", "captions_from"), on="uid")
            .join(captions, on="captions_from")
            .sort("clipmem", "uid", descending=[True, False])
            .head(k)
            .with_columns(noise_floor=pl.lit(floor and floor.half_width, pl.Float64))
            .select("uid", "clipmem", "stderr", "low", "high", "noise_floor", "planted", "captions")
        )

    def trace(self, query: str) -> pl.DataFrame:
        """Return what each training pair did to the similarity of a held-out image and caption, as `clipmem score`.

        Args:
            query: uid of a held-out pair; or `"UID:UID"`, for the image of the first and the caption of the second.

        Returns:
            uid, effect (largest first) and the captions trained with; `lds`, how well effects predict similarities
            under other shadow models: their mean rank correlation in [-1, 1].

        Raises:
            InputError: The run is not of protocol halves with 4 shadow models, or a uid is not of a held-out pair.
        """
        with tempfile.TemporaryDirectory() as folder:
            document: Any = study.estimating.trace(self.path, query, Path(folder) / "effects.parquet")
            table = pl.read_parquet(Path(folder) / "effects.parquet")
        captions = pl.Series(map(self.trained_captions, table["uid"]), dtype=pl.List(pl.String))
        return table.with_columns(captions=captions, lds=pl.lit(document["lds"]["mean"]))

    def model(self, side: str, seed: int) -> Any:
        """Load model `f` or `g` of a seed (imports torch); for given models, `f` is the target."""
        from clipmem.study.models import open_models

        return open_models(self.recipe, self.folder).load(side, seed)


def check_role(role: str, roles: pl.Series, subject: str) -> None:
    """Check that some pairs have a role."""
    names = roles.unique().sort().to_list()
    subject, hint = f"{subject} {shorten(role)}", did_you_mean(str(role), names, kind="role")
    require(role in names, subject, "no pairs with that role", ", ".join(names), hint)
