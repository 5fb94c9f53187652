"""The sections of reports: one class that turns a subject into numbers, and one template that turns these into words.

A new section is one file. In the package it is registered here; in another package an entry point of the group
`clipmem.sections` names its class. Its template may stand in the class:

    class CaptionLength(Section):
        nav = "Caption length"
        template = '''{% from "parts.html" import section %}
    {% call section(section_id, "Captions have " ~ words_a_caption | plain(1) ~ " words") %}...{% endcall %}'''

        def data(self, subject):
            return {"words_a_caption": ...}
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

from clipmem.base.registry import Registry
from clipmem.report.read import RunFiles
from clipmem.report.templating import measure_of, words_of

# what registers itself when it is imported
_MODULES = (
    *(
        "comparison",
        "credits",
        "dejavu",
        "distributions",
        "evaluated",
        "findings",
        "gallery",
        "in_and_out",
        "inspected",
        "layers",
    ),
    *("meaning", "planted", "retrieval", "roles", "run", "provenance", "scored", "side_by_side", "towers", "training"),
    *("units", "utility"),
)


class Section:
    """A section of a page, of a terminal screen, or of both; the first line of its docstring says what it shows.

    Attributes:
        name: Its id on the page: the name it is registered under.
        page: The page it is on: `study`, `comparison` or `findings`; "" for none.
        screen: The terminal screen it is on (see `report.terminal.print_screen`); "" for none.
        nav: Its name in the page's navigation; "" for none.
        order: Its place among the sections: the package's own have 10 to 900.
        template: Its HTML: a file of `report/templates`, or the text itself; by default `PAGE/NAME.html`.
        terminal: Its lines in the terminal, in the same way.
    """

    name: ClassVar[str] = ""
    page: ClassVar[str] = "study"
    screen: ClassVar[str] = ""
    nav: ClassVar[str] = ""
    order: ClassVar[int] = 500
    template: ClassVar[str] = ""
    terminal: ClassVar[str] = ""

    @property
    def summary(self) -> str:
        """What it shows, in one line."""
        return (self.__doc__ or "").partition("\n")[0]

    def applies(self, subject: Any) -> bool:  # noqa: ARG002
        """Tell whether there is something to show."""
        return True

    def data(self, subject: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return what the templates show: numbers, intervals, verdicts, names from the data; no sentences."""
        return {}

    def figures(self, subject: Any) -> Mapping[str, Callable[[str], str]]:  # noqa: ARG002
        """Return the figures by name, each a function that draws it `wide` or `narrow` as SVG."""
        return {}

    def links(self, subject: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        """Return the ids and names of the section in the navigation."""
        return [(self.name, self.nav)] if self.nav else []

    def source(self) -> str:
        """Return the HTML template, or the name of its file."""
        return self.template or f"{self.page}/{self.name}.html"

    def screen_source(self) -> str:
        """Return the terminal template, or the name of its file."""
        return self.terminal or f"{self.page or self.screen}/{self.name}.txt"

    @staticmethod
    def context_of(subject: Any) -> dict[str, Any]:
        """Return `run`, `summary`, `words` and `measure` of a run's files, or `document`."""
        if not isinstance(subject, RunFiles):
            return {"document": subject}
        summary = subject.summary
        return {"run": subject, "summary": summary, "words": words_of(summary), "measure": measure_of(summary)}


SECTIONS: Registry[Section] = Registry("section", Section)


def all_sections() -> Registry[Section]:
    """Import the package's own sections; return all that there are."""
    for name in _MODULES:
        import_module(f"{__name__}.{name}")
    return SECTIONS


def sections_of(subject: Any, *, page: str = "", screen: str = "") -> list[Section]:
    """Return the sections of a page or screen that apply to a subject, in order."""
    found = [SECTIONS[name]() for name in all_sections()]
    own = [one for one in found if (one.page == page if page else one.screen == screen) and one.applies(subject)]
    return sorted(own, key=lambda one: (one.order, one.name))
