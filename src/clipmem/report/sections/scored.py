"""Output of `clipmem score`: the spread of the scores, the highest pairs, the control, and the caveat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.report.sections import SECTIONS, Section
from clipmem.report.templating import measure_of, words_of


@dataclass(frozen=True)
class Scored:
    """Scores of given models, `scores.json` (`about`), captions of the highest candidates, path of the quarantine."""

    scores: pl.DataFrame
    about: Mapping[str, Any]
    captions: Mapping[str, Sequence[str]]
    quarantine: Path | None = None


@SECTIONS.register("scored")
class ScoredPairs(Section):
    """The spread of the scores of two given models, and the highest pairs."""

    page, screen = "", "scored"

    def data(self, subject: Scored) -> dict[str, Any]:
        roles = {role: subject.scores.filter(pl.col("role") == role)["clipmem"] for role in ("candidate", "external")}
        spread = [
            (role, len(own), {name: getattr(own, name)() for name in ("mean", "std", "median", "min", "max")})
            for role, own in roles.items()
            if len(own)
        ]
        ranked = subject.scores.filter(pl.col("role") == "candidate").sort("clipmem", "uid", descending=[True, False])
        first = ranked.head(len(subject.captions)).to_dicts()
        words = words_of({"protocol": "given"})
        return {
            "about": subject.about,
            "measure": measure_of(subject.about),
            "quarantine": str(subject.quarantine),
            "words": words,
            "caveat": words["caveat"],
            "spread": spread,
            "candidates": ranked.height,
            "first": [row | {"caption": next(iter(subject.captions[row["uid"]]), "")} for row in first],
        }

    def document(self, subject: Scored) -> Mapping[str, Any]:
        shown = self.data(subject)
        return {**subject.about, "spread": shown["spread"], "highest": shown["first"]}
