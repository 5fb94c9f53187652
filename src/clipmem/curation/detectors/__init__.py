"""Detectors of wrong captions, one file each; importing this package registers them."""

from importlib import import_module
from pkgutil import iter_modules

from clipmem.curation.detectors.base import DETECTORS, Detector

__all__ = ["DETECTORS", "Detector"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
