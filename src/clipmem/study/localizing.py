"""`clipmem localize`: layers, units and towers of a finished four-way study, and the report again with them in it."""

import time
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.progress import Quiet, Reporter
from clipmem.data.cache import open_cache
from clipmem.data.sources import open_source
from clipmem.localize.run import LocalizeSettings, localize, work
from clipmem.localize.sweep import Points, ViewSettings
from clipmem.models import openclip
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.study import execution, materials
from clipmem.study.pipeline import write_summary_and_report
from clipmem.train.numerics import threads


def localize_run(
    path: Path | str, *, views: int = 10, pairs: int = 1000, reporter: Reporter | None = None
) -> list[Path]:
    """Measure where a finished study's memorization sits and write `localize/` and the report.

    Args:
        path: The run folder of a four-way study.
        views: Image views, and at most as many text views, of each pair.
        pairs: At most this many pairs of each role go through the models; a seeded sample.
        reporter: Who is told of the progress.

    Returns:
        The files written.

    Raises:
        InputError: The folder is not a finished run of the four-way protocol.
    """
    reporter, folder = reporter or Quiet(), RunFolder(path)
    recipe = folder.recipe()
    if recipe.protocol != "four-way":
        raise InputError(
            f"run folder {folder.path}",
            got=f"protocol {recipe.protocol!r}",
            expected="a four-way study: f and g that differ in their own pairs only",
            todo="Localize the folder of such a study.",
        )
    folder.read_json("summary.json")  # says what to do when the run is not finished
    with folder.locked():
        started = time.monotonic()
        points = _points(folder)
        settings = LocalizeSettings(
            views=ViewSettings.from_training(recipe.train, views=views),
            pairs_per_role=pairs,
            weight=recipe.score.weight,
            confidence=recipe.score.confidence,
            draws=recipe.score.draws,
            seed=recipe.split.seed,
        )
        how = execution.from_manifest(manifest.read(folder))
        reporter.begin("localize", work(points, recipe.train.seeds, settings), "pairs")
        with threads(how.threads * how.workers):
            files = localize(
                folder,
                points,
                recipe.train.seeds,
                lambda side, seed: openclip.load(folder.model_dir(side, seed)),
                settings,
                device=how.device,
                progress=reporter.advance,
            )
        folder.finish("localize", files, time.monotonic() - started)
        reporter.end("localize", time.monotonic() - started)
        outputs = write_summary_and_report(folder, open_source(recipe.data))
        folder.finish("report", outputs, folder.read_json("summary.json")["seconds"]["report"])
    return [*files, *outputs]


def _points(folder: RunFolder) -> Points:
    recipe, splits = folder.recipe(), folder.read("splits")
    material = materials.load(folder, recipe)
    pairs = splits.select(pl.col("uid"), pl.col("captions_from")).join(
        folder.read("pairs").select("uid", "label"), on="uid", maintain_order="left"
    )
    everything = dict(zip(*folder.read("pairs").select("uid", "captions").get_columns(), strict=True))
    return Points(
        uids=splits["uid"].to_list(),
        roles=splits["role"].to_list(),
        groups=splits["group"].to_list(),
        labels=pairs["label"].to_list(),
        pixels=open_cache(folder.path / materials.CACHE),
        rows=material.rows,
        # a model may have seen the first caption only: the others are views of it that it did not see
        captions=[list(everything[uid]) for uid in splits["captions_from"]],
    )
