"""`clipmem localize`: layers, units and towers of a finished four-way study."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base import manifest
from clipmem.base.declared import declared
from clipmem.base.folder import SIDES, RunFolder
from clipmem.base.hashing import json_sha256
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Recipe
from clipmem.base.require import require
from clipmem.base.tables import write_parquet
from clipmem.data.sources import open_source
from clipmem.measure.localize import SETTINGS_FILE, LocalizeSettings, describe, localize, work
from clipmem.measure.sweep import Points, ViewSettings
from clipmem.report.curves import compare_curves, curves_of, title_of
from clipmem.report.fairness import differing, differing_entries
from clipmem.report.read import read_finished
from clipmem.study.plan import PlannedStudy
from clipmem.study.stages import write_summary_and_report
from clipmem.train.numerics import threads
from clipmem.train.objectives import OBJECTIVES

TABLE, DOCUMENT = "localize/side_by_side.parquet", "localize/side_by_side.json"
# settings that do not affect the curves
_IGNORED = ("score.", "embed.", "localize.", "train.objective", "train.simclr_temperature", "train.seeds")
_HINTS = {
    "views": "Localize both over the same views: set [localize] crop = 'own' in both recipes, or the same --views.",
    "pairs of UnitMem": "Localize both with the same --pairs.",
}


def localize_run(
    path: Path | str,
    *,
    views: int | None = None,
    pairs: int | None = None,
    compare_with: Sequence[Path | str] = (),
    reporter: Reporter | None = None,
) -> list[Path]:
    """Localize the memorization of a finished study; write `localize/` and the report."""
    reporter, folder = reporter or Quiet(), RunFolder(path)
    recipe = folder.recipe()
    paired = declared("protocols", recipe.protocol).paired
    right = paired and all((folder.path / "models" / side).is_dir() for side in SIDES)
    what, expected = f"run folder {folder.path}", "a four-way study"
    require(right, what, f"protocol {recipe.protocol!r}", expected, "Choose a run with protocol = 'four-way'.")
    folder.read_json("summary.json")  # raises if the run is not finished
    with folder.locked():
        settings = settings_of(recipe, views=views, pairs=pairs)
        files = _measure(folder, recipe, settings, reporter)
        if compare_with:
            files += write_side_by_side(folder, [RunFolder(other) for other in compare_with])
        reporter.begin("report")
        outputs = write_summary_and_report(folder, open_source(recipe.data))
        folder.finish("report", outputs, folder.read_json("summary.json")["seconds"]["report"])
    return [*files, *outputs]


def settings_of(recipe: Recipe, *, views: int | None = None, pairs: int | None = None) -> LocalizeSettings:
    """Return the localization settings of a recipe, optionally with other views or pairs."""
    section = recipe.localize.model_copy(update={} if views is None else {"views": views})
    objective = recipe.train.objective
    return LocalizeSettings(
        views=ViewSettings.from_recipe(section, recipe.train),
        pairs_per_role=section.pairs if pairs is None else pairs,
        weight=recipe.score.weight,
        confidence=recipe.score.confidence,
        seed=recipe.split.seed,
        untrained_text=""
        if OBJECTIVES[objective].uses_text
        else f"objective {objective!r} trains no text tower: f and g have the same initial one",
    )


def _measure(folder: RunFolder, recipe: Recipe, settings: LocalizeSettings, reporter: Reporter) -> list[Path]:
    started, study = time.monotonic(), PlannedStudy(folder)
    points = points_of(study)
    known = folder.is_done("localize") and (folder.path / SETTINGS_FILE).is_file()
    if known and folder.read_json(SETTINGS_FILE) == describe(points, settings):
        reporter.end("localize", folder.seconds()["localize"], skipped=True)
        return []
    remove_side_by_side(folder)  # outdated
    resources = study.execution
    reporter.begin("localize", work(points, recipe.train.seeds, settings), "pairs")
    with threads(resources.threads * resources.workers):
        files = localize(
            folder,
            points,
            recipe.train.seeds,
            study.opened.load,
            settings,
            device=resources.device,
            progress=reporter.advance,
        )
    folder.finish("localize", files, time.monotonic() - started)
    reporter.end("localize", time.monotonic() - started)
    return files


def points_of(study: PlannedStudy) -> Points:
    """Return all pairs of a study, in the order of its split table."""
    label = study.pairs["label"].to_list()
    return Points(
        uids=study.uids,
        roles=study.role.tolist(),
        groups=study.splits["group"].to_list(),
        labels=[label[row] for row in study.rows],
        pixels=study.pixels(),
        rows=study.rows,
        # captions that a model did not train on are views of those it did
        captions=study.all_captions(),
    )


def write_side_by_side(folder: RunFolder, others: Sequence[RunFolder]) -> list[Path]:
    """Write the curves of several localized runs, side by side."""
    folders = [folder, *others]
    paths = [one.path.resolve() for one in folders]
    twice = [str(one.path) for k, one in enumerate(folders) if paths[k] in paths[:k]]
    require(not twice, "--compare-with", f"{twice} twice", "each run once", "Omit it.")
    for one in folders:
        localized = one.is_done("localize") and (one.path / SETTINGS_FILE).is_file()
        hint = f"Run `clipmem localize {one.path}` first."
        require(localized, f"run folder {one.path}", "a run that is not localized", "a localized run", hint)
    required = [_required_equal(one) for one in folders]
    for other, found in zip(folders[1:], required[1:], strict=True):
        for name, here in required[0].items():
            got, expected = (str(value) for value in differing_entries(found[name], here))
            hint = _HINTS.get(name, "Train it again with the same setting.")
            what = f"run folder {other.path}: different {name}"
            require(found[name] == here, what, got, f"{expected}, as in {folder.path}", hint)
    runs = [read_finished(one.path) for one in folders]
    names, records = _names(folders), [run.records["f", run.seeds[0]] for run in runs]
    curves = pl.concat(
        curves_of(_units(one), run=name, objective=run.recipe.train.objective)
        for one, name, run in zip(folders, names, runs, strict=True)
    )
    document = {
        "format": 1,
        "runs": [
            {
                "run": name,
                "objective": run.recipe.train.objective,
                "folder": one.path.name,
                "presentations": record["presentations"],
                "views_a_presentation": record["views"],
                "differs": differing(runs[0], run, _IGNORED),
            }
            for one, name, run, record in zip(folders, names, runs, records, strict=True)
        ],
        "pairs": folder.read_json(SETTINGS_FILE)["points"],
        **compare_curves(curves, runs[0].recipe.score.confidence),
    }
    write_parquet(folder.path / TABLE, curves)
    return [folder.path / TABLE, folder.write_json(DOCUMENT, document)]


def remove_side_by_side(folder: RunFolder) -> None:
    """Delete the files of `write_side_by_side`."""
    for name in (TABLE, DOCUMENT):
        (folder.path / name).unlink(missing_ok=True)


def _required_equal(folder: RunFolder) -> Mapping[str, Any]:
    recipe, splits, settings = folder.recipe(), folder.read("splits").sort("uid"), folder.read_json(SETTINGS_FILE)
    first = folder.model_dir("f", recipe.train.seeds[0]).relative_to(folder.path)
    return {
        "data": manifest.read(folder)["data_sha256"][:16],
        "split": f"{splits.height} pairs, {json_sha256(splits.rows())[:16]}",
        "architecture": recipe.model.name or recipe.model.pretrained,
        "seeds": sorted(recipe.train.seeds),
        "presentations of pairs per model": folder.read_json(f"{first}/record.json")["presentations"],
        "role of UnitMem": settings["unit_role"],
        "pairs of UnitMem": settings["points_sha256"][:16],
        "views": settings["views"],
    }


def _names(folders: Sequence[RunFolder]) -> list[str]:
    names = [title_of(folder.recipe().train.objective) for folder in folders]
    full = [f"{name} ({folder.path.name})" for name, folder in zip(names, folders, strict=True)]
    chosen = [long if names.count(name) > 1 else name for name, long in zip(names, full, strict=True)]
    got = f"runs of one objective in folders of the same name: {sorted(chosen)}"
    require(len(set(chosen)) == len(chosen), "--compare-with", got, "unique names", "Rename a folder.")
    return chosen


def _units(folder: RunFolder) -> pl.DataFrame:
    return pl.read_parquet(folder.path / "localize" / "units.parquet")
