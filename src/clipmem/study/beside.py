"""Compare localized runs: check that they compare, copy their curves, and write what they show.

What must be the same: data, split, architecture, seeds, presentations of pairs, and the pairs and views over which
UnitMem was taken. What may differ is the objective; every other setting that differs is written down and shown. A
presentation is one pair shown once: SimCLR sees two views of an image in one presentation, so its image tower makes
twice as many passes.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.analysis.curves import NAMES, compare_curves, curves_of
from clipmem.analysis.fairness import apart, differing
from clipmem.base.require import require
from clipmem.localize.run import SETTINGS_FILE
from clipmem.report.read import read_finished
from clipmem.store import manifest
from clipmem.store.atomic import atomic_write
from clipmem.store.folder import RunFolder
from clipmem.store.hashing import json_sha256

TABLE, DOCUMENT = "localize/beside.parquet", "localize/beside.json"
# these say how a run is scored and shown, and do not touch the curves
_NO_MATTER = ("score.", "embed.", "localize.", "train.objective", "train.simclr_temperature", "train.seeds")
_HINTS = {
    "views": "Localize both over the same views: set [localize] crop = 'own' in both recipes, or the same --views.",
    "pairs of UnitMem": "Localize both with the same --pairs.",
}


def write_beside(folder: RunFolder, others: Sequence[RunFolder]) -> list[Path]:
    """Write `localize/beside.parquet` and `beside.json` of a localized run, compared with other runs' folders.

    Raises:
        InputError: A folder is named twice, is not localized, or does not compare with the run; both sides are shown.
    """
    folders = [folder, *others]
    paths = [one.path.resolve() for one in folders]
    twice = [str(one.path) for k, one in enumerate(folders) if paths[k] in paths[:k]]
    require(not twice, "--beside", f"{twice} twice", "other runs, each once", "Omit it.")
    for one in folders:
        localized = one.is_done("localize") and (one.path / SETTINGS_FILE).is_file()
        hint = f"Run `clipmem localize {one.path}` first."
        require(localized, f"run folder {one.path}", "a run that is not localized", "localize/ in it", hint)
    same = [_must_agree(one) for one in folders]
    for other, found in zip(folders[1:], same[1:], strict=True):
        for name, here in same[0].items():
            got, expected = (str(value) for value in apart(found[name], here))
            hint = _HINTS.get(name, "Train it again with this setting: runs compare only where it is the same.")
            what = f"run folder {other.path}: other {name}"
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
                "differs": differing(runs[0], run, _NO_MATTER),
            }
            for one, name, run, record in zip(folders, names, runs, records, strict=True)
        ],
        "pairs": folder.read_json(SETTINGS_FILE)["points"],
        **compare_curves(curves, runs[0].recipe.score.confidence),
    }
    stream = io.BytesIO()
    curves.write_parquet(stream, compression="zstd", statistics=False)
    atomic_write(folder.path / TABLE, stream.getvalue())
    return [folder.path / TABLE, folder.write_json(DOCUMENT, document)]


def forget_beside(folder: RunFolder) -> None:
    """Remove what `write_beside` wrote: the values it was made from are no more."""
    for name in (TABLE, DOCUMENT):
        (folder.path / name).unlink(missing_ok=True)


def _must_agree(folder: RunFolder) -> Mapping[str, Any]:
    recipe, splits, settings = folder.recipe(), folder.read("splits").sort("uid"), folder.read_json(SETTINGS_FILE)
    first = folder.model_dir("f", recipe.train.seeds[0]).relative_to(folder.path)
    return {
        "data": manifest.read(folder)["data_sha256"][:16],
        "split": f"{splits.height} pairs, {json_sha256(splits.rows())[:16]}",
        "architecture": recipe.model.name,
        "seeds": sorted(recipe.train.seeds),
        "presentations of pairs a model": folder.read_json(f"{first}/record.json")["presentations"],
        "role of UnitMem": settings["unit_role"],
        "pairs of UnitMem": settings["points_sha256"][:16],
        "views": settings["views"],
    }


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """Name runs by their objective, and by their folder as well where several have the same one."""
    names = [NAMES[folder.recipe().train.objective] for folder in folders]
    full = [f"{name} ({folder.path.name})" for name, folder in zip(names, folders, strict=True)]
    chosen = [long if names.count(name) > 1 else name for name, long in zip(names, full, strict=True)]
    got = f"runs of one objective whose folders have the same name: {sorted(chosen)}"
    require(len(set(chosen)) == len(chosen), "--beside", got, "names that tell them apart", "Rename a folder.")
    return chosen


def _units(folder: RunFolder) -> pl.DataFrame:
    return pl.read_parquet(folder.path / "localize" / "units.parquet")
