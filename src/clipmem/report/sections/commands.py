"""Screens of single commands: score, curate, validate-estimators, demo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.report.sections import SECTIONS, Document, Section, Shown
from clipmem.report.templating import measure_of, reasons, words_of


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

    def data(self, subject: Scored) -> Shown:
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

    def document(self, subject: Scored) -> Document:
        shown = self.data(subject)
        return {**subject.about, "spread": shown["spread"], "highest": shown["first"]}


@SECTIONS.register("curated")
class CuratedPairs(Section):
    """The suspects of a data set."""

    page, screen = "", "curated"

    def data(self, subject: Any) -> Shown:
        return {
            "about": subject.document,
            "first": subject.first,
            "reasons": reasons(),
            "written": subject.written,
            "same_format": subject.written is not None and subject.written.same_format,
            "quarantine": str(subject.folder / "quarantine.parquet"),
        }


@SECTIONS.register("validated")
class Validated(Section):
    """Agreement of every estimator with the truth, by cost."""

    page, screen = "", "validated"

    def data(self, subject: Document) -> Shown:
        return {"found": subject}


@SECTIONS.register("next-steps")
class NextSteps(Section):
    """The commands to try next."""

    page, screen = "", "next"

    def document(self, subject: Any) -> Document:  # noqa: ARG002
        return {}
