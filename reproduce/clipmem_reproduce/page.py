"""The page of a reproduction: verdicts, effects and figures, from `findings.json`."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from clipmem.report.figures import ROLE_STYLES, SIZES, SOFT, STYLES, Figure, Groups, Line, Panel, Style, draw_rows
from clipmem.report.formats import interval, signed
from clipmem.report.sections import SECTIONS, Section
from clipmem_reproduce.findings.roles import ROLES

KIND = "clipmem_reproduce:findings"  # of the page and the screen
ANSWERS = ("yes", "no", "negligible", "mixed", "inconclusive")
_AT_START = re.compile(r"\d+%|COCO|CC3M")  # what is written of a name at the start of its curve
_TICK = 9  # letters of the longest tick that is not broken into lines
_OFFSET = 0.012  # of the axis: curves of a panel are shifted by this much, so that their intervals do not overlap


@SECTIONS.register("findings")
class Findings(Section):
    """Which published findings hold, with the figure of each."""

    page = screen = KIND

    def links(self, subject: Mapping[str, Any]) -> list[tuple[str, str]]:
        findings = [(finding["finding"], finding["title"]) for finding in subject["findings"]]
        return [("overview", "Overview"), *findings, ("runs", "Runs")]

    def data(self, subject: Mapping[str, Any]) -> dict[str, Any]:
        """Return the findings, each with its primary effects and the number of other effects by verdict."""
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
        "primaries": [effect for effect in effects if effect["primary"]],
        "others": [(answer, count[answer]) for answer in ANSWERS if count[answer]],
    }


def drawable(panels: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether there is anything to draw."""
    return any(line["x"] for panel in panels for line in panel["series"])


def finding_figure(document: Mapping[str, Any], width: int = SIZES["wide"]) -> Figure:
    """Draw the measured curves with their intervals, and the published ones in panels with their own scale."""
    panels = document["panels"]
    styles = styles_of(panels)
    legend = {name: style for name, style in styles.items() if name and not _AT_START.fullmatch(name)}
    title = f"{document['title']}. {document['claim']} Holds: {document['holds']}."
    columns = min(len(panels), 3 if len(panels) % 2 else 2)
    if [panel["title"] for panel in panels] == ["here"]:
        panels = [{**panels[0], "title": document["title"]}]
    names = [panel["title"].partition(": ")[2] for panel in panels]
    panels = sorted(panels, key=lambda panel: names.index(panel["title"].partition(": ")[2]))  # published ones beside
    figure = [_panel(panel, styles) for panel in panels]
    return Figure(title, figure, columns=columns, height=240, width=width, legend=legend)


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
    long = any(len(tick) > _TICK for tick in panel["ticks"])
    ticks = [tick.replace(" ", "\n") if long else tick for tick in panel["ticks"]]
    figure = Panel(panel["title"], panel["xlabel"], panel["ylabel"], ticks=ticks)
    if panel["ticks"] == list(ROLES):
        return replace(figure, ticks=(), margin=112, draw=partial(draw_rows, _rows(series)))
    figure.zero = below_zero and not panel["published"]
    figure.share = f"{panel['ylabel']}, {panel['published']}"  # only the shape of published curves compares
    figure.draw = partial(_draw, panel, styles)
    positions = [x for line in series for x in line["x"]]
    offset = _OFFSET * (max(positions) - min(positions)) if positions and not panel["published"] else 0.0
    for k, line in enumerate(series):
        shift = (k - (len(series) - 1) / 2) * offset
        curve = Line([x + shift for x in line["x"]], line["mean"], styles[line["name"]], line["low"], line["high"])
        figure.lines.append(replace(curve, joined=panel["joined"], ring=panel["optimum"]))
    return figure


def _draw(panel: Mapping[str, Any], styles: Mapping[str, Style], axes: Any) -> None:
    """Name curves at their starts; start the axis at 0 where 0 is near or stands for no memorization."""
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    if not panel["published"] and low > 0 and (low < high / 2 or panel["ylabel"].startswith("CLIPMem")):
        axes.set_ylim(bottom=0)
    levels = sorted({x for line in panel["series"] for x in line["x"]})
    if not panel["ticks"] and all(x.is_integer() and y - x > (right - left) / 16 for x, y in pairwise(levels)):
        axes.set_xticks(levels)
    for line in panel["series"]:
        if line["x"] and (name := _AT_START.match(line["name"])):
            start = {"xytext": (-9, 0), "textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 12}
            axes.annotate(name[0], (line["x"][0], line["mean"][0]), color=styles[line["name"]].color, **start)
            axes.set_xlim(left - 0.16 * (right - left), right)


def _rows(series: Sequence[Mapping[str, Any]]) -> Groups:
    """Return the mean of each role with its interval, both also in numbers."""
    groups: Groups = {"": []}
    for line in series:
        for role, mean, low, high in zip(ROLES, line["mean"], line["low"], line["high"], strict=True):
            entry = {"low": low, "high": high}
            text = f"{signed(mean)} {interval(entry, sign=True)}"
            groups[""].append((role, ROLE_STYLES[role], mean, entry, text))
    return groups
