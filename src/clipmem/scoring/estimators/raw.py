"""The raw difference: mean alignment under half-models that trained on the pair, minus under those that did not."""

from typing import ClassVar

import numpy as np

from clipmem.models.signals import Signals
from clipmem.scoring.estimators.base import ESTIMATORS, Estimated, Estimator, Need


@ESTIMATORS.register("raw")
class RawDifference(Estimator):
    """Score = mean of D over the pairs of half-models; its standard error is over them, with two or more.

    Unbiased, and with few models mostly noise.
    """

    summary: ClassVar[str] = "Alignment with the pair minus without it, over half-models."
    needs: ClassVar[frozenset[Need]] = frozenset({"half-models"})
    models: ClassVar[int] = 2

    def estimate(self, signals: Signals) -> Estimated:
        """Estimate from half-models alone."""
        halves = signals.halves
        assert halves is not None  # noqa: S101  of `needs`
        effect = halves.effect
        error = effect.std(axis=0, ddof=1) / np.sqrt(len(effect)) if len(effect) > 1 else None
        return Estimated(effect.mean(axis=0), error, not halves.proxy, own=1.0)
