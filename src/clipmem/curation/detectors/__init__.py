"""Detectors of wrong captions, one file each; importing this package registers them."""

from clipmem.curation.detectors import (
    clipmem,
    duplicates,
    embedded_neighbors,
    hygiene,
    image_neighbors,
    left_out,
    left_out_image,
    lemon,
    loss,
    low_alignment,
    margin,
    s_cliploss,
    similarity,
    vague,
    word_neighbors,
)
from clipmem.curation.detectors.base import DETECTORS, Detector, Need

__all__ = ["DETECTORS", "Detector", "Need"]
__all__ += ["clipmem", "duplicates", "embedded_neighbors", "hygiene", "image_neighbors"]
__all__ += ["left_out", "left_out_image", "lemon", "loss", "low_alignment", "margin", "s_cliploss", "similarity"]
__all__ += ["vague", "word_neighbors"]
