# pyright: reportUnusedImport=false
"""The explorer: a local server, a static app, and exports of both. Its modules are imported when first used."""

from typing import TYPE_CHECKING

from clipmem.base import lazy

if TYPE_CHECKING:  # what is used as an attribute of this package
    from clipmem.report.explorer import export, meaning, server, subject, widget

__getattr__ = lazy(__name__)
