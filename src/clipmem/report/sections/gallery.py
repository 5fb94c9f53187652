"""The most and the least memorized pairs."""

from typing import Any

from clipmem.report.gallery import cards, pick, ranked_candidates
from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section

_IN_TERMINAL = 10


@SECTIONS.register("gallery")
class Gallery(Section):
    """The most and the least memorized pairs, with images and captions."""

    nav, order, screen = "Pairs", 50, "report"

    def data(self, subject: RunFiles) -> dict[str, Any]:
        ranked = ranked_candidates(subject.scores)
        most, least = (cards(subject, rows, ranked) for rows in pick(ranked))
        first = cards(subject, ranked.head(_IN_TERMINAL), ranked)
        return {"ranked": ranked.height, "most": most, "least": least, "first": first}
