"""The shipped data: emoji by several artists, each with several captions."""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from typing import Any

import polars as pl

from clipmem.base.errors import did_you_mean, require
from clipmem.base.hashing import ImageHash
from clipmem.base.random import generator
from clipmem.base.sections import DataSection, EmojiArtistsSection
from clipmem.data.sources.base import SOURCES, ClassPrompts, Source
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
    words = [sorted({word.lower() for word in keywords}) for keywords in emoji["keywords"].to_list()]
    times = Counter(word for keywords in words for word in keywords)
    return [
        [f"group:{group}", f"subgroup:{subgroup}", *(word for word in keywords if times[word] >= COMMON)]
        for group, subgroup, keywords in zip(emoji["group"], emoji["subgroup"], words, strict=True)
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
    def class_prompts(cls, labels: str, section: DataSection) -> ClassPrompts:  # noqa: ARG003
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
            parts = [Part(drawing, row["captions"]) for drawing in row["id"]]
            about = {"group": row["concept"], "label": row["group"], "objects": objects, "variants": variants}
            yield self._record(row, row["unicode"], first, parts, **about)

    def _record(self, row: Mapping[str, str], key: str, drawing: str, parts: Sequence[Part], **about: Any) -> Record:
        credit = f"{row['attribution']} ({row['license']})"
        image = ImageHash(self._bytes[drawing])
        return Record(SOURCE, key, drawing, image, parts, sublabel=row["subgroup"], credit=credit, **about)

    def read(self, references: Sequence[str]) -> list[bytes]:
        return [self._bytes[reference] for reference in references]

    def credits(self) -> list[str]:
        return [
            *self.pairs()["credit"].unique().sort(),
            "Captions: Unicode CLDR (Unicode-3.0), emojibase, emojilib, gemoji, emoji-datasource (MIT), WordNet 3.0.",
        ]


@SOURCES.register("emoji-artists")
class EmojiArtistsSource(EmojiSource):
    """The 8,588 drawings shipped with clipmem, a pair each: one artist's drawing with the captions of its emoji.

    A redundant set: other artists drew the same thing. Pairs of one emoji may have different roles, as in any data set
    with several photographs of one object; near-duplicate drawings, such as flags, may not (`split.near_duplicates`).
    """

    summary = "The 8,588 emoji drawings shipped with clipmem, each one pair: an emoji by one of six artists."
    Settings = EmojiArtistsSection
    uses = frozenset({"emoji_artists"})

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        for name in self.section.emoji_artists.artists:
            hint = did_you_mean(name, VENDORS, kind="artist")
            require(name in VENDORS, "[data.emoji_artists] artists", repr(name), ", ".join(VENDORS), hint)

    @classmethod
    def class_prompts(cls, labels: str, section: DataSection) -> ClassPrompts:
        """Return the names of groups or subgroups; the emoji's names are labels, and name themselves."""
        names, templates = super().class_prompts(labels, section)
        by_name = labels == "label" and section.emoji_artists.label == "emoji"
        return None if by_name else names, templates

    def records(self) -> Iterator[Record]:
        """Yield one record per drawing; `variants` are the drawings of its emoji by artists without pairs."""
        vendors, table = set(self.section.emoji_artists.artists or VENDORS), emoji_table()
        emoji = table.unique("unicode", keep="first", maintain_order=True)
        objects = dict(zip(emoji["unicode"], objects_of(emoji), strict=True))
        others: dict[str, list[str]] = {}
        for drawing, name, vendor in table.select("id", "unicode", "vendor").iter_rows():
            others.setdefault(name, []).extend([] if vendor in vendors else [drawing])
        for row in table.iter_rows(named=True):
            if row["vendor"] not in vendors:
                continue
            self.ledger.read += 1
            label = row["name" if self.section.emoji_artists.label == "emoji" else "group"]
            captions = row["captions"]
            if self.section.emoji_artists.order != "name first":
                order = generator(0, "caption order", row["id"]).permutation(len(captions))
                captions = [captions[k] for k in order]
            parts = [Part(row["id"], captions)]
            about = {"label": label, "objects": objects[row["unicode"]], "variants": others[row["unicode"]]}
            yield self._record(row, row["id"], row["id"], parts, **about)
