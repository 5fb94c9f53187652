"""Sections of reports: a class turns a subject into numbers, and a template turns these into text.

A new section is one file of this package; in another package an entry point of the group
`clipmem.sections` names its class. The template may be in the class:

    class CaptionLength(Section):
        nav = "Caption length"
        template = '''{% from "parts.html" import section %}
    {% call section(section_id, "Captions have " ~ words_a_caption | plain(1) ~ " words") %}...{% endcall %}'''

        def data(self, subject):
            return {"words_a_caption": ...}
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

import jinja2

from clipmem.base.registry import Registry
from clipmem.base.summary import FILE
from clipmem.report.figures import Figure
from clipmem.report.run import Document, Run
from clipmem.report.templating import environment, marked

Shown = dict[str, Any]  # what templates show
Figures = Mapping[str, Figure]


class Section:
    """A section of a page, of a terminal screen, or of both; the first line of its docstring describes it.

    Attributes:
        name: Its id on the page: the name it is registered under.
        page: `study` or `comparison`, or `PACKAGE:PAGE` of another package, whose folder `templates` has its
            templates; "" for none.
        screen: Its terminal screen (see `report.terminal.print_screen`); "" for none, or without a page its name.
        detail: Whether the screen has it only with --verbose.
        entry: The field of a run's summary, its table FOLDER/TABLE, or the key of a document, that it is about; "" for
            none.
        nav: Its name in the page's navigation; "" for none.
        order: Its position; the package's own sections have 10 to 900.
        template: HTML template: a file of `report/templates`, or the text itself; by default `PAGE/NAME.html`.
        terminal: Terminal template, in the same form.
    """

    name: ClassVar[str] = ""
    page: ClassVar[str] = "study"
    screen: ClassVar[str] = ""
    detail: ClassVar[bool] = False
    entry: ClassVar[str] = ""
    nav: ClassVar[str] = ""
    order: ClassVar[int] = 500
    template: ClassVar[str] = ""
    terminal: ClassVar[str] = ""

    def applies(self, subject: Any) -> bool:
        """Return whether the subject has anything to show here: by default, whether it has `entry`."""
        if not self.entry or not isinstance(subject, Run):
            return not self.entry or self.entry in subject
        return subject.has(self.entry) if "/" in self.entry else bool(getattr(subject.summary, self.entry))

    def data(self, subject: Any) -> Shown:  # noqa: ARG002
        """Return what the templates show: numbers, intervals, verdicts and names, but no sentences."""
        return {}

    def document(self, subject: Any) -> Document:
        """Return its part of what `--json` prints: by default the whole document, or a run's `summary.json`."""
        return subject.document(FILE) if isinstance(subject, Run) else subject

    def figures(self, subject: Any) -> Figures:  # noqa: ARG002
        """Return the figures by name; the page draws them wide and narrow."""
        return {}

    def links(self, subject: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        """Return the (id, name) of each of its entries in the navigation."""
        return [(self.name, self.nav)] if self.nav else []

    def template_of(self, *, screen: bool = False) -> jinja2.Template:
        """Return its template of the page, or of the terminal screen."""
        engine, file = environment(screen=screen), f"{self.page or self.name}/{self.name}"
        source = (self.terminal or f"{file}.txt") if screen else (self.template or f"{file}.html")
        if "\n" not in source:
            return engine.get_template(source)
        return engine.from_string(marked(source) if screen else source)

    @staticmethod
    def context_of(subject: Any) -> Shown:
        """Return `run`, `summary`, `words` and `measure` of a run, or `document`."""
        if not isinstance(subject, Run):
            return {"document": subject}
        return {"run": subject, "summary": subject.summary, "words": subject.words, "measure": subject.measure}


class ScreenSection(Section):
    """A section of no page: what a command prints, on a screen of the section's name."""

    page = ""


SECTIONS: Registry[Section] = Registry("section", Section)


def all_sections() -> Registry[Section]:
    """Return all sections, after importing the package's own."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return SECTIONS


def sections_of(subject: Any, *, page: str = "", screen: str = "") -> list[Section]:
    """Return the sections of a page or screen that apply to a subject, in order."""
    sections = [SECTIONS[name]() for name in all_sections()]
    screens = {section.name: section.screen or ("" if section.page else section.name) for section in sections}
    sections = [section for section in sections if (section.page == page if page else screens[section.name] == screen)]
    return sorted((section for section in sections if section.applies(subject)), key=lambda s: (s.order, s.name))
