"""Base class of estimators: scores of pairs from one model f, or from fewer models than twins need."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from clipmem.base.registry import Registry
from clipmem.models.signals import Signals

Need = Literal["embeddings", "alignment", "logit scale", "images", "trajectory", "half-models"]


class Estimated(NamedTuple):
    """Scores of pairs, higher = more memorized.

    Attributes:
        score: On the scale of CLIPMem if `calibrated`, otherwise only its order has a meaning.
        stderr: Standard error of each score on that scale; None if the estimator gives none.
        calibrated: Whether differences of scores have the size of differences of CLIPMem.
        own: Weight of the pair's own half-models, from 0 to 1, if the score is p + own (D - p).
        predicted: p, which the pair's own D does not enter; None: the score itself.
        left_out: p fitted on all pairs of half-models but one; None: p is not fitted on them.
    """

    score: Float64[np.ndarray, " n"]
    stderr: Float64[np.ndarray, " n"] | None = None
    calibrated: bool = False
    own: float = 0.0
    predicted: Float64[np.ndarray, " n"] | None = None
    left_out: Float64[np.ndarray, "pair n"] | None = None


class Estimator(ABC):
    """A way to estimate CLIPMem of every pair that f trained on.

    Attributes:
        name: As typed in recipes and on the command line.
        summary: One line.
        needs: The signals it reads.
        models: The smallest number of half-models it needs, 0 without `half-models` among its needs.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    needs: ClassVar[frozenset[Need]] = frozenset()
    models: ClassVar[int] = 0

    @abstractmethod
    def estimate(self, signals: Signals) -> Estimated:
        """Estimate the score of every pair; `needs` are there."""


ESTIMATORS: Registry[Estimator] = Registry("estimator", Estimator)  # pyright: ignore[reportAbstractUsage]
