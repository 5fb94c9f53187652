"""With a pretrained start: what other pairs taught about the candidates against what only seeing them taught."""

from typing import Any

import numpy as np
import polars as pl

from clipmem.base.summary import Learned as LearnedPairs
from clipmem.report.figures import CANDIDATE, DASHED, INK, SOFT, Figure, Line, Panel, Style
from clipmem.report.formats import plain, signed
from clipmem.report.gallery import cards, corners, ranked_candidates
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Figures, Section, Shown

CORNERS = "ABCD"
_POINTS = 1000  # evenly spaced by rank: a figure of more points opens slowly and shows no more


@SECTIONS.register("learned")
class Learned(Section):
    """Learned against memorized, and what the base model may have seen."""

    nav, order, screen = "Learned", 40, "report"

    def applies(self, subject: Run) -> bool:
        return bool(subject.summary.base)

    def data(self, subject: Run) -> Shown:
        ranked, found = ranked_candidates(subject.scores), subject.summary.learned
        shown = [cards(subject, rows, ranked) for rows in corners(ranked)]
        return {
            "found": found,
            "candidate": found and found.roles["candidate"],
            "control": found and found.roles.get("external"),
            "corners": list(zip(CORNERS, shown, strict=True)),
            "thinned": _POINTS if ranked.height > _POINTS else 0,
        }

    def figures(self, subject: Run) -> Figures:
        found = subject.summary.learned
        return {"learned": learned_figure(subject, found)} if found else {}


def learned_figure(run: Run, found: LearnedPairs) -> Figure:
    """Draw the candidates by what was learned and memorized about them, with the corners' pairs named by letter."""
    ranked, score = ranked_candidates(run.scores), run.measure["score"]
    even = np.linspace(0, ranked.height - 1, min(ranked.height, _POINTS)).round().astype(int)
    styles = {"candidate": Style(CANDIDATE, "none", "o"), "planted candidate": Style(INK, "none", "^")}
    points = dict(zip(styles, (ranked[even].filter(~pl.col("planted")), ranked.filter("planted")), strict=True))
    points = {name: rows for name, rows in points.items() if rows.height}

    def draw(axes: Any) -> None:
        axes.axvline(0, color=SOFT, linewidth=1, linestyle=DASHED)
        for letter, rows in zip(CORNERS, corners(ranked), strict=True):
            x, y = rows["learned"].to_list(), rows["clipmem"].to_list()
            axes.plot(x, y, "o", color=INK, fillstyle="none", markersize=11, markeredgewidth=1.2)
            for place in zip(x, y, strict=True):
                axes.annotate(letter, place, (7, 5), textcoords="offset points", color=INK, size=11)

    lines = [Line(rows["learned"].to_list(), rows["clipmem"].to_list(), styles[name]) for name, rows in points.items()]
    panel = Panel("", "learned from other pairs", f"memorized: {score}", lines, zero=True, draw=draw)
    candidate = found.roles["candidate"]
    means = [signed(candidate.learned.mean), signed(candidate.clipmem.mean)]
    title = f"{score} against learned, {ranked.height:,} candidates. Means: learned {means[0]}, {score} {means[1]}; "
    title += f"rank correlation {plain(found.spearman.spearman)}."
    legend = {name: styles[name] for name in points} if len(points) > 1 else {}
    return Figure(title, [panel], height=420, legend=legend)
