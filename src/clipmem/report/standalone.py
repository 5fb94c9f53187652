"""A figure of the report as a file of its own, for documentation: colours instead of the page's variables."""

import re

from clipmem.report.page import template_text


def standalone(svg: str) -> str:
    """Give a figure of the page the colours of the light page and a white ground: a file that any viewer shows.

    Args:
        svg: One `<svg>` element as `clipmem.report.svg` makes it.

    Example:
        >>> standalone('<svg viewBox="0 0 4 2"><title>a</title><g fill="var(--ink)"/></svg>')[:72]
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 2"><title>a</titl'
    """
    light = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", template_text("page.css").split("@media")[0]))
    svg = re.sub(r"var\(--sans\)", "sans-serif", svg)
    svg = re.sub(r"var\(--([a-z]+)\)", lambda found: light[found[1]], svg)
    box = re.search(r'viewBox="([^"]*)"', svg)
    _, _, width, height = (box[1] if box else "0 0 1 1").split()
    ground = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    svg = re.sub(r"</title>", lambda found: found[0] + ground, svg, count=1)
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"
