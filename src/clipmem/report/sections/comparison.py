"""Comparison of runs: settings that differ, Pareto front, differences, cost, conditions, and along a setting."""

from functools import partial
from typing import Any, NamedTuple

from clipmem.base.errors import shorten_text
from clipmem.report import formats
from clipmem.report.figures import CANDIDATE, DASHED, INK, LINE, PAPER, SOFT, STYLES, Figure, Line, Panel
from clipmem.report.frontier import Difference, Dominance
from clipmem.report.run import UTILITIES
from clipmem.report.sections import SECTIONS, Document, Figures, ScreenSection, Section, Shown
from clipmem.report.sections.utility import ROWS
from clipmem.report.templating import names

SHORT = UTILITIES | {f"retained_{name}": f"retained {words}" for name, words in UTILITIES.items()}
LABELS = {**ROWS, **names("measures"), **SHORT}
MEMORIZATION = {"clipmem_wordings": "memorization over all captions"}
MAX_PANELS = 3
_SMALL = 8  # main differences that a screen lists without --verbose


class Answer(NamedTuple):
    """A run's differences in memorization and in the main utilities, and whether it dominates at a level."""

    run: str
    parts: list[tuple[str, Difference]]
    dominates: Dominance | None
    level: float


@SECTIONS.register("comparison")
class Comparison(Section):
    """Memorization, utility and cost of runs against a baseline, over paired seeds."""

    page = screen = "comparison"

    def links(self, subject: Document) -> list[tuple[str, str]]:
        parts = {"runs": "Runs", "pareto": "Pareto front", "differences": "Differences", "cost": "Cost"}
        parts["notes"] = "Conditions"
        return [part for part in parts.items() if part[0] != "pareto" or subject["pareto"]]

    def data(self, subject: Document) -> Shown:
        names = [run["run"] for run in subject["runs"]]
        main = {subject["measure"], *MEMORIZATION, *_main(subject)}
        along = "frontier" in subject  # runs at other lengths are not answers, and the length is no caveat
        return {
            "answers": [answer(subject, name) for name in names[1:] if not along],
            "notes": [note for note in subject["notes"] if not (along and note["kind"] == "other_length")],
            "fronts": [(label_of(name), subject["pareto"][name]) for name in _main(subject)],
            "primary": label_of(subject["primary"]["utility"]),
            "label": label_of,
            "main": main,
            "small": sum(row["measure"] in main for row in subject["differences"]) <= _SMALL,
        }

    def figures(self, subject: Document) -> Figures:
        return {"pareto": pareto_figure(subject)} if subject["pareto"] else {}


@SECTIONS.register("answers")
class Answers(ScreenSection):
    """The verdict of a comparison, and each run's differences in a sentence."""

    screen, order, terminal = "comparison", 10, "comparison/answers.txt"

    def data(self, subject: Document) -> Shown:
        return {"answers": Comparison().data(subject)["answers"]}


def label_of(metric: str) -> str:
    """Return a short name of a measure."""
    return LABELS.get(metric, metric)


def _main(document: Document) -> list[str]:
    """Return the main utilities that runs have in common, the primary one first."""
    order = [document["primary"]["utility"], *SHORT]
    return sorted((name for name in document["pareto"] if name in order), key=order.index)


def answer(document: Document, run: str) -> Answer:
    """Return a run's differences in memorization and in the main utilities, and whether it dominates the baseline."""
    rows = {row["measure"]: row for row in document["differences"] if row["run"] == run}
    parts = [("memorization", rows[document["measure"]])]
    parts += [(words, rows[name]) for name, words in MEMORIZATION.items() if name in rows]
    parts += [(label_of(name), rows[name]) for name in _main(document)]
    dominates = next((row for row in document["dominates"] if row["run"] == run), None)
    return Answer(run, parts, dominates, 1 - document["confidence"])


def pareto_figure(document: Document) -> Figure:
    """Draw utility against memorization, as differences from the baseline, in at most `MAX_PANELS` panels."""
    names = (_main(document) or list(document["pareto"]))[:MAX_PANELS]

    def draw(points: Any, axes: Any) -> None:
        axes.axvline(0, color=SOFT, linewidth=1, linestyle=DASHED)
        axes.grid(axis="x", color=LINE, linewidth=1)
        best = sorted(
            (run["memorization"]["difference"], run["utility"]["difference"]) for run in points if run["front"]
        )
        if len(best) > 1:  # the best utility at each level of memorization
            x, y = zip(*best, strict=True)
            axes.step(x, y, where="post", color=CANDIDATE, linewidth=1.2, alpha=0.6)
        for point in points:
            x, y = point["memorization"], point["utility"]
            if x["low"] is not None:
                axes.plot([x["low"], x["high"]], [y["difference"]] * 2, color=SOFT, linewidth=1.3)
            if y["low"] is not None:
                axes.plot([x["difference"]] * 2, [y["low"], y["high"]], color=SOFT, linewidth=1.3)
            face = CANDIDATE if point["front"] else PAPER
            marked = {"markersize": 8, "markerfacecolor": face, "markeredgecolor": CANDIDATE, "markeredgewidth": 1.8}
            axes.plot(x["difference"], y["difference"], marker="o", linestyle="", **marked)
            xy = (x["difference"], y["difference"])
            text = {"xytext": (7, 6), "textcoords": "offset points", "color": INK, "fontsize": 12, "parse_math": False}
            axes.annotate(formats.visible(shorten_text(point["run"], 24)), xy, **text)
        axes.margins(0.18, 0.12)

    panels: list[Panel] = []
    for name in names:
        panel = Panel(label_of(name), "memorization, difference", "utility, difference", zero=True)
        panel.draw = partial(draw, document["pareto"][name]["points"])
        panels.append(panel)
    fronts = "; ".join(f"{name}: {', '.join(document['pareto'][name]['front'])}" for name in names)
    title = f"Utility against memorization, as differences from {document['baseline']}. Pareto front by {fronts}."
    return Figure(title, panels, columns=len(names))


