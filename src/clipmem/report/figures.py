"""The figures of a report, as SVG text: role distributions, the ROC of planted pairs, training curves.

Each is drawn twice, `wide` and `narrow`, because a figure shrunk to a phone has unreadable text; the page
shows the one that fits. No figure relies on colour alone: rows are labelled, f is solid and g dashed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray

from clipmem.report.numbers import interval, plain, signed
from clipmem.report.read import ROLES, TrainingLog
from clipmem.report.svg import CANDIDATE, EXTERNAL, INDEPENDENT, INK, LINE, SHARED, SOFT, Sketch
from clipmem.report.words import CURVE_NAMES, curve_group, measure_of, words_of

SIZES = {"wide": 860, "narrow": 360}
COLORS = {"candidate": CANDIDATE, "independent": INDEPENDENT, "shared": SHARED, "external": EXTERNAL}
_MARKS = 250  # at most so many points of a role are drawn: a file with 65,000 marks opens slowly and shows no more
_CURVE_POINTS = 300
_FAINT_CURVES = 24  # with more models than these the losses as logged are a blot
_DASHED = (0, (5, 2.5))
_CURVES: dict[str, tuple[str, Any]] = {
    "f": (CANDIDATE, "-"),
    "g": (INDEPENDENT, _DASHED),
    "without": (INDEPENDENT, _DASHED),
    "r": (CANDIDATE, "-"),
    "other": (INK, (0, (1, 2))),
}
_LEGEND = {"f": "-", "r": "-"}

Numbers = NDArray[np.float64]


def density(values: Numbers, grid: Numbers) -> Numbers:
    """Estimate a density with a Gaussian kernel of Silverman's width.

        p(x) = 1/(n h) sum_i phi((x - x_i) / h),  h = 0.9 min(sd, IQR / 1.34) n^(-1/5)    (Silverman 1986,
        eq. 3.31)

    Values are counted into the grid's cells first, so that the cost is that of the grid, not of n.

    Args:
        values: Finite values, shape (n,).
        grid: Equally spaced points that cover the values, shape (m,), m ≥ 2.

    Returns:
        The density on the grid, shape (m,); all 0 where the values have no spread.
    """
    if values.size < 2:
        return np.zeros_like(grid)
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(float(values.std(ddof=1)), float(quartiles[1] - quartiles[0]) / 1.34) or float(values.std(ddof=1))
    cell = float(grid[1] - grid[0])
    # no kernel narrower than a cell: it would fall between the grid's points
    width = max(0.9 * spread * values.size**-0.2, cell)
    if spread <= 0 or cell <= 0:
        return np.zeros_like(grid)
    edges = np.append(grid - cell / 2, grid[-1] + cell / 2)
    counts = np.histogram(values, bins=edges)[0]
    kernel = np.exp(-0.5 * ((grid[:, None] - grid[None, :]) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return kernel @ counts / values.size


def roc_points(score: Numbers, positive: NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
    """Trace the ROC curve of "a higher score means positive"; tied scores make one slanted step.

    Args:
        score: Finite scores, shape (n,).
        positive: Which are positive, shape (n,); at least one is and one is not.

    Returns:
        False-positive and true-positive rates from (0, 0) to (1, 1).
    """
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], positive[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    true, false = np.cumsum(hits)[last], np.cumsum(~hits)[last]
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def smooth(values: Numbers, window: int) -> Numbers:
    """Average each value with its neighbours, `window` values in all, fewer at the ends.

    Example:
        >>> smooth(np.array([0.0, 3.0, 6.0, 9.0]), 3).tolist()
        [1.5, 3.0, 6.0, 7.5]
    """
    half = min(window, values.size) // 2
    total = np.append(0.0, np.cumsum(values, dtype=np.float64))
    index = np.arange(values.size)
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, values.size)
    return (total[high] - total[low]) / (high - low)


def _marks(values: Numbers) -> Numbers:
    """Pick at most `_MARKS` values, evenly in rank, the ends included."""
    ordered = np.sort(values)
    if ordered.size <= _MARKS:
        return ordered
    return ordered[np.linspace(0, ordered.size - 1, _MARKS).round().astype(int)]


def roles_figure(scores: pl.DataFrame, summary: Mapping[str, Any], size: str) -> str:
    """Draw the distribution of CLIPMem in each role, one row a role, on one axis.

    Args:
        scores: The table `scores`.
        summary: The summary of the run.
        size: A key of `SIZES`.
    """
    roles, score = [role for role in ROLES if role in summary["roles"]], measure_of(summary).score
    finite = scores.filter(pl.col("clipmem").is_finite())
    values = {role: finite.filter(pl.col("role") == role)["clipmem"].to_numpy() for role in roles}
    everything = np.concatenate([*values.values(), np.zeros(1)])
    margin = 0.04 * (float(np.ptp(everything)) or 1.0)
    grid = np.linspace(everything.min() - margin, everything.max() + margin, 321)
    wide = size == "wide"
    with Sketch(f"roles-{size}", SIZES[size], 96 * len(roles) + 64) as sketch:
        bottom = 56 / sketch.height
        box = (0.17, bottom, 0.815, 0.995 - bottom) if wide else (0.02, bottom, 0.96, 0.995 - bottom)
        axes = sketch.figure.add_axes(box)
        axes.set_xlim(float(grid[0]), float(grid[-1]))
        axes.set_ylim(-0.34, len(roles) - 0.3)
        axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for row, role in enumerate(reversed(roles)):
            planted = finite.filter((pl.col("role") == role) & pl.col("planted"))["clipmem"].to_numpy()
            _role_row(axes, row, role, values[role], grid, planted)
            _role_labels(axes, row, role, summary["roles"][role], wide)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_xlabel(f"{score}, not normalised")
        means = ", ".join(f"{role} {signed(summary['roles'][role]['mean'])}" for role in roles)
        return sketch.svg(f"Distribution of {score} in each role. Means: {means}.")


def _role_row(axes: Axes, row: int, role: str, values: Numbers, grid: Numbers, planted: Numbers) -> None:
    """Draw one role: its density, and below it one mark a pair; planted pairs are triangles."""
    color = COLORS[role]
    shape = density(values, grid)
    if shape.max() > 0:
        top = row + 0.5 * shape / shape.max()
        axes.fill_between(
            grid, row, top, where=(shape > 1e-3 * shape.max()).tolist(), color=color, alpha=0.22, linewidth=0
        )
        axes.plot(grid, np.where(shape > 1e-3 * shape.max(), top, np.nan), color=color, linewidth=1.6)
    marks = _marks(values)
    axes.plot(
        marks,
        np.full(marks.size, row - 0.17),
        "|",
        color=color,
        markersize=9,
        markeredgewidth=0.8,
        alpha=0.55,
    )
    if planted.size:
        shown = _marks(planted)
        axes.plot(shown, np.full(shown.size, row - 0.285), "^", color=INK, markersize=5, markeredgewidth=0)


def _role_labels(axes: Axes, row: int, role: str, entry: Mapping[str, Any], wide: bool) -> None:
    """Write the role's name and count, and draw its mean with the interval."""
    color, mean = COLORS[role], entry["mean"]
    count = f"n = {entry['n']:,}"
    if wide:
        axes.text(-0.205, row + 0.22, role, transform=axes.get_yaxis_transform(), weight="bold")
        axes.text(-0.205, row + 0.02, count, transform=axes.get_yaxis_transform(), color=SOFT, size=12)
    else:
        axes.text(0, row + 0.56, role, transform=axes.get_yaxis_transform(), weight="bold", size=12)
        axes.text(1, row + 0.56, count, transform=axes.get_yaxis_transform(), color=SOFT, size=11, ha="right")
    if mean is None:
        return
    if entry.get("low") is not None and entry.get("high") is not None:
        axes.plot([entry["low"], entry["high"]], [row, row], color=INK, linewidth=4, solid_capstyle="butt")
    axes.plot([mean], [row], "o", color=INK, markersize=7, markerfacecolor=color, markeredgewidth=1.5)


