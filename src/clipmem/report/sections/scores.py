"""Sections on scores: the finding, learned against memorized, the largest by model, mismatched pairs."""

from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from clipmem.base.declared import BUILT_IN, Facts
from clipmem.base.summary import Learned as LearnedPairs
from clipmem.report.figures import (
    CANDIDATE,
    DASHED,
    INK,
    LINE,
    PAPER,
    ROLE_COLORS,
    SOFT,
    Figure,
    Line,
    Panel,
    Style,
    sketch,
    svg_of,
)
from clipmem.report.formats import interval, plain, side_of, signed
from clipmem.report.gallery import EXAMPLES, cards, corners, ranked_candidates
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Figures, Section, Shown
from clipmem.report.templating import Words, next_steps
from clipmem.stats.ranking import roc_curve

Numbers = NDArray[np.float64]
_MARKS = 250  # marks per role: a file with 65,000 of them opens slowly and shows no more
CORNERS = "ABCD"
_POINTS = 1000  # evenly spaced by rank: a figure of more points opens slowly and shows no more
_SHOWN = 6  # pairs with their models
_DOTS_HIGH = 5


@SECTIONS.register("finding")
class Finding(Section):
    """The distribution of the score in each role, what to do next, and the first pairs."""

    nav, order, screen = "Finding", 5, "report"

    def data(self, subject: Run) -> Shown:
        ranked = ranked_candidates(subject.scores)
        first = cards(subject, ranked.head(EXAMPLES), ranked)
        return {"first": first, "ranked": ranked.height, "steps": steps_of(subject, subject.path.name)}

    def figures(self, subject: Run) -> Figures:
        return {"roles": roles_figure(subject)}


def steps_of(run: Run, folder: object) -> list[Words]:
    """Return the commands to try next, three at most, chosen by the result; each with its reason."""
    summary, name = run.summary, run.summary.protocol
    protocol, demo = BUILT_IN["protocols"].get(name, Facts()), run.recipe.data.source.startswith("emoji")
    least = (subsample := run.recipe.subsample).models * min(subsample.fraction, 1 - subsample.fraction)
    few = len(summary.seeds) < 2 or side_of(summary.half_difference or summary.roles["candidate"]) != "above"
    useful = {
        "view": True,
        "audit": {"subsample": least, "halves": run.recipe.halves.pairs}.get(name, 0) >= 3 and run.audit is None,
        "seeds": name in {"four-way", "leave-one-out"} and few and len(summary.seeds) < 3 and not demo,
        "curate": protocol.trains,
        "init": demo,
        "compare": protocol.paired or run.audit is not None,
    }
    return next_steps(*[step for step, applies in useful.items() if applies][:3], run=folder)


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


