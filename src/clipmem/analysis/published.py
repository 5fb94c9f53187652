"""Published values, drawn beside a run's own: read off figures, so to about ±0.003, and on another scale than ours.

UnitMem grows with the number of pairs that it is taken over, and these were taken over another set, by towers of 12
layers, trained on photographs: compare the order and the shape of curves, never their height.
"""

from itertools import pairwise

# Wang, Dziedzic, Kim, Backes, Boenisch, "Captured by Captions: On Memorization and its Mitigation in CLIP Models",
# ICLR 2025 (arXiv 2502.07830), mean UnitMem of layers 1 to 12 of ViT-Base image towers, digitized. Their
# self-supervised model is DINO-like, their supervised one has several labels an image (COCO).
UNITMEM: dict[str, tuple[float, ...]] = {
    "clip": (0.272, 0.280, 0.289, 0.296, 0.309, 0.325, 0.337, 0.351, 0.361, 0.376, 0.391, 0.411),
    "supervised": (0.265, 0.283, 0.293, 0.305, 0.320, 0.337, 0.345, 0.367, 0.388, 0.412, 0.440, 0.477),
    "simclr": (0.339, 0.346, 0.345, 0.349, 0.351, 0.355, 0.356, 0.355, 0.358, 0.362, 0.367, 0.376),
}
SOURCE = "Wang et al., ICLR 2025"
ERROR = 0.003


def layers_between() -> list[int]:
    """Return the layers (from 1) in which the published CLIP curve lies between the other two."""
    rows = zip(UNITMEM["clip"], UNITMEM["supervised"], UNITMEM["simclr"], strict=True)
    return [layer for layer, (clip, *others) in enumerate(rows, start=1) if min(others) < clip < max(others)]


def ranges(layers: list[int]) -> str:
    """Write numbers as ranges."""
    starts = [n for k, n in enumerate(layers) if k == 0 or layers[k - 1] != n - 1]
    ends = [a for a, b in pairwise(layers) if b != a + 1] + layers[-1:]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)) or "none"
