"""Draw figures as reproducible SVG for a page; the page's style sheet sets their colors.

matplotlib takes a second to import: this module does so only when it draws.
"""

import html
import io
import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from clipmem.report.formats import Interval, Number, ends_of
from clipmem.report.templating import template_text

STYLES_OF_PAGE = ("colors.css", "page.css")  # in `templates`
SIZES = {"wide": 860, "narrow": 360}
INK, SOFT, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
CANDIDATE, INDEPENDENT, SHARED, EXTERNAL = "#010207", "#010208", "#010209", "#01020a"
ROLE_COLORS = {"candidate": CANDIDATE, "independent": INDEPENDENT, "shared": SHARED, "external": EXTERNAL}
_GRAYS = {INK: "--ink", SOFT: "--soft", LINE: "--line", PAPER: "--paper"}
_VARIABLES = _GRAYS | {color: f"--{role}" for role, color in ROLE_COLORS.items()}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "clipmem",
    "font.family": ["DejaVu Sans"],
    "font.size": 13,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
}
DASHED = (0, (4, 3))
Axes = Any  # of matplotlib
Groups = Mapping[str, list[tuple[str, "Style", Number, Interval, str]]]  # rows: name, style, mean, interval and text


@contextmanager
def sketch(width: int, height: int) -> Generator[Any, None, None]:
    """Yield a figure of matplotlib in the report's style, with its size in CSS pixels."""
    import matplotlib.style
    from matplotlib.figure import Figure as Canvas

    with matplotlib.style.context(["default", _STYLE]):
        # 72 dots per inch: one SVG unit is one CSS pixel when the figure is shown at full width
        yield Canvas(figsize=(width / 72, height / 72), dpi=72)


