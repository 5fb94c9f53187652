"""The figure of Déjà Vu memorization, as SVG text: three gaps a role with their intervals, two tests each.

The two tests differ in the mark (filled, hollow) and in the line, not in colour alone.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from clipmem.report.dejavu import GAPS, with_interval
from clipmem.report.figures import COLORS, SIZES
from clipmem.report.numbers import level
from clipmem.report.svg import INK, LINE, PAPER, SOFT, Sketch


def gaps_figure(summary: Mapping[str, Any], size: str) -> str:
    """Draw the three gaps of every role with their intervals; the two-model test filled, the one-model test hollow.

    Args:
        summary: The content of a `summary.json` in which Déjà Vu was measured.
        size: A key of `SIZES`.
    """
    found, wide = summary["dejavu"], size == "wide"
    roles = [role for role in found["two_model"]["roles"] if role in COLORS]
    height = 34 * len(GAPS) * len(roles) + 76
    with Sketch(f"dejavu-{size}", SIZES[size], height) as sketch:
        bottom = 58 / height
        left = 0.16 if wide else 0.31
        axes = sketch.figure.add_axes((left, bottom, 0.98 - left, 0.99 - bottom))
        axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.grid(axis="x", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        ticks: list[tuple[float, str]] = []
        row = 0.0
        for key, name in reversed(GAPS.items()):
            for role in reversed(roles):
                for test, shift in (("two_model", 0.16), ("one_model", -0.16)):
                    _gap(axes, found[test]["roles"][role][key], row + shift, COLORS[role], filled=test == "two_model")
                ticks.append((row, role))
                row += 1
            label = name if wide else name.removeprefix("population ")
            axes.text(1, row - 0.36, label, transform=axes.get_yaxis_transform(), ha="right", color=SOFT, size=12)
            row += 0.5
        axes.set_ylim(-0.6, row - 0.1)
        axes.set_yticks([place for place, _ in ticks], [role for _, role in ticks])
        axes.set_xlabel("f less reference")
        own = found["two_model"]["roles"]["candidate"]
        said = ", ".join(f"{name} {with_interval(own[key])}" for key, name in GAPS.items())
        return sketch.svg(f"Gaps of Déjà Vu by role, {level(summary['confidence'])} intervals. Candidates: {said}.")


def _gap(axes: Axes, entry: Mapping[str, Any], row: float, color: str, *, filled: bool) -> None:
    """Draw one gap: its mean, and its interval where it has one."""
    if entry["low"] is not None and entry["high"] is not None:
        axes.plot([entry["low"], entry["high"]], [row, row], color=color, linewidth=2.4 if filled else 1)
    axes.plot([entry["mean"]], [row], "o", color=color, markersize=6, markerfacecolor=color if filled else PAPER)
