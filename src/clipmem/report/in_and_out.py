"""The pairs with the largest scores of a subsample study, model by model: had it against had it not.

A score is a difference of two means. Here is what they are means of, so that a pair whose score rests on one stray
model can be told from one that every model with it aligns.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipmem.report.figures import Numbers
from clipmem.report.gallery import Card
from clipmem.report.numbers import plain, signed
from clipmem.report.svg import CANDIDATE, INK, LINE, PAPER, SOFT, Sketch

SHOWN = 6
_DOTS_HIGH = 5


@dataclass(frozen=True)
class InAndOut:
    """One pair: its card, the numbers of models, and the figure as SVG text."""

    card: Card
    count_in: int
    count_out: int
    svg: str


def model_counts(seed_scores: pl.DataFrame, scores: pl.DataFrame) -> dict[str, int]:
    """Count, over the candidates, the models that had a pair.

    Args:
        seed_scores: The table `seed_scores`: f where the model had the pair, g where it had not.
        scores: The table `scores`.

    Returns:
        models; least and most of the models that had a pair, which are equal since the draw is balanced.
    """
    candidates = scores.filter(pl.col("role") == "candidate")
    own = seed_scores.join(candidates.select("uid"), on="uid", how="semi")
    counts = own.group_by("uid").agg(had=pl.col("f").is_not_null().sum())["had"]
    return {
        "models": seed_scores["seed"].n_unique(),
        "least": int(counts.min() or 0),  # pyright: ignore[reportArgumentType]  a column of whole numbers
        "most": int(counts.max() or 0),  # pyright: ignore[reportArgumentType]
    }


def in_and_out(cards: list[Card], seed_scores: pl.DataFrame, measure: str) -> list[InAndOut]:
    """Draw some pairs' alignment under the models that had them and under those that had not, on one axis for all.

    Args:
        cards: The pairs' cards.
        seed_scores: The table `seed_scores`.
        measure: What is on the axis.
    """
    of_uid: Mapping[str, pl.DataFrame] = {
        str(key[0]): rows
        for key, rows in seed_scores.filter(pl.col("uid").is_in([card.uid for card in cards]))
        .sort("seed")
        .partition_by("uid", as_dict=True)
        .items()
    }
    sides: list[tuple[Numbers, Numbers]] = []
    for card in cards:
        rows = of_uid.get(card.uid, seed_scores.clear())
        had, had_not = (rows[name].drop_nulls().drop_nans().to_numpy() for name in ("f", "g"))
        sides.append((had, had_not))
    everything = np.concatenate([np.zeros(0), *(values for pair in sides for values in pair)])
    ends = (float(everything.min()), float(everything.max())) if everything.size else (0.0, 1.0)
    return [
        InAndOut(card, had.size, had_not.size, _figure(number, had, had_not, ends, measure))
        for number, (card, (had, had_not)) in enumerate(zip(cards, sides, strict=True), start=1)
    ]


def stacked(values: Numbers, cell: float) -> tuple[Numbers, NDArray[np.int64]]:
    """Move values to the middle of their cell of the axis, and stack those of one cell: each gets its height, from 0.

    Example:
        >>> [part.round(2).tolist() for part in stacked(np.array([0.32, 0.01, 0.02]), 0.1)]
        [[0.05, 0.05, 0.35], [0, 1, 0]]
    """
    cells = np.sort(np.floor(values / cell))
    first = np.searchsorted(cells, cells)
    return (cells + 0.5) * cell, np.arange(cells.size) - first


def _figure(number: int, had: Numbers, had_not: Numbers, ends: tuple[float, float], measure: str) -> str:
    margin = 0.06 * ((ends[1] - ends[0]) or 1.0)
    low, high = ends[0] - margin, ends[1] + margin
    with Sketch(f"inout{number}-small", 300, 136) as sketch:
        axes = sketch.figure.add_axes((0.02, 0.33, 0.96, 0.66))
        axes.set_xlim(low, high)
        axes.set_ylim(-0.15, 2)
        rows = ((1.0, had, "had it", CANDIDATE, PAPER), (0.0, had_not, "had not", PAPER, INK))
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
        axes.set_xlabel(measure, size=12)
        means = " and ".join(
            f"{name} {signed(float(values.mean()) if values.size else None)} ({plain(values.size, 0)} models)"
            for _, values, name, _, _ in rows
        )
        return sketch.svg(f"{measure} under each model. Means: {means}.")
