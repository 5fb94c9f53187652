"""The report in a terminal: tables that fit 100 columns, plain lines where there is no terminal.

Captions are made visible and given to rich as `Text`, which reads no markup: a caption can neither colour
the screen nor move the cursor. Draws no figure and loads no plotting library.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipmem.report.escape import visible
from clipmem.report.gallery import captions_by_uid, captions_sources, ranked_candidates, trained_captions
from clipmem.report.numbers import interval, level, plain, signed
from clipmem.report.read import ROLES, read_summary
from clipmem.report.wording import TRAINED_BY, noise_floor
from clipmem.store.tables import read_table

WIDTH = 100
_CAPTION = 160
_STYLE: dict[str, Any] = {
    "title_justify": "left",
    "title_style": "bold",
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
}


def roles_table(summary: Mapping[str, Any]) -> Table:
    """Tabulate the score in each role: count, mean with its interval, standard deviation, median.

    Args:
        summary: The content of `summary.json`.
    """
    table = Table(title=f"CLIPMem by role, {level(summary['confidence'])} intervals", **_STYLE)
    table.add_column("role")
    table.add_column("trained on by")
    for name in ("n", "mean", "interval", "sd", "median"):
        table.add_column(name, justify="right", no_wrap=True)
    for role in (role for role in ROLES if role in summary["roles"]):
        entry = summary["roles"][role]
        cells = (
            f"{entry['n']:,}",
            signed(entry["mean"]),
            interval(entry, sign=True),
            plain(entry["sd"]),
            signed(entry["median"]),
        )
        table.add_row(role, TRAINED_BY[role], *(Text(cell) for cell in cells))
    return table


def top_table(scores: pl.DataFrame, pairs: pl.DataFrame, splits: pl.DataFrame, k: int = 10) -> Table:
    """Tabulate the `k` most memorized candidates: rank, score ± error, caption trained with, planted.

    Args:
        scores: The table `scores`.
        pairs: The table `pairs`.
        splits: The table `splits`.
        k: How many rows, at least 1.
    """
    ranked = ranked_candidates(scores)
    captions, sources = captions_by_uid(pairs), captions_sources(splits)
    title = f"Most memorized, {min(k, ranked.height)} of {ranked.height:,} candidates"
    table = Table(title=title, **_STYLE)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("score ± error", justify="right", no_wrap=True)
    table.add_column("caption trained with", overflow="ellipsis", no_wrap=True)
    table.add_column("planted", no_wrap=True)
    for rank, row in enumerate(ranked.head(k).iter_rows(named=True), start=1):
        trained = trained_captions(str(row["uid"]), captions, sources)
        error = "one seed" if row["stderr"] is None else f"± {plain(row['stderr'])}"
        table.add_row(
            str(rank),
            Text(f"{signed(row['clipmem'])} {error}"),
            Text(visible(trained[0], _CAPTION) if trained else "(no caption)"),
            "planted" if row["planted"] else "",
        )
    return table


def planted_line(summary: Mapping[str, Any]) -> str:
    """Say in one line how well planted pairs are found, beside low alignment under g alone."""
    planted = summary["planted"]
    if not planted:
        return "Planted pairs: none planted."
    reference = planted["reference_alignment_auroc"]
    return (
        f"Planted pairs ({planted['n']:,}): CLIPMem finds them with AUROC {plain(planted['auroc'])} "
        f"{interval(planted)}; low alignment under g alone with {plain(reference['auroc'])} "
        f"{interval(reference)}. Chance is 0.5."
    )


def print_summary(run_dir: Path, console: Console, *, k: int = 10) -> None:
    """Print what a run found: roles, most memorized pairs, planted pairs, noise floor, the report's path.

    Args:
        run_dir: A run folder whose summary is finished.
        console: Where to print. At most 100 of its columns are used.
        k: How many of the most memorized pairs to show.

    Raises:
        InputError: A file of the folder is missing or cannot be read.
    """
    summary = read_summary(run_dir)
    tables = {name: read_table(run_dir / f"{name}.parquet", name) for name in ("scores", "pairs", "splits")}
    page = run_dir / "report" / "index.html"
    where = f"Report: {page}" if page.is_file() else "Report: not written yet."
    width = min(WIDTH, console.width)
    console.print(roles_table(summary), width=width)
    console.print(top_table(tables["scores"], tables["pairs"], tables["splits"], k), width=width)
    for line in (planted_line(summary), noise_floor(summary)):
        console.print(Text(line), width=width)
    # a path is never broken into lines: it is there to be copied
    console.print(Text(visible(where)), soft_wrap=True)
