"""Déjà Vu memorization: objects that a model recovers and the caption does not mention."""

from collections.abc import Mapping
from typing import Any

from clipmem.base.summary import Summary
from clipmem.report.figures import DASHED, INK, LINE, ROLE_COLORS, SOFT, Figure, Panel
from clipmem.report.formats import interval, level, side_of, signed
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Figures, Section, Shown
from clipmem.report.templating import names

GAPS = names("gaps")
_FEW = 10


@SECTIONS.register("dejavu")
class Dejavu(Section):
    """Déjà Vu memorization: objects that f recovers and the caption does not mention."""

    nav, order, screen, entry = "Déjà Vu", 110, "report", "dejavu"

    def data(self, subject: Run) -> Shown:
        return gaps(subject.summary.dejavu or {})

    def figures(self, subject: Run) -> Figures:
        measured = "skipped" not in (subject.summary.dejavu or {})
        return {"dejavu": gaps_figure(subject.summary)} if measured else {}


def gaps(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the templates show, from the entry `dejavu` of a summary."""
    if "skipped" in entry:
        return {"found": entry, "skipped": entry["skipped"]}
    two = entry["two_model"]
    candidate = two["roles"]["candidate"]
    floor = (entry["floor"] or {}).get("top", [])
    return {
        "found": entry,
        "skipped": "",
        "names": GAPS,
        "candidate": candidate,
        "clear": [name for key, name in GAPS.items() if side_of(candidate[key]) == "above"],
        "rest": two["roles"].get("candidate, not planted"),
        "two": two["roles"],
        "few": [top for top in candidate["top"] if top["pairs"] < _FEW],
        "tops": [{**top, "floor": floor[k] if k < len(floor) else None} for k, top in enumerate(candidate["top"])],
    }


def gaps_figure(summary: Summary) -> Figure:
    """Draw the three gaps of every role with their intervals."""
    entries = (summary.dejavu or {})["two_model"]["roles"]
    roles = [role for role in entries if role in ROLE_COLORS]

    def draw(axes: Any) -> None:
        axes.axvline(0, color=INK, linewidth=1, linestyle=DASHED)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=LINE, linewidth=1)
        ticks: list[tuple[float, str]] = []
        row = 0.0
        for key, name in reversed(GAPS.items()):
            for role in reversed(roles):
                entry, color = entries[role][key], ROLE_COLORS[role]
                if entry["low"] is not None and entry["high"] is not None:
                    axes.plot([entry["low"], entry["high"]], [row, row], color=color, linewidth=2.4)
                axes.plot([entry["mean"]], [row], "o", color=color, markersize=6)
                ticks.append((row, role))
                row += 1
            label = name.removeprefix("population ")
            axes.text(1, row - 0.36, label, transform=axes.get_yaxis_transform(), ha="right", color=SOFT, size=12)
            row += 0.5
        axes.set_ylim(-0.6, row - 0.1)
        axes.set_yticks([position for position, _ in ticks], [role for _, role in ticks])

    candidate = entries["candidate"]
    values = ", ".join(
        f"{GAPS[key]} {signed(candidate[key]['mean'])} {interval(candidate[key], sign=True)}" for key in GAPS
    )
    title = f"Déjà Vu gaps by role, {level(summary.confidence)} intervals. Candidates: {values}."
    height = 34 * len(GAPS) * len(roles) + 90
    return Figure(title, [Panel("", "f minus g", "", margin=112, draw=draw)], height=height)
