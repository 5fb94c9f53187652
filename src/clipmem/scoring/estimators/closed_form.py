"""`closed-form`: how badly captions predict f's image embedding, each pair left out of the fit."""

from clipmem.models.signals import Signals
from clipmem.scoring.estimators.base import ESTIMATORS, Estimated, Estimator
from clipmem.stats.leave_one_out import Kernel, Rows, leave_one_out_scores


@ESTIMATORS.register("closed-form")
class ClosedForm(Estimator):
    """score_i = -cos(P_i, y_i): P_i predicts y_i by ridge regression on the captions of all pairs of other groups.

    y is f's image embedding, minus the mean. Without f it is the model-free features of the images: then the score
    knows nothing of a model. It needs one of the two.

    Raises:
        InputError: There are neither embeddings nor images, or captions or images are all the same.
    """

    summary = "Leave-one-out ridge regression of f's image embedding on captions; without f, of features of pixels"
    kernel: Kernel = "linear"

    def estimate(self, signals: Signals) -> Estimated:
        """Estimate ranks."""
        known, target = self.sides(signals)
        return Estimated(leave_one_out_scores(known, target, group=signals.group, kernel=self.kernel))

    def sides(self, signals: Signals) -> tuple[Rows, Rows]:
        """Return what predicts and what is predicted."""
        target = signals.shapes_and_colors if signals.image is None else signals.image.cpu().numpy()
        return signals.words, target
