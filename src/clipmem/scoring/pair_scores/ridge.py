"""A score by ridge regression of images on captions, each pair left out of the fit that predicts it.

It predicts the embeddings of f and leaves out near-duplicates: what others say of a pair is no news to f.
"""

from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores.base import MEMORIZATION, PAIR_SCORES, PairScore, Scores
from clipmem.scoring.pair_scores.halves import transfer
from clipmem.stats.leave_one_out import leave_one_out_scores


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
    new_data = transfer()["new data"]["closed-form"]

    def score(self, signals: Signals) -> Scores:
        target = signals.shapes_and_colors if signals.image is None else signals.image.cpu().numpy()
        return leave_one_out_scores(signals.words, target, group=signals.group)
