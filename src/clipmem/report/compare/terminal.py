"""A comparison in a terminal: tables that fit 100 columns. Folder names are made visible and read as plain text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipmem.report.compare.rows import answer_sentences, cost_cells, difference_cells, settings_of
from clipmem.report.escape import visible
from clipmem.report.numbers import level
from clipmem.report.terminal import TABLE_STYLE, WIDTH

_NAME = 60


def _table(title: str, names: Mapping[str, str], rows: list[dict[str, str]]) -> Table:
    """Tabulate rows under the name of their run; names of measures give way where there is too little room."""
    table = Table(title=title, **TABLE_STYLE)
    for key, name in names.items():
        words = key == "measure"
        table.add_column(name, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    last = ""
    for row in rows:
        if row["run"] != last:
            table.add_row(Text(visible(row["run"], _NAME), style="bold"))
            last = row["run"]
        table.add_row(*(Text(row[key]) for key in names))
    return table


def print_compared(document: Mapping[str, Any], page: Path, console: Console) -> None:
    """Print a comparison: differences, cost, what was found, and where the page is.

    Args:
        document: The content of `compare.json`.
        page: The page's path.
        console: Where to print. At most 100 of its columns are used.
    """
    width = min(WIDTH, console.width)
    lines = [f"{run['run']}: {settings_of(run)}" for run in document["runs"][1:]]
    for line in (f"Compared with {document['baseline']}, seeds {document['seeds']}:", *lines):
        console.print(Text(visible(line)), width=width)
    console.print()
    title = f"Differences over paired seeds, {level(document['confidence'])} intervals"
    names = {"measure": "measure", "baseline": "baseline", "mean": "run", "difference": "difference"}
    names |= {"interval": "interval", "p": "p (Holm)"}
    console.print(_table(title, names, [difference_cells(row) for row in document["differences"]]), width=width)
    if document["cost"]:
        names = {"measure": "cost", "baseline": "baseline", "mean": "run", "ratio": "ratio"}
        rows = [cost_cells(row) for row in document["cost"]]
        console.print(_table("Cost", names | {"interval": "interval"}, rows), width=width)
    fronts = [
        f"On the Pareto front by {name}: {', '.join(found['front'])}." for name, found in document["pareto"].items()
    ]
    for line in (*answer_sentences(document), *fronts, *document["notes"]):
        console.print(Text(visible(line)), width=width)
    console.print(Text(visible(f"Page: {page}")), soft_wrap=True)
