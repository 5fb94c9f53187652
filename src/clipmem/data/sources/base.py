"""What every data source gives: a table of pairs, the bytes of its pictures, and whom to credit."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import polars as pl

from clipmem.base.recipes import DataSection
from clipmem.base.registry import Registry
from clipmem.data.quarantine import Problem
from clipmem.data.sources.look import Look
from clipmem.data.sources.records import Record, collect


class Source(ABC):
    """A set of pairs on disk.

    Args:
        section: The recipe's `[data]` section.

    Attributes:
        problems: The records that `pairs` left out; complete once it has returned.
    """

    def __init__(self, section: DataSection) -> None:
        self.section = section
        self.problems: list[Problem] = []

    @classmethod
    def recognise(cls, look: Look) -> str:  # noqa: ARG003
        """Say why what lies at a path is of this format, or nothing when it is not (see `detect`)."""
        return ""

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


SOURCES: Registry[Source] = Registry("data source", Source)  # pyright: ignore[reportAbstractUsage]
