"""What every data source gives: a table of pairs, the bytes of its pictures, and whom to credit."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.base.registry import Registry
from clipmem.data.quarantine import Problem
from clipmem.data.sources.columns import Columns
from clipmem.data.sources.look import Look
from clipmem.data.sources.records import Record, collect


class Source(ABC):
    """A set of pairs on disk.

    Args:
        section: The recipe's `[data]` section.

    Attributes:
        has_splits: Whether `data.split` means something here.
        problems: The records that `pairs` left out; complete once it has returned.
    """

    has_splits = False

    def __init__(self, section: DataSection) -> None:
        self.section = section
        self.problems: list[Problem] = []

    @classmethod
    def recognise(cls, look: Look) -> str:  # noqa: ARG003
        """Say why what lies at a path is of this format, or nothing when it is not (see `detect`)."""
        return ""

    @property
    def columns(self) -> Columns | None:
        """The columns that are read, where the source is one table; by default it is none."""
        return None

    @abstractmethod
    def pairs(self) -> pl.DataFrame:
        """Return the pairs, one row each, with the columns of the `pairs` table, sorted by uid.

        `image` and `variants` are references that `read` understands. What cannot be used is left out and listed in
        `problems`.

        Raises:
            InputError: The data cannot be read, or nothing in them can be used.
        """

    @abstractmethod
    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the encoded pictures behind references of this source, in their order.

        Many pictures are read fastest in the order that `storage_order` gives.
        """

    def storage_order(self, references: Sequence[str]) -> list[int]:
        """Return the positions of references in the order in which their pictures lie on the disk."""
        return list(range(len(references)))

    def credits(self) -> list[str]:
        """Return one line for each party whose pictures or captions must be credited."""
        return []


class RecordSource(Source):
    """A source that gives records one by one; the checks and the table are the same for all of them."""

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield the records in the source's order, holding the bytes of few pictures at a time.

        Records that have no place in the table at all are listed in `problems` here.
        """

    def pairs(self) -> pl.DataFrame:
        """Return the usable pairs, sorted by uid; without a group of its own every pair is one."""
        self.problems.clear()
        return collect(self.records(), self.problems, what=repr(self.section.path))


def open_named(section: DataSection) -> Source:
    """Open the source that `section.source` names.

    Raises:
        InputError: The name is unknown, a split is asked for where there are none, or the source cannot read its path.
    """
    kind = SOURCES[section.source]
    if section.split and not kind.has_splits:
        raise InputError(
            "[data] split",
            got=f"{section.split!r} with source {section.source!r}, which has no splits",
            expected="an empty text",
            todo="Leave it out, and give the file or folder of that split as data.path.",
        )
    return kind(section)


SOURCES: Registry[Source] = Registry("data source", Source)  # pyright: ignore[reportAbstractUsage]
