"""Base class of detectors: scores of pairs, higher = the caption is more likely wrong."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor

from clipmem.base.registry import Registry
from clipmem.models.signals import Signals

Need = Literal["embeddings", "alignment", "images", "trajectory", "half-models", "scores"]
Scores = Float64[np.ndarray, " n"]
Kind = Literal["exchanged", "vague", "duplicate", "hygiene"]


class Detector(ABC):
    """A way to rank pairs by how likely their captions are wrong.

    Attributes:
        name: As typed on the command line.
        summary: One line.
        needs: The signals it reads; none: captions alone.
        columns: Columns of a finished study among `signals.scores` that it reads.
        weight: Weight of its ranks in the combination, 0: not part of it.
        kind: What is wrong with a pair that it ranks first.
        published: Whether others published it as a detector.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    needs: ClassVar[frozenset[Need]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = ()
    weight: ClassVar[float] = 0.0
    kind: ClassVar[Kind] = "exchanged"
    published: ClassVar[bool] = False

    @abstractmethod
    def score(self, signals: Signals) -> Scores:
        """Score every pair, higher = more suspect, NaN = unknown; `needs` are there. Equal scores share a rank."""

    def certain(self, signals: Signals, score: Scores) -> Bool[np.ndarray, " n"] | None:  # noqa: ARG002
        """Return the pairs that are suspects by this detector's rule, whatever the odds; None: it has no rule."""
        return None


DETECTORS: Registry[Detector] = Registry("detector", Detector)  # pyright: ignore[reportAbstractUsage]


def lacks(detector: type[Detector], signals: Signals) -> list[str]:
    """Return the needs of a detector that the signals do not meet."""
    there: Mapping[Need, object] = {
        "embeddings": signals.text,
        "alignment": signals.alignment,
        "images": signals.pixels if signals.image is None else signals.image,
        "trajectory": signals.trajectory,
        "half-models": signals.halves,
        "scores": signals.scores or None,
    }
    missing: list[str] = [need for need in sorted(detector.needs) if there[need] is None]
    return missing or [f"scores of a study: {name}" for name in detector.columns if name not in signals.scores]


def embeddings_of(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return the model's embeddings of images and captions."""
    assert signals.image is not None and signals.text is not None  # noqa: PT018, S101  of `needs`
    return signals.image.double(), signals.text.double()
