"""The template engine of pages and terminal screens, and the words of each protocol and alignment.

`visible` and autoescape are set for the whole environment, so no template can omit them. Screens use the same engine
and are unescaped at the end, so pages and screens share their sentences.
"""

import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from clipmem.report.formats import CAPTION_LIMIT, FORMATS, higher_of, side_of, visible

# marks in a rendered screen: a heading, an unwrapped line, the end of a cell; `visible` text has none of them
HEADING, VERBATIM, CELL = "\x1d", "\x1e", "\x1f"
Words = dict[str, Any]  # of a table of `words.toml`


def template_text(name: str) -> str:
    """Read a file of `report/templates`, or `PACKAGE:FILE` of the folder `templates` of another package."""
    package, _, file = name.rpartition(":")
    folder = resources.files(package or "clipmem.report") / "templates"
    text = folder.joinpath(*file.split("/")).read_text(encoding="utf-8")
    return marked(text) if name.endswith(".txt") else text


def marked(text: str) -> str:
    """Insert a screen's marks: "# " starts a heading, "@ " an unwrapped line, and " ¦ " ends a cell."""
    text = re.sub(r"(?m)^# ", HEADING, text)
    return re.sub(r"(?m)^@ ", VERBATIM, text).replace(" ¦ ", CELL)


def typeset(text: str) -> str:
    """Use a true minus sign in numbers, and keep intervals on one line."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"(\[[^\[\], ]+), (?=[^\[\], ]+\])", "\\1,\N{NO-BREAK SPACE}", text)


@cache
def environment(*, screen: bool = False) -> jinja2.Environment:
    """Return the engine, with autoescape and `visible` on; an undefined name is an error."""

    def finalize(value: object) -> object:
        """Apply `visible` to every text that a template prints, except to the package's own markup."""
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    def typesetting(write: Callable[..., str]) -> Callable[..., str]:
        return lambda *args, **settings: typeset(write(*args, **settings))

    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(template_text),
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {write.__name__: write if screen else typesetting(write) for write in FORMATS}
    engine.filters.update(filters | {"shown": partial(visible, limit=CAPTION_LIMIT)})
    functions: dict[str, Any] = {"side_of": side_of, "higher_of": higher_of, "names": names, "reasons": reasons}
    functions["cell"] = Markup(CELL)  # noqa: S704  no user text
    engine.globals.update(functions)
    return engine


def notebook_html(name: str, **context: Any) -> str:
    """Render `notebook/NAME.html`."""
    return environment().from_string(template_text(f"notebook/{name}.html")).render(context)


@cache
def names(kind: str) -> Words:
    """Return what is in a table of `words.toml`, such as the names of `attacks`."""
    return tomllib.loads(template_text("words.toml"))[kind]


def next_steps(*keys: str, **values: object) -> list[Words]:
    """Return commands of the table `next` of `words.toml`, each with its reason; `values` are quoted for a shell."""
    quoted = {name: shlex.quote(str(value)) for name, value in values.items()}
    texts = [names("next")[key] for key in keys]
    return [text | {"command": text["command"].format(**quoted)} for text in texts]


@cache
def reasons() -> Words:
    """Return why a detector puts a pair high on the list of suspects, by its name."""
    return tomllib.loads(template_text("reasons.toml"))


def words_of(protocol: str, changes: Mapping[str, object] | None = None) -> Words:
    """Return the words of a protocol, with `changes`; what it does not define is taken from four-way."""
    protocols = names("protocols")
    return {**protocols["four-way"], **protocols.get(protocol, {}), **(changes or {})}


def measure_of(alignment: str = "clip", changes: Mapping[str, object] | None = None) -> Words:
    """Return the words of an alignment, with `changes`; what it does not define is taken from clip."""
    alignments = names("alignments")
    return {**alignments["clip"], "score": alignment, **alignments.get(alignment, {}), **(changes or {})}
