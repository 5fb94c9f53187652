"""A finished run: tables, summary, images and models. Imports torch only to load a model."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from clipmem.base import manifest
from clipmem.base.errors import ClipmemError, InputError, shorten
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import Recipe
from clipmem.base.require import require
from clipmem.base.suggest import did_you_mean
from clipmem.data.sources import open_source
from clipmem.data.sources.base import Source
from clipmem.report.gallery import gallery_uids, ranked_candidates
from clipmem.report.read import RunFiles, read_run

if TYPE_CHECKING:  # imports torch
    from clipmem.report.notebook import Html, Plots

STAGES = ("decode", "plan", "train", "embed", "score", "evaluate", "report")


class Run:
    """A finished study in a run folder; what `clipmem.run` and `clipmem.load_run` return.

    Args:
        path: The run folder.

    Raises:
        InputError: The folder is not a run folder, is unfinished, or was made by a newer version of clipmem.

    Attributes:
        path: The run folder.
        recipe: The recipe it was made with.
        manifest: Versions, machine, hashes.
        summary: `summary.json`.
    """

    def __init__(self, path: Path | str) -> None:
        self._folder = RunFolder(path)
        self.path = self._folder.path
        self.recipe: Recipe = self._folder.recipe()
        self.manifest: dict[str, Any] = manifest.read(self._folder)
        self.summary: dict[str, Any] = self._folder.read_json("summary.json")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{role} {values['n']}" for role, values in self.summary["roles"].items())
        return f"Run({str(self.path)!r}: {sizes}; seeds {self.summary['seeds']})"

    def _repr_html_(self) -> str:
        from clipmem.report.notebook import SHOWN, run_html

        return run_html(self._files, str(self.show(ranked_candidates(self.scores).head(SHOWN))))

    @cached_property
    def _files(self) -> RunFiles:
        return read_run(self.path)

    @property
    def plot(self) -> "Plots":
        """Figures as matplotlib axes: `run.plot.roles()`, `.top()`, `.redundancy()`."""
        from clipmem.report.notebook import Plots

        return Plots(lambda: self._files)

    def show(self, table: pl.DataFrame) -> "Html":
        """Show the pairs of a table with `uid` and `clipmem` in a notebook: images, scores, captions trained with.

        Where the images are no longer there, the pairs are shown without.
        """
        from clipmem.report.notebook import Html, pairs_html

        require("uid" in table.columns, "table", f"columns {table.columns}", "a column uid", "Use run.top().")
        uids = table["uid"].to_list()
        try:
            images = self.images(uids) if uids else {}
        except (ClipmemError, OSError):
            images = {}
        captions = {uid: self._files.trained_captions(uid) for uid in uids}
        return Html(pairs_html(table, images, captions, self.summary.get("noise_floor")))

    @property
    def report(self) -> Path:
        """The report's path."""
        return self.path / "report" / "index.html"

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """All pairs of the data: uid, captions, labels, group, credit."""
        return self._folder.read("pairs")

    @cached_property
    def splits(self) -> pl.DataFrame:
        """Role, group and planted captions of each used pair."""
        return self._folder.read("splits")

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One row per pair: clipmem with its interval, and the alignment parts of f and g."""
        return self._folder.read("scores")

    @cached_property
    def seed_scores(self) -> pl.DataFrame:
        """One row per pair and seed: alignment under f and g."""
        return self._folder.read("seed_scores")

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
        return (
            self.scores.filter((pl.col("role") == role) & pl.col("clipmem").is_not_null())
            .join(self.splits.select("uid", "captions_from"), on="uid")
            .join(captions, on="captions_from")
            .sort("clipmem", "uid", descending=[True, False])
            .head(k)
            .with_columns(noise_floor=pl.lit((self.summary.get("noise_floor") or {}).get("half_width"), pl.Float64))
            .select("uid", "clipmem", "stderr", "low", "high", "noise_floor", "planted", "captions")
        )

    def images(self, uids: list[str]) -> dict[str, bytes]:
        """Return the encoded images of pairs, from the recipe's source."""
        got, several = shorten(uids) if len(uids) else "none", not isinstance(uids, str) and len(uids)
        require(several, "uids", got, "a list of one or more uids", "Use uids from run.scores.")
        return _images(self.pairs, open_source(self.recipe.data), uids)

    def model(self, side: str, seed: int) -> Any:
        """Load model `f` or `g` of a seed (imports torch); for given models, `f` is the target."""
        from clipmem.study.models import open_models

        return open_models(self.recipe, self._folder, self.manifest).load(side, seed)


def check_role(role: str, roles: pl.Series, what: str) -> None:
    """Check that some pairs have a role."""
    known = roles.unique().sort().to_list()
    what, hint = f"{what} {shorten(role)}", did_you_mean(str(role), known, kind="role")
    require(role in known, what, "no pairs with that role", ", ".join(known), hint)


def _images(pairs: pl.DataFrame, source: Source, uids: list[str]) -> dict[str, bytes]:
    reference = dict(zip(pairs["uid"], pairs["image"], strict=True))
    unknown = [uid for uid in uids if uid not in reference]
    what, hint = f"uid {', '.join(map(shorten, unknown[:1]))}", "Use uids from run.scores."
    require(not unknown, what, "no such pair in this run", "a uid of run.pairs", hint)
    return dict(zip(uids, source.read([reference[uid] for uid in uids]), strict=True))


def gallery_images(folder: RunFolder, source: Source) -> dict[str, bytes]:
    """Return the images of the report's gallery."""
    return _images(folder.read("pairs"), source, gallery_uids(folder.path))


def seconds_of(folder: RunFolder) -> dict[str, float]:
    """Return the seconds of each finished stage, in order."""
    seconds = folder.seconds()
    return {stage: seconds[stage] for stage in STAGES if stage in seconds}
