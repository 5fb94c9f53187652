"""`confidence`: probability of the pair's class under a class head (Feldman 2020), mean over views.

Needs models trained with `train.objective = "supervised"`. It depends on images and labels only, not on captions.
"""

from jaxtyping import Float
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.models.means import Means
from clipmem.scoring.alignments.base import ALIGNMENTS, Alignment
from clipmem.stats.memorization import class_probability

_WHAT = "score.alignment = 'confidence'"


@ALIGNMENTS.register("confidence")
class Confidence(Alignment):
    """mean_a softmax(head(m(I_a)))_y; does not use the bank."""

    summary = "probability of the pair's class under a class head"
    range = (-1.0, 1.0)
    model_range = (0.0, 1.0)
    sign = 1
    needs = ("labels", "class head")
    equation = "p = softmax(logits)_y; p(in) - p(out)"
    source = "Feldman 2020; Feldman & Zhang 2020"
    finds_wrong_captions = False

    def positive(self, pairs: Means) -> Float[Tensor, " n"]:
        if pairs.head is None or pairs.single is None:
            expected, hint = "train.objective = 'supervised'", "Train such models, or choose another alignment."
            raise InputError(_WHAT, got="a model without a class head", expected=expected, hint=hint)
        if pairs.labels is None:
            hint = "Set data.label_column."
            raise InputError(_WHAT, got="pairs without labels", expected="a class for every pair", hint=hint)
        image = pairs.single.image
        n, views, width = image.shape
        logits = pairs.head(image.reshape(n * views, width))
        probability = class_probability(logits, pairs.labels.repeat_interleave(views))
        return probability.reshape(n, views).mean(dim=1)