def roc_figure(scores: pl.DataFrame, summary: Mapping[str, Any], size: str) -> str:
    """Draw how well the score, and low alignment without the pair, find the planted pairs among the candidates.

    Args:
        scores: The table `scores`.
        summary: The summary of a run with planted pairs.
        size: A key of `SIZES`.
    """
    planted, weight = summary["planted"], float(summary["weight"])
    words, measure = words_of(summary), measure_of(summary)
    reference = planted["reference_alignment_auroc"]
    aligned = pl.col("g_positive") - weight * (pl.col("g_image_bank") + pl.col("g_text_bank"))
    rows = scores.filter(pl.col("role") == "candidate").select("planted", low_alignment=-aligned)
    rows = rows.filter(pl.col("low_alignment").is_finite())
    is_planted = rows["planted"].to_numpy()
    side = 400 if size == "wide" else 360
    with Sketch(f"roc-{size}", side, side) as sketch:
        axes = sketch.figure.add_axes((0.14, 0.13, 0.79, 0.80))
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (1, 3)))
        if is_planted.any() and not is_planted.all():
            false, true = roc_points(rows["low_alignment"].to_numpy(), is_planted)
            axes.plot(false, true, color=INK, linewidth=1.6, linestyle=(0, (5, 3)))
        axes.plot(planted["roc"]["fpr"], planted["roc"]["tpr"], color=CANDIDATE, linewidth=2.4)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_xlabel("share of the other candidates flagged")
        axes.set_ylabel("share of the planted pairs found")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], rotation=90, va="center")
        legend = axes.legend(
            handles=[
                axes.plot([], [], color=CANDIDATE, linewidth=2.4)[0],
                axes.plot([], [], color=INK, linewidth=1.6, linestyle=(0, (5, 3)))[0],
                axes.plot([], [], color=SOFT, linewidth=1, linestyle=(0, (1, 3)))[0],
            ],
            labels=[
                f"{measure.score}, AUROC {plain(planted['auroc'])}",
                f"{measure.rival}{words.reference_short[0]}, {plain(reference['auroc'])}",
                "chance, 0.500",
            ],
            loc="lower right",
            fontsize=12,
        )
        legend.set_zorder(5)
        title = (
            f"ROC curve: {measure.score} finds planted pairs with AUROC {plain(planted['auroc'])} {interval(planted)}"
        )
        return sketch.svg(
            f"{title}; {measure.rival} {words.reference} with {plain(reference['auroc'])} {interval(reference)}."
        )


