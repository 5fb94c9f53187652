"""The page of a reproduction: verdicts, effects and figures, from `findings.json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clipmem.report.figures import SOFT, STYLES, Figure, Line, Panel, Style
from clipmem.report.sections import SECTIONS, Section

KIND = "clipmem_reproduce:findings"  # of the page and the screen
ANSWERS = ("yes", "no", "inconclusive")
_OFFSET = 0.012  # of the axis: curves of a panel are shifted by this much, so that their intervals do not overlap


@SECTIONS.register("findings")
class Findings(Section):
    """Which published findings hold, with the figure of each."""

    page = screen = KIND

    def links(self, subject: Mapping[str, Any]) -> list[tuple[str, str]]:
        findings = [(finding["finding"], finding["title"]) for finding in subject["findings"]]
        return [("overview", "Overview"), *findings, ("runs", "Runs")]

    def data(self, subject: Mapping[str, Any]) -> dict[str, Any]:
        """Return the findings, each with its primary effect and the number of other effects by verdict."""
        return {"tally": tally(subject), "findings": [_finding(finding) for finding in subject["findings"]]}

    def figures(self, subject: Mapping[str, Any]) -> Mapping[str, Figure]:
        findings = [finding for finding in subject["findings"] if drawable(finding["panels"])]
        return {finding["finding"]: finding_figure(finding) for finding in findings}


def tally(document: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the titles of the findings by verdict."""
    titles: dict[str, list[str]] = {answer: [] for answer in ANSWERS}
    for finding in document["findings"]:
        titles[finding["holds"]].append(finding["title"])
    return [(answer, names) for answer, names in titles.items() if names]


def _finding(document: Mapping[str, Any]) -> dict[str, Any]:
    effects = document["effects"]
    count = Counter(effect["holds"] for effect in effects if not effect["primary"])
    return {
        **document,
        "primary": next((effect for effect in effects if effect["primary"]), None),
        "others": [(answer, count[answer]) for answer in ANSWERS if count[answer]],
    }


def drawable(panels: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether there is anything to draw."""
    return any(line["x"] for panel in panels for line in panel["series"])


def finding_figure(document: Mapping[str, Any]) -> Figure:
    """Draw the measured curves with their intervals, and the published ones in panels with their own scale."""
    panels = document["panels"]
    styles = styles_of(panels)
    legend = {name: style for name, style in styles.items() if name}
    title = f"{document['title']}. {document['claim']} Holds: {document['holds']}."
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    figure = [_panel(panel, styles) for panel in panels]
    return Figure(title, figure, columns=columns, height=250, legend=legend)


def styles_of(panels: Sequence[Mapping[str, Any]]) -> dict[str, Style]:
    """Assign a style to each name; a published curve shares the style of the measured one of the same name."""
    lines = [(line["name"], panel["published"]) for panel in panels for line in panel["series"]]
    ours = dict.fromkeys(name for name, published in lines if not published)
    theirs = [name for name in dict.fromkeys(name for name, published in lines if published) if name not in ours]
    styles = {name: STYLES[k % len(STYLES)] for k, name in enumerate(ours)}
    for k, name in enumerate(theirs):
        alone = Style(SOFT, (0, (3, 2, 1, 2)), "D")
        styles[name] = alone if len(theirs) == 1 else STYLES[(len(ours) + k) % len(STYLES)]
    return styles


def _panel(panel: Mapping[str, Any], styles: Mapping[str, Style]) -> Panel:
    series, below_zero = panel["series"], any(value < 0 for line in panel["series"] for value in line["mean"])
    figure = Panel(panel["title"], panel["xlabel"], panel["ylabel"], ticks=panel["ticks"])
    figure.zero = below_zero and not panel["published"]
    positions = [x for line in series for x in line["x"]]
    offset = _OFFSET * (max(positions) - min(positions)) if positions and not panel["published"] else 0.0
    for k, line in enumerate(series):
        shift = (k - (len(series) - 1) / 2) * offset
        curve = Line([x + shift for x in line["x"]], line["mean"], styles[line["name"]], line["low"], line["high"])
        figure.lines.append(replace(curve, joined=panel["joined"], ring=panel["optimum"]))
    return figure
