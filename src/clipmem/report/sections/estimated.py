"""Output of `clipmem score` with one model or none: the highest pairs, and that this is an estimate without twins."""

from typing import Any

import polars as pl

from clipmem.report.sections import SECTIONS, Section, Shown


@SECTIONS.register("estimated")
class EstimatedPairs(Section):
    """The pairs that one model, pixels and words put first."""

    page, screen = "", "estimated"

    def data(self, subject: Any) -> Shown:
        ranked = subject.scores.filter(pl.col("estimator") == subject.about["estimator"])
        rows = {row["uid"]: row for row in ranked.iter_rows(named=True)}
        return {
            "about": subject.about,
            "quarantine": str(subject.quarantine),
            "first": [rows[uid] | {"caption": next(iter(own), "")} for uid, own in subject.captions.items()],
        }
