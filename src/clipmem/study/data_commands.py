"""What commands do with pairs: look at them, write them in another format, list them by score. Imports no torch."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from clipmem import study
from clipmem.base.errors import InputError, did_you_mean, require, shorten
from clipmem.base.folder import RunFolder
from clipmem.base.progress import Reporter
from clipmem.base.recipes import load_recipe
from clipmem.data.export import SHARD, export_pairs
from clipmem.data.inspection import inspect_source
from clipmem.data.leaks import IMAGES, leaks, write_sheet
from clipmem.data.skipped import left_out_sentence, records_sentence, skipped_table, summarize, write_skipped
from clipmem.data.sources import Source, reading_data
from clipmem.data.user_tables import write_ids
from clipmem.models.names import model_config, parse
from clipmem.study.api import find_recipe
from clipmem.study.finished import check_role

FORMAT = 1
MODEL = "clipmem-tiny"


@dataclass(frozen=True)
class Inspecting:
    """Options of `clipmem inspect` (see there); `cost` is --time, and `leaks` the file of the list.

    `against` is a model, or opens other data.
    """

    full: bool = False
    cost: bool = False
    architecture: str = MODEL
    preset: str = ""
    against: str | Callable[[], Source] = ""
    leaks: Path | None = None


def inspect(
    path: str, open_pairs: Callable[[], Source], how: Inspecting, *, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Inspect the data at a path, with the cost of a study if requested or with a preset; return plain data."""
    # checked before the data are opened
    recipe = find_recipe(how.preset) if how.preset else load_recipe("", [f"model.name={how.architecture}"])
    if not how.preset:
        model_config(how.architecture)
    if isinstance(how.against, str) and how.against:
        parse(how.against)
    opened = open_pairs()
    section, started = opened.section, time.monotonic()
    with reading_data(section):
        facts, sample = inspect_source(opened, full=how.full, reporter=reporter)
    document = {
        "format": FORMAT,
        "path": path,
        "source": section.source,
        "opened": section.path,
        "why": opened.reason,
        "usable": sample.tried > len(sample.broken),
        **facts,
        "seconds": round(time.monotonic() - started, 3),
    }
    if (how.cost or how.preset) and document["usable"]:
        pairs = round(sample.pairs * (1 - len(sample.broken) / sample.tried))
        document["cost"] = study.probing.cost_of_study(pairs, sample, recipe, how.preset)
    if not (how.against and document["usable"]):
        return document
    if isinstance(how.against, str):
        document["against"] = study.probing.aligned_pairs(opened, how.against)
    else:
        document["leaks"], rows = leaks(opened, other := how.against(), reporter)
        if how.leaks and how.leaks.suffix == ".png":
            write_sheet(how.leaks, opened, other, rows)
        elif how.leaks:
            write_ids(how.leaks, rows.drop(IMAGES))
    return document


def export(opened: Source, out: Path, to: str, *, shard: int = SHARD, reporter: Reporter | None = None) -> str:
    """Write the usable pairs of a data set in another format."""
    written = export_pairs(opened, out, to, shard=shard, reporter=reporter)
    sentence, skipped = f"wrote {written:,} pairs to {out}", out.with_name(f"{out.name}-skipped.parquet")
    write_skipped(skipped, opened.problems)
    if not opened.problems:
        return sentence
    table = skipped_table(opened.problems)
    counted = records_sentence(opened.ledger.facts())
    return f"{sentence}; {counted}; {left_out_sentence(summarize(table, written))} (see {skipped})"


def select_ids(
    scores: Path,
    *,
    top: int | None = None,
    bottom: int | None = None,
    by: str = "clipmem",
    role: str = "",
    invert: bool = False,
) -> pl.DataFrame:
    """Select pairs by score."""
    require(top is None or bottom is None, "--top and --bottom", "both", "one of them", "Write two lists.")
    rows = table = _table(scores, by)
    if role:
        got, subject = f"no column 'role' in {scores}", f"--role {shorten(role)}"
        require("role" in rows.columns, subject, got, "a table with roles", "Omit --role.")
        check_role(role, rows["role"].drop_nulls(), "--role")
        rows = rows.filter(pl.col("role") == role)
    descending = bottom is None
    ranked = rows.drop_nulls(by).drop_nans(by).sort(by, "uid", descending=[descending, False])
    count = top if top is not None else bottom
    name, most = "top" if descending else "bottom", f"{ranked.height:,}"
    enough, got = (count or 0) <= ranked.height, f"{most} pairs with a score"
    require(enough, f"--{name} {count}", got, f"at most {most}", f"Reduce --{name}.")
    selection = ranked if count is None else ranked.head(count)
    if not invert:
        return selection
    return table.join(selection, on="uid", how="anti").sort("uid")


def write_list(scores: Path, out: Path, **choice: object) -> int:
    """Select pairs (see `select_ids`) and write them (see `write_ids`); return their number."""
    selection = select_ids(scores, **choice)  # pyright: ignore[reportArgumentType]
    write_ids(out, selection)
    return selection.height


def _table(scores: Path, by: str) -> pl.DataFrame:
    if scores.is_dir():
        RunFolder(scores).recipe()  # raises unless it is a run folder
        table, subject = RunFolder(scores).read("scores"), f"the scores of {scores}"
    else:
        try:
            table, subject = pl.read_parquet(scores), f"{scores}"
        except (OSError, pl.exceptions.PolarsError) as error:
            got = f"not readable as Parquet ({shorten(str(error))})" if scores.exists() else "no such file"
            expected = "a run folder, or a Parquet file with uids and scores"
            raise InputError(f"{scores}", got=got, expected=expected, hint="Check the path.") from error
    for column in ("uid", by):
        hint = did_you_mean(column, table.columns, kind="column")
        require(column in table.columns, subject, f"no column {shorten(column)}", "uids and a numeric column", hint)
    got = f"column {by!r} of type {table.schema[by]}"
    require(table.schema[by].is_numeric(), subject, got, "a numeric column", "Choose another column with --by.")
    columns = [name for name in ("uid", "role", by) if name in table.columns]
    table = table.select(list(dict.fromkeys(columns))).cast({"uid": pl.String, by: pl.Float64})
    if not scores.is_dir():
        return table
    pairs = RunFolder(scores).read("pairs").select("uid", "captions")  # some have no score
    return pairs.join(table, on="uid", how="left").select(*table.columns, "captions")
