"""`confidence`: the probability that a class head gives the pair's own class (Feldman 2020), mean over the views.

It needs a study with `train.objective = "supervised"`. Neither the head nor the image tower ever saw a caption, so a
wrong one cannot show here: this measure is about pictures and their labels, and it does not find wrong captions.
"""

from clipmem.base.errors import InputError
from clipmem.functional import AlignmentParts, class_probability
from clipmem.score.alignments.base import Context, one_part


def parts(context: Context) -> AlignmentParts:
    """Compute mean_a softmax(head(m(I_a)))_y; the bank takes no part.

    Raises:
        InputError: The model has no class head, or the pairs have no labels.
    """
    if context.head is None:
        raise InputError(
            "score.alignment = 'confidence'",
            got="a model without a class head",
            expected="models trained with train.objective = 'supervised'",
            hint="Train such models, or choose another alignment.",
        )
    if context.labels is None:
        raise InputError(
            "score.alignment = 'confidence'",
            got="pairs without labels",
            expected="a class for every pair",
            hint="Set data.label_column.",
        )
    image = context.embeddings.image
    n, views, width = image.shape
    logits = context.head(image.reshape(n * views, width))
    probability = class_probability(logits, context.labels.repeat_interleave(views))
    return one_part(probability.reshape(n, views).mean(dim=1))
