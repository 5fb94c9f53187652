"""The review of suspects in the explorer: counted and ordered without torch, and written as data."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from clipmem import study
from clipmem.base.errors import InputError
from clipmem.base.marks import latest_marks
from clipmem.base.progress import Reporter
from clipmem.curation.suspects import Curation, apply_marks, expected_wrong, ordered


class Review:
    """What people decide about the suspects in a folder that `clipmem curate` wrote.

    Args:
        folder: The folder, with `curate.json`, `ranking.parquet` and the marks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def ranking(self) -> Curation:
        """The ranking before marks.

        Raises:
            InputError: There is none.
        """
        try:
            document = json.loads((self.folder / "curate.json").read_text(encoding="utf-8"))
            ranking = Curation(pl.read_parquet(self.folder / "ranking.parquet"), document)
            ranking.check()
        except (OSError, ValueError, LookupError, TypeError, RecursionError, pl.exceptions.PolarsError) as error:
            hint = "Run clipmem curate again: marks are kept."
            raise InputError(
                f"{self.folder}", got="no ranking", expected="that of clipmem curate", hint=hint
            ) from error
        return ranking

    def state(self) -> dict[str, Any]:
        """Return the suspects in order, and how many are wrong (`expected`: number, low, high; see `expected_wrong`).

        The list has the suspects of the ranking and the other pairs that somebody marked wrong. `learned`: whether
        their order is learned from the marks.
        """
        marks = {uid: mark.mark for uid, mark in latest_marks(self.folder / "suspects.parquet").items()}
        after, before = apply_marks(self.ranking, marks), self.ranking.table.filter("is_suspect")
        listed = {*before["uid"], *(uid for uid, mark in marks.items() if mark == "wrong")}
        is_wrong, is_fine = (
            before["uid"].is_in([uid for uid, mark in marks.items() if mark == name]).to_numpy()
            for name in ("wrong", "fine")
        )
        number = expected_wrong(before["probability"].to_numpy(), is_wrong | is_fine, is_wrong)
        return {
            "suspects": [uid for uid in ordered(after.table)["uid"] if uid in listed],
            "expected": dict(zip(("number", "low", "high"), number, strict=True)),
            "learned": bool(after.document["marks"]["used"]),
        }

    def write(self, path: Path, reporter: Reporter, *, correct: bool, reviewed: bool) -> dict[str, Any]:
        """Write the data as people decided, without ranking them again; return what was written.

        Raises:
            InputError: The data changed since, or the folder is not free.
        """
        about, curating = self.ranking.document, study.curating
        how = curating.Curating(
            about.get("model") or "",
            about.get("captions"),
            self.folder,
            path,
            correct,
            about.get("device", "auto"),
            reviewed,
            ranked=True,
        )
        data = about["data"] if about["run"] else about["section"]
        return curating.curate_and_write(data, how, reporter).document["written"]