def curves_figure(logs: Sequence[TrainingLog], size: str) -> str:
    """Draw the training loss of every model over its steps: faint as logged, strong as a moving mean.

    Args:
        logs: At least one training log.
        size: A key of `SIZES`.
    """
    wide = size == "wide"
    with Sketch(f"curves-{size}", SIZES[size], 320 if wide else 280) as sketch:
        axes = sketch.figure.add_axes((0.075, 0.155, 0.905, 0.82) if wide else (0.13, 0.18, 0.85, 0.8))
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        # with many models each gets fewer points, and only its moving mean: a file of megabytes shows no more
        points = max(_CURVE_POINTS // 5, min(_CURVE_POINTS, _CURVE_POINTS * _FAINT_CURVES // len(logs)))
        for log in logs:
            color, style = _CURVES[curve_group(log.side)]
            every = max(1, -(-log.loss.size // points))
            mean = smooth(log.loss, max(1, log.loss.size // 40))
            if len(logs) <= _FAINT_CURVES:
                axes.plot(log.step[::every], log.loss[::every], color=color, linewidth=0.7, alpha=0.25)
            width = 1.8 if len(logs) <= _FAINT_CURVES else 1.0
            axes.plot(log.step[::every], mean[::every], color=color, linewidth=width, linestyle=style)
        # the largest losses are the first few steps: the axis starts at 0 and covers what the moving mean
        # covers
        finite = np.concatenate([smooth(log.loss, max(1, log.loss.size // 40)) for log in logs])
        finite = finite[np.isfinite(finite)]
        if finite.size:
            axes.set_ylim(0, 1.08 * max(float(finite.max()), 1e-9))
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")
        groups = [group for group in CURVE_NAMES if any(curve_group(log.side) == group for log in logs)]
        handles = [
            axes.plot([], [], color=_CURVES[group][0], linewidth=1.8, linestyle=_LEGEND.get(group, "--"))[0]
            for group in groups
        ]
        axes.legend(
            handles=handles,
            labels=[CURVE_NAMES[group] for group in groups],
            loc="upper right",
            fontsize=12,
            handlelength=2.6,
        )
        return sketch.svg(f"Training loss of {len(logs)} models over their steps.")
