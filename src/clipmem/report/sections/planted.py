"""How well the score finds planted pairs, compared with low alignment under a model that never saw them."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipmem.base.summary import Planted as PlantedPairs
from clipmem.report.figures import CANDIDATE, INK, SOFT, Sketch
from clipmem.report.formats import higher_of, interval, plain
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Figures, Section, Shown

Numbers = NDArray[np.float64]


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
        return {"roc": lambda size: roc_figure(subject, planted, size)} if planted else {}


def roc_points(score: Numbers, positive: NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
    """Return false- and true-positive rates from (0, 0) to (1, 1); higher scores mean positive."""
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], positive[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    true, false = np.cumsum(hits)[last], np.cumsum(~hits)[last]
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def roc_figure(run: Run, planted: PlantedPairs, size: str) -> str:
    """Draw ROC curves of the score, and of low alignment without the pair, for planted pairs among the candidates."""
    words, measure, weight = run.words, run.measure, run.summary.weight
    reference = planted.reference_alignment_auroc
    aligned = pl.col("g_positive") - weight * (pl.col("g_image_bank") + pl.col("g_text_bank"))
    rows = run.scores.filter(pl.col("role") == "candidate").select("planted", low_alignment=-aligned)
    rows = rows.filter(pl.col("low_alignment").is_finite())
    is_planted = rows["planted"].to_numpy()
    side = 400 if size == "wide" else 360
    styles: list[dict[str, Any]] = [
        {"color": CANDIDATE, "linewidth": 2.4},
        {"color": INK, "linewidth": 1.6, "linestyle": (0, (5, 3))},
        {"color": SOFT, "linewidth": 1, "linestyle": (0, (1, 3))},
    ]
    with Sketch(f"roc-{size}", side, side) as sketch:
        axes = sketch.figure.add_axes((0.14, 0.13, 0.79, 0.80))
        axes.plot([0, 1], [0, 1], **styles[2])
        if is_planted.any() and not is_planted.all():
            axes.plot(*roc_points(rows["low_alignment"].to_numpy(), is_planted), **styles[1])
        axes.plot(planted.roc["fpr"], planted.roc["tpr"], **styles[0])
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_xlabel("share of the other candidates flagged")
        axes.set_ylabel("share of the planted pairs found")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
        axes.set_yticks([0, 0.5, 1], ["0", "50%", "100%"], rotation=90, va="center")
        labels = [
            f"{measure['score']}, AUROC {plain(planted.auroc)}",
            f"{measure['rival']}{words['reference_legend']}, {plain(reference.auroc)}",
            "chance, 0.500",
        ]
        handles = [axes.plot([], [], **style)[0] for style in styles]
        axes.legend(handles=handles, labels=labels, loc="lower right", fontsize=12).set_zorder(5)
        return sketch.svg(
            f"ROC curves of the planted pairs. AUROC of {measure['score']}: {plain(planted.auroc)} "
            f"{interval(planted)}; of {measure['rival']} {words['reference']}: {plain(reference.auroc)} "
            f"{interval(reference)}."
        )
