"""Turn a matplotlib figure into SVG for a page: the same bytes each time, colours left to the page.

Colours are tokens: `INK` and its like are drawn as fixed hex values and then become CSS variables, so that
one figure serves a light page, a dark page and a print. Text stays text (it can be read aloud and selected)
in the page's font. The result needs the page's style sheet: on its own it has no colours.
"""

import html
import io
import re

import matplotlib.style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, SOFT, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
CANDIDATE, INDEPENDENT, SHARED, EXTERNAL = "#010207", "#010208", "#010209", "#01020a"
_VARIABLES = {
    INK: "--ink",
    SOFT: "--soft",
    LINE: "--line",
    PAPER: "--paper",
    CANDIDATE: "--candidate",
    INDEPENDENT: "--independent",
    SHARED: "--shared",
    EXTERNAL: "--external",
}
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


class Sketch:
    """A figure of a size in CSS pixels, drawn under the report's style and rendered as SVG.

    Use it as a context: the style holds while the figure is drawn and rendered, and matplotlib's settings
    are put back afterwards, whatever they were.

    Args:
        name: A short name, unique in the page: it prefixes every id.
        width: Width in CSS pixels at full size.
        height: Height in CSS pixels at full size.
    """

    def __init__(self, name: str, width: int, height: int) -> None:
        self.name = name
        self.width, self.height = width, height
        self._style = matplotlib.style.context(["default", _STYLE])

    def __enter__(self) -> "Sketch":
        self._style.__enter__()
        # 72 dots an inch: one unit of the SVG is one CSS pixel when the figure is shown at full width
        self.figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
        return self

    def __exit__(self, *error: object) -> None:
        self._style.__exit__(None, None, None)

    def svg(self, title: str) -> str:
        """Render as one `<svg>` element with `title` as its accessible name."""
        stream = io.BytesIO()
        FigureCanvasSVG(self.figure).print_svg(stream, metadata={"Date": None})
        return embed(stream.getvalue().decode(), self.name, title)


def embed(text: str, name: str, title: str) -> str:
    """Make a stand-alone SVG file of matplotlib fit for a page.

    Args:
        text: The SVG file.
        name: Prefix of every id, so that two figures of a page do not share one.
        title: The accessible name.

    Returns:
        One `<svg>` element: no prolog, no metadata, no style element, no size, colours as CSS variables.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    text = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--sans)", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    box = re.search(r'viewBox="([^"]*)"', text)
    head = f'<svg class="figure {name.split("-")[-1]}" role="img" viewBox="{box[1] if box else "0 0 1 1"}">'
    head += f"<title>{html.escape(title)}</title>"
    return re.sub(r"<svg\b[^>]*>", lambda _: head, text, count=1).strip()
