# pyright: reportUnusedImport=false
"""Models behind the protocol `DualEncoder`, with one adapter per library, imported when first used."""

from typing import TYPE_CHECKING

from clipmem.base import lazy

if TYPE_CHECKING:  # what is used as an attribute of this package
    from clipmem.models import openclip

__getattr__ = lazy(__name__)
