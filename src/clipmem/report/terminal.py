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

from clipmem.data.quarantine import left_out_sentence
from clipmem.report import dejavu, utility
from clipmem.report.beside import answer_sentences, note_sentences, trained_sentences
from clipmem.report.escape import visible
from clipmem.report.gallery import captions_by_uid, captions_sources, ranked_candidates, trained_captions
from clipmem.report.localized import layer_sentences, read_localized, top_units, tower_rows, tower_sentences
from clipmem.report.numbers import interval, level, percent, percent_interval, plain, signed
from clipmem.report.read import ROLES, read_summary
from clipmem.report.wording import noise_floor, rival, stability
from clipmem.report.words import FOUR_WAY, SUBSAMPLE, Words, measure_of, words_of
from clipmem.store.tables import read_table

WIDTH = 100
_CAPTION = 160
_COLUMN = 22
TABLE_STYLE: dict[str, Any] = {
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
    table = Table(title=f"{measure_of(summary).score} by role, {level(summary['confidence'])} intervals", **TABLE_STYLE)
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
        table.add_row(role, words_of(summary).trained_by[role], *(Text(cell) for cell in cells))
    return table


def top_table(
    scores: pl.DataFrame, pairs: pl.DataFrame, splits: pl.DataFrame, k: int = 10, words: Words = FOUR_WAY
) -> Table:
    """Tabulate the `k` most memorized candidates: rank, score ± error, caption trained with, planted.

    Args:
        scores: The table `scores`.
        pairs: The table `pairs`.
        splits: The table `splits`.
        k: How many rows, at least 1.
        words: The words of the protocol.
    """
    ranked = ranked_candidates(scores)
    captions, sources = captions_by_uid(pairs), captions_sources(splits)
    title = f"Most memorized, {min(k, ranked.height)} of {ranked.height:,} candidates"
    table = Table(title=title, **TABLE_STYLE)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("score ± error", justify="right", no_wrap=True)
    table.add_column(f"caption {words.captions}", overflow="ellipsis", no_wrap=True)
    table.add_column("planted", no_wrap=True)
    for rank, row in enumerate(ranked.head(k).iter_rows(named=True), start=1):
        trained = trained_captions(str(row["uid"]), captions, sources)
        error = words.no_error if row["stderr"] is None else f"± {plain(row['stderr'])}"
        table.add_row(
            str(rank),
            Text(f"{signed(row['clipmem'])} {error}"),
            Text(visible(trained[0], _CAPTION) if trained else "(no caption)"),
            "planted" if row["planted"] else "",
        )
    return table


def utility_table(found: Mapping[str, Any], columns: Mapping[str, str], confidence: float, pairs: str) -> Table:
    """Tabulate what models can do: one row a measure, a column a kind of model, and chance.

    Args:
        found: The entry `utility` of a summary, or what `clipmem evaluate` wrote.
        columns: Key of the kinds of models → heading, in order.
        confidence: Level of the intervals.
        pairs: What the pairs are, after "200 ".
    """
    title = f"Utility on {found['n']['test']:,} {pairs}, in per cent, {level(confidence)} intervals"
    table = Table(title=title, **TABLE_STYLE)
    table.add_column("measure")
    for name in (*columns.values(), "chance"):
        table.add_column(Text(visible(name)), justify="right", no_wrap=True)
    for key, name in utility.rows_of(found, utility.SHORT):
        entries = [found["metrics"][side][key] for side in columns]
        cells = [f"{percent(entry['mean'])} {percent_interval(entry)}" for entry in entries]
        table.add_row(name, *(Text(cell) for cell in (*cells, percent(found["chance"].get(key)))))
    return table


def print_utility(document: Mapping[str, Any], file: Path, console: Console) -> None:
    """Print what `clipmem evaluate` found, and where it wrote it.

    Args:
        document: The document.
        file: Where it lies.
        console: Where to print. At most 100 of its columns are used.
    """
    width = min(WIDTH, console.width)
    # of a path the end tells models apart
    columns = {side: side if len(side) <= _COLUMN else f"…{side[1 - _COLUMN :]}" for side in document["metrics"]}
    if utility.rows_of(document, utility.SHORT):
        console.print(utility_table(document, columns, document["confidence"], "pairs"), width=width)
    for line in (*utility.skipped_sentences(document), *utility.sentences(document)):
        console.print(Text(visible(line)), width=width)
    console.print(Text(visible(f"Written: {file}")), soft_wrap=True)


def planted_line(summary: Mapping[str, Any]) -> str:
    """Say in one line how well planted pairs are found, beside low alignment under g alone."""
    planted = summary["planted"]
    if not planted:
        return "Planted pairs: none planted."
    reference, measure = planted["reference_alignment_auroc"], measure_of(summary)
    return (
        f"Planted pairs ({planted['n']:,}): {measure.score} finds them with AUROC {plain(planted['auroc'])} "
        f"{interval(planted)}; {rival(words_of(summary), measure)} with {plain(reference['auroc'])} "
        f"{interval(reference)}. Chance is 0.5."
    )


def left_out_line(summary: Mapping[str, Any]) -> str:
    """Say how many records were left out, and why; empty when none was."""
    sentence = left_out_sentence(summary["records"]) if "records" in summary else ""
    return f"{sentence}. They are listed in quarantine.parquet." if sentence else ""


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
    words = words_of(summary)
    told = utility.measured(summary)
    console.print(top_table(tables["scores"], tables["pairs"], tables["splits"], k, words), width=width)
    if told and utility.rows_of(told, utility.SHORT):
        columns = {side: words.columns[side] for side in utility.sides_of(summary)}
        console.print(utility_table(told, columns, summary["confidence"], "external pairs"), width=width)
    # without a noise floor the agreement of halves is what says how far single scores can be trusted
    noise = stability(summary) if words is SUBSAMPLE else noise_floor(summary)
    memories = " ".join(dejavu.sentences(summary)) if dejavu.measured(summary) else ""
    skipped = " ".join(utility.skipped_sentences(told)) if told else ""
    lines = (skipped, planted_line(summary), noise, memories, words.caveat, left_out_line(summary))
    for line in filter(None, lines):
        console.print(Text(visible(line)), width=width)
    # a path is never broken into lines: it is there to be copied
    console.print(Text(visible(where)), soft_wrap=True)


def print_localized(run_dir: Path, console: Console) -> None:
    """Print what `localize` found, each number with its interval, and the report's path.

    Args:
        run_dir: A localized run folder.
        console: Where to print. At most 100 of its columns are used.

    Raises:
        InputError: A file of the folder is missing or cannot be read.
    """
    summary, found = read_summary(run_dir), read_localized(run_dir)
    rows = tower_rows(found, [role for role in ROLES if role in summary["roles"]])
    lines = ["Towers", *tower_sentences(found, rows, float(summary["confidence"]))]
    if found.layers is not None:
        lines += ["", "Layers (LayerMem)", *layer_sentences(found.layers)]
    if found.units is not None:
        lines += ["", "Units (UnitMem) that respond most to one pair"]
        lines += [f"{plain(unit.unitmem)}  {unit.tower} tower, {unit.place}" for unit in top_units(found.units, 5)]
    if found.beside:
        lines += ["", "Beside each other (UnitMem by layer)", *answer_sentences(found.beside)]
        lines += [*trained_sentences(found.beside), *note_sentences(found.beside)]
    lines += ["", f"Report: {run_dir / 'report' / 'index.html'}"]
    for line in lines:
        console.print(Text(visible(line)), width=min(WIDTH, console.width), soft_wrap=line.startswith("Report: "))
