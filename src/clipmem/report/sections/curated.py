"""Output of `clipmem curate`: how many captions are wrong, how good the list is, and its first pairs with reasons."""

from typing import Any

from clipmem.report.sections import SECTIONS, Section
from clipmem.report.templating import reasons


@SECTIONS.register("curated")
class CuratedPairs(Section):
    """The suspects of a data set."""

    page, screen = "", "curated"

    def data(self, subject: Any) -> dict[str, Any]:
        return {
            "about": subject.document,
            "first": subject.first,
            "reasons": reasons(),
            "written": subject.written,
            "same_format": subject.written is not None and subject.written.same_format,
            "quarantine": str(subject.folder / "quarantine.parquet"),
        }
