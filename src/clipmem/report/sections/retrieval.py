"""How well the models find the right caption or image of held-out pairs."""

from typing import Any

from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section
from clipmem.report.templating import words_of


@SECTIONS.register("retrieval")
class Retrieval(Section):
    """Recall and median rank of retrieval on held-out pairs."""

    nav, order = "Retrieval", 140

    def data(self, subject: RunFiles) -> dict[str, Any]:
        found = subject.summary["retrieval"]
        sides = [side for side in words_of(subject.summary)["columns"] if side in found]
        ranks = [f"{way}_retrieval_median_rank" for way in ("image", "text")]
        return {"found": found, "sides": sides, "has_rank": all(rank in found[s] for s in sides for rank in ranks)}
