"""Mitigations of memorization, one file each: hooks for studies, and components for your own training loop.

A study takes its mitigations from `[mitigate.*]` of the recipe.
"""

from clipmem.mitigate import (
    average,
    caption_variants,
    captions,
    controls,
    image_variants,
    noise,
    regroup,
    remove,
    reweight,
)
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Preparation, Training, hooks_of, prepare
from clipmem.mitigate.captions import CaptionSampling, sample_captions
from clipmem.mitigate.interpolate import interpolate_weights
from clipmem.mitigate.masking import drop_tokens
from clipmem.mitigate.noise import ImageEmbeddingNoise, TextEmbeddingNoise
from clipmem.mitigate.remove import removal_list
from clipmem.mitigate.reweight import pair_weights

__all__ = [
    "MITIGATIONS", "CaptionSampling", "ImageEmbeddingNoise", "Mitigation", "Preparation", "TextEmbeddingNoise",
    "Training", "average", "caption_variants", "captions", "controls", "drop_tokens", "hooks_of", "image_variants",
    "interpolate_weights", "noise", "pair_weights", "prepare", "regroup", "removal_list", "remove", "reweight",
    "sample_captions",
]  # fmt: skip
