"""Mitigations of memorization, one file a family: hooks for studies, and components for your own training loop.

A study takes its mitigations from `[mitigate.*]` of the recipe.
"""

from clipmem.mitigate import captions, image_variants, noise, regroup, remove, reweight, weights
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Preparation, Training, hooks_of, prepare
from clipmem.mitigate.captions import CaptionSampling, drop_tokens, sample_captions
from clipmem.mitigate.noise import ImageEmbeddingNoise, TextEmbeddingNoise
from clipmem.mitigate.remove import removal_list
from clipmem.mitigate.reweight import Reweighting, pair_weights
from clipmem.mitigate.weights import interpolate_weights

__all__ = [
    "MITIGATIONS", "CaptionSampling", "ImageEmbeddingNoise", "Mitigation", "Preparation", "Reweighting",
    "TextEmbeddingNoise", "Training", "captions", "drop_tokens", "hooks_of", "image_variants", "interpolate_weights",
    "noise", "pair_weights", "prepare", "regroup", "removal_list", "remove", "reweight", "sample_captions", "weights",
]  # fmt: skip
