"""The shipped data: emoji as several artists drew them, each with several captions.

A pair is one emoji: its picture by the first vendor in `VENDORS` that drew it, and its captions. The other vendors'
pictures are image variants. The group key is the concept, so that the same thing in another skin or facing the other
way never sits in another role.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from importlib.resources import as_file, files

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.data.quarantine import Ledger
from clipmem.data.sources.base import SOURCES, Source
from clipmem.store.hashing import pair_uid

# An object that only one or two emoji have can hardly be found among the public pictures: it is no label.
COMMON = 3
VENDORS = ("noto", "twemoji", "fluent-flat", "noto-v1", "emojione", "fxemoji")


@functools.cache
def _table() -> pl.DataFrame:
    with as_file(files("clipmem.data") / "assets" / "emoji.parquet") as path:
        return pl.read_parquet(path)


def _objects(emoji: pl.DataFrame) -> pl.Series:
    """Name what is in each picture: its Unicode group and subgroup, and its keywords that at least three emoji have.

    The keywords are those of the dictionaries (CLDR, emojibase, emojilib) in small letters, not the words of a caption.
    As with the categories of COCO, an object may stand in the caption that a model trains on (the emoji's name) or not:
    what the caption tells, f and g both know, and only their difference counts.
    """
    words = [sorted({word.lower() for word in own}) for own in emoji["keywords"].to_list()]
    times = Counter(word for own in words for word in own)
    return pl.Series(
        "objects",
        [
            [f"group:{group}", f"subgroup:{subgroup}", *(word for word in own if times[word] >= COMMON)]
            for group, subgroup, own in zip(emoji["group"], emoji["subgroup"], words, strict=True)
        ],
    )


@SOURCES.register("emoji")
class EmojiSource(Source):
    """The 1,914 emoji that ship in the package (see `data/assets/README.md`)."""

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        if section.path:
            raise InputError(
                "[data] path",
                got=f"{section.path!r} with source 'emoji', which ships in the package",
                expected="no path",
                hint="Set data.source to 'auto': it tells what the path holds.",
            )
        table = _table()
        self._bytes = dict(zip(table["id"], table["image"].struct.field("bytes"), strict=True))

    def pairs(self) -> pl.DataFrame:
        """Return one pair an emoji; `label` is its Unicode group and `sublabel` its subgroup."""
        order = pl.col("vendor").replace_strict({vendor: rank for rank, vendor in enumerate(VENDORS)})
        grouped = (
            _table()
            .sort("unicode", order)
            .group_by("unicode", maintain_order=True)
            .agg(
                pl.col("id").first().alias("image"),
                pl.col("id").slice(1).alias("variants"),
                pl.col("captions", "keywords", "group", "subgroup", "concept", "license", "attribution").first(),
            )
        )
        uids = [
            pair_uid(self._bytes[image], captions)
            for image, captions in zip(grouped["image"], grouped["captions"].to_list(), strict=True)
        ]
        read, pairs = _table().height, grouped.height
        self.ledger = Ledger(read=read, pairs=pairs, merged=read - pairs)
        return grouped.select(
            pl.Series("uid", uids),
            pl.col("unicode").alias("key"),
            "image",
            "captions",
            "variants",
            pl.col("concept").alias("group"),
            pl.col("group").alias("label"),
            pl.col("subgroup").alias("sublabel"),
            pl.format("{} ({})", "attribution", "license").alias("credit"),
            _objects(grouped),
        ).sort("uid")

    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the WebP bytes of the pictures with these ids."""
        return [self._bytes[reference] for reference in references]

    def credits(self) -> list[str]:
        """Return the artists' attributions with their licences."""
        return [
            *self.pairs()["credit"].unique().sort(),
            "Captions: Unicode CLDR (Unicode-3.0), emojibase, emojilib, gemoji, emoji-datasource (MIT), WordNet 3.0.",
        ]
