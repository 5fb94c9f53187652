"""Write pages: one HTML file each, without scripts or external resources, that opens offline and prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from clipmem.base.paths import atomic_write
from clipmem.report.figures import SIZES
from clipmem.report.run import read_run
from clipmem.report.sections import Section, sections_of
from clipmem.report.templating import environment, template_text


def write_report(
    run_dir: Path,
    images: Mapping[str, bytes],
    *,
    credits: Sequence[str] = (),  # noqa: A002  the name of the public argument
) -> Path:
    """Write `report/index.html` of a run folder whose summary is finished, atomically."""
    return write_page(run_dir / "report" / "index.html", "study", read_run(run_dir, images, credits))


def write_page(path: Path, kind: str, subject: Any) -> Path:
    """Write the page of a subject, atomically."""
    atomic_write(path, render(kind, subject).encode())
    return path


def render(kind: str, subject: Any) -> str:
    """Render the page `study` (from a run's files), `comparison`, or `PACKAGE:PAGE` (from a document) as HTML."""
    context = Section.context_of(subject)
    blocks: list[str] = []
    links: list[tuple[str, str]] = []
    for section in sections_of(subject, page=kind):
        data = section.data(subject)
        figures = {
            name: [_safe(figure.svg(f"{section.name}-{name}", size)) for size in SIZES]
            for name, figure in section.figures(subject).items()
        }
        variables = context | data | {"figures": figures, "section_id": section.name}
        blocks.append(_safe(section.template_of().render(variables)))
        links += section.links(subject)
        if section.name == kind.rpartition(":")[2]:  # the page's own section
            context |= data
    style = _safe(template_text("page.css"))
    whole = environment().get_template(f"{kind}/page.html")
    return whole.render(context | {"style": style, "links": links, "blocks": blocks})


def _safe(text: str) -> Markup:
    """Mark this package's own output as safe: its style, rendered templates, and SVG, whose text matplotlib escapes."""
    return Markup(text)  # noqa: S704
