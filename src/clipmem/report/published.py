"""Published values, to draw next to those of a run. They were read off figures, to about ±0.003.

UnitMem grows with the number of pairs, and these values are for another set of pairs and towers of 12 layers trained on
photographs: compare the order and shape of curves, never their height.
"""

# Wang, Dziedzic, Kim, Backes, Boenisch, "Captured by Captions: On Memorization and its Mitigation in CLIP Models",
# ICLR 2025 (arXiv 2502.07830), mean UnitMem of layers 1 to 12 of ViT-Base image towers, digitized. Their
# self-supervised model is DINO-like, their supervised one has several labels an image (COCO).
UNITMEM: dict[str, tuple[float, ...]] = {
    "clip": (0.272, 0.280, 0.289, 0.296, 0.309, 0.325, 0.337, 0.351, 0.361, 0.376, 0.391, 0.411),
    "supervised": (0.265, 0.283, 0.293, 0.305, 0.320, 0.337, 0.345, 0.367, 0.388, 0.412, 0.440, 0.477),
    "simclr": (0.339, 0.346, 0.345, 0.349, 0.351, 0.355, 0.356, 0.355, 0.358, 0.362, 0.367, 0.376),
}
SOURCE = "Wang et al., ICLR 2025"


def layers_between() -> list[int]:
    """Return the layers (from 1) in which the published CLIP curve is between the other two."""
    rows = zip(UNITMEM["clip"], UNITMEM["supervised"], UNITMEM["simclr"], strict=True)
    return [layer for layer, (clip, *others) in enumerate(rows, start=1) if min(others) < clip < max(others)]
