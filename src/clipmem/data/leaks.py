"""Leaks: pairs of one data set whose images another one has, too, such as test pairs in the training data.

Every image of both sets is decoded. An image leaks if the other set has it, or one so alike that a model which saw one
has seen the other (`clipmem.data.duplicates`). Captions that are equal but for case and spaces are counted, too, but
are no leak by themselves: two photographs may have the same short caption. When not to trust it: crops, mirror images
and other photographs of the same thing are not found.
"""

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from clipmem.base.hashing import same_words
from clipmem.base.paths import atomic_file
from clipmem.base.progress import Quiet, Reporter
from clipmem.data.decoding import Geometry, decode
from clipmem.data.duplicates import Prints, duplicate_groups, prints_of
from clipmem.data.pairs import Pairs
from clipmem.data.skipped import source_name
from clipmem.data.sources.base import Source

_SIDE = 64  # of compared images, as in the benchmark of `duplicates`
_SMALL = Geometry(_SIDE)
_BLOCK = 64
_SAMPLES = 5
_TILE, _GAP, _ACROSS, _DRAWN = 128, 8, 8, 24  # pixels of an image and between two; images in a row, and pairs
# how two pairs match → what they have in common, the closest first
MATCHES = {
    "same image and caption": ("name", "words"),
    "near-duplicate image, same caption": ("group", "words"),
    "same image": ("name",),
    "near-duplicate image": ("group",),
    "same caption": ("words",),
}
_LEAKS = list(MATCHES)[:-1]
IMAGES = ("image", "other_image")  # columns of references


def leaks(tested: Source, other: Source, reporter: Reporter | None = None) -> tuple[dict[str, object], pl.DataFrame]:
    """Find the pairs of a data set that another one has, too.

    Returns:
        The facts: pairs of both that were compared, pairs by match (the closest of each), leaks, their share of the
        tested pairs, and the first ones. And a row per pair with a match: uid, key, caption, match, the key and caption
        of the first pair of the other set that matches, and the references of both images.
    """
    reporter = reporter or Quiet()
    (pairs, prints), (other_pairs, other_prints) = _compared(tested, reporter), _compared(other, reporter)
    groups = duplicate_groups(Prints(*map(np.concatenate, zip(prints, other_prints, strict=True))))
    pairs, other_pairs = (
        table.with_columns(
            name=pl.Series(images.names.tolist(), dtype=pl.String), group=pl.Series(numbers, dtype=pl.String)
        ).explode("words")
        for table, images, numbers in (
            (pairs, prints, groups[: pairs.height]),
            (other_pairs, other_prints, groups[pairs.height :]),
        )
    )
    other_pairs = other_pairs.rename({name: f"other_{name}" for name in ("key", "caption", "image")})
    rows = pl.concat(
        pairs.join(
            other_pairs.unique(on, keep="first", maintain_order=True), on, how="inner", maintain_order="left"
        ).select("uid", "key", "caption", pl.lit(match).alias("match"), "other_key", "other_caption", *IMAGES)
        for match, on in MATCHES.items()
    ).unique("uid", keep="first", maintain_order=True)
    counts = dict(rows.group_by("match").len().iter_rows())
    compared, leaked = pairs["uid"].n_unique(), sum(counts.get(match, 0) for match in _LEAKS)
    facts: dict[str, object] = {
        "path": other.section.path,
        "compared": compared,
        "others": other_pairs["uid"].n_unique(),
        "matches": {match: counts.get(match, 0) for match in MATCHES},
        "leaked": leaked,
        "share": leaked / compared if compared else 0.0,
        "samples": rows.drop(IMAGES).head(_SAMPLES).to_dicts(),
    }
    return facts, rows


def write_sheet(path: Path, tested: Source, other: Source, rows: pl.DataFrame) -> None:
    """Draw the first leaks, up to 24: every image, and below it that of the other set."""
    leaked = rows.filter(pl.col("match").is_in(_LEAKS)).head(_DRAWN)
    count = max(1, -(-leaked.height // _ACROSS))
    tiles = np.full((count * _ACROSS, 2, _TILE, _TILE, 3), 255, dtype=np.uint8)
    for side, (source, name) in enumerate(zip((tested, other), IMAGES, strict=True)):
        for tile, data in zip(tiles, source.read(leaked[name].to_list()), strict=False):
            tile[side] = decode(data, _TILE)
    columns = tiles.reshape(count, _ACROSS, 2 * _TILE, _TILE, 3)
    columns = np.pad(columns, ((0, 0), (0, 0), (0, 2 * _GAP), (0, _GAP), (0, 0)), constant_values=255)
    with atomic_file(path) as stream:
        Image.fromarray(np.vstack([np.hstack(row) for row in columns])).save(stream, "PNG")


def _compared(source: Source, reporter: Reporter) -> tuple[pl.DataFrame, Prints]:
    """Return the pairs of a source whose images decode, with the words of their captions, and what is compared."""
    pairs = Pairs.listed(source, None)
    tables, prints = [pairs.table[:0]], [prints_of(np.zeros((0, _SIDE, _SIDE, 3), np.uint8))]
    reporter.begin("compare", len(pairs), "images")
    for block in pairs.blocks(range(len(pairs)), _BLOCK, [_SMALL]):
        for problem in block.problems:
            source.ledger.drop(source_name(source.section), problem.key, problem.reason)
        tables.append(block.table)
        prints.append(prints_of(block.pixels[_SMALL]))
        reporter.advance(len(block) + len(block.problems))
    table = pl.concat(tables)
    words = pl.Series([sorted({*map(same_words, texts)}) for texts in table["captions"]], dtype=pl.List(pl.String))
    table = table.select("uid", "key", "image", caption=pl.col("captions").list.first(), words=words)
    return table, Prints(*map(np.concatenate, zip(*prints, strict=True)))
