"""Scores by ridge regression between captions and images, each pair left out of the fit that predicts it.

They predict the embeddings of f and leave out near-duplicates: what others say of a pair is no news to f.
"""

from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores.base import MEMORIZATION, PAIR_SCORES, PairScore, Scores
from clipmem.stats.leave_one_out import Features, Kernel, leave_one_out_scores


@PAIR_SCORES.register("closed-form")
class ClosedForm(PairScore):
    """score_i = -cos(P_i, y_i): P_i predicts y_i by ridge regression on the captions of all pairs of other groups.

    y is f's image embedding, minus the mean. Without f it is the model-free features of the images: then the score
    knows nothing of a model. It needs one of the two.

    Raises:
        InputError: There are neither embeddings nor images, or captions or images are all the same.
    """

    summary = "Leave-one-out ridge regression of f's image embedding on captions; without f, of features of pixels"
    good_for = MEMORIZATION
    needs = frozenset({"images"})
    kernel: Kernel = "linear"

    def score(self, signals: Signals) -> Scores:
        features, target = self.sides(signals)
        return leave_one_out_scores(features, target, group=signals.group, kernel=self.kernel)

    def sides(self, signals: Signals) -> tuple[Features, Features]:
        """Return what predicts and what is predicted."""
        target = signals.shapes_and_colors if signals.image is None else signals.image.cpu().numpy()
        return signals.words, target


@PAIR_SCORES.register("closed-form-rbf")
class ClosedFormRbf(ClosedForm):
    """`closed-form` with an RBF kernel of median width, by Nyström's method above 1,000 pairs."""

    summary = "Like closed-form, with an RBF kernel"
    kernel = "rbf"


@PAIR_SCORES.register("closed-form-image")
class ClosedFormImage(ClosedForm):
    """Model-free features of the images predict f's text embedding, or without f the words of the captions."""

    summary = "Leave-one-out ridge regression of f's text embedding on features of pixels; without f, of words"
    needs = frozenset({"pixels"})

    def sides(self, signals: Signals) -> tuple[Features, Features]:
        target = signals.words if signals.text is None else signals.text.cpu().numpy()
        return signals.shapes_and_colors, target
