"""What every data source is: records of images with their captions, the bytes of the images, and whom to credit.

A new format is one class in one file, registered in `SOURCES`, or by an installed package under the entry-point group
`clipmem.sources`. It says all about itself: how it is told from others, which keys of `[data]` it uses, what it holds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import polars as pl

from clipmem.base.declared import own_settings
from clipmem.base.errors import InputError
from clipmem.base.registry import Registry
from clipmem.base.require import require
from clipmem.base.section import Section
from clipmem.base.sections import DataSection
from clipmem.base.suggest import did_you_mean
from clipmem.data.quarantine import Ledger, Problem
from clipmem.data.sources.columns import Columns
from clipmem.data.sources.path_probe import PathProbe
from clipmem.data.sources.records import Record, collect

LAST = 100


class Source(ABC):
    """A set of pairs on disk.

    Args:
        section: The recipe's `[data]` section.

    Attributes:
        name: What `data.source` calls it.
        summary: What it reads, in one line.
        Settings: The table that it brings to `[data]`, under its name; None for none.
        uses: The keys of `[data]` that mean something here, besides `source` and `path`.
        rank: Sources are asked whether they recognize a path in this order, lowest first: the most particular.
        ledger: What became of the records; complete once `pairs` has returned.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    Settings: ClassVar[type[Section] | None] = None
    uses: ClassVar[frozenset[str]] = frozenset()
    rank: ClassVar[int] = LAST

    def __init__(self, section: DataSection) -> None:
        self.section = section
        self.settings: Any = own_settings(section, self.name) or (self.Settings and self.Settings())
        self.ledger = Ledger()

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:  # noqa: ARG003
        """Say why what lies at a path is of this format, or nothing when it is not (see `detect`)."""
        return ""

    @classmethod
    def class_prompts(cls, labels: str) -> tuple[Mapping[str, Sequence[str]], Sequence[str]] | None:  # noqa: ARG003
        """Return the names of the classes in the column `labels` and the sentences for them, where it ships some."""
        return None

    @property
    def problems(self) -> list[Problem]:
        """What `pairs` left out; complete once it has returned."""
        return self.ledger.problems

    @property
    def columns(self) -> Columns | None:
        """The columns that are read, where the source is one table; by default it is none."""
        return None

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield the records in the source's order, holding the bytes of few images at a time.

        Each is counted in `ledger.read` when it is read; those that have no place in the table at all are listed in
        `ledger` here.
        """

    @abstractmethod
    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the encoded images behind references of this source, in their order.

        Many images are read fastest in the order that `storage_order` gives.
        """

    def pairs(self, watch: Callable[[Record], object] = lambda _: None) -> pl.DataFrame:
        """Return the usable pairs, one row each, with the columns of the `pairs` table, sorted by uid.

        What cannot be used is left out and listed in `problems`. `watch` is called with every record on the way.

        Raises:
            InputError: The data cannot be read, or no record of them can be used.
            RunError: A record is neither in a pair nor listed.
        """
        self.ledger.clear()
        return collect(self.records(), self.ledger, what=repr(self.section.path), watch=watch)

    def storage_order(self, references: Sequence[str]) -> list[int]:
        """Return the positions of references in the order in which their images lie on the disk."""
        return list(range(len(references)))

    def credits(self) -> list[str]:
        """Return one line for each party whose images or captions must be credited."""
        return []


SOURCES: Registry[Source] = Registry("data source", Source, group="sources")  # pyright: ignore[reportAbstractUsage]


def open_named(section: DataSection) -> Source:
    """Open the source that `section.source` names; a key that is set and that it has no use for is refused."""
    kind = SOURCES[section.source]
    for name, field in DataSection.model_fields.items():
        value = getattr(section, name)
        uses = ", ".join(f"data.{key}" for key in DataSection.model_fields if key in kind.uses) or "no other key"
        require(
            value == field.default or name in {"source", "path", *kind.uses},
            f"[data] {name}",
            f"{value!r} with the source {section.source!r}, which has no use for it",
            f"the default, {field.default!r}",
            f"Remove data.{name}: besides data.path, {section.source!r} uses {uses}.",
        )
    return kind(section)


def require_data(there: object, section: DataSection, holds: str) -> None:
    """Raise an `InputError` unless what a source reads is there."""
    got = f"{section.path!r}, where there is no such data"
    require(section.path and there, "[data] path", got, holds, "Set data.path.")


def require_split(split: str, known: Iterable[str], *, kind: str = "split") -> None:
    """Raise an `InputError` unless the data have the split that `data.split` names; empty is all of them."""
    names = sorted(set(known))
    known_one, hint = not split or split in names, did_you_mean(split, names, kind=kind)
    require(known_one, "[data] split", f"{split!r}", f"one of {names}", hint)


def image_gone(reference: str, got: str) -> InputError:
    """Make the error for an image that was there when the pairs were listed, and is not any more."""
    return InputError(
        f"image {reference!r}",
        got=got,
        expected="the data that were there when the pairs were listed",
        hint="Put them back, or start a study in another run folder.",
    )
