# pyright: reportUnusedImport=false
"""Pages and terminal screens of finished runs. Imports no torch; its modules are imported when first used."""

from typing import TYPE_CHECKING

from clipmem.base import lazy

if TYPE_CHECKING:  # what is used as an attribute of this package
    from clipmem.report import comparison, explorer, formats, progress, terminal

__getattr__ = lazy(__name__)