@SECTIONS.register("curve")
class Curve(Section):
    """Memorization and the main utilities against a setting."""

    page = screen = "comparison"
    nav, order, entry, detail = "Curves", 400, "curve", True

    def data(self, subject: Document) -> Shown:
        """Return the rows of memorization and of the main and the retained utilities, by name."""
        curves: Shown = {}
        for row in subject["curve"]["rows"]:
            name = row["measure"]
            if name in SHORT | MEMORIZATION or name == subject["measure"]:
                curves.setdefault(label_of(name), []).append(row)
        return {"setting": subject["curve"]["setting"].rpartition(".")[2], "curves": curves}

    def figures(self, subject: Document) -> Figures:
        """Draw the mean of each measure over seeds, with its interval, against the setting."""
        data, panels = self.data(subject), list[Panel]()
        setting = data["setting"]
        for name, rows in data["curves"].items():
            x, y, low, high = ([row[key] for row in rows] for key in ("value", "mean", "low", "high"))
            panels.append(Panel(name, setting, "mean over seeds", [Line(x, y, STYLES[0], low, high)]))
        title = f"{', '.join(panel.title for panel in panels)} by {setting}."
        return {"curve": Figure(title, panels, columns=min(3, len(panels)), height=260)}


@SECTIONS.register("frontier")
class Frontier(Section):
    """Memorization against utility of several configurations along a setting, and their differences."""

    page = screen = "comparison"
    nav, order, entry = "Frontier", 300, "frontier"

    def data(self, subject: Document) -> Shown:
        along = subject["frontier"]
        labels = ["baseline"]  # the settings in which each configuration differs from the first
        for group in along["groups"][1:]:
            differs = ((key.removeprefix("mitigate."), value) for key, (_, value) in group["differs"].items())
            labels.append(", ".join(f"{key} {formats.setting(value)}" for key, value in differs))
        return {
            "setting": along["setting"].rpartition(".")[2],
            "curves": list(zip(labels, along["groups"], strict=True)),
            "tables": {
                name: [(label, [row for row in along[name] if row["group"] == k]) for k, label in enumerate(labels)]
                for name in ("equal", "best")
            },
            "utility": label_of(along["utility"]),
            "over": MEMORIZATION.get(along["measure"], "memorization"),
        }

    def figures(self, subject: Document) -> Figures:
        """Draw utility against memorization, and both against the setting: a line a configuration, the front ringed."""
        data = self.data(subject)
        setting, utility, curves = data["setting"], data["utility"], data["curves"]
        points = [point for _, group in curves for point in group["points"]]

        def draw(axes: Any) -> None:
            for point in points:
                position = point["memorization"]["mean"], point["utility"]["mean"]
                label = f"{point['value']:g}"
                axes.annotate(label, position, xytext=(6, 5), textcoords="offset points", color=INK, fontsize=11)
                if point["front"]:
                    axes.plot(*position, "o", color=INK, fillstyle="none", markersize=12, markeredgewidth=1.2)

        panels = [
            Panel(f"{utility} against memorization", "memorization", utility, draw=draw),
            Panel("memorization", setting, "memorization", zero=True),
            Panel(utility, setting, utility),
        ]
        legend = {label: STYLES[k % len(STYLES)] for k, (label, _) in enumerate(curves)}
        for k, label in list(enumerate(legend))[len(STYLES) :]:  # more configurations than styles
            dashes, mark = STYLES[(k + 1) % len(STYLES)].dashes, STYLES[(k + 2) % len(STYLES)].mark
            legend[label] = legend[label]._replace(dashes=dashes, mark=mark)
        for style, (_, group) in zip(legend.values(), curves, strict=True):
            x, memory, gain = ([each[key] for each in group["points"]] for key in ("value", "memorization", "utility"))
            panels[0].lines.append(Line([entry["mean"] for entry in memory], [entry["mean"] for entry in gain], style))
            for panel, entries in zip(panels[1:], (memory, gain), strict=True):
                y, low, high = ([entry[key] for entry in entries] for key in ("mean", "low", "high"))
                panel.lines.append(Line(x, y, style, low, high))
        title = f"{utility} against memorization, and both against {setting}, of {', '.join(legend)}."
        return {"frontier": Figure(title, panels, columns=3, legend=legend)}
