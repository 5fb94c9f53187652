"""Read a page for the tests: tags that must nest, and the words that a reader sees."""

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

from rich.console import Console

from clipmem.report.terminal import VERBOSE, print_run

VOID = {"meta", "img", "br"}
BLOCKS = {"h1", "h2", "h3", "h4", "p", "li", "tr", "dt", "caption", "figcaption", "pre", "nav", "summary"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects what the tests look at."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.blocks: list[list[str]] = [[]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.stack.append(tag)
        if tag in BLOCKS:
            self.blocks.append(["#" * int(tag[1]) + " "] if tag in ("h1", "h2", "h3") else [])
        elif tag in ("td", "th", "dd"):
            self.blocks[-1].append(" | ")
        elif tag == "svg":
            self.blocks.append(["[figure] "])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in ("style", "script"):
            self.text.append(data)
            if "svg" not in self.stack or self.stack[-1] == "title":
                self.blocks[-1].append(data)

    def lines(self) -> str:
        """Return what is read, a line a block, with headings and figures marked: for snapshots."""
        return "\n".join(line for block in self.blocks if (line := re.sub(r"\s+", " ", "".join(block)).strip()))

    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text)).replace("\N{MINUS SIGN}", "-")


def outline(path: Path) -> Outline:
    page = Outline()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.stack == []
    return page


def report_text(folder: Path, width: int = 100) -> str:
    """Return the screen of a run with all details."""
    console, token = Console(width=width, record=True, file=StringIO()), VERBOSE.set(True)
    print_run("report", folder, console)
    VERBOSE.reset(token)
    return console.export_text()
