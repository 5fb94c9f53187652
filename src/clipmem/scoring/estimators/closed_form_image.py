"""`closed-form-image`: the closed form from images to captions."""

from clipmem.models.signals import Signals
from clipmem.scoring.estimators.base import ESTIMATORS
from clipmem.scoring.estimators.closed_form import ClosedForm
from clipmem.stats.leave_one_out import Rows


@ESTIMATORS.register("closed-form-image")
class ClosedFormImage(ClosedForm):
    """Model-free features of the images predict f's text embedding, or without f the words of the captions."""

    summary = "Leave-one-out ridge regression of f's text embedding on features of pixels; without f, of words"
    needs = frozenset({"images"})

    def sides(self, signals: Signals) -> tuple[Rows, Rows]:
        """Return what predicts and what is predicted."""
        target = signals.words if signals.text is None else signals.text.cpu().numpy()
        return signals.shapes_and_colors, target