def _even(n: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of n ranks, evenly spaced, including both ends."""
    return np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)


def roles_figure(run: Run) -> Figure:
    """Draw the distribution of the score, one row per role on a common axis, with its marks, mean and interval."""
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
            color, shape, entry = ROLE_COLORS[role], density(values[role], grid), entries[role]
            if shape.max() > 0:
                top, seen = row + 0.5 * shape / shape.max(), shape > 1e-3 * shape.max()
                axes.fill_between(grid, row, top, where=seen.tolist(), color=color, alpha=0.22, linewidth=0)
                axes.plot(grid, np.where(seen, top, np.nan), color=color, linewidth=1.6)
            marks = np.sort(values[role])[_even(values[role].size, _MARKS)]
            line = {"color": color, "markersize": 9, "markeredgewidth": 0.8, "alpha": 0.55}
            axes.plot(marks, np.full(marks.size, row - 0.17), "|", **line)
            planted = finite.filter((pl.col("role") == role) & pl.col("planted"))["clipmem"].to_numpy()
            if planted.size:
                marks = np.sort(planted)[_even(planted.size, _MARKS)]
                axes.plot(marks, np.full(marks.size, row - 0.285), "^", color=INK, markersize=5, markeredgewidth=0)
            if entry.mean is not None and entry.low is not None and entry.high is not None:
                axes.plot([entry.low, entry.high], [row, row], color=INK, linewidth=4, solid_capstyle="butt")
            if entry.mean is not None:
                dot = {"color": INK, "markersize": 7, "markerfacecolor": color, "markeredgewidth": 1.5}
                axes.plot([entry.mean], [row], "o", **dot)
        axes.spines["left"].set_visible(False)
        axes.set_yticks(range(len(roles)), [f"{role}\nn = {entries[role].n:,}" for role in reversed(roles)])
        axes.tick_params(axis="y", length=0, labelcolor=INK)

    means = ", ".join(f"{role} {signed(entries[role].mean)}" for role in roles)
    panel = Panel("", f"{score}, not normalized", "", xlim=(float(grid[0]), float(grid[-1])), margin=116, draw=draw)
    title = f"Distribution of {score} in each role. Means: {means}."
    return Figure(title, [panel], height=66 * len(roles) + 60, width=720)


@SECTIONS.register("learned")
class Learned(Section):
    """Learned against memorized, and what the base model may have seen."""

    nav, order, screen, entry = "Learned", 40, "report", "base"

    def data(self, subject: Run) -> Shown:
        ranked = ranked_candidates(subject.scores)
        corner_cards = [cards(subject, rows, ranked) for rows in corners(ranked)]
        thinned = _POINTS if ranked.height > _POINTS else 0
        return {"corners": list(zip(CORNERS, corner_cards, strict=True)), "thinned": thinned}

    def figures(self, subject: Run) -> Figures:
        learned = subject.summary.learned
        return {"learned": learned_figure(subject, learned)} if learned else {}


def learned_figure(run: Run, learned: LearnedPairs) -> Figure:
    """Draw the candidates by what was learned and memorized about them, with the corners' pairs named by letter."""
    ranked, score = ranked_candidates(run.scores), run.measure["score"]
    styles = {"candidate": Style(CANDIDATE, "none", "o"), "mismatched candidate": Style(INK, "none", "^")}
    even = ranked[_even(ranked.height, _POINTS)]
    points = dict(zip(styles, (even.filter(~pl.col("planted")), ranked.filter("planted")), strict=True))
    points = {name: rows for name, rows in points.items() if rows.height}

    def draw(axes: Any) -> None:
        axes.axvline(0, color=SOFT, linewidth=1, linestyle=DASHED)
        for letter, rows in zip(CORNERS, corners(ranked), strict=True):
            x, y = rows["learned"].to_list(), rows["clipmem"].to_list()
            axes.plot(x, y, "o", color=INK, fillstyle="none", markersize=11, markeredgewidth=1.2)
            for xy in zip(x, y, strict=True):
                axes.annotate(letter, xy, (7, 5), textcoords="offset points", color=INK, size=11)

    lines = [Line(rows["learned"].to_list(), rows["clipmem"].to_list(), styles[name]) for name, rows in points.items()]
    panel = Panel("", "learned from other pairs", f"memorized: {score}", lines, zero=True, draw=draw)
    candidate = learned.roles["candidate"]
    means = [signed(candidate.learned.mean), signed(candidate.clipmem.mean)]
    title = f"{score} against learned, {ranked.height:,} candidates. Means: learned {means[0]}, {score} {means[1]}; "
    title += f"rank correlation {plain(learned.spearman.spearman)}."
    legend = {name: styles[name] for name in points} if len(points) > 1 else {}
    return Figure(title, [panel], height=420, legend=legend)


@SECTIONS.register("in-and-out")
class InAndOut(Section):
    """The largest scores, model by model, when every model trains on its own part of the pairs."""

    nav, order = "In and out", 60

    def applies(self, subject: Run) -> bool:
        return bool(subject.words["per_model"])

    def data(self, subject: Run) -> Shown:
        ranked = ranked_candidates(subject.scores)
        pairs: list[Shown] = []
        for card in cards(subject, ranked.head(_SHOWN), ranked):
            scores = subject.seed_scores.filter(pl.col("uid") == card.uid).sort("seed")
            with_it, without_it = (scores[name].drop_nulls().drop_nans().to_numpy() for name in ("f", "g"))
            pairs.append({**card._asdict(), "with_it": with_it, "without_it": without_it})
        values = np.concatenate([np.zeros(0), *(pair[name] for pair in pairs for name in ("with_it", "without_it"))])
        ends = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        for pair in pairs:
            svg = _dots(pair["rank"], pair["with_it"], pair["without_it"], ends, subject.measure["axis"])
            pair["svg"] = Markup(svg)  # noqa: S704  matplotlib escapes its text
        return {"pairs": pairs, **model_counts(subject.seed_scores, subject.scores)}


def model_counts(seed_scores: pl.DataFrame, scores: pl.DataFrame) -> dict[str, int]:
    """Return the number of models, and the fewest and most of them that trained on a candidate."""
    candidates = scores.filter(pl.col("role") == "candidate")
    of_candidates = seed_scores.join(candidates.select("uid"), on="uid", how="semi")
    counts = of_candidates.group_by("uid").agg(trained=pl.col("f").is_not_null().sum())["trained"].to_list()
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


def _dots(number: int, with_it: Numbers, without_it: Numbers, ends: tuple[float, float], axis: str) -> str:
    margin = 0.06 * ((ends[1] - ends[0]) or 1.0)
    low, high = ends[0] - margin, ends[1] + margin
    with sketch(300, 136) as canvas:
        axes = canvas.add_axes((0.02, 0.33, 0.96, 0.66))
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
            width, size = 0.7 if edge == PAPER else 1.1, 7 if values.size <= 40 else 5
            dot = {"color": face, "markeredgecolor": edge, "markeredgewidth": width, "markersize": size}
            axes.plot(places, base + 0.06 + step * heights, "o", **dot)
            axes.plot([values.mean()] * 2, [base - 0.14, base + 0.6], color=INK, linewidth=1.8)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_color(SOFT)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(labelsize=12)
        axes.set_xlabel(axis, size=12)
        means = [signed(float(values.mean()) if values.size else None) for _, values, *_ in rows]
        title = (
            f"{axis} under each model. Means: {means[0]} over {with_it.size} models that trained on the pair, "
            f"{means[1]} over {without_it.size} that did not."
        )
        return svg_of(canvas, f"inout{number}-small", title)


@SECTIONS.register("planted")
class Planted(Section):
    """How well the score finds pairs trained with another pair's captions."""

    nav, order, screen, detail = "Mismatched pairs", 120, "report", True

    def figures(self, subject: Run) -> Figures:
        """Draw ROC curves of the score, and of low alignment without the pair, for planted candidates."""
        if (planted := subject.summary.planted) is None:
            return {}
        words, measure, rival = subject.words, subject.measure, planted.reference_alignment_auroc
        aligned = pl.col("g_positive") - subject.summary.weight * (pl.col("g_image_bank") + pl.col("g_text_bank"))
        rows = subject.scores.filter(pl.col("role") == "candidate").select("planted", low_alignment=-aligned)
        rows = rows.filter(pl.col("low_alignment").is_finite())
        is_planted = rows["planted"].to_numpy()
        legend = {
            f"{measure['score']}, AUROC {plain(planted.auroc)}": Style(CANDIDATE, "-", ""),
            f"{measure['rival']}{words['reference_legend']}, {plain(rival.auroc)}": Style(INK, DASHED, ""),
            "chance, 0.500": Style(SOFT, (0, (1, 3)), ""),
        }
        strong, dashed, dotted = legend.values()
        lines = [Line([0, 1], [0, 1], dotted)]
        if is_planted.any() and not is_planted.all():
            curve = roc_curve(rows["low_alignment"].to_numpy(), is_planted)
            lines.append(Line(curve.fpr.tolist(), curve.tpr.tolist(), dashed))
        lines.append(Line(planted.roc["fpr"], planted.roc["tpr"], strong))

        def percent(axes: Any) -> None:
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
            axes.set_yticks([0, 0.5, 1], ["0", "50%", "100%"])

        axis = "share of the mismatched pairs found"
        panel = Panel("", "share of the other candidates flagged", axis, lines, xlim=(-0.01, 1.06), draw=percent)
        title = (
            f"ROC curves of the mismatched pairs. AUROC of {measure['score']}: {plain(planted.auroc)} "
            f"{interval(planted)}; of {measure['rival']} {words['reference']}: {plain(rival.auroc)} {interval(rival)}."
        )
        return {"roc": Figure(title, [panel], height=310, width=400, legend=legend)}
