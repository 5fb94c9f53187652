"""The stage `decode`: write the pixel cache, and list unusable records."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.progress import Reporter
from clipmem.data import skipped
from clipmem.data.cache import build_cache
from clipmem.data.decoding import DecodeError, Geometry
from clipmem.data.sources.base import Source
from clipmem.study.plan import cache_file

TABLE = "skipped"


def decode_images(
    folder: RunFolder,
    pairs: pl.DataFrame,
    source: Source,
    geometries: Sequence[Geometry],
    *,
    reporter: Reporter,
    strict: bool = False,
) -> tuple[list[Path], pl.DataFrame]:
    """Decode the images of all pairs in every geometry; return the pixel caches, and the pairs that decode."""
    reporter.begin("decode", pairs.height * len(geometries), "images")
    broken, where, keys = set[int](), skipped.source_name(source.section), pairs["key"].to_list()

    def leave_out(row: int, error: DecodeError) -> None:
        broken.add(row)
        source.ledger.drop(where, keys[row], error.reason)
        if strict:
            raise skipped.stop_at(source.problems[-1]) from error

    caches: list[Path] = []
    for geometry in geometries:
        cache = cache_file(folder, geometry, first=geometries[0])
        references = [image for row, image in enumerate(pairs["image"]) if row not in broken]
        ordered = {row: references[row] for row in source.storage_order(references)}
        # images that decode in one geometry decode in all
        first = None if caches else leave_out
        build_cache(cache, ordered, source.read, geometry, progress=reporter.advance, left_out=first)
        caches.append(cache)
    return caches, pairs.filter(~pl.int_range(pl.len()).is_in(list(broken))) if broken else pairs


def write_pairs(
    folder: RunFolder, pairs: pl.DataFrame, source: Source, check: Callable[[pl.DataFrame], object], reporter: Reporter
) -> list[Path]:
    """Check the usable pairs, say what became of every record, and write the tables `pairs` and `skipped`."""
    facts = source.ledger.facts()
    if source.ledger.read:
        reporter.note(f"decode    {skipped.records_sentence(facts)}")
    if ignored := skipped.ignored_sentence(facts["ignored"]):
        reporter.note(f"decode    {ignored}")
    if sentence := check_pairs(source, pairs, check):
        reporter.note(f"decode    {sentence} (see {TABLE}.parquet)")
    return [folder.write("pairs", pairs), folder.write(TABLE, skipped.skipped_table(source.problems))]


def check_pairs(source: Source, pairs: pl.DataFrame, check: Callable[[pl.DataFrame], object]) -> str:
    """Check pairs, and return the records that their source left out, in a sentence, which is also in the error."""
    sentence = skipped.left_out_sentence(skipped.summarize(skipped.skipped_table(source.problems), pairs.height))
    try:
        check(pairs)
    except InputError as error:
        if not sentence:
            raise
        got = f"{error.got} ({sentence})"
        raise InputError(error.what, got=got, expected=error.expected, hint=error.hint) from error
    return sentence


def skipped_of(folder: RunFolder) -> pl.DataFrame:
    """Return the records that a run leaves out."""
    return folder.read(TABLE) if folder.table_path(TABLE).is_file() else skipped.skipped_table([])
