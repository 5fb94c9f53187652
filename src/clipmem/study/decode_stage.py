"""The stage `decode`: write the pixel cache, and list unusable records."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.progress import Reporter
from clipmem.data.cache import build_cache
from clipmem.data.decoding import DecodeError, Geometry
from clipmem.data.skipped import (
    ignored_sentence,
    left_out_sentence,
    records_sentence,
    skipped_table,
    source_name,
    stop_at,
    summarize,
)
from clipmem.data.sources.base import Source
from clipmem.study.plan import cache_file

TABLE = "skipped"


def decode_pairs(
    folder: RunFolder,
    pairs: pl.DataFrame,
    source: Source,
    geometries: Sequence[Geometry],
    *,
    reporter: Reporter,
    check: Callable[[pl.DataFrame], object],
    strict: bool = False,
) -> list[Path]:
    """Decode the images of all pairs in every geometry; write the tables `pairs` and `skipped`."""
    reporter.begin("decode", pairs.height * len(geometries), "images")
    broken = set[int]()
    where, keys = source_name(source.section), pairs["key"].to_list()

    def leave_out(row: int, error: DecodeError) -> None:
        broken.add(row)
        source.ledger.drop(where, keys[row], error.reason)
        if strict:
            raise stop_at(source.problems[-1]) from error

    caches: list[Path] = []
    for geometry in geometries:
        cache = cache_file(folder, geometry, first=geometries[0])
        references = [image for row, image in enumerate(pairs["image"]) if row not in broken]
        # images that decode in one geometry decode in all
        first = leave_out if not caches else None
        ordered = {row: references[row] for row in source.storage_order(references)}
        build_cache(cache, ordered, source.read, geometry, progress=reporter.advance, left_out=first)
        caches.append(cache)
    if source.ledger.read:
        reporter.note(f"decode    {records_sentence(source.ledger.facts())}")
    ignored = ignored_sentence(source.ledger.facts()["ignored"])
    if ignored:
        reporter.note(f"decode    {ignored}")
    usable = pairs.filter(~pl.int_range(pl.len()).is_in(list(broken))) if broken else pairs
    table = skipped_table(source.problems)
    sentence = left_out_sentence(summarize(table, usable.height))
    check_usable(usable, check, sentence)
    if sentence:
        reporter.note(f"decode    {sentence} (see {TABLE}.parquet)")
    return [*caches, folder.write("pairs", usable), folder.write(TABLE, table)]


def check_source(source: Source, pairs: pl.DataFrame, check: Callable[[pl.DataFrame], object], *, strict: bool) -> None:
    """Check, before anything is written, that a source has enough pairs and, if `strict`, no problems."""
    if strict and source.problems:
        raise stop_at(source.problems[0])
    check_usable(pairs, check, left_out_sentence(summarize(skipped_table(source.problems), pairs.height)))


def check_usable(pairs: pl.DataFrame, check: Callable[[pl.DataFrame], object], sentence: str) -> None:
    """Check pairs, with the records left out in the error."""
    try:
        check(pairs)
    except InputError as error:
        if not sentence:
            raise
        got = f"{error.got} ({sentence})"
        raise InputError(error.what, got=got, expected=error.expected, hint=error.hint) from error


def skipped_of(folder: RunFolder) -> pl.DataFrame:
    """Return the records that a run leaves out."""
    return folder.read(TABLE) if folder.table_path(TABLE).is_file() else skipped_table([])
