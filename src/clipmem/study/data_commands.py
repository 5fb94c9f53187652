"""What `clipmem data` does: inspect a data set, export it in another format, list pairs of a run by their score.

The cost of a study that `inspect` estimates is a product of rates that this machine shows in a few seconds and of
counts; it tells minutes from days and no more. Other work on the machine makes it too large.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import load_recipe
from clipmem.base.require import require
from clipmem.base.sections import DataSection
from clipmem.base.suggest import did_you_mean
from clipmem.data.export import SHARD, export_pairs
from clipmem.data.id_lists import write_ids
from clipmem.data.inspection import Looked, inspect_source, usable
from clipmem.data.quarantine import left_out_sentence, quarantine_table, summarize
from clipmem.data.sources import detect
from clipmem.models.names import model_config
from clipmem.store.folder import RunFolder
from clipmem.store.tables import write_table
from clipmem.study import early
from clipmem.study.loaded import check_role

FORMAT = 1
MODEL = "clipmem-tiny"
SHIPPED = "emoji"


def data_section(path: str, *, source: str = "", settings: Sequence[str] = ()) -> DataSection:
    """Return the `[data]` section of a command line: path, source, and settings such as `data.image_column=png`."""
    for setting in settings:
        hint = "`clipmem init -` shows the keys of [data]."
        require(setting.startswith("data."), f"--set {setting}", "a setting of another section", "data.KEY=VALUE", hint)
    section = load_recipe("", settings, origin="--set").data
    for key, asked, given in (("path", section.path, path), ("source", section.source, source or section.source)):
        got, hint = f"{asked!r} beside {given!r}", f"Remove --set data.{key}."
        require(asked in {"", "auto", given}, f"--set data.{key}", got, "one of them", hint)
    source = source or section.source
    if path == SHIPPED and source in {"", "auto", SHIPPED} and not Path(path).exists():
        path, source = "", SHIPPED
    return section.model_copy(update={"path": path, "source": source or "auto"})


def find_data(path: str, *, source: str = "", settings: Sequence[str] = ()) -> tuple[DataSection, str]:
    """Return the `[data]` section of a command line with the source that was found, and why it is that one."""
    section = data_section(path, source=source, settings=settings)
    if section.source != "auto":
        return section, "named by you" if section.source != SHIPPED else "the pairs in the package"
    with early.opening(section):
        found = detect(path, section)
    return section.model_copy(update={"source": found.format, "path": found.path}), found.reason


def inspect(
    path: str,
    *,
    source: str = "",
    settings: Sequence[str] = (),
    full: bool = False,
    cost: bool = True,
    model: str = MODEL,
    progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> dict[str, Any]:
    """Say what lies at a path, as plain data."""
    if cost:
        model_config(model)  # before the data are read
    section, reason = find_data(path, source=source, settings=settings)
    opened = early.check_source(section)
    started = time.monotonic()
    with early.opening(section):
        facts, looked = inspect_source(opened, full=full, progress=progress)
    seconds = time.monotonic() - started
    document: dict[str, Any] = {
        "format": FORMAT,
        "path": path,
        "source": section.source,
        "opened": section.path,
        "why": reason,
        "usable": usable(facts),
        **facts,
        "seconds": round(seconds, 3),
    }
    if cost and document["usable"]:
        document["cost"] = estimate(facts, looked, model)
    return document


def estimate(facts: dict[str, Any], looked: Looked, model: str) -> dict[str, Any]:
    """Estimate the four-way study that `clipmem init --data` writes for these pairs: decoding, cache and training."""
    from clipmem.study import execution, speed, starting  # imports torch

    recipe = load_recipe("")
    size = model_config(model)["vision_cfg"]["image_size"]
    side = size if isinstance(size, int) else size[0]
    how = execution.resolve(recipe, 1)
    pairs = round(facts["pairs"] * (1 - facts["problems"]["undecodable"] / facts["problems"]["decoded"]))
    sizes = starting.sizes_of(pairs)
    each = sizes["shared"] + sizes["candidate"]
    epochs = starting.training_of(each)[1]
    models = 2 * len(recipe.train.seeds)
    decoded = len(looked.decoded) / max(looked.seconds, 1e-9)
    trained = speed.training_rate(model, how)
    return {
        "model": model,
        "device": how.device,
        "decoded_per_second": round(decoded, 1),
        "trained_per_second": round(trained, 1),
        "cache_bytes": pairs * side * side * 3,
        "decode_seconds": round(pairs / decoded, 1),
        "train_seconds": round(models * epochs * each / trained, 1),
        "assumed": (
            f"{pairs:,} pairs; a four-way study of {len(recipe.train.seeds)} seeds ({models} models) and {epochs} "
            f"epochs of {each:,} pairs, as `clipmem init --data` writes it; {model} at {side} pixels, one model after "
            f"the other on this machine's {how.device}, in {how.precision}"
        ),
    }


def export(
    path: str,
    out: Path,
    to: str,
    *,
    source: str = "",
    settings: Sequence[str] = (),
    shard: int = SHARD,
    reporter: Reporter | None = None,
) -> str:
    """Write the usable pairs of a data set in another format."""
    section = data_section(path, source=source, settings=settings)
    told = reporter or Quiet()
    told.begin("export", 0, "pairs")
    written, problems = export_pairs(early.check_source(section), out, to, shard=shard, progress=told.advance)
    sentence = f"wrote {written:,} pairs to {out}"
    if not problems:
        return sentence
    table = quarantine_table(problems)
    beside = out.with_name(f"{out.name}-quarantine.parquet")
    write_table(beside, "quarantine", table)
    return f"{sentence}; {left_out_sentence(summarize(table, written))} (see {beside})"


def select_ids(
    scores: Path,
    *,
    top: int | None = None,
    bottom: int | None = None,
    by: str = "clipmem",
    role: str = "",
    rest: bool = False,
) -> pl.DataFrame:
    """Choose pairs by their score."""
    if top is not None and bottom is not None:
        raise InputError("--top and --bottom", got="both", expected="one of them", hint="Make two lists.")
    table = _table(scores, by)
    known = _with_captions(scores, table)
    if role:
        known = _of_role(known, role, scores)
    falling = bottom is None
    ranked = known.filter(pl.col(by).is_not_null() & pl.col(by).is_not_nan()).sort(
        by, "uid", descending=[falling, False]
    )
    asked = top if top is not None else bottom
    name, most = "top" if falling else "bottom", f"{ranked.height:,}"
    require(
        (asked or 0) <= ranked.height,
        f"--{name} {asked}",
        f"{most} pairs with a score",
        f"at most {most}",
        "Ask for fewer.",
    )
    chosen = ranked if asked is None else ranked.head(asked)
    if not rest:
        return chosen
    everything = _with_captions(scores, table)
    return everything.filter(~pl.col("uid").is_in(chosen["uid"].to_list())).sort("uid")


def write_list(scores: Path, out: Path, **choice: object) -> int:
    """Choose pairs (see `select_ids`) and write them to a file (see `write_ids`); return how many."""
    chosen = select_ids(scores, **choice)  # pyright: ignore[reportArgumentType]
    write_ids(out, chosen)
    return chosen.height


def _table(scores: Path, by: str) -> pl.DataFrame:
    if scores.is_dir():
        RunFolder(scores).recipe()  # names what is missing where it is no run folder
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
        require(there, what, f"no column {shorten(column)}", "uids, and a column of numbers", hint)
    got = f"column {by!r} of {table.schema[by]}"
    require(table.schema[by].is_numeric(), what, got, "numbers", "Name another one with --by.")
    kept = [name for name in ("uid", "role", by) if name in table.columns]
    return table.select(list(dict.fromkeys(kept))).with_columns(
        pl.col("uid").cast(pl.String), pl.col(by).cast(pl.Float64)
    )


def _with_captions(scores: Path, table: pl.DataFrame) -> pl.DataFrame:
    """Add the captions, where a run folder has them."""
    if not scores.is_dir():
        return table
    pairs = RunFolder(scores).read("pairs").select("uid", "captions")
    return table.join(pairs, on="uid", how="left", maintain_order="left")


def _of_role(table: pl.DataFrame, role: str, scores: Path) -> pl.DataFrame:
    got, what = f"no column 'role' in {scores}", f"--role {shorten(role)}"
    require("role" in table.columns, what, got, "a table that has one", "Omit --role.")
    check_role(role, table["role"], "--role")
    return table.filter(pl.col("role") == role)
