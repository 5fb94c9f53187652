"""`closed-form-image`: the closed form from images to captions."""

from clipmem.embed.signals import Signals
from clipmem.functional.leave_one_out import Rows
from clipmem.score.estimators.base import ESTIMATORS
from clipmem.score.estimators.closed_form import ClosedForm


@ESTIMATORS.register("closed-form-image")
class ClosedFormImage(ClosedForm):
    """Model-free features of the images predict f's text embedding, or without f the words of the captions."""

    summary = "Leave-one-out ridge regression of f's text embedding on features of pixels; without f, of words"
    needs = frozenset({"images"})

    def sides(self, signals: Signals) -> tuple[Rows, Rows]:
        """Return what predicts and what is predicted."""
        target = signals.words if signals.text is None else signals.text.cpu().numpy()
        return signals.shapes_and_colors, target
