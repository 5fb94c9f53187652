"""`clipmem localize`: layers, units and towers of a finished four-way study, and the report again with them in it."""

import time
from collections.abc import Sequence
from pathlib import Path

from clipmem.base.errors import InputError
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Recipe
from clipmem.data.sources import open_source
from clipmem.localize.run import SETTINGS_FILE, LocalizeSettings, describe, localize, work
from clipmem.localize.sweep import Points, ViewSettings
from clipmem.models import openclip
from clipmem.store.folder import RunFolder
from clipmem.study.beside import forget_beside, write_beside
from clipmem.study.plan import PlannedStudy
from clipmem.study.stages import write_summary_and_report
from clipmem.train.numerics import threads
from clipmem.train.objectives import OBJECTIVES


def localize_run(
    path: Path | str,
    *,
    views: int | None = None,
    pairs: int | None = None,
    beside: Sequence[Path | str] = (),
    reporter: Reporter | None = None,
) -> list[Path]:
    """Measure where a finished study's memorization sits and write `localize/` and the report.

    A folder that was already localized over the same points and views is not measured again.
    """
    reporter, folder = reporter or Quiet(), RunFolder(path)
    recipe = folder.recipe()
    if recipe.protocol != "four-way":
        raise InputError(
            f"run folder {folder.path}",
            got=f"protocol {recipe.protocol!r}",
            expected="a four-way study: f and g that differ in their own pairs only",
            hint="Localize the folder of such a study.",
        )
    folder.read_json("summary.json")  # says what to do when the run is not finished
    with folder.locked():
        settings = settings_of(recipe, views=views, pairs=pairs)
        files = _measure(folder, recipe, settings, reporter)
        if beside:
            files += write_beside(folder, [RunFolder(other) for other in beside])
        outputs = write_summary_and_report(folder, open_source(recipe.data))
        folder.finish("report", outputs, folder.read_json("summary.json")["seconds"]["report"])
    return [*files, *outputs]


def settings_of(recipe: Recipe, *, views: int | None = None, pairs: int | None = None) -> LocalizeSettings:
    """Return how a recipe's runs are localized, with other views or pairs if they are given."""
    section = recipe.localize.model_copy(update={} if views is None else {"views": views})
    objective = recipe.train.objective
    return LocalizeSettings(
        views=ViewSettings.from_recipe(section, recipe.train),
        pairs_per_role=section.pairs if pairs is None else pairs,
        weight=recipe.score.weight,
        confidence=recipe.score.confidence,
        draws=recipe.score.draws,
        seed=recipe.split.seed,
        untrained_text=""
        if OBJECTIVES[objective].uses_text
        else f"objective {objective!r} trains no text tower: f and g hold the same initial one",
    )


def _measure(folder: RunFolder, recipe: Recipe, settings: LocalizeSettings, reporter: Reporter) -> list[Path]:
    started, study = time.monotonic(), PlannedStudy(folder)
    points = points_of(study)
    known = folder.is_done("localize") and (folder.path / SETTINGS_FILE).is_file()
    if known and folder.read_json(SETTINGS_FILE) == describe(points, settings):
        reporter.end("localize", folder.seconds()["localize"], skipped=True)
        return []
    forget_beside(folder)  # it was made from the values that are now replaced
    how = study.how
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
    return files


def points_of(study: PlannedStudy) -> Points:
    """Return all pairs of a run, in the order of its split table."""
    label = study.pairs["label"].to_list()
    return Points(
        uids=study.uids,
        roles=study.role.tolist(),
        groups=study.splits["group"].to_list(),
        labels=[label[row] for row in study.rows],
        pixels=study.pixels(),
        rows=study.rows,
        # a model may have seen the first caption only: the others are views of it that it did not see
        captions=study.all_captions(),
    )
