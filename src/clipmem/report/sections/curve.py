"""Comparison of runs along a setting with numbers: memorization and utility against it, and against each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from clipmem.report.figures import INK, STYLES, Figure, Line, Panel, Style
from clipmem.report.formats import setting as shown
from clipmem.report.sections import SECTIONS, Document, Figures, Section, Shown
from clipmem.report.sections.comparison import MEMORIZATION, SHORT, label_of


@SECTIONS.register("curve")
class Curve(Section):
    """Memorization and the main utilities against a setting."""

    page = screen = "comparison"
    nav, order = "Curves", 400

    def applies(self, subject: Document) -> bool:
        return "curve" in subject

    def data(self, subject: Document) -> Shown:
        return {"setting": subject["curve"]["setting"].rpartition(".")[2], "curves": _curves(subject)}

    def figures(self, subject: Document) -> Figures:
        return {"curve": curve_figure(subject)}


def _curves(document: Document) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of memorization and of the main and the retained utilities, by name."""
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in document["curve"]["rows"]:
        name = str(row["measure"])
        if name in SHORT | MEMORIZATION or name == document["measure"]:
            curves.setdefault((SHORT | MEMORIZATION).get(name, name), []).append(row)
    return curves


def curve_figure(document: Document) -> Figure:
    """Draw the mean of each measure over seeds, with its interval, against the setting."""
    setting = document["curve"]["setting"].rpartition(".")[2]
    panels: list[Panel] = []
    for name, rows in _curves(document).items():
        x, y, low, high = ([row[key] for row in rows] for key in ("value", "mean", "low", "high"))
        panels.append(Panel(name, setting, "mean over seeds", [Line(x, y, STYLES[0], low, high)]))
    title = f"{', '.join(panel.title for panel in panels)} by {setting}."
    return Figure(title, panels, columns=min(3, len(panels)), height=260)


@SECTIONS.register("frontier")
class Frontier(Section):
    """Memorization against utility of several configurations along a setting, and their differences."""

    page = screen = "comparison"
    nav, order = "Frontier", 300

    def applies(self, subject: Document) -> bool:
        return "frontier" in subject

    def data(self, subject: Document) -> Shown:
        found, labels = subject["frontier"], _labels(subject["frontier"])
        return {
            "setting": found["setting"].rpartition(".")[2],
            "curves": list(zip(labels, found["groups"], strict=True)),
            "tables": {
                name: [
                    (label, [row | {"label": label} for row in found[name] if row["group"] == k])
                    for k, label in enumerate(labels[1:], start=1)
                ]
                for name in ("equal", "best")
            },
            "utility": label_of(found["utility"]),
            "over": MEMORIZATION.get(found["measure"], "memorization"),
        }

    def figures(self, subject: Document) -> Figures:
        return {"frontier": frontier_figure(subject["frontier"])}


def _labels(found: Mapping[str, Any]) -> list[str]:
    """Return a name for each configuration: the settings in which it differs from the first."""
    return ["baseline"] + [
        ", ".join(f"{key.removeprefix('mitigate.')} {shown(value)}" for key, (_, value) in group["differs"].items())
        for group in found["groups"][1:]
    ]


def frontier_figure(found: Mapping[str, Any]) -> Figure:
    """Draw utility against memorization, and both against the setting: a line a configuration, the front ringed."""
    setting, utility = found["setting"].rpartition(".")[2], label_of(found["utility"])
    styles = {label: _style(k) for k, label in enumerate(_labels(found))}
    panels = [
        Panel(f"{utility} against memorization", "memorization", utility, draw=lambda axes: _points(axes, found)),
        Panel("memorization", setting, "memorization", zero=True),
        Panel(utility, setting, utility),
    ]
    for style, group in zip(styles.values(), found["groups"], strict=True):
        x, memory, gain = ([point[key] for point in group["points"]] for key in ("value", "memorization", "utility"))
        panels[0].lines.append(Line([one["mean"] for one in memory], [one["mean"] for one in gain], style))
        for panel, entries in zip(panels[1:], (memory, gain), strict=True):
            y, low, high = ([one[key] for one in entries] for key in ("mean", "low", "high"))
            panel.lines.append(Line(x, y, style, low, high))
    title = f"{utility} against memorization, and both against {setting}, of {', '.join(styles)}."
    return Figure(title, panels, columns=3, legend=styles)


def _style(k: int) -> Style:
    own = STYLES[k % len(STYLES)]
    if k < len(STYLES):
        return own
    return own._replace(dashes=STYLES[(k + 1) % len(STYLES)].dashes, mark=STYLES[(k + 2) % len(STYLES)].mark)


def _points(axes: Any, found: Mapping[str, Any]) -> None:
    """Label each point by the value of the setting, and ring the front."""
    points: Sequence[Mapping[str, Any]] = [point for group in found["groups"] for point in group["points"]]
    for point in points:
        place = point["memorization"]["mean"], point["utility"]["mean"]
        label = f"{point['value']:g}"
        axes.annotate(label, place, xytext=(6, 5), textcoords="offset points", color=INK, fontsize=11)
        if point["front"]:
            axes.plot(*place, "o", color=INK, fillstyle="none", markersize=12, markeredgewidth=1.2)
