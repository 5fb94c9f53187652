"""`loss`: the mean loss of a pair over a training."""

import numpy as np

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals

_TAU = 0.07


@DETECTORS.register("loss")
class MeanLoss(Detector):
    """Mean over the epochs of log(1 + exp(-margin / τ)), τ = .07: the loss against the hardest other pair of a batch.

    The recorder keeps margins, not losses; the whole contrastive loss is larger by the easier pairs of the batch.
    """

    summary = "Mean loss over a training, against the hardest other pair of each batch"
    needs = frozenset({"trajectory"})
    published = True

    def score(self, signals: Signals) -> Scores:  # NaN for pairs without a recorded margin.
        assert signals.trajectory is not None  # noqa: S101  of `needs`
        margin = signals.trajectory.margin.astype(np.float64)
        known = ~np.isnan(margin)
        loss = np.where(known, np.logaddexp(0, np.where(known, -margin, 0) / _TAU), 0)
        total, count = loss.sum(axis=0), known.sum(axis=0)
        return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
