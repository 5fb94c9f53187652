"""The Pareto figure: how far each run lies from the baseline in memorization and in utility, with both intervals.

Runs are numbered as in the table. Left and up is better: less memorization, more utility. A filled mark is on the front
by the means; where the intervals of two runs overlap, another training may exchange them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from clipmem.report.figures import SIZES
from clipmem.report.svg import CANDIDATE, INK, LINE, PAPER, SOFT, Sketch

PREFERRED = (
    "linear_probe_acc1",
    "zero_shot_acc1",
    "image_retrieval_recall@5",
    "text_retrieval_recall@5",
    "image_retrieval_recall@1",
)
MOST_PANELS = 3


def panels_of(document: Mapping[str, Any]) -> list[str]:
    """Choose the utilities that are drawn: at most three, probe and zero-shot first."""
    there = list(document["pareto"])
    return sorted(there, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))[:MOST_PANELS]


def pareto_figure(document: Mapping[str, Any], size: str) -> str:
    """Draw the difference from the baseline in memorization and in utility, one panel a utility.

    Args:
        document: The content of `compare.json`; at least one utility in it.
        size: A key of `SIZES`.
    """
    names = panels_of(document)
    columns = len(names) if size == "wide" else 1
    height = 330 if size == "wide" else 290 * len(names)
    numbers = {run["run"]: str(k) for k, run in enumerate(document["runs"])}
    with Sketch(f"pareto-{size}", SIZES[size], height) as sketch:
        figure = sketch.figure
        axes = figure.subplots(len(names) // columns, columns, squeeze=False).ravel()
        figure.subplots_adjust(
            left=(0.095 if columns > 1 else 0.23), right=0.985, bottom=0.17 if size == "wide" else 0.22 / len(names),
            top=0.9 if size == "wide" else 0.965, wspace=0.36, hspace=0.42,
        )  # fmt: skip
        for k, (panel, name) in enumerate(zip(axes, names, strict=True)):
            _panel(panel, document["pareto"][name], numbers, name)
            if k == 0 or columns == 1:
                panel.set_ylabel("utility, difference")
        fronts = "; ".join(f"{name}: {', '.join(document['pareto'][name]['front'])}" for name in names)
        return sketch.svg(f"Memorization against utility, differences from {document['baseline']}. Front by {fronts}.")


def _panel(axes: Axes, found: Mapping[str, Any], numbers: Mapping[str, str], name: str) -> None:
    axes.axhline(0, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.axvline(0, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.grid(color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    _front_line(axes, found["points"])
    for point in found["points"]:
        x, y = point["memorization"], point["utility"]
        for ends, along in ((x, "x"), (y, "y")):
            if ends["low"] is None:
                continue
            low_high = [ends["low"], ends["high"]]
            across = [(y if along == "x" else x)["difference"]] * 2
            axes.plot(*((low_high, across) if along == "x" else (across, low_high)), color=SOFT, linewidth=1.3)
        axes.plot(
            x["difference"], y["difference"], marker="o", markersize=8, linestyle="",
            markerfacecolor=CANDIDATE if point["front"] else PAPER, markeredgecolor=CANDIDATE, markeredgewidth=1.8,
        )  # fmt: skip
        axes.annotate(
            numbers[point["run"]], (x["difference"], y["difference"]), xytext=(7, 6), textcoords="offset points",
            color=INK, fontsize=12,
        )  # fmt: skip
    axes.set_title(name.replace("_", " "), loc="left", size=13, weight="bold")
    axes.set_xlabel("memorization, difference")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.margins(0.12)


def _front_line(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    """Join the runs on the front by a staircase: the best utility to be had at each memorization."""
    best = sorted(
        (point["memorization"]["difference"], point["utility"]["difference"]) for point in points if point["front"]
    )
    if len(best) > 1:
        axes.step([x for x, _ in best], [y for _, y in best], where="post", color=CANDIDATE, linewidth=1.2, alpha=0.6)
