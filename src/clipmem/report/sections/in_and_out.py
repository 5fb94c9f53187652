"""The largest scores of a study of many models, with each model that trained on the pair or did not."""

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from clipmem.report.figures import CANDIDATE, INK, LINE, PAPER, SOFT, Sketch
from clipmem.report.formats import signed
from clipmem.report.gallery import cards, ranked_candidates
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Section, Shown

SHOWN = 6
_DOTS_HIGH = 5
Numbers = NDArray[np.float64]


@SECTIONS.register("in-and-out")
class InAndOut(Section):
    """The largest scores, model by model, when every model trains on its own part of the pairs."""

    nav, order = "In and out", 60

    def applies(self, subject: Run) -> bool:
        return bool(subject.words["per_model"])

    def data(self, subject: Run) -> Shown:
        ranked = ranked_candidates(subject.scores)
        rows = [{**card, **_sides(subject, card["uid"])} for card in cards(subject, ranked.head(SHOWN), ranked)]
        values = np.concatenate([np.zeros(0), *(row[side] for row in rows for side in ("with_it", "without_it"))])
        ends = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        axis = subject.measure["axis"]
        for number, row in enumerate(rows, start=1):
            svg = _figure(number, row["with_it"], row["without_it"], ends, axis)
            row["svg"] = Markup(svg)  # noqa: S704  matplotlib escapes its text
        return {"pairs": rows, **model_counts(subject.seed_scores, subject.scores)}


def _sides(run: Run, uid: str) -> dict[str, Numbers]:
    rows = run.seed_scores.filter(pl.col("uid") == uid).sort("seed")
    with_it, without_it = (rows[name].drop_nulls().drop_nans().to_numpy() for name in ("f", "g"))
    return {"with_it": with_it, "without_it": without_it}


def model_counts(seed_scores: pl.DataFrame, scores: pl.DataFrame) -> dict[str, int]:
    """Return the number of models, and the fewest and most of them that trained on a candidate."""
    candidates = scores.filter(pl.col("role") == "candidate")
    own = seed_scores.join(candidates.select("uid"), on="uid", how="semi")
    counts = own.group_by("uid").agg(trained=pl.col("f").is_not_null().sum())["trained"].to_list()
    return {"models": seed_scores["seed"].n_unique(), "least": min(counts, default=0), "most": max(counts, default=0)}


def stacked(values: Numbers, cell: float) -> tuple[Numbers, NDArray[np.int64]]:
    """Move values to the center of their cell of the axis, and stack those of one cell; return heights from 0.

    Example:
        >>> [part.round(2).tolist() for part in stacked(np.array([0.32, 0.01, 0.02]), 0.1)]
        [[0.05, 0.05, 0.35], [0, 1, 0]]
    """
    cells = np.sort(np.floor(values / cell))
    first = np.searchsorted(cells, cells)
    return (cells + 0.5) * cell, np.arange(cells.size) - first


def _figure(number: int, with_it: Numbers, without_it: Numbers, ends: tuple[float, float], axis: str) -> str:
    margin = 0.06 * ((ends[1] - ends[0]) or 1.0)
    low, high = ends[0] - margin, ends[1] + margin
    with Sketch(f"inout{number}-small", 300, 136) as sketch:
        axes = sketch.figure.add_axes((0.02, 0.33, 0.96, 0.66))
        axes.set_xlim(low, high)
        axes.set_ylim(-0.15, 2)
        rows = ((1.0, with_it, "trained on it", CANDIDATE, PAPER), (0.0, without_it, "did not", PAPER, INK))
        for base, values, name, face, edge in rows:
            axes.plot([low, high], [base - 0.08] * 2, color=LINE, linewidth=1)
            axes.text(0, base + 0.66, f"{name} ({values.size:,})", transform=axes.get_yaxis_transform(), size=12)
            if not values.size:
                continue
            places, heights = stacked(values, (high - low) / 36)
            step = 0.55 / max(_DOTS_HIGH, int(heights.max()) + 1)
            axes.plot(
                places,
                base + 0.06 + step * heights,
                "o",
                color=face,
                markeredgecolor=edge,
                markerfacecolor=face,
                markeredgewidth=0.7 if edge == PAPER else 1.1,
                markersize=7 if values.size <= 40 else 5,
            )
            axes.plot([values.mean()] * 2, [base - 0.14, base + 0.6], color=INK, linewidth=1.8)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_color(SOFT)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(labelsize=12)
        axes.set_xlabel(axis, size=12)
        means = [signed(float(values.mean()) if values.size else None) for _, values, *_ in rows]
        return sketch.svg(
            f"{axis} under each model. Means: {means[0]} over {with_it.size} models that trained on the pair, "
            f"{means[1]} over {without_it.size} that did not."
        )
