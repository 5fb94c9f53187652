"""Output of `clipmem inspect`: format, size, problems, samples, and the cost of a study."""

from clipmem.data.quarantine import ignored_sentence, records_sentence
from clipmem.report.sections import SECTIONS, Document, Section, Shown

_REASONS, _COUNTS = 12, 8


@SECTIONS.register("inspected")
class Inspected(Section):
    """Format, size, problems, samples and cost of a data set."""

    page, screen = "", "inspected"

    def data(self, subject: Document) -> Shown:
        counts = list(subject["captions"]["per_pair"].items())
        shown = counts if len(counts) <= _COUNTS else counts[: _COUNTS - 1]
        reasons = subject["problems"]["reasons"]
        return {
            "records": records_sentence(subject["records"]),
            "ignored": ignored_sentence(subject["records"]["ignored"]),
            "per_pair": shown,
            "more_captions": sum(n for _, n in counts[len(shown) :]),
            "reasons": reasons[:_REASONS],
            "other_reasons": len(reasons[_REASONS:]),
            "other_records": sum(entry["count"] for entry in reasons[_REASONS:]),
        }
