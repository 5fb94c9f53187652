"""What commands do with pairs: look at them, write them in another format, list them by score. Imports no torch."""

import time
from pathlib import Path
from typing import Any

import polars as pl

from clipmem import study
from clipmem.base.errors import InputError, did_you_mean, require, shorten
from clipmem.base.folder import RunFolder
from clipmem.base.progress import Reporter
from clipmem.base.recipes import Overrides, as_settings, load_recipe
from clipmem.base.sections import SHIPPED, DataSection, shipped
from clipmem.base.tables import write_table
from clipmem.data.export import SHARD, export_pairs
from clipmem.data.inspection import inspect_source
from clipmem.data.quarantine import left_out_sentence, quarantine_table, records_sentence, summarize
from clipmem.data.sources import detect, open_source, reading_data
from clipmem.data.user_tables import write_ids
from clipmem.models import address
from clipmem.models.names import model_config
from clipmem.study.api import find_recipe
from clipmem.study.run import check_role

FORMAT = 1
MODEL = "clipmem-tiny"


def data_section(path: str, *, source: str = "", settings: Overrides = ()) -> DataSection:
    """Return the `[data]` section of a path, a source, and settings such as `data.image_column=png`."""
    for setting in as_settings(settings):
        hint = "See the keys of [data] with `clipmem init -`."
        require(setting.startswith("data."), f"--set {setting}", "a setting of another section", "data.KEY=VALUE", hint)
    section = load_recipe("", settings, origin="--set").data
    for key, own, given in (("path", section.path, path), ("source", section.source, source or section.source)):
        got, hint = f"{own!r} in addition to {given!r}", f"Remove --set data.{key}."
        require(own in {"", "auto", given}, f"--set data.{key}", got, "one of them", hint)
    source = source or section.source
    if source in {"", "auto", path} and shipped(path):
        path, source = "", path
    return section.model_copy(update={"path": path, "source": source or "auto"})


def find_data(path: str, *, source: str = "", settings: Overrides = ()) -> tuple[DataSection, str]:
    """Return the `[data]` section with the detected source, and the reason for it."""
    section = data_section(path, source=source, settings=settings)
    if section.source != "auto":
        return section, "as specified" if section.source not in SHIPPED else "shipped with clipmem"
    section.check_paths()
    with reading_data(section):
        found = detect(path, section)
    return section.model_copy(update={"source": found.format, "path": found.path}), found.reason


def inspect(
    path: str,
    *,
    source: str = "",
    settings: Overrides = (),
    full: bool = False,
    cost: bool = False,
    architecture: str = MODEL,
    preset: str = "",
    against: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Inspect the data at a path, with the cost of a study if requested or with a preset; return plain data."""
    # checked before the data are read
    recipe = find_recipe(preset) if preset else load_recipe("", [f"model.name={architecture}"])
    if not preset:
        model_config(architecture)
    if against:
        address.parse(against)
    section, reason = find_data(path, source=source, settings=settings)
    opened = open_source(section)
    started = time.monotonic()
    with reading_data(section):
        facts, sample = inspect_source(opened, full=full, reporter=reporter)
    seconds = time.monotonic() - started
    document: dict[str, Any] = {
        "format": FORMAT,
        "path": path,
        "source": section.source,
        "opened": section.path,
        "why": reason,
        "usable": facts["problems"]["decoded"] > facts["problems"]["undecodable"],
        **facts,
        "seconds": round(seconds, 3),
    }
    if (cost or preset) and document["usable"]:
        document["cost"] = study.probing.cost_of_study(facts, sample, recipe, preset)
    if against and document["usable"]:
        document["against"] = study.probing.aligned_pairs(opened, against)
    return document


def export(
    path: str,
    out: Path,
    to: str,
    *,
    source: str = "",
    settings: Overrides = (),
    shard: int = SHARD,
    reporter: Reporter | None = None,
) -> str:
    """Write the usable pairs of a data set in another format."""
    opened = open_source(data_section(path, source=source, settings=settings))
    written = export_pairs(opened, out, to, shard=shard, reporter=reporter)
    sentence = f"wrote {written:,} pairs to {out}"
    if not opened.problems:
        return sentence
    table = quarantine_table(opened.problems)
    quarantine = out.with_name(f"{out.name}-quarantine.parquet")
    write_table(quarantine, "quarantine", table)
    counted = records_sentence(opened.ledger.facts())
    return f"{sentence}; {counted}; {left_out_sentence(summarize(table, written))} (see {quarantine})"


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
    if top is not None and bottom is not None:
        raise InputError("--top and --bottom", got="both", expected="one of them", hint="Write two lists.")
    table = _table(scores, by)
    known = _with_captions(scores, table)
    if role:
        known = _of_role(known, role, scores)
    descending = bottom is None
    ranked = known.filter(pl.col(by).is_not_null() & pl.col(by).is_not_nan()).sort(
        by, "uid", descending=[descending, False]
    )
    count = top if top is not None else bottom
    name, most = "top" if descending else "bottom", f"{ranked.height:,}"
    right, got = (count or 0) <= ranked.height, f"{most} pairs with a score"
    require(right, f"--{name} {count}", got, f"at most {most}", f"Reduce --{name}.")
    chosen = ranked if count is None else ranked.head(count)
    if not invert:
        return chosen
    return _with_captions(scores, table).filter(~pl.col("uid").is_in(chosen["uid"].to_list())).sort("uid")


def write_list(scores: Path, out: Path, **choice: object) -> int:
    """Select pairs (see `select_ids`) and write them (see `write_ids`); return their number."""
    chosen = select_ids(scores, **choice)  # pyright: ignore[reportArgumentType]
    write_ids(out, chosen)
    return chosen.height


def _table(scores: Path, by: str) -> pl.DataFrame:
    if scores.is_dir():
        RunFolder(scores).recipe()  # raises unless it is a run folder
        table, what = RunFolder(scores).read("scores"), f"the scores of {scores}"
    else:
        try:
            table, what = pl.read_parquet(scores), f"{scores}"
        except (OSError, pl.exceptions.PolarsError) as error:
            got = f"not readable as Parquet ({shorten(str(error))})" if scores.exists() else "no such file"
            expected = "a run folder, or a Parquet file with uids and scores"
            raise InputError(f"{scores}", got=got, expected=expected, hint="Check the path.") from error
    for column in ("uid", by):
        hint = did_you_mean(column, table.columns, kind="column")
        there = column in table.columns
        require(there, what, f"no column {shorten(column)}", "uids and a numeric column", hint)
    got = f"column {by!r} of type {table.schema[by]}"
    require(table.schema[by].is_numeric(), what, got, "a numeric column", "Choose another column with --by.")
    kept = [name for name in ("uid", "role", by) if name in table.columns]
    return table.select(list(dict.fromkeys(kept))).with_columns(
        pl.col("uid").cast(pl.String), pl.col(by).cast(pl.Float64)
    )


def _with_captions(scores: Path, table: pl.DataFrame) -> pl.DataFrame:
    if not scores.is_dir():
        return table
    pairs = RunFolder(scores).read("pairs").select("uid", "captions")
    return table.join(pairs, on="uid", how="left", maintain_order="left")


def _of_role(table: pl.DataFrame, role: str, scores: Path) -> pl.DataFrame:
    got, what = f"no column 'role' in {scores}", f"--role {shorten(role)}"
    require("role" in table.columns, what, got, "a table with roles", "Omit --role.")
    check_role(role, table["role"], "--role")
    return table.filter(pl.col("role") == role)
