"""Base class of detectors: scores of pairs, higher = the caption is more likely wrong."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64

from clipmem.base.registry import Registry
from clipmem.embed.signals import Signals

Need = Literal["embeddings", "alignment", "images", "trajectory", "half-models", "scores"]


class Detector(ABC):
    """A way to rank pairs by how likely their captions are wrong.

    Attributes:
        name: As typed on the command line.
        summary: One line.
        needs: The signals it reads; none: captions alone.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    needs: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def score(self, signals: Signals) -> Float64[np.ndarray, "n"]:
        """Score every pair, higher = more suspect; `needs` are there."""


DETECTORS: Registry[Detector] = Registry("detector", Detector)  # pyright: ignore[reportAbstractUsage]
