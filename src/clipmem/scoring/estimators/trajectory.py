"""Trajectory signals: how late in its training f told a pair from the others of its batches."""

from typing import ClassVar

from clipmem.base.errors import InputError
from clipmem.models.signals import Signals
from clipmem.scoring.estimators.base import ESTIMATORS, Estimated, Estimator, Need


@ESTIMATORS.register("trajectory")
class MeanMargin(Estimator):
    """Minus the mean margin of a pair over the epochs in which f was shown it, in [-2, 2].

    A pair that resembles others is told apart early, before f has seen it often; one that f can only memorize stays
    behind until late. Of the usual summaries of a trajectory, the mean margin is the area under the curve of margins
    divided by the number of epochs (the same order); the alignment at a third of the training is one noisy reading of
    it; and the number of times that a pair is forgotten (Toneva et al. 2019) has too few values for a ranking in short
    trainings. Do not trust it alone: margins also depend on how crowded the neighborhood of a pair is, and on one data
    set the score had no agreement with CLIPMem.
    """

    summary: ClassVar[str] = "Minus the mean margin over the epochs of one training."
    needs: ClassVar[frozenset[Need]] = frozenset({"trajectory"})

    def estimate(self, signals: Signals) -> Estimated:
        """Return NaN for pairs without a recorded margin."""
        hint = "Set train.record = true and train again."
        if signals.trajectory is None:
            raise InputError("trajectory", got="no record", expected="that of a training", hint=hint)
        return Estimated(-signals.trajectory.mean_margin)
