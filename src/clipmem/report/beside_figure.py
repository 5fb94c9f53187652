"""The figure of runs beside each other: UnitMem by layer of each, and the published curves.

Curves are drawn over relative depth (layer / layers), beside the published ones, which have a panel and a scale of
their own (see `report.published`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from clipmem.report.beside import KINDS, answer_sentences, kinds_of
from clipmem.report.figures import SIZES
from clipmem.report.published import UNITMEM
from clipmem.report.svg import CANDIDATE, EXTERNAL, INDEPENDENT, INK, LINE, SHARED, Sketch

_STYLES: dict[str, tuple[str, Any, str]] = {
    "clip": (CANDIDATE, "-", "o"),
    "supervised": (INDEPENDENT, (0, (5, 2.5)), "s"),
    "simclr": (EXTERNAL, (0, (1, 1.5)), "^"),
    "siglip": (SHARED, (0, (3, 2, 1, 2)), "D"),
}
_OTHER = (INK, (0, (1, 3)), "x")


def styles_of(document: Mapping[str, Any]) -> dict[str, tuple[str, Any, str]]:
    """Give each run its colour, dashes and mark; a second run of one objective gets those that are left over."""
    given: dict[str, tuple[str, Any, str]] = {}
    spare = [style for name, style in _STYLES.items() if name not in {run["objective"] for run in document["runs"]}]
    for run in document["runs"]:
        own = _STYLES.get(run["objective"], _OTHER)
        if own in given.values():
            own = spare.pop(0) if spare else _OTHER
        given[run["run"]] = own
    return given


def beside_figure(document: Mapping[str, Any], size: str) -> str:
    """Draw each run's mean UnitMem under f by relative depth, a panel a kind of units, and the published curves.

    Args:
        document: The content of `localize/beside.json`.
        size: A key of `SIZES`.
    """
    kinds, styles = kinds_of(document), styles_of(document)
    count = len(kinds) + 1
    with Sketch(f"beside-{size}", SIZES[size], 330 if size == "wide" else 250 * count + 50) as sketch:
        panels = _panels(sketch, count, size)
        for axes, kind in zip(panels, kinds, strict=False):
            for run, style in styles.items():
                rows = [row for row in document["curves"] if (row["run"], row["kind"], row["side"]) == (run, kind, "f")]
                _curve(axes, sorted(rows, key=lambda row: row["layer"]), style)
            axes.set_title(KINDS.get(kind, kind), loc="left", size=13, weight="bold")
        for objective, values in UNITMEM.items():
            color, dashes, mark = _STYLES[objective]
            depth = [(k + 1) / len(values) for k in range(len(values))]
            panels[-1].plot(depth, values, color=color, linestyle=dashes, marker=mark, markersize=3.5, linewidth=1.4)
        panels[-1].set_title("published, 12 layers", loc="left", size=13, weight="bold")
        panels[0].set_ylabel("mean UnitMem")
        handles = [
            Line2D([], [], color=color, linestyle=dashes, marker=mark, markersize=5.5, linewidth=1.8)
            for color, dashes, mark in styles.values()
        ]
        sketch.figure.legend(handles=handles, labels=list(styles), loc="lower center", ncols=3, fontsize=12)
        return sketch.svg(f"Mean UnitMem by relative depth. {' '.join(answer_sentences(document)) or 'No answer.'}")


def _panels(sketch: Sketch, count: int, size: str) -> list[Axes]:
    """Place the panels beside each other on a wide page, below each other on a phone."""
    width, height, foot = sketch.width, sketch.height, 44
    left, gap, top, bottom = 62, 46, 26, 44
    columns = count if size == "wide" else 1
    rows = count // columns
    wide, high = (width - left - 8 - gap * (columns - 1)) / columns, (height - foot) / rows - top - bottom
    panels: list[Axes] = []
    for k in range(count):
        row, column = divmod(k, columns)
        low = height - (row + 1) * (top + high) - row * bottom
        box = ((left + column * (wide + gap)) / width, low / height, wide / width, high / height)
        axes = sketch.figure.add_axes(box)
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlim(0, 1.04)
        axes.set_xlabel("layer / layers")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        panels.append(axes)
    return panels


def _curve(axes: Axes, rows: Sequence[Mapping[str, Any]], style: tuple[str, Any, str]) -> None:
    color, dashes, mark = style
    x = [row["layer"] / row["layers"] for row in rows]
    axes.plot(
        x, [row["mean"] for row in rows], color=color, linestyle=dashes, marker=mark, markersize=5.5, linewidth=1.8
    )
    known = [(at, row) for at, row in zip(x, rows, strict=True) if row["low"] is not None]
    for at, row in known:
        axes.plot([at, at], [row["low"], row["high"]], color=color, linewidth=1.4)
    if len(known) > 1:
        ends = ([row["low"] for _, row in known], [row["high"] for _, row in known])
        axes.fill_between([at for at, _ in known], *ends, color=color, alpha=0.2, linewidth=0)
