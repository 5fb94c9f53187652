"""The template engine of pages and terminal screens, and the words that depend on how a study was made.

Everything from the data goes through `visible` and the engine's autoescape, both set for the whole environment: a
template cannot forget them. A screen is rendered with the same engine and unescaped at the end, so that both share
their sentences.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache, partial, wraps
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from clipmem.analysis.verdicts import side_of
from clipmem.report.escape import CAPTION_LIMIT, visible
from clipmem.report.formats import FORMATS

# in the source of a screen: a heading, a line that is never wrapped, a cell's end; `visible` text has none of them
HEADING, VERBATIM, CELL = "\x1d", "\x1e", "\x1f"
Words = Mapping[str, Any]


def template_text(name: str) -> str:
    """Read a file of `report/templates`, wherever the package is installed."""
    text = (resources.files("clipmem.report") / "templates").joinpath(*name.split("/")).read_text(encoding="utf-8")
    return marked(text) if name.endswith(".txt") else text


def marked(text: str) -> str:
    """Put the marks of a screen's source in: "# " starts a heading, "@ " a line as it is, and " ¦ " ends a cell."""
    text = re.sub(r"(?m)^# ", HEADING, text)
    return re.sub(r"(?m)^@ ", VERBATIM, text).replace(" ¦ ", CELL)


def typeset(text: str) -> str:
    """Give the numbers of our own text a true minus, and keep an interval on one line."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"(\[[^\[\], ]+), (?=[^\[\], ]+\])", "\\1,\N{NO-BREAK SPACE}", text)


def _finalize(value: object) -> object:
    """Make every text that a template prints visible, unless it is markup that we made ourselves."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _typesetting(write: Callable[..., str]) -> Callable[..., str]:
    @wraps(write)
    def typeset_number(*args: Any, **settings: Any) -> str:
        return typeset(write(*args, **settings))

    return typeset_number


@cache
def environment(*, screen: bool = False) -> jinja2.Environment:
    """Return the engine: autoescape and `visible` always on, and an undefined name is an error."""
    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(template_text),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {write.__name__: write if screen else _typesetting(write) for write in FORMATS}
    names: dict[str, Any] = {"side_of": side_of, "cell": Markup(CELL)}  # noqa: S704  a mark of our own
    engine.filters.update(filters | {"shown": partial(visible, limit=CAPTION_LIMIT)})
    engine.globals.update(names)
    return engine


@cache
def _words() -> Mapping[str, Any]:
    return tomllib.loads(template_text("words.toml"))


def words_of(summary: Mapping[str, Any]) -> Words:
    """Return what the summary's protocol calls things; what a protocol does not say, it has of four-way."""
    known, name = _words()["protocols"], summary.get("protocol", "")
    return {**known["four-way"], **known.get(name, {}), **summary.get("words", {})}


def measure_of(summary: Mapping[str, Any]) -> Words:
    """Return the words of the summary's alignment and its score; a summary that names none was made with "clip"."""
    known, name = _words()["alignments"], summary.get("alignment", "clip")
    return {**known["clip"], "score": name, **known.get(name, {}), **summary.get("measure", {})}
