"""What every data source gives: a table of pairs, the bytes of its pictures, and whom to credit."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.base.registry import Registry
from clipmem.data.quarantine import Ledger, Problem
from clipmem.data.sources.columns import Columns
from clipmem.data.sources.look import Look
from clipmem.data.sources.records import Record, collect


class Source(ABC):
    """A set of pairs on disk."""

    uses: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, section: DataSection) -> None:
        self.section = section
        self.ledger = Ledger()

    @property
    def problems(self) -> list[Problem]:
        """What `pairs` left out; complete once it has returned."""
        return self.ledger.problems

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

        Each is counted in `ledger.read` when it is read; those that have no place in the table at all are listed in
        `ledger` here.
        """

    def pairs(self, watch: Callable[[Record], object] = lambda _: None) -> pl.DataFrame:
        """Return the usable pairs, sorted by uid; without a group of its own every pair is one."""
        self.ledger.clear()
        return collect(self.records(), self.ledger, what=repr(self.section.path), watch=watch)


def open_named(section: DataSection) -> Source:
    """Open the source that `section.source` names."""
    kind = SOURCES[section.source]
    for name, field in DataSection.model_fields.items():
        value = getattr(section, name)
        if value != field.default and name not in {"source", "path", *kind.uses}:
            uses = ", ".join(f"data.{key}" for key in DataSection.model_fields if key in kind.uses) or "no other key"
            raise InputError(
                f"[data] {name}",
                got=f"{value!r} with the source {section.source!r}, which has no use for it",
                expected=f"the default, {field.default!r}",
                hint=f"Remove data.{name}: besides data.path, {section.source!r} uses {uses}.",
            )
    return kind(section)


SOURCES: Registry[Source] = Registry("data source", Source)  # pyright: ignore[reportAbstractUsage]
