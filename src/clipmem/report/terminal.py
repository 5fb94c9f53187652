"""Print screens: tables that fit 100 columns, plain lines without a terminal, or JSON."""

import html
import io
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipmem.report.formats import visible
from clipmem.report.run import read_run
from clipmem.report.sections import Document, sections_of
from clipmem.report.sections.scores import steps_of
from clipmem.report.templating import CELL, HEADING, VERBATIM, Words

WIDTH = 100
AS_JSON: ContextVar[bool] = ContextVar("AS_JSON", default=False)  # screens are printed as JSON: the flag --json
VERBOSE: ContextVar[bool] = ContextVar("VERBOSE", default=False)  # with all details: the flag --verbose


def print_screen(screen: str, subject: Any, console: Console, where: str = "", steps: Sequence[Words] = ()) -> None:
    """Print the sections of a screen that apply to a subject, then commands and the line `where`; as JSON without."""
    if AS_JSON.get():
        print_json(document_of(screen, subject))
        return
    width = min(WIDTH, console.width)
    lines = screen_lines(screen, subject, width)
    for step in steps:
        command, reason = f"Next: {visible(step['command'])}", f"  # {step['why']}"
        lines.append(VERBATIM + command + reason * (len(command + reason) <= width))
    for line in lines + ([VERBATIM + where] if where else []):
        if line.startswith(HEADING):
            console.print(Text(line[1:], style="bold"), width=width)
        elif line.startswith(VERBATIM):
            console.print(Text(line[1:]), soft_wrap=True)
        else:
            console.print(Text(line), width=width)


def screen_lines(screen: str, subject: Any, width: int) -> list[str]:
    """Render a screen as marked lines; sections of details only if `VERBOSE`."""
    lines: list[str] = []
    common = {"table": table, "facts": facts, "width": width, "verbose": VERBOSE.get()}
    for section in sections_of(subject, screen=screen):
        if section.detail and not VERBOSE.get():
            continue
        context = section.context_of(subject) | section.data(subject) | common
        text = re.sub(
            r"[ \t]+(?=\n)|\n(?=\n\n)", "", html.unescape(section.template_of(screen=True).render(context))
        ).strip("\n ")
        if text:
            lines += [*([""] if lines else []), *text.split("\n")]
    return lines


def document_of(screen: str, subject: Any) -> Document:
    """Return what a screen shows as one document."""
    parts = [section.document(subject) for section in sections_of(subject, screen=screen)]
    return {key: value for part in parts for key, value in part.items()}


def print_json(document: Document) -> None:
    """Print a document as JSON, unless it is empty. ASCII only, so that captions cannot control the terminal."""
    if document:
        sys.stdout.write(json.dumps(_plain(document), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers that are not finite are null, other objects are texts."""
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case str() | bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case Sequence():
            return [_plain(item) for item in value]
        case _:
            return str(value)


@jinja2.pass_context
def table(context: jinja2.runtime.Context, title: str, columns: str, caller: Callable[[], str]) -> Markup:
    """Draw a table in a screen: each line of the block is a row, with cells separated by " ¦ ".

    A column heading that starts with ">" right-aligns its cells and does not wrap them, "=" does not wrap them, and "~"
    truncates them. A line of one cell is a heading in the table.
    """
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in html.unescape(str(columns)).split(CELL):
        kind = name[0] if name[0] in ">~=" else ""
        grid.add_column(
            Text(name.removeprefix(kind)),
            justify="right" if kind == ">" else "left",
            no_wrap=kind in {">", "="},
            overflow="ellipsis" if kind == "~" else "fold",
        )
    return _drawn(grid, caller(), context["width"], f"{HEADING}{visible(html.unescape(str(title)))}")


@jinja2.pass_context
def facts(context: jinja2.runtime.Context, caller: Callable[[], str]) -> Markup:
    """Draw names and values, one line of the block each."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return _drawn(grid, caller(), context["width"])


def _drawn(empty: Table, rows: str, width: int, *heading: str) -> Markup:
    for line in filter(None, html.unescape(str(rows)).split("\n")):
        cells = zip(line.split(CELL), empty.columns, strict=False)
        empty.add_row(*(Text(cell, no_wrap=column.overflow == "ellipsis" or None) for cell, column in cells))
    stream = io.StringIO()
    Console(file=stream, width=width).print(empty)
    output = [line.rstrip() for line in stream.getvalue().split("\n")]
    lines = [*heading, *(VERBATIM + line for line in output if line), ""]
    return Markup(escape("".join(f"{line}\n" for line in lines)))  # noqa: S704  escaped here


def print_run(screen: str, folder: Path, console: Console) -> None:
    """Print a screen of a run folder, what to do next, and the path of its page."""
    page, run = folder / "report" / "index.html", read_run(folder)
    where = f"Report: {page}" if page.is_file() else "Report: not written yet."
    print_screen(screen, run, console, where, steps_of(run, folder))
