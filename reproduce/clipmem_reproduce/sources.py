"""Emoji in two parts: those of a study, and those of a warm start that has read and seen nothing of it."""

import zlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

from clipmem.base.sections import DataSection
from clipmem.data.sources.emoji import EmojiArtistsSource, emoji_table
from clipmem.data.sources.records import Record

_OF_START, _PARTS = 2, 5  # parts of all concepts for the warm start


def for_start(concept: str) -> bool:
    """Return whether the emoji of a concept belong to the warm start."""
    return zlib.crc32(concept.encode()) % _PARTS < _OF_START


def _same(captions: Sequence[str]) -> set[str]:
    return {caption.casefold() for caption in captions}


class _EmojiPart(EmojiArtistsSource):
    Settings = None  # those of emoji-artists
    starts: ClassVar[bool]

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        drawings = list(emoji_table().select("id", "concept", "captions").iter_rows())
        read = {caption for _, concept, captions in drawings if not for_start(concept) for caption in _same(captions)}
        self._part = {
            drawing
            for drawing, concept, captions in drawings
            if for_start(concept) == self.starts and not (self.starts and _same(captions) & read)
        }

    def records(self) -> Iterator[Record]:
        """Yield the records of this part; the others do not count as read."""
        for record in super().records():
            if record.key in self._part:
                yield record
            else:
                self.ledger.read -= 1


class EmojiOfStudy(_EmojiPart):
    """Drawings of three fifths of the concepts: a study on pairs that a warm start on `emoji-start` has not read."""

    name = "emoji-study"
    summary = "Three fifths of the emoji drawings, for studies from a warm start that has read none of their captions."
    starts = False


class EmojiOfStart(_EmojiPart):
    """Drawings of the other concepts, but those with a caption, however capitalized, that the first part has, too."""

    name = "emoji-start"
    summary = "Emoji drawings of other concepts than emoji-study, without any caption in common with it."
    starts = True
