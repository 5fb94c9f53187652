"""`clipmem localize`: layers, units and towers of a finished four-way study."""

from pathlib import Path

import polars as pl

from clipmem.base.declared import declared
from clipmem.base.errors import require
from clipmem.base.folder import SIDES
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Recipe
from clipmem.data.pairs import Pairs
from clipmem.measure.localize import SETTINGS_FILE, describe, localize, work
from clipmem.models.numerics import threads
from clipmem.study.plan import PlannedStudy
from clipmem.study.stages import renew_report, run_stage


def localize_run(
    path: Path | str, *, views: int | None = None, pairs: int | None = None, reporter: Reporter | None = None
) -> list[Path]:
    """Localize the memorization of a finished study; write `localize/` and the report."""
    reporter, study = reporter or Quiet(), PlannedStudy(path)
    folder, recipe = study.folder, study.recipe
    subject, hint = f"run folder {folder.path}", "Choose a run with protocol = 'four-way'."
    paired, got = declared("protocols", recipe.protocol).paired, f"protocol {recipe.protocol!r}"
    require(paired, subject, got, "a four-way study", hint)
    _ = study.summary  # raises if the run is not finished
    trained = all((folder.path / "models" / side).is_dir() for side in SIDES)
    require(trained, subject, "no weights of f and g", "the folder models/", "Restore it, or run the study again.")
    with folder.locked():
        changes = {name: value for name, value in (("views", views), ("pairs", pairs)) if value is not None}
        section = recipe.localize.model_copy(update=changes)
        files = _measure(study, recipe.model_copy(update={"localize": section}), reporter)
        reporter.begin("report")
        return [*files, *renew_report(folder)]


def _measure(study: PlannedStudy, recipe: Recipe, reporter: Reporter) -> list[Path]:
    folder, pairs, resources = study.folder, localized_pairs(study), study.execution

    def measure() -> list[Path]:
        reporter.begin("localize", work(pairs, recipe), "pairs")
        with threads(resources.threads * resources.workers):
            load, advance = study.opened.load, reporter.advance
            return localize(folder, pairs, recipe, load, device=resources.device, progress=advance)

    same = (folder.path / SETTINGS_FILE).is_file() and folder.read_json(SETTINGS_FILE) == describe(pairs, recipe)
    return run_stage(folder, reporter, "localize", measure, complete=same)


def localized_pairs(study: PlannedStudy) -> Pairs:
    """Return all pairs of a study, in the order of its split table."""
    label = study.pairs["label"].gather(study.rows).fill_null("")
    # captions that a model did not train on are views of those it did
    captions = pl.Series("captions", study.all_captions())
    table = study.splits.with_columns(label, captions, pl.Series("row", study.rows))
    return Pairs("study", table, pixels={geometry: study.pixels(geometry) for geometry in study.opened.geometries})
