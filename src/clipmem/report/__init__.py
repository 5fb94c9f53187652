# pyright: reportUnusedImport=false
"""Pages and terminal screens of finished runs. Imports no torch; its modules are imported when first used."""

from typing import TYPE_CHECKING

from clipmem.base.lazy import modules_of

if TYPE_CHECKING:  # what is used as an attribute of this package
    from clipmem.report import comparison_page, explorer, formats, progress, terminal

__getattr__ = modules_of(__name__)
