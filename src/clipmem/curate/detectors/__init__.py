"""Detectors of wrong captions, one file each; importing this package registers them."""

from clipmem.curate.detectors.base import DETECTORS, Detector, Need

__all__ = ["DETECTORS", "Detector", "Need"]