def svg_of(canvas: Any, name: str, title: str) -> str:
    """Render a sketch as one `<svg>` element with `title` as its accessible name; `name` starts the ids in it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.BytesIO()
    FigureCanvasSVG(canvas).print_svg(stream, metadata={"Date": None})
    return embed(stream.getvalue().decode(), name, title)


def embed(text: str, name: str, title: str) -> str:
    """Turn matplotlib's SVG file into one `<svg>` element without metadata or style, its colors CSS variables."""
    text = text[text.index("<svg") :]
    text = re.sub(r"(?s)(<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->)\s*", "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    text = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--sans)", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    box = re.search(r'viewBox="([^"]*)"', text)
    head = f'<svg class="figure {name.split("-")[-1]}" role="img" viewBox="{box[1] if box else "0 0 1 1"}">'
    head += f"<title>{html.escape(title)}</title>"
    return re.sub(r"<svg\b[^>]*>", lambda _: head, text, count=1).strip()


def light_colors(part: int = 0) -> dict[str, str]:
    """Return the colors of the light page by variable; those of the dark one for `part` 1 of the style sheets."""
    parts = [template_text(name).split("@media")[part] for name in STYLES_OF_PAGE]
    return dict(re.findall(r"(--[a-z]+): (#[0-9a-f]{6})", "".join(parts)))


def standalone(svg: str, *, inline: bool = False) -> str:
    """Return a figure as a file, transparent and in the reader's color scheme; `inline` of a page, light on white."""
    light, dark = light_colors(), light_colors(1)
    svg = re.sub(r"var\((--[a-z]+)\)", lambda match: {**light, "--sans": "system-ui, sans-serif"}[match[1]], svg)
    rules = "".join(
        f'[style*="{part}: {light[name]}"]{{{part}:{dark[name]}!important}}'
        for name in _VARIABLES.values()
        for part in ("fill", "stroke")
        if f"{part}: {light[name]}" in svg
    )
    ground = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    if inline:
        ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    svg = svg.replace("</title>", f"</title>{ground}", 1)
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


class Style(NamedTuple):
    """The color of a line, and matplotlib's linestyle and marker."""

    color: str
    dashes: Any = "-"
    mark: str = "o"


STYLES = (
    Style(CANDIDATE, "-", "o"),
    Style(INDEPENDENT, (0, (5, 2.5)), "s"),
    Style(EXTERNAL, (0, (1, 1.5)), "^"),
    Style(SHARED, (0, (3, 2, 1, 2)), "D"),
    Style(INK, (0, (1, 3)), "x"),
    Style(CANDIDATE, (0, (1, 1.5)), "v"),
    Style(INDEPENDENT, "-", "P"),
    Style(EXTERNAL, (0, (5, 2.5)), "*"),
)
_ROLES = ("candidate", "independent", "external", "shared")
ROLE_STYLES: dict[str, Style] = dict(zip(_ROLES, STYLES, strict=False))
CHANCE = Style(SOFT, DASHED, "")
CONTROL, OTHER = Style(EXTERNAL, (0, (3, 2, 1, 2)), "v"), Style(INK, (0, (1, 2)), "x")


@dataclass
class Line:
    """A line of a panel, with bars or a band for its intervals; unknown values are NaN or None."""

    x: Sequence[int | float]
    y: Sequence[int | float | None]
    style: Style
    low: Sequence[int | float | None] = ()
    high: Sequence[int | float | None] = ()
    band: bool = False
    joined: bool = True
    ring: str = ""  # "lowest" or "highest": the point to ring


@dataclass
class Panel:
    """Lines and axes. `zero` draws a line at 0; panels with the same `share` have the same y axis.

    `margin` is the space for the names on its y axis, in CSS pixels. An axis that starts above 0 says so.
    """

    title: str
    xlabel: str
    ylabel: str
    lines: list[Line] = field(default_factory=list[Line])
    zero: bool = False
    ticks: Sequence[str] = ()
    xlim: tuple[int | float, int | float] | None = None
    whole: bool = False  # x is whole numbers
    share: str = ""
    margin: int = 70
    draw: Callable[[Axes], None] | None = None  # draws anything else


@dataclass
class Figure:
    """Panels in a grid on a wide page and in one column on a phone, with one legend for all.

    Attributes:
        title: Its accessible name: what it shows, in numbers.
        panels: The panels, row by row.
        columns: Panels a row of a wide page.
        height: Height of a panel, in CSS pixels.
        width: Width on a wide page, in CSS pixels.
        legend: Names of styles.
    """

    title: str
    panels: Sequence[Panel]
    columns: int = 1
    height: int = 300
    width: int = SIZES["wide"]
    legend: Mapping[str, Style] = field(default_factory=dict[str, Style])

    def svg(self, name: str, size: str) -> str:
        """Draw it `wide` or `narrow`; `name` starts the ids of its elements."""
        from matplotlib.lines import Line2D

        wide = size == "wide"
        columns, names = self.columns if wide else 1, list(self.legend)
        rows = math.ceil(len(self.panels) / columns)
        width = self.width if wide else SIZES[size]
        ncols = max(1, min(len(names), 4, width // (52 + 7 * max(map(len, names), default=0))))
        ncols = math.ceil(len(names) / math.ceil(len(names) / ncols)) if names else 1
        foot = 24 * math.ceil(len(names) / ncols) + 10 if names else 0
        whole = (width, self.height * rows + foot)
        with sketch(*whole) as canvas:
            shared: dict[str, Axes] = {}
            for k, panel in enumerate(self.panels):
                edge, top, bottom, (row, column) = 12, 30 if panel.title else 10, 50, divmod(k, columns)
                cell, high = whole[0] / columns, (whole[1] - foot) / rows
                x, y = column * cell + panel.margin, whole[1] - (row + 1) * high + bottom
                extent = (cell - panel.margin - edge) / whole[0], (high - top - bottom) / whole[1]
                # left, bottom, width and height, as shares of the whole figure
                axes = canvas.add_axes((x / whole[0], y / whole[1], *extent), sharey=shared.get(panel.share))
                axes.grid(axis="y", color=LINE, linewidth=1)
                axes.set_axisbelow(True)
                _panel(axes, panel)
                shared.setdefault(panel.share or str(k), axes)
            for axes, panel in zip(canvas.axes, self.panels, strict=True):
                if 0 < (low := axes.get_ylim()[0]) < axes.get_ylim()[1] and axes.get_yscale() == "linear":
                    beside = {"xytext": (4 - panel.margin, -30), "textcoords": "offset points", "va": "top"}
                    axes.annotate(f"y from {low:.2g}", (0, 0), xycoords="axes fraction", color=SOFT, size=12, **beside)
            if names:
                handles = [
                    Line2D([], [], color=color, linestyle=dashes, marker=mark, markersize=5.5, linewidth=1.8)
                    for color, dashes, mark in self.legend.values()
                ]
                labels = [label.replace("$", r"\$") for label in names]
                spaces = {"handlelength": 2.6, "columnspacing": 1.2, "borderaxespad": 0.1}
                canvas.legend(handles, labels, loc="lower center", ncols=ncols, fontsize=12, **spaces)
            return svg_of(canvas, f"{name}-{size}", self.title)


def draw_rows(groups: Groups, axes: Axes) -> None:
    """Draw means with their intervals in rows, below the heading of their group, and their texts at the right."""
    row, ticks, across = -0.5, dict[float, str](), axes.get_yaxis_transform()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=LINE, linewidth=1)
    for heading, rows in groups.items():
        row += 0.5
        axes.text(1, row - 0.64, heading, transform=across, ha="right", va="center", color=SOFT, size=12)
        for name, (color, _, mark), mean, entry, text in rows:
            if ends := ends_of(entry):
                axes.plot(ends, [row, row], "|-", color=color, linewidth=2.4, markersize=11)
            axes.plot([mean], [row], mark, color=color, markersize=6)
            axes.text(1, row, text, transform=across, ha="right", va="center", size=12)
            ticks[row] = name
            row += 1
    (low, high), beside = axes.get_xlim(), any(text for rows in groups.values() for *_, text in rows)
    axes.axvline(0, color=SOFT, linewidth=1, linestyle=DASHED)
    axes.set_xticks([tick for tick in axes.get_xticks() if min(0, low) <= tick <= high])
    axes.set_xlim(min(0, low), high + 0.9 * (high - low) * beside)
    axes.set_ylim(row - 0.4, -0.6 - 0.4 * any(groups))
    axes.set_yticks(list(ticks), list(ticks.values()))


def draw(panel: Panel, axes: Axes = None) -> Axes:
    """Draw a panel for a notebook, in the light page's colors, on given axes or on those of a new figure."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_hex, to_rgba_array

    if axes is None:
        axes = plt.subplots(figsize=(7, 3.6), layout="constrained")[1]
    _panel(axes, panel)
    axes.spines[["top", "right"]].set_visible(False)
    light = light_colors()
    for artist in axes.findobj():
        for part in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            value = getattr(artist, f"get_{part}", lambda: "none")()
            colors = to_rgba_array("none" if value is None else value)
            name = _VARIABLES.get(to_hex(colors[0])) if len(colors) else None
            if name:
                getattr(artist, f"set_{part}")(light[name])
    return axes


def _panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    if panel.zero:
        axes.axhline(0, color=SOFT, linewidth=1, linestyle=DASHED)
    for line in panel.lines:
        color, dashes, mark = line.style
        width, size = (1.2, 4) if color == SOFT else (1.8, 5.5)
        style = {"color": color, "linestyle": dashes if line.joined else "none", "marker": mark}
        axes.plot(line.x, line.y, linewidth=width, markersize=size, **style)
        if line.band and len(line.x) > 1 and len(line.low):
            low, high = ([math.nan if end is None else end for end in ends] for ends in (line.low, line.high))
            axes.fill_between(list(line.x), low, high, color=color, alpha=0.2, linewidth=0)
        else:
            for x, low, high in zip(line.x, line.low, line.high, strict=False):
                if low is not None and high is not None:
                    axes.plot([x, x], [low, high], color=color, linewidth=1.5)
        if line.ring and len(line.y):
            value, position = {"lowest": min, "highest": max}[line.ring](zip(line.y, line.x, strict=True))
            axes.plot(position, value, "o", color=color, fillstyle="none", markersize=12, markeredgewidth=1.4)
    axes.set_title(panel.title, loc="left", size=13, weight="bold", parse_math=False)
    axes.set_xlabel(panel.xlabel, parse_math=False)
    axes.set_ylabel(panel.ylabel, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks, fontsize=12)
        axes.set_xlim(-0.5, len(panel.ticks) - 0.5)
    else:
        whole = MaxNLocator(integer=True, nbins=12, min_n_ticks=1)
        axes.xaxis.set_major_locator(whole if panel.whole else MaxNLocator(nbins=5))
        axes.margins(x=0.08)
    if panel.xlim:
        axes.set_xlim(*panel.xlim)
    if panel.draw:
        panel.draw(axes)
