"""What a study does with the parents that its mitigations name: they are read, checked, and pairs are taken out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe
from clipmem.mitigate.base import edit, parents_of
from clipmem.mitigate.parent import Parent, check_known
from clipmem.store import manifest
from clipmem.store.folder import RunFolder

Parents = Mapping[str, Parent]


def find_parents(recipe: Recipe, folder: RunFolder, uids: pl.Series) -> Parents:
    """Read the parents that the recipe names; none once the plan is made, which keeps what is needed of them.

    Args:
        recipe: The recipe.
        folder: The run folder; it need not exist yet.
        uids: The pairs of the data.

    Raises:
        InputError: A parent cannot be read, has other pairs, or is not the one that the folder was begun with.
    """
    if folder.is_done("plan"):
        return {}
    parents, known = parents_of(recipe), frozenset(uids)
    for name, parent in parents.items():
        check_known(parent, known, f"[mitigate.{name}]")
    if (folder.path / "manifest.json").is_file():
        there: dict[str, Any] = manifest.read(folder).get("parents", {})
        for name, parent in parents.items():
            _compare(folder, name, there.get(name, {}), parent)
    return parents


def _compare(folder: RunFolder, name: str, there: Mapping[str, Any], parent: Parent) -> None:
    now = parent.described["scores_sha256"]
    if there.get("scores_sha256") != now:
        raise InputError(
            f"run folder {folder.path} was made with other scores ([mitigate.{name}])",
            got=f"SHA-256 {there.get('scores_sha256', 'none')[:16]} there, {now[:16]} of {parent.path} now",
            hint="Choose another --out DIR, or put the original scores back.",
        )


def describe(parents: Parents) -> dict[str, Any]:
    """Say what the manifest says of the parents; nothing where there are none."""
    return {"parents": {name: parent.described for name, parent in parents.items()}} if parents else {}


def take_out(
    recipe: Recipe, folder: RunFolder, splits: pl.DataFrame, parents: Parents
) -> tuple[pl.DataFrame, list[Path]]:
    """Let the recipe's mitigations edit the split table; return it and the files written."""
    edited, tables = edit(recipe, splits, parents)
    return edited, [folder.write(name, table) for name, table in tables.items()]
