"""The figure of a finding: our curves with their intervals, and the published ones in panels of their own.

Published panels have their own scale, because data, models and measures differ: compare which way curves go and where
they turn, never their height.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from clipmem.report.figures import SIZES
from clipmem.report.svg import CANDIDATE, EXTERNAL, INDEPENDENT, INK, LINE, SHARED, SOFT, Sketch

_STYLES: tuple[tuple[str, Any, str], ...] = (
    (CANDIDATE, "-", "o"),
    (INDEPENDENT, (0, (5, 2.5)), "s"),
    (EXTERNAL, (0, (1, 1.5)), "^"),
    (SHARED, (0, (3, 2, 1, 2)), "D"),
    (INK, (0, (1, 3)), "x"),
)
_THEIRS = (SOFT, (0, (3, 2, 1, 2)), "D")  # a published curve that none of ours is named after
_APART = 0.012  # of the axis: curves of a panel lie that far apart, so that their intervals do not hide each other
_HEIGHT = {"wide": 250, "narrow": 250}
_LEGEND = 24
_OPTIMA = {"lowest": min, "highest": max}


def finding_figure(document: Mapping[str, Any], size: str) -> str:
    """Draw the panels of a finding.

    Args:
        document: An entry of `findings` in `findings.json`; at least one panel in it.
        size: A key of `SIZES`.
    """
    panels = document["panels"]
    columns = min(len(panels), 3 if len(panels) != 4 else 2) if size == "wide" else 1
    rows = math.ceil(len(panels) / columns)
    styles = _styles(panels)
    names = [name for name in styles if name]
    foot = _LEGEND * math.ceil(len(names) / (3 if size == "wide" else 1)) + 10 if names else 0
    height = _HEIGHT[size] * rows + foot
    with Sketch(f"finding-{document['finding']}-{size}", SIZES[size], height) as sketch:
        for k, panel in enumerate(panels):
            _panel(_place(sketch, k, columns, rows, foot), panel, styles)
        if names:
            handles = [
                Line2D([], [], color=color, linestyle=dashes, marker=mark, markersize=5.5, linewidth=1.8)
                for color, dashes, mark in (styles[name] for name in names)
            ]
            labels = [_plain(name) for name in names]
            ncols = min(3, len(names)) if size == "wide" else 1
            sketch.figure.legend(handles=handles, labels=labels, loc="lower center", ncols=ncols, fontsize=12)
        return sketch.svg(f"{document['title']}. {document['claim']} Holds: {document['holds']}.")


def _styles(panels: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, Any, str]]:
    """Give each curve's name a style: ours in turn, published ones that of ours of the same name, or their own."""
    lines = [(line["name"], panel["published"]) for panel in panels for line in panel["series"]]
    ours = dict.fromkeys(name for name, published in lines if not published)
    theirs = [name for name in dict.fromkeys(name for name, published in lines if published) if name not in ours]
    styles = {name: _STYLES[k % len(_STYLES)] for k, name in enumerate(ours)}
    for k, name in enumerate(theirs):
        styles[name] = _THEIRS if len(theirs) == 1 else _STYLES[(len(ours) + k) % len(_STYLES)]
    return styles


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _place(sketch: Sketch, k: int, columns: int, rows: int, foot: int) -> Axes:
    left, right, top, bottom = 66, 12, 30, 50
    width, high = sketch.width / columns, (sketch.height - foot) / rows
    row, column = divmod(k, columns)
    box = (
        (column * width + left) / sketch.width,
        (sketch.height - (row + 1) * high + bottom) / sketch.height,
        (width - left - right) / sketch.width,
        (high - top - bottom) / sketch.height,
    )
    return sketch.figure.add_axes(box)


def _panel(axes: Axes, panel: Mapping[str, Any], styles: Mapping[str, tuple[str, Any, str]]) -> None:
    axes.grid(axis="y", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    places = [x for line in panel["series"] for x in line["x"]]
    apart = _APART * (max(places) - min(places)) if places and not panel["published"] else 0.0
    for k, line in enumerate(panel["series"]):
        color, dashes, mark = styles[line["name"]]
        shift = (k - (len(panel["series"]) - 1) / 2) * apart
        _line(axes, line, (color, dashes if panel["joined"] else "none", mark), shift)
        if panel["optimum"] and line["mean"]:
            value, place = _OPTIMA[panel["optimum"]](zip(line["mean"], line["x"], strict=True))
            axes.plot(place + shift, value, "o", color=color, fillstyle="none", markersize=12, markeredgewidth=1.4)
    if panel["title"] not in ("published",) and any(value < 0 for line in panel["series"] for value in line["mean"]):
        axes.axhline(0, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_title(panel["title"], loc="left", size=13, weight="bold", parse_math=False)
    axes.set_xlabel(panel["xlabel"], parse_math=False)
    axes.set_ylabel(panel["ylabel"], parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if panel["ticks"]:
        axes.set_xticks(range(len(panel["ticks"])), panel["ticks"], fontsize=11)
        axes.set_xlim(-0.5, len(panel["ticks"]) - 0.5)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.margins(x=0.08)


def _line(axes: Axes, line: Mapping[str, Any], style: tuple[str, Any, str], shift: float) -> None:
    color, dashes, mark = style
    places = [x + shift for x in line["x"]]
    axes.plot(places, line["mean"], color=color, linestyle=dashes, marker=mark, markersize=5.5, linewidth=1.8)
    for x, low, high in zip(places, line["low"], line["high"], strict=False):
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=color, linewidth=1.4)


def drawable(panels: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether there is something to draw."""
    return any(line["x"] for panel in panels for line in panel["series"])
