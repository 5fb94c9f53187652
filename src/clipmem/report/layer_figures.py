"""The figures of `localize`, as SVG text: UnitMem by layer, and LayerMem and its difference by layer.

One panel a tower, beside each other on a wide page and below each other on a phone. Kinds of layers differ in line
style and mark, not in colour alone.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from clipmem.report.figures import SIZES
from clipmem.report.localized import KIND_NAMES, TOWERS
from clipmem.report.numbers import plain, signed
from clipmem.report.svg import CANDIDATE, EXTERNAL, INDEPENDENT, INK, LINE, SHARED, SOFT, Sketch

_STYLES: dict[str, tuple[str, Any, str]] = {
    "block": (CANDIDATE, "-", "o"),
    "mlp": (CANDIDATE, "-", "o"),
    "attn": (INDEPENDENT, (0, (5, 2.5)), "s"),
    "embedding": (INK, "-", "D"),
}
_IN_LAYERMEM = {**_STYLES, "mlp": (SHARED, (0, (1, 2)), "^")}
_OTHER = (INK, (0, (1, 2)), "x")


def unitmem_figure(layers: pl.DataFrame, size: str) -> str:
    """Draw the mean UnitMem of each layer's units under f with its interval, and under g in grey.

    Args:
        layers: The table `layers`; rows without UnitMem are passed over.
        size: A key of `SIZES`.
    """
    rows = layers.filter(pl.col("unitmem_mean").is_finite())
    kinds = _kinds(rows)
    with Sketch(f"unitmem-{size}", SIZES[size], 330 if size == "wide" else 560) as sketch:
        panels = _panels(sketch, size, 1)
        for column, tower in enumerate(TOWERS):
            axes = panels[0][column]
            for kind in kinds:
                own = rows.filter((pl.col("tower") == tower) & (pl.col("kind") == kind)).sort("layer")
                _line(axes, own, "unitmem_mean", ("unitmem_low", "unitmem_high"), _STYLES.get(kind, _OTHER))
                if "reference_unitmem_mean" in own.columns:
                    _, style, mark = _STYLES.get(kind, _OTHER)
                    _line(axes, own, "reference_unitmem_mean", None, (SOFT, style, mark))
            axes.set_title(f"{tower} tower", loc="left", size=13, weight="bold")
            axes.set_ylabel("mean UnitMem")
            axes.set_xlabel("layer")
        _share([panels[0]], _last(rows))
        known = [kind for kind in ("mlp", "attn") if kind in kinds] + [k for k in kinds if k not in ("mlp", "attn")]
        entries = [(f"{KIND_NAMES.get(kind, 'other')}, f", _STYLES.get(kind, _OTHER)) for kind in known]
        if "reference_unitmem_mean" in layers.columns:
            entries.append(("the same under g", (SOFT, "-", "")))
        _legend(sketch, entries)
        means = rows.filter(pl.col("layer") == pl.col("layer").max().over("tower", "kind"))
        ends = ", ".join(
            f"{row['tower']} {row['kind']} {plain(row['unitmem_mean'])}"
            for row in means.sort("tower", "kind").iter_rows(named=True)
        )
        return sketch.svg(f"Mean UnitMem by layer of both towers. In the last layer: {ends}.")


def layermem_figure(layers: pl.DataFrame, role: str, size: str) -> str:
    """Draw LayerMem by layer, and below it its difference from the layer before, with the control.

    Args:
        layers: The table `layers`.
        role: The role whose pairs are measured; the external pairs are the control.
        size: A key of `SIZES`.
    """
    own = layers.filter(pl.col("role") == role)
    kinds = _kinds(own)
    main = "block" if "block" in kinds else kinds[0] if kinds else "block"
    control = layers.filter((pl.col("role") == "external") & (pl.col("kind") == main))
    has_control = role != "external" and control.height > 0
    with Sketch(f"layermem-{size}", SIZES[size], 540 if size == "wide" else 900) as sketch:
        panels = _panels(sketch, size, 2)
        parts = (("layermem", ("low", "high"), "LayerMem"), ("delta", ("delta_low", "delta_high"), "difference"))
        for line, (value, ends, name) in enumerate(parts):
            for column, tower in enumerate(TOWERS):
                axes = panels[line][column]
                axes.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
                if has_control:
                    _line(
                        axes, control.filter(pl.col("tower") == tower), value, ends, (EXTERNAL, (0, (3, 2, 1, 2)), "v")
                    )
                for kind in kinds:
                    rows = own.filter((pl.col("tower") == tower) & (pl.col("kind") == kind))
                    band = ends if kind in (main, "embedding") else None
                    _line(axes, rows, value, band, _IN_LAYERMEM.get(kind, _OTHER))
                axes.set_title(f"{tower} tower", loc="left", size=13, weight="bold")
                axes.set_ylabel(name)
                axes.set_xlabel("layer")
                _name_embedding(axes, own.filter((pl.col("tower") == tower) & (pl.col("kind") == "embedding")))
        _share(panels, _last(own))
        entries = [(KIND_NAMES.get(kind, "other"), _IN_LAYERMEM.get(kind, _OTHER)) for kind in kinds]
        entries += [(f"control, {KIND_NAMES.get(main, 'other')}", (EXTERNAL, (0, (3, 2, 1, 2)), "v"))] * has_control
        _legend(sketch, entries)
        last = own.filter(pl.col("kind") == main).filter(pl.col("layer") == pl.col("layer").max().over("tower"))
        ends_words = ", ".join(
            f"{row['tower']} {signed(row['layermem'])}" for row in last.sort("tower").iter_rows(named=True)
        )
        return sketch.svg(f"LayerMem and its difference by layer. In the last layer: {ends_words}.")


def _kinds(rows: pl.DataFrame) -> list[str]:
    there = set(rows["kind"].to_list())
    return [kind for kind in ("block", "attn", "mlp", "embedding") if kind in there] + sorted(there - set(KIND_NAMES))


def _last(rows: pl.DataFrame) -> int:
    return max([1, *rows["layer"].to_list()])


def _panels(sketch: Sketch, size: str, lines: int) -> list[list[Axes]]:
    """Place `lines` rows of one panel a tower; on a phone the towers of a row follow each other."""
    width, height = sketch.width, sketch.height
    columns = 2 if size == "wide" else 1
    count = lines * 2 // columns
    left, gap, top, bottom, foot = 78, 86, 26, 46, 40
    wide = (width - left - 8 - gap * (columns - 1)) / columns
    high = (height - foot - count * (top + bottom)) / count
    panels: list[list[Axes]] = []
    for line in range(lines):
        row: list[Axes] = []
        for tower in range(2):
            place, column = (line, tower) if columns == 2 else (line * 2 + tower, 0)
            y = height - (place + 1) * (top + high) - place * bottom
            box = ((left + column * (wide + gap)) / width, y / height, wide / width, high / height)
            axes = sketch.figure.add_axes(box)
            axes.grid(axis="y", color=LINE, linewidth=1)
            axes.set_axisbelow(True)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
            row.append(axes)
        panels.append(row)
    return panels


def _line(
    axes: Axes, rows: pl.DataFrame, value: str, ends: tuple[str, str] | None, style: tuple[str, Any, str]
) -> None:
    """Draw a column over the layers with its interval: a band, or a bar where there is one layer only."""
    rows = rows.filter(pl.col(value).is_finite()).sort("layer")
    if not rows.height:
        return
    color, dashes, mark = style
    x, y = rows["layer"].to_numpy(), rows[value].to_numpy()
    soft = color == SOFT
    axes.plot(
        x, y, color=color, linestyle=dashes, marker=mark, markersize=4 if soft else 5.5, linewidth=1.2 if soft else 1.8
    )
    if ends is None:
        return
    low, high = (rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in ends)
    if rows.height > 1:
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    else:
        axes.plot([x[0], x[0]], [low[0], high[0]], color=color, linewidth=1.6)


def _share(panels: Sequence[Sequence[Axes]], last: int) -> None:
    """Give all panels one axis of layers, and those of a row one axis of values."""
    for row in panels:
        low, high = min(axes.get_ylim()[0] for axes in row), max(axes.get_ylim()[1] for axes in row)
        for axes in row:
            axes.set_ylim(low, high)
            axes.set_xlim(0.6, last + 0.4)


def _name_embedding(axes: Axes, rows: pl.DataFrame) -> None:
    """Write "emb." instead of a number below the layer that is the tower's embedding."""
    if not rows.height:
        return
    at = int(rows["layer"][0])

    def name(value: float, _: int | None = None) -> str:
        return "emb." if round(value) == at else f"{value:g}" if value < at else ""

    axes.xaxis.set_major_formatter(FuncFormatter(name))


def _legend(sketch: Sketch, entries: Sequence[tuple[str, tuple[str, Any, str]]]) -> None:
    if not entries:
        return
    handles = [
        Line2D([], [], color=color, linestyle=dashes, marker=mark, markersize=5.5, linewidth=1.8)
        for _, (color, dashes, mark) in entries
    ]
    sketch.figure.legend(
        handles=handles,
        labels=[name for name, _ in entries],
        loc="lower center",
        ncols=min(len(entries), 5 if sketch.width > 500 else 3),
        fontsize=12,
        handlelength=2.6,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
