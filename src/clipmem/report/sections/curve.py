"""Comparison of runs that differ in one number: memorization and utility against it."""

from collections.abc import Callable, Mapping
from typing import Any

from clipmem.report.sections import SECTIONS, Section
from clipmem.report.sections.comparison import SHORT


@SECTIONS.register("curve")
class Curve(Section):
    """Memorization and the main utilities against a setting."""

    page = screen = "comparison"
    nav, order = "Curves", 400

    def applies(self, subject: Mapping[str, Any]) -> bool:
        return "curve" in subject

    def data(self, subject: Mapping[str, Any]) -> dict[str, Any]:
        return {"setting": subject["curve"]["setting"].rpartition(".")[2], "curves": _curves(subject)}

    def figures(self, subject: Mapping[str, Any]) -> Mapping[str, Callable[[str], str]]:
        return {"curve": lambda size: curve_figure(subject, size)}


def _curves(document: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of memorization and of the main and the retained utilities, by name."""
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in document["curve"]["rows"]:
        name = str(row["measure"])
        if name in SHORT or name == document["measure"]:
            curves.setdefault(SHORT.get(name, name), []).append(row)
    return curves


def curve_figure(document: Mapping[str, Any], size: str) -> str:
    """Draw the mean of each measure over seeds, with its interval, against the setting."""
    from clipmem.report.figures import STYLES, Line, Panel, small_multiples

    setting = document["curve"]["setting"].rpartition(".")[2]
    panels: list[Panel] = []
    for name, rows in _curves(document).items():
        x, y, low, high = ([row[key] for row in rows] for key in ("value", "mean", "low", "high"))
        panels.append(Panel(name, setting, "mean over seeds", [Line(x, y, STYLES[0], low, high)]))
    title = f"{', '.join(panel.title for panel in panels)} by {setting}."
    return small_multiples("curve", size, panels, title, columns=min(3, len(panels)), height=260)
