"""Data sources, one file a format. Import `open_source`; a new format is one new file here and one line below."""

from clipmem.base.recipes import DataSection
from clipmem.data.sources import classfolder, emoji, parquet
from clipmem.data.sources.base import SOURCES, Source

__all__ = ["SOURCES", "Source", "classfolder", "emoji", "open_source", "parquet"]


def open_source(section: DataSection) -> Source:
    """Open the source that a recipe's `[data]` section names.

    Raises:
        InputError: The name is unknown, or the source cannot read its path.
    """
    return SOURCES[section.source](section)
