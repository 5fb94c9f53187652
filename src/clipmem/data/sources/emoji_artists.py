"""The shipped data as a redundant set: every drawing of an emoji is a pair, and other artists drew the same thing.

Pairs of one emoji may have different roles, as in any data set with several photographs of one object; near-duplicate
drawings, such as flags, may not (`split.near_duplicates`).
"""

from collections.abc import Iterator, Mapping, Sequence

from clipmem.base.errors import did_you_mean, require
from clipmem.base.hashing import ImageHash
from clipmem.base.random import generator
from clipmem.base.sections import DataSection, EmojiArtistsSection
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.emoji import SOURCE, VENDORS, EmojiSource, emoji_table, objects_of
from clipmem.data.sources.records import Part, Record


@SOURCES.register("emoji-artists")
class EmojiArtistsSource(EmojiSource):
    """The 8,588 drawings shipped with clipmem, a pair each: one artist's drawing with the captions of its emoji."""

    summary = "The 8,588 emoji drawings shipped with clipmem, each one pair: an emoji by one of six artists."
    Settings = EmojiArtistsSection
    uses = frozenset({"emoji_artists"})

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        for name in self.settings.artists:
            hint = did_you_mean(name, VENDORS, kind="artist")
            require(name in VENDORS, "[data.emoji_artists] artists", repr(name), ", ".join(VENDORS), hint)

    @classmethod
    def class_prompts(
        cls, labels: str, section: DataSection
    ) -> tuple[Mapping[str, Sequence[str]] | None, Sequence[str]]:
        """Return the names of groups or subgroups; the emoji's names are labels, and name themselves."""
        names, templates = super().class_prompts(labels, section)
        own = labels == "label" and section.emoji_artists.label == "emoji"
        return None if own else names, templates

    def records(self) -> Iterator[Record]:
        """Yield one record per drawing; `variants` are the drawings of its emoji by artists without pairs."""
        chosen, table = set(self.settings.artists or VENDORS), emoji_table()
        emoji = table.unique("unicode", keep="first", maintain_order=True)
        objects = dict(zip(emoji["unicode"], objects_of(emoji), strict=True))
        others: dict[str, list[str]] = {}
        for one, name, vendor in table.select("id", "unicode", "vendor").iter_rows():
            others.setdefault(name, []).extend([] if vendor in chosen else [one])
        for row in table.iter_rows(named=True):
            if row["vendor"] not in chosen:
                continue
            self.ledger.read += 1
            yield Record(
                SOURCE,
                row["id"],
                row["id"],
                ImageHash(self._bytes[row["id"]]),
                [Part(row["id"], self._ordered(row["id"], row["captions"]))],
                label=row[("group", "name")[self.settings.label == "emoji"]],
                sublabel=row["subgroup"],
                objects=objects[row["unicode"]],
                variants=others[row["unicode"]],
                credit=f"{row['attribution']} ({row['license']})",
            )

    def _ordered(self, drawing: str, captions: list[str]) -> list[str]:
        if self.settings.order == "name first":
            return captions
        return [captions[k] for k in generator(0, "caption order", drawing).permutation(len(captions))]
