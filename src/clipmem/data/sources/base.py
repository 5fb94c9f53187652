"""What every data source gives: a table of pairs, the bytes of its pictures, and whom to credit."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import polars as pl

from clipmem.base.recipes import DataSection
from clipmem.base.registry import Registry
from clipmem.data.quarantine import Problem


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

    @abstractmethod
    def pairs(self) -> pl.DataFrame:
        """Return the pairs, one row each, with the columns of the `pairs` table, sorted by uid.

        `image` and `variants` are references that `read` understands.

        Raises:
            InputError: A pair has no caption, a picture is missing, or two pairs are the same.
        """

    @abstractmethod
    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the encoded pictures behind references of this source, in their order."""

    def credits(self) -> list[str]:
        """Return one line for each party whose pictures or captions must be credited."""
        return []


SOURCES: Registry[Source] = Registry("data source", Source)  # pyright: ignore[reportAbstractUsage]
