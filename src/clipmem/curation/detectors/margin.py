"""`margin`: how late in its training the model told a pair from the others of its batches."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals


@DETECTORS.register("margin")
class AreaUnderMargin(Detector):
    """Minus the mean margin over the epochs of one training (area under the margin, Pleiss et al., NeurIPS 2020)."""

    summary = "Minus the area under the margin over a training (Pleiss et al., NeurIPS 2020)"
    needs = frozenset({"trajectory"})
    weight = 1.0
    published = True

    def score(self, signals: Signals) -> Scores:  # NaN for pairs without a recorded margin.
        assert signals.trajectory is not None  # noqa: S101  of `needs`
        return -signals.trajectory.mean_margin
