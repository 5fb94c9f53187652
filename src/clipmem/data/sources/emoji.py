"""The shipped data: emoji by several artists, each with several captions."""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import as_file, files

import polars as pl

from clipmem.base.errors import require
from clipmem.base.hashing import ImageHash
from clipmem.base.sections import DataSection
from clipmem.data.sources.base import SOURCES, Source
from clipmem.data.sources.records import Part, Record

COMMON = 3  # minimum number of emoji with a keyword that counts as an object
SOURCE = "emoji.parquet"
VENDORS = ("noto", "twemoji", "fluent-flat", "noto-v1", "emojione", "fxemoji")


@functools.cache
def emoji_table() -> pl.DataFrame:
    """Read the shipped table: one row per drawing."""
    with as_file(files("clipmem.data") / "assets" / "emoji.parquet") as path:
        return pl.read_parquet(path)


def objects_of(emoji: pl.DataFrame) -> list[list[str]]:
    """Return the objects of each emoji: its group, its subgroup and its common keywords."""
    words = [sorted({word.lower() for word in own}) for own in emoji["keywords"].to_list()]
    times = Counter(word for own in words for word in own)
    return [
        [f"group:{group}", f"subgroup:{subgroup}", *(word for word in own if times[word] >= COMMON)]
        for group, subgroup, own in zip(emoji["group"], emoji["subgroup"], words, strict=True)
    ]


@SOURCES.register("emoji")
class EmojiSource(Source):
    """The 1,914 emoji shipped with clipmem (see `data/assets/README.md`), a pair per emoji: its first drawing."""

    summary = "The 1,914 emoji shipped with clipmem, each one pair: its first drawing."

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        got = f"{section.path!r} with source {self.name!r}, which is shipped with clipmem"
        require(not section.path, "[data] path", got, "no path", "Set data.source to 'auto'.")
        table = emoji_table()
        self._bytes = dict(zip(table["id"], table["image"].struct.field("bytes"), strict=True))

    @classmethod
    def class_prompts(
        cls,
        labels: str,
        section: DataSection,  # noqa: ARG003
    ) -> tuple[Mapping[str, Sequence[str]] | None, Sequence[str]]:
        """Return the names of the Unicode groups (`label`) or subgroups (`sublabel`), and prompts for icons."""
        shipped = json.loads((files("clipmem.data") / "assets" / "prompts.json").read_text(encoding="utf-8"))
        return shipped[labels], shipped["templates"]

    def records(self) -> Iterator[Record]:
        """Yield one record per emoji; `label` is its Unicode group and `sublabel` its subgroup."""
        order = pl.col("vendor").replace_strict({vendor: rank for rank, vendor in enumerate(VENDORS)})
        about = ("captions", "keywords", "group", "subgroup", "concept", "license", "attribution")
        table = emoji_table().sort("unicode", order).group_by("unicode", maintain_order=True)
        grouped = table.agg("id", pl.col(*about).first())
        for row, objects in zip(grouped.iter_rows(named=True), objects_of(grouped), strict=True):
            first, *variants = row["id"]
            self.ledger.read += len(row["id"])
            yield Record(
                SOURCE,
                row["unicode"],
                first,
                ImageHash(self._bytes[first]),
                [Part(one, row["captions"]) for one in row["id"]],
                group=row["concept"],
                label=row["group"],
                sublabel=row["subgroup"],
                objects=objects,
                variants=variants,
                credit=f"{row['attribution']} ({row['license']})",
            )

    def read(self, references: Sequence[str]) -> list[bytes]:
        return [self._bytes[reference] for reference in references]

    def credits(self) -> list[str]:
        return [
            *self.pairs()["credit"].unique().sort(),
            "Captions: Unicode CLDR (Unicode-3.0), emojibase, emojilib, gemoji, emoji-datasource (MIT), WordNet 3.0.",
        ]
