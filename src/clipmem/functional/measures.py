"""What each pair score declares: its range, its direction, what it needs, and where it comes from.

A protocol computes a measure under single models ("per model": alignment, distance, probability) and turns those
values into memorization, the difference between models that saw the pair and models that did not. `sign` says which
way round. Never put two measures on one axis: their ranges and units differ. Compare their ranks.

Not every measure finds wrong captions: `finds_wrong_captions` says which ranked planted ones above the rest. SSLMem and
confidence did not; confidence cannot, since image-label training sees no caption.
"""

from dataclasses import dataclass
from typing import Literal

from clipmem.base.errors import InputError

Need = Literal["image views", "captions", "clean image", "caption variants", "held-out pairs", "labels", "class head"]


@dataclass(frozen=True)
class Measure:
    """Declaration of a pair score.

    Attributes:
        name: Name here.
        alignment: Name in recipes (`score.alignment`).
        range: Least and largest possible memorization.
        model_range: Least and largest value under a single model.
        sign: 1 where a model that fits the pair better has the larger value, -1 where it has the smaller:
            memorization = sign (mean over models that saw it - mean over those that did not).
        needs: What a run must have to compute it.
        equation: The value under a single model m, then memorization.
        source: Who defined it.
        finds_wrong_captions: Whether it ranked planted wrong captions above the rest on the shipped data: the interval
            of its AUROC lies above 0.5 (docs/validation.md, "Planted wrong captions under each measure").
        higher_is: Always "more memorized".
    """

    name: str
    alignment: str
    range: tuple[float, float]
    model_range: tuple[float, float]
    sign: Literal[1, -1]
    needs: tuple[Need, ...]
    equation: str
    source: str
    finds_wrong_captions: bool
    higher_is: str = "more memorized"


_DECLARED = (
    Measure(
        name="clipmem",
        alignment="clip",
        range=(-6.0, 6.0),
        model_range=(-3.0, 3.0),
        sign=1,
        needs=("image views", "captions", "held-out pairs"),
        equation="A = ū·v̄ - (ū·t̄ + ī·v̄); A(f) - A(g)",
        source="Wang et al., ICLR 2025 (CLIPMem), weight 1",
        finds_wrong_captions=True,
    ),
    Measure(
        name="cmc",
        alignment="cmc",
        range=(-4.5, 4.5),
        model_range=(-0.5, 4.0),
        sign=1,
        needs=("image views", "captions", "held-out pairs"),
        equation="CMC = ½ E[1ᵀΦΦᵀ1] - ½ E[1ᵀΦΦ_hᵀ1]; CMC(f) - CMC(g)",
        source="MultiMem, ECCV 2026, two modalities",
        finds_wrong_captions=True,
    ),
    Measure(
        name="sslmem_image",
        alignment="sslmem-image",
        range=(-2.0, 2.0),
        model_range=(0.0, 2.0),
        sign=-1,
        needs=("clean image", "image views"),
        equation="L = mean_a || m(I) - m(I_a) ||; L(g) - L(f)",
        source="Wang et al., ICLR 2024 (SSLMem)",
        finds_wrong_captions=False,
    ),
    Measure(
        name="sslmem_text",
        alignment="sslmem-text",
        range=(-2.0, 2.0),
        model_range=(0.0, 2.0),
        sign=-1,
        needs=("captions", "caption variants"),
        equation="L = mean_k || m(T) - m(T_k) ||; L(g) - L(f)",
        source="Wang et al., ICLR 2024 (SSLMem), for captions",
        finds_wrong_captions=False,
    ),
    Measure(
        name="confidence",
        alignment="confidence",
        range=(-1.0, 1.0),
        model_range=(0.0, 1.0),
        sign=1,
        needs=("labels", "class head"),
        equation="p = softmax(logits)_y; p(in) - p(out)",
        source="Feldman 2020; Feldman & Zhang 2020",
        finds_wrong_captions=False,
    ),
)

MEASURES: dict[str, Measure] = {measure.name: measure for measure in _DECLARED}


def get_measure(name: str) -> Measure:
    """Look up a measure by its name.

    Args:
        name: One of `MEASURES`.

    Returns:
        Its declaration.

    Raises:
        InputError: There is none of that name.

    Example:
        >>> get_measure("sslmem_image").range
        (-2.0, 2.0)
    """
    if name not in MEASURES:
        raise InputError(
            "measure", got=repr(name), expected=f"one of {', '.join(MEASURES)}", hint="Choose one of the measures."
        )
    return MEASURES[name]
