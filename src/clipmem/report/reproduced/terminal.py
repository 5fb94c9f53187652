"""A reproduction in a terminal: one table of verdicts, one of the effects that count. Fits 100 columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipmem.report.escape import visible
from clipmem.report.numbers import duration, level
from clipmem.report.reproduced.page import effect_cells, summary_sentence, tally
from clipmem.report.terminal import TABLE_STYLE, WIDTH


def print_findings(document: Mapping[str, Any], page: Path, console: Console) -> None:
    """Print what holds, and every effect that counts.

    Args:
        document: The content of `findings.json`.
        page: The page's path.
        console: Where to print. At most 100 of its columns are used.
    """
    width = min(WIDTH, console.width)
    found = Table(title="Findings", **TABLE_STYLE)
    for name in ("finding", "holds", "effects"):
        found.add_column(name)
    found.add_column("time", justify="right", no_wrap=True)
    for one in document["findings"]:
        cells = (one["finding"], one["holds"], tally(one["effects"]), duration(one["seconds"]))
        found.add_row(*(Text(cell) for cell in cells))
    effects = Table(title=f"Effects that count, {level(document['confidence'])} intervals", **TABLE_STYLE)
    effects.add_column("effect", overflow="fold")
    for name in ("estimate", "interval"):
        effects.add_column(name, justify="right", no_wrap=True)
    effects.add_column("holds", no_wrap=True)
    for one in document["findings"]:
        effects.add_row(Text(one["title"], style="bold"))
        for effect in one["effects"]:
            if effect["counts"]:
                cells = effect_cells(effect)
                effects.add_row(*(Text(cells[name]) for name in ("measure", "estimate", "interval", "holds")))
    console.print(found, width=width)
    console.print(effects, width=width)
    console.print(Text(visible(summary_sentence(document))), width=width)
    console.print(Text(visible(f"Page: {page}")), soft_wrap=True)
