"""How well the score finds planted pairs, compared with low alignment under a model that never saw them."""

from typing import Any

import polars as pl

from clipmem.base.summary import Planted as PlantedPairs
from clipmem.report.figures import CANDIDATE, DASHED, INK, SOFT, Figure, Line, Panel, Style
from clipmem.report.formats import higher_of, interval, plain
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Figures, Section, Shown
from clipmem.stats.ranking import roc_curve


@SECTIONS.register("planted")
class Planted(Section):
    """How well the score finds pairs trained with another pair's captions."""

    nav, order, screen = "Planted pairs", 120, "report"

    def data(self, subject: Run) -> Shown:
        planted = subject.summary.planted
        if planted is None:
            return {"planted": None}
        rival = planted.reference_alignment_auroc
        return {"planted": planted, "rival": rival, "side": higher_of(planted, rival)}

    def figures(self, subject: Run) -> Figures:
        planted = subject.summary.planted
        return {"roc": roc_figure(subject, planted)} if planted else {}


def roc_figure(run: Run, planted: PlantedPairs) -> Figure:
    """Draw ROC curves of the score, and of low alignment without the pair, for planted pairs among the candidates."""
    words, measure, rival = run.words, run.measure, planted.reference_alignment_auroc
    aligned = pl.col("g_positive") - run.summary.weight * (pl.col("g_image_bank") + pl.col("g_text_bank"))
    rows = run.scores.filter(pl.col("role") == "candidate").select("planted", low_alignment=-aligned)
    rows = rows.filter(pl.col("low_alignment").is_finite())
    is_planted = rows["planted"].to_numpy()
    legend = {
        f"{measure['score']}, AUROC {plain(planted.auroc)}": Style(CANDIDATE, "-", ""),
        f"{measure['rival']}{words['reference_legend']}, {plain(rival.auroc)}": Style(INK, DASHED, ""),
        "chance, 0.500": Style(SOFT, (0, (1, 3)), ""),
    }
    own, alone, chance = legend.values()
    lines = [Line([0, 1], [0, 1], chance)]
    if is_planted.any() and not is_planted.all():
        curve = roc_curve(rows["low_alignment"].to_numpy(), is_planted)
        lines.append(Line(curve.fpr.tolist(), curve.tpr.tolist(), alone))
    lines.append(Line(planted.roc["fpr"], planted.roc["tpr"], own))

    def percent(axes: Any) -> None:
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
        axes.set_yticks([0, 0.5, 1], ["0", "50%", "100%"])

    axis = "share of the planted pairs found"
    panel = Panel("", "share of the other candidates flagged", axis, lines, xlim=(-0.01, 1.06), draw=percent)
    title = (
        f"ROC curves of the planted pairs. AUROC of {measure['score']}: {plain(planted.auroc)} {interval(planted)}; "
        f"of {measure['rival']} {words['reference']}: {plain(rival.auroc)} {interval(rival)}."
    )
    return Figure(title, [panel], height=380, width=400, legend=legend)
