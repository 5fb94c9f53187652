"""Screens of single commands: inspect, score, run --budget, curate, validate-estimators."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.data.skipped import ignored_sentence, records_sentence
from clipmem.report.sections import SECTIONS, Document, ScreenSection, Shown
from clipmem.report.templating import measure_of, words_of


@SECTIONS.register("inspected")
class Inspected(ScreenSection):
    """Format, size, problems, samples and cost of a data set."""

    def data(self, subject: Document) -> Shown:
        records = subject["records"]
        return {"records": records_sentence(records), "ignored": ignored_sentence(records["ignored"])}


@SECTIONS.register("model")
class Model(ScreenSection):
    """Parts of a model, with the number of their parameters."""


@dataclass(frozen=True)
class Scored:
    """Scores of existing models, `scores.json` (`about`), captions of the highest candidates, path of the skipped."""

    scores: pl.DataFrame
    about: Document
    captions: Mapping[str, Sequence[str]]
    skipped: Path | None = None

    def highest(self, table: pl.DataFrame) -> list[Document]:
        """Return the rows of the highest candidates with their first captions."""
        uids = pl.DataFrame({"uid": list(self.captions)}, schema={"uid": pl.String})
        rows = uids.join(table, "uid", maintain_order="left").iter_rows(named=True)
        return [row | {"caption": next(iter(self.captions[row["uid"]]), "")} for row in rows]


@SECTIONS.register("scored")
class ScoredPairs(ScreenSection):
    """The spread of the scores of two given models, and the highest pairs."""

    def data(self, subject: Scored) -> Shown:
        of_role = subject.scores.select("role", "clipmem").partition_by("role", as_dict=True, include_key=False)
        roles = {role: of_role[role,]["clipmem"] for role in ("candidate", "external") if (role,) in of_role}
        spread = [
            (role, len(scores), {name: getattr(scores, name)() for name in ("mean", "std", "median", "min", "max")})
            for role, scores in roles.items()
        ]
        return {
            "measure": measure_of(subject.about.get("alignment", "clip")),
            "words": words_of("given"),
            "spread": spread,
            "candidates": len(roles.get("candidate", ())),
            "first": subject.highest(subject.scores),
        }

    def document(self, subject: Scored) -> Document:
        content = self.data(subject)
        return {**subject.about, "spread": content["spread"], "highest": content["first"]}


@SECTIONS.register("estimated")
class EstimatedPairs(ScreenSection):
    """The pairs that one model, pixels and words put first."""

    def data(self, subject: Any) -> Shown:
        return {"first": subject.highest(subject.scores.filter(estimator=subject.about["estimator"]))}

    def document(self, subject: Any) -> Document:
        return {**subject.about, "highest": self.data(subject)["first"]}


@SECTIONS.register("traced")
class TracedSimilarity(ScreenSection):
    """The training pairs that raised and lowered the similarity of an image and a caption."""


@SECTIONS.register("budget")
class Budget(ScreenSection):
    """The estimator and shadow models chosen for a budget, and better ones that cost more."""

    def data(self, subject: Any) -> Shown:
        rows = [("this budget", subject.chosen), *(("better", plan) for plan in subject.better)]
        # rounded up, so that a budget of what is printed buys it
        prices = [math.ceil(100 * plan.cost - 1e-6) / 100 for _, plan in rows]
        return {"rows": list(zip(rows, prices, strict=True))}

    def document(self, subject: Any) -> Document:  # noqa: ARG002  the document of the run follows
        return {}


@SECTIONS.register("curated")
class CuratedPairs(ScreenSection):
    """The suspects of a data set."""

    def document(self, subject: Any) -> Document:
        return {**subject.document, "first": subject.first}


@SECTIONS.register("validated")
class Validated(ScreenSection):
    """Agreement of every estimator with the truth, by cost."""
