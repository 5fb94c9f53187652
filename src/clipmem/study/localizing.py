"""`clipmem localize`: layers, units and towers of a finished four-way study."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.declared import declared
from clipmem.base.errors import require
from clipmem.base.folder import SIDES, RunFolder
from clipmem.base.hashing import json_sha256
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Recipe
from clipmem.base.tables import write_parquet
from clipmem.data.pairs import Pairs
from clipmem.measure.localize import SETTINGS_FILE, describe, localize, work
from clipmem.models.numerics import threads
from clipmem.report.curves import compare_curves, curves_of, title_of
from clipmem.report.fairness import Rule, check_once, check_same, differing
from clipmem.report.gallery import UNITS_TABLE
from clipmem.report.run import Run, read_finished
from clipmem.study.plan import PlannedStudy
from clipmem.study.stages import renew_report

TABLE, DOCUMENT = "localize/side_by_side.parquet", "localize/side_by_side.json"
# settings that do not affect the curves
_IGNORED = ("score.", "embed.", "localize.", "train.objective", "train.simclr_temperature", "train.seeds")


def localize_run(
    path: Path | str,
    *,
    views: int | None = None,
    pairs: int | None = None,
    compare_with: Sequence[Path | str] = (),
    reporter: Reporter | None = None,
) -> list[Path]:
    """Localize the memorization of a finished study; write `localize/` and the report."""
    reporter, run = reporter or Quiet(), Run(path)
    folder, recipe = run.folder, run.recipe
    paired = declared("protocols", recipe.protocol).paired
    right = paired and all((folder.path / "models" / side).is_dir() for side in SIDES)
    what, expected = f"run folder {folder.path}", "a four-way study"
    require(right, what, f"protocol {recipe.protocol!r}", expected, "Choose a run with protocol = 'four-way'.")
    _ = run.summary  # raises if the run is not finished
    with folder.locked():
        changes = {name: value for name, value in (("views", views), ("pairs", pairs)) if value is not None}
        section = recipe.localize.model_copy(update=changes)
        files = _measure(folder, recipe.model_copy(update={"localize": section}), reporter)
        if compare_with:
            files += write_side_by_side(folder, compare_with)
        reporter.begin("report")
        return [*files, *renew_report(folder)]


def _measure(folder: RunFolder, recipe: Recipe, reporter: Reporter) -> list[Path]:
    started, study = time.monotonic(), PlannedStudy(folder.path)
    pairs = localized_pairs(study)
    known = folder.is_done("localize") and (folder.path / SETTINGS_FILE).is_file()
    if known and folder.read_json(SETTINGS_FILE) == describe(pairs, recipe):
        reporter.end("localize", folder.seconds()["localize"], skipped=True)
        return []
    for name in (TABLE, DOCUMENT):  # outdated
        (folder.path / name).unlink(missing_ok=True)
    resources = study.execution
    reporter.begin("localize", work(pairs, recipe), "pairs")
    with threads(resources.threads * resources.workers):
        how: dict[str, Any] = {"device": resources.device, "progress": reporter.advance}
        files = localize(folder, pairs, recipe, study.opened.load, **how)
    folder.finish("localize", files, time.monotonic() - started)
    reporter.end("localize", time.monotonic() - started)
    return files


def localized_pairs(study: PlannedStudy) -> Pairs:
    """Return all pairs of a study, in the order of its split table."""
    label = study.pairs["label"].gather(study.rows).fill_null("")
    # captions that a model did not train on are views of those it did
    captions = pl.Series("captions", study.all_captions())
    table = study.splits.with_columns(label, captions, pl.Series("row", study.rows))
    return Pairs("study", table, pixels={one: study.pixels(one) for one in study.opened.geometries})


def write_side_by_side(folder: RunFolder, others: Sequence[Path | str]) -> list[Path]:
    """Write the curves of several localized runs, side by side."""
    check_once([folder.path, *others], "--compare-with")
    for path in (folder.path, *others):
        localized = RunFolder(path).is_done("localize") and (Path(path) / SETTINGS_FILE).is_file()
        hint = f"Run `clipmem localize {path}` first."
        require(localized, f"run folder {path}", "a run that is not localized", "a localized run", hint)
    runs = [read_finished(Path(path)) for path in (folder.path, *others)]
    for other in runs[1:]:
        check_same(runs[0], other, _RULES)
    names = _names(runs)
    curves = pl.concat(
        curves_of(run.table(UNITS_TABLE), run=name, objective=run.recipe.train.objective)
        for name, run in zip(names, runs, strict=True)
    )
    document = {
        "format": 1,
        "runs": [
            {
                "run": name,
                "objective": run.recipe.train.objective,
                "folder": run.path.name,
                "presentations": _record(run)["presentations"],
                "views_a_presentation": _record(run)["views"],
                "differs": differing(runs[0], run, _IGNORED),
            }
            for name, run in zip(names, runs, strict=True)
        ],
        "pairs": runs[0].document(SETTINGS_FILE)["points"],
        **compare_curves(curves, runs[0].recipe.score.confidence),
    }
    write_parquet(folder.path / TABLE, curves)
    return [folder.path / TABLE, folder.write_json(DOCUMENT, document)]


def _record(run: Run) -> Mapping[str, Any]:
    return run.records["f", run.seeds[0]]


def _settings(run: Run) -> Mapping[str, Any]:
    return run.document(SETTINGS_FILE)


_AGAIN = "Train it again with the same setting."
_VIEWS = "Localize both over the same views: set [localize] crop = 'own' in both recipes, or the same --views."
_RULES: tuple[Rule, ...] = (
    ("data", lambda run: run.manifest["data_sha256"][:16], _AGAIN),
    (
        "split",
        lambda run: f"{run.splits.height} pairs, {json_sha256(run.splits.sort('uid').rows())[:16]}",
        _AGAIN,
    ),
    ("architecture", lambda run: run.recipe.model.name or run.recipe.model.pretrained, _AGAIN),
    ("seeds", lambda run: run.seeds, _AGAIN),
    ("presentations of pairs per model", lambda run: _record(run)["presentations"], _AGAIN),
    ("pairs of UnitMem", lambda run: _settings(run)["points_sha256"][:16], "Localize both with the same --pairs."),
    ("views", lambda run: _settings(run)["views"], _VIEWS),
)


def _names(runs: Sequence[Run]) -> list[str]:
    titles = [title_of(run.recipe.train.objective) for run in runs]
    full = [f"{title} ({run.path.name})" for title, run in zip(titles, runs, strict=True)]
    names = [long if titles.count(title) > 1 else title for title, long in zip(titles, full, strict=True)]
    got = f"runs of one objective in folders of the same name: {sorted(names)}"
    require(len(set(names)) == len(names), "--compare-with", got, "unique names", "Rename a folder.")
    return names
