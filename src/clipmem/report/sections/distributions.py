"""The distribution of the score in each role."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipmem.base.summary import Role
from clipmem.report.figures import DASHED, INK, ROLE_COLORS, Figure, Panel
from clipmem.report.formats import signed
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Figures, Section

Numbers = NDArray[np.float64]
_MARKS = 250  # marks per role: a file with 65,000 of them opens slowly and shows no more


@SECTIONS.register("distributions")
class Distributions(Section):
    """The distribution of the score in each role, with its mean and interval."""

    nav, order = "Distributions", 30

    def figures(self, subject: Run) -> Figures:
        return {"roles": roles_figure(subject)}


def density(values: Numbers, grid: Numbers) -> Numbers:
    """Estimate a density on an equally spaced grid, with a Gaussian kernel of Silverman's width; 0 without spread.

    p(x) = 1/(n h) sum_i phi((x - x_i) / h),  h = 0.9 min(sd, IQR / 1.34) n^(-1/5)    (Silverman 1986, eq. 3.31)
    """
    if values.size < 2:
        return np.zeros_like(grid)
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(float(values.std(ddof=1)), float(quartiles[1] - quartiles[0]) / 1.34) or float(values.std(ddof=1))
    cell = float(grid[1] - grid[0])
    # a kernel narrower than a cell would fall between the grid points
    width = max(0.9 * spread * values.size**-0.2, cell)
    if spread <= 0 or cell <= 0:
        return np.zeros_like(grid)
    edges = np.append(grid - cell / 2, grid[-1] + cell / 2)
    counts = np.histogram(values, bins=edges)[0]
    kernel = np.exp(-0.5 * ((grid[:, None] - grid[None, :]) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return kernel @ counts / values.size


def _marks(values: Numbers) -> Numbers:
    """Return at most `_MARKS` values, evenly spaced by rank, including both ends."""
    ordered = np.sort(values)
    if ordered.size <= _MARKS:
        return ordered
    return ordered[np.linspace(0, ordered.size - 1, _MARKS).round().astype(int)]


def roles_figure(run: Run) -> Figure:
    """Draw the distribution of the score, one row per role on a common axis."""
    roles, entries, score = run.roles, run.summary.roles, run.measure["score"]
    finite = run.scores.filter(pl.col("clipmem").is_finite())
    values = {role: finite.filter(pl.col("role") == role)["clipmem"].to_numpy() for role in roles}
    everything = np.concatenate([*values.values(), np.zeros(1)])
    margin = 0.04 * (float(np.ptp(everything)) or 1.0)
    grid = np.linspace(everything.min() - margin, everything.max() + margin, 321)

    def draw(axes: Any) -> None:
        axes.axvline(0, color=INK, linewidth=1, linestyle=DASHED)
        axes.grid(visible=False)
        axes.set_ylim(-0.34, len(roles) - 0.3)
        for row, role in enumerate(reversed(roles)):
            planted = finite.filter((pl.col("role") == role) & pl.col("planted"))["clipmem"].to_numpy()
            _draw_row(axes, row, role, values[role], grid, planted)
            _draw_mean(axes, row, role, entries[role])
        axes.spines["left"].set_visible(False)
        axes.set_yticks(range(len(roles)), [f"{role}\nn = {entries[role].n:,}" for role in reversed(roles)])
        axes.tick_params(axis="y", length=0, labelcolor=INK)

    means = ", ".join(f"{role} {signed(entries[role].mean)}" for role in roles)
    panel = Panel("", f"{score}, not normalized", "", xlim=(float(grid[0]), float(grid[-1])), left=116, draw=draw)
    title = f"Distribution of {score} in each role. Means: {means}."
    return Figure(title, [panel], height=96 * len(roles) + 80)


def _draw_row(axes: Any, row: int, role: str, values: Numbers, grid: Numbers, planted: Numbers) -> None:
    color, shape = ROLE_COLORS[role], density(values, grid)
    if shape.max() > 0:
        top, seen = row + 0.5 * shape / shape.max(), shape > 1e-3 * shape.max()
        axes.fill_between(grid, row, top, where=seen.tolist(), color=color, alpha=0.22, linewidth=0)
        axes.plot(grid, np.where(seen, top, np.nan), color=color, linewidth=1.6)
    marks = _marks(values)
    axes.plot(marks, np.full(marks.size, row - 0.17), "|", color=color, markersize=9, markeredgewidth=0.8, alpha=0.55)
    if planted.size:
        marks = _marks(planted)
        axes.plot(marks, np.full(marks.size, row - 0.285), "^", color=INK, markersize=5, markeredgewidth=0)


def _draw_mean(axes: Any, row: int, role: str, entry: Role) -> None:
    if entry.mean is None:
        return
    if entry.low is not None and entry.high is not None:
        axes.plot([entry.low, entry.high], [row, row], color=INK, linewidth=4, solid_capstyle="butt")
    axes.plot([entry.mean], [row], "o", color=INK, markersize=7, markerfacecolor=ROLE_COLORS[role], markeredgewidth=1.5)
