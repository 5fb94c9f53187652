"""Lay localized runs beside each other: check that they compare, copy their curves, and write what they say.

What must be the same: data, split, architecture, seeds, presentations of pairs, and the pairs and views over which
UnitMem was taken. What may differ is the objective; every other setting that differs is written down and shown. A
presentation is one pair shown once: SimCLR sees two views of a picture in one presentation, so its image tower makes
twice as many passes.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe, flatten
from clipmem.localize.curves import compare_curves, curves_of
from clipmem.localize.run import SETTINGS_FILE
from clipmem.store import manifest
from clipmem.store.atomic import atomic_write
from clipmem.store.folder import RunFolder
from clipmem.store.hashing import json_sha256

TABLE, DOCUMENT = "localize/beside.parquet", "localize/beside.json"
NAMES = {"clip": "CLIP", "siglip": "SigLIP", "supervised": "supervised", "simclr": "SimCLR"}
_SAME_VIEWS = ("unit_role", "points_sha256", "views")
# these say how a run is scored and shown, and do not touch the curves
_NO_MATTER = ("score.", "embed.", "localize.", "train.objective", "train.simclr_temperature")


@dataclass(frozen=True)
class _Run:
    """A localized run and what must be the same in all of them."""

    folder: RunFolder
    recipe: Recipe
    record: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def same(self) -> dict[str, Any]:
        splits = self.folder.read("splits").sort("uid")
        return {
            "data": manifest.read(self.folder)["data_sha256"][:16],
            "split": f"{splits.height} pairs, {json_sha256(splits.rows())[:16]}",
            "architecture": self.recipe.model.name,
            "seeds": sorted(self.recipe.train.seeds),
            "presentations of pairs a model": self.record["presentations"],
            **{_words(name): self.settings[name] for name in _SAME_VIEWS},
        }


def write_beside(folder: RunFolder, others: Sequence[RunFolder]) -> list[Path]:
    """Write `localize/beside.parquet` and `beside.json` of a localized run.

    Args:
        folder: The run, which the others are laid beside.
        others: The other runs' folders; read only.

    Returns:
        The files written.

    Raises:
        InputError: A folder is named twice, is not localized, or does not compare with the run; both sides are shown.
    """
    first = _open(folder)
    runs = [first]
    for other in others:
        if any(other.path.resolve() == known.folder.path.resolve() for known in runs):
            raise InputError(
                "--beside", got=f"{other.path} twice", expected="other runs, each once", hint="Leave it out."
            )
        run = _open(other)
        _check(first, run)
        runs.append(run)
    names = _names(runs)
    curves = pl.concat(
        curves_of(_units(run.folder), run=name, objective=run.recipe.train.objective)
        for name, run in zip(names, runs, strict=True)
    )
    document = {
        "format": 1,
        "runs": [
            {
                "run": name,
                "objective": run.recipe.train.objective,
                "folder": run.folder.path.name,
                "presentations": run.record["presentations"],
                "views_a_presentation": run.record["views"],
                "differs": _differs(first.recipe, run.recipe),
            }
            for name, run in zip(names, runs, strict=True)
        ],
        "pairs": first.settings["points"],
        **compare_curves(curves, first.recipe.score.confidence),
    }
    stream = io.BytesIO()
    curves.write_parquet(stream, compression="zstd", statistics=False)
    atomic_write(folder.path / TABLE, stream.getvalue())
    return [folder.path / TABLE, folder.write_json(DOCUMENT, document)]


def forget_beside(folder: RunFolder) -> None:
    """Remove what `write_beside` wrote: the values it was made from are no more."""
    for name in (TABLE, DOCUMENT):
        (folder.path / name).unlink(missing_ok=True)


def _open(folder: RunFolder) -> _Run:
    recipe = folder.recipe()
    if not folder.is_done("localize") or not (folder.path / SETTINGS_FILE).is_file():
        raise InputError(
            f"run folder {folder.path}",
            got="a run that is not localized",
            expected="localize/ in it, with settings.json",
            hint=f"Run `clipmem localize {folder.path}` first.",
        )
    model = folder.model_dir("f", recipe.train.seeds[0]).relative_to(folder.path)
    return _Run(folder, recipe, folder.read_json(str(model / "record.json")), folder.read_json(SETTINGS_FILE))


def _check(first: _Run, other: _Run) -> None:
    there, here = other.same, first.same
    for name, value in here.items():
        if there[name] != value:
            got, expected = _apart(there[name], value)
            raise InputError(
                f"run folder {other.folder.path}: other {name}",
                got=got,
                expected=f"{expected}, as in {first.folder.path}",
                hint=_TODO.get(name, "Runs compare only where this is the same: train it again with this setting."),
            )


_TODO = {
    "views": "Localize both over the same views: set [localize] crop = 'own' in both recipes, or the same --views.",
    "pairs of UnitMem": "Localize both with the same --pairs.",
}


def _words(name: str) -> str:
    return {"points_sha256": "pairs of UnitMem", "unit_role": "role of UnitMem"}.get(name, name)


def _apart(got: Any, expected: Any) -> tuple[str, str]:
    """Write two values; of two mappings only what differs."""
    if isinstance(got, dict) and isinstance(expected, dict):
        keys = [key for key in expected if got.get(key) != expected[key]]
        got, expected = ({key: side.get(key) for key in keys} for side in (got, expected))
    return tuple(text[:16] if len(text) == 64 else text for text in map(str, (got, expected)))  # pyright: ignore[reportReturnType]


def _names(runs: Sequence[_Run]) -> list[str]:
    """Name runs by their objective, and by their folder as well where several have the same one."""
    names = [NAMES[run.recipe.train.objective] for run in runs]
    full = [f"{name} ({run.folder.path.name})" for name, run in zip(names, runs, strict=True)]
    chosen = [long if names.count(name) > 1 else name for name, long in zip(names, full, strict=True)]
    if len(set(chosen)) < len(chosen):
        raise InputError(
            "--beside",
            got=f"runs of one objective whose folders have the same name: {sorted(chosen)}",
            expected="names that tell them apart",
            hint="Rename a folder.",
        )
    return chosen


def _units(folder: RunFolder) -> pl.DataFrame:
    return pl.read_parquet(folder.path / "localize" / "units.parquet")


def _differs(first: Recipe, other: Recipe) -> dict[str, list[Any]]:
    """Map each setting that differs, beside the objective, to its values in the first run and in this one."""
    here, there = flatten(first), flatten(other)
    found = {
        key: [here[key], there[key]]
        for key in here
        if here[key] != there[key] and not key.startswith(_NO_MATTER) and key != "train.seeds"
    }
    return json.loads(json.dumps(found))
