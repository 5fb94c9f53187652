"""The commands of `clipmem data`: inspect, export, ids.

When not to trust it: the estimated cost of a study is rates of a few seconds times counts, good for orders of magnitude
only. Other work on the machine makes it too large.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.folder import RunFolder
from clipmem.base.progress import Reporter
from clipmem.base.random import generator
from clipmem.base.recipes import Overrides, Recipe, as_settings, load_recipe
from clipmem.base.require import require
from clipmem.base.sections import SHIPPED, DataSection, ModelSection, shipped
from clipmem.base.suggest import did_you_mean
from clipmem.base.tables import write_table
from clipmem.data.export import SHARD, export_pairs
from clipmem.data.id_lists import write_ids
from clipmem.data.inspection import ImageSample, inspect_source
from clipmem.data.pairs import Pairs
from clipmem.data.quarantine import left_out_sentence, quarantine_table, records_sentence, source_name, summarize
from clipmem.data.sources import detect
from clipmem.data.sources.base import Source
from clipmem.models import address
from clipmem.models.names import model_config
from clipmem.study import early
from clipmem.study.api import find_recipe
from clipmem.study.run import check_role

FORMAT = 1
MODEL = "clipmem-tiny"
_TIMED, _SEARCHED = 64, 10_000  # pairs in a timed batch; pairs to compare with a model


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
    with early.opening(section):
        found = detect(path, section)
    return section.model_copy(update={"source": found.format, "path": found.path}), found.reason


def inspect(
    path: str,
    *,
    source: str = "",
    settings: Overrides = (),
    full: bool = False,
    cost: bool = False,
    model: str = MODEL,
    preset: str = "",
    against: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Inspect the data at a path, with the cost of a study if requested or with a preset; return plain data."""
    # checked before the data are read
    recipe = find_recipe(preset) if preset else load_recipe("", [f"model.name={model}"])
    if not preset:
        model_config(model)
    early.check_models([against] if against else [])
    section, reason = find_data(path, source=source, settings=settings)
    opened = early.check_source(section)
    started = time.monotonic()
    with early.opening(section):
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
        document["cost"] = estimate(facts, sample, recipe, preset)
    if against and document["usable"]:
        document["against"] = aligned(opened, against)
    return document


def estimate(facts: dict[str, Any], sample: ImageSample, recipe: Recipe, preset: str = "") -> dict[str, Any]:
    """Estimate decoding, cache, training and memory of the four-way study that `clipmem init --data` writes."""
    from clipmem.models.start import Start  # imports torch
    from clipmem.study import execution, speed, starting

    tag = address.parse(recipe.model.pretrained) if recipe.model.pretrained else None
    # the weights of a tag need not be on this machine
    named = recipe.model if tag is None or tag.kind != "tag" else ModelSection(name=tag.name)  # pyright: ignore[reportCallIssue]
    start = Start(named, recipe.train)
    side, resources = start.geometry.size, execution.resolve(recipe, 1)
    pairs = round(facts["images"]["of"] * (1 - facts["problems"]["undecodable"] / facts["problems"]["decoded"]))
    sizes = starting.sizes_of(pairs)
    each = sizes["shared"] + sizes["candidate"]
    epochs = recipe.train.epochs if preset else starting.training_of(each)[1]
    models = 2 * len(recipe.train.seeds)
    decoded = len(sample.decoded) / max(sample.seconds, 1e-9)
    batch = min(recipe.train.batch_size, _TIMED)
    trained, peak = speed.training_rate_and_memory(start, resources, batch)
    return {
        "model": start.name,
        "memory_bytes": peak,
        "memory_batch": batch,
        "device": resources.device,
        "decoded_per_second": round(decoded, 1),
        "trained_per_second": round(trained, 1),
        "cache_bytes": pairs * side * side * 3,
        "decode_seconds": round(pairs / decoded, 1),
        "train_seconds": round(models * epochs * each / trained, 1),
        "assumed": (
            f"{pairs:,} pairs; the four-way study of `clipmem init --data` with {len(recipe.train.seeds)} seeds "
            f"({models} models) and {epochs} epochs of {each:,} pairs; {start.name} at {side} pixels, one model at a "
            f"time on this machine's {resources.device} in {resources.precision}"
        ),
    }


def aligned(source: Source, name: str) -> dict[str, Any]:
    """Find the pairs that a model already aligns as training would: image and caption are each other's nearest.

    A pair counts if its first caption is the nearest of all captions to its image, and its image the nearest of all
    images to that caption, among the decodable pairs of a random sample of at most 10,000. The contrastive loss makes
    members so; the model may have seen such a pair, or find it easy.
    """
    from clipmem.measure.retrieval import retrieve  # imports torch
    from clipmem.models.embeddings import embed
    from clipmem.study.score_inputs import Settings

    settings, table = Settings.of(), source.pairs()
    rows = np.sort(generator(0, "against").permutation(table.height)[:_SEARCHED])
    first = pl.col("captions").list.head(1)
    pairs = Pairs(source_name(source.section), table[rows].with_columns(first), source)
    with tempfile.TemporaryDirectory() as scratch:
        [embedded] = embed([settings.model(name)], pairs, [Path(scratch) / "embeddings"], settings.made_with())
        means = embedded.means()
        chosen = pairs.table.filter(pl.col("uid").is_in(embedded.uids.implode()))
    ranks = retrieve(means.image, means.text, means.ok.nonzero()[:, 0])
    nearest = (ranks.image.rank < 1.5) & (ranks.text.rank < 1.5)
    return {
        "model": name,
        "searched": chosen.height,
        "aligned": int(nearest.sum()),
        "uids": chosen.filter(pl.Series(nearest))["uid"].to_list(),
        "samples": chosen.filter(pl.Series(nearest)).head(5).select("key", "captions").to_dicts(),
    }


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
    opened = early.check_source(data_section(path, source=source, settings=settings))
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
