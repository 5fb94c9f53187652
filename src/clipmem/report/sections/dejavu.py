"""Déjà Vu memorization: objects that a model recovers and the caption does not mention."""

from collections.abc import Mapping
from typing import Any

from clipmem.base.summary import Summary
from clipmem.report.figures import DASHED, INK, LINE, ROLE_COLORS, SIZES, SOFT, Sketch
from clipmem.report.formats import interval, level, side_of, signed
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Figures, Section, Shown

GAPS = {"precision_gap": "population precision gap", "recall_gap": "population recall gap", "auc_gap": "AUC gap"}
_FEW = 10


@SECTIONS.register("dejavu")
class Dejavu(Section):
    """Déjà Vu memorization: objects that f recovers and the caption does not mention."""

    nav, order, screen = "Déjà Vu", 110, "report"

    def applies(self, subject: Run) -> bool:
        return bool(subject.summary.dejavu)

    def data(self, subject: Run) -> Shown:
        return gaps(subject.summary.dejavu or {})

    def figures(self, subject: Run) -> Figures:
        measured = "skipped" not in (subject.summary.dejavu or {})
        return {"dejavu": lambda size: gaps_figure(subject.summary, size)} if measured else {}


def gaps(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the templates show, from the entry `dejavu` of a summary."""
    if "skipped" in found:
        return {"found": found, "skipped": found["skipped"]}
    two = found["two_model"]
    own = two["roles"]["candidate"]
    floor = (found["floor"] or {}).get("top", [])
    return {
        "found": found,
        "skipped": "",
        "names": GAPS,
        "candidate": own,
        "clear": [name for key, name in GAPS.items() if side_of(own[key]) == "above"],
        "rest": two["roles"].get("candidate, not planted"),
        "two": two["roles"],
        "few": [top for top in own["top"] if top["pairs"] < _FEW],
        "tops": [{**top, "floor": floor[k] if k < len(floor) else None} for k, top in enumerate(own["top"])],
    }


def gaps_figure(summary: Summary, size: str) -> str:
    """Draw the three gaps of every role with their intervals."""
    found, wide = summary.dejavu or {}, size == "wide"
    roles = [role for role in found["two_model"]["roles"] if role in ROLE_COLORS]
    height = 34 * len(GAPS) * len(roles) + 76
    with Sketch(f"dejavu-{size}", SIZES[size], height) as sketch:
        bottom, left = 58 / height, 0.16 if wide else 0.31
        axes = sketch.figure.add_axes((left, bottom, 0.98 - left, 0.99 - bottom))
        axes.axvline(0, color=INK, linewidth=1, linestyle=DASHED)
        axes.grid(axis="x", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        ticks: list[tuple[float, str]] = []
        row = 0.0
        for key, name in reversed(GAPS.items()):
            for role in reversed(roles):
                entry, color = found["two_model"]["roles"][role][key], ROLE_COLORS[role]
                if entry["low"] is not None and entry["high"] is not None:
                    axes.plot([entry["low"], entry["high"]], [row, row], color=color, linewidth=2.4)
                axes.plot([entry["mean"]], [row], "o", color=color, markersize=6)
                ticks.append((row, role))
                row += 1
            label = name if wide else name.removeprefix("population ")
            axes.text(1, row - 0.36, label, transform=axes.get_yaxis_transform(), ha="right", color=SOFT, size=12)
            row += 0.5
        axes.set_ylim(-0.6, row - 0.1)
        axes.set_yticks([place for place, _ in ticks], [role for _, role in ticks])
        axes.set_xlabel("f minus g")
        own = found["two_model"]["roles"]["candidate"]
        values = ", ".join(f"{GAPS[key]} {signed(own[key]['mean'])} {interval(own[key], sign=True)}" for key in GAPS)
        return sketch.svg(f"Déjà Vu gaps by role, {level(summary.confidence)} intervals. Candidates: {values}.")
