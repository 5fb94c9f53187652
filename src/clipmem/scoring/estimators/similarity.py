"""`similarity`: 1 - the cosine of image and caption under f, the simplest baseline (CLIPScore)."""

from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.models.signals import Signals
from clipmem.scoring.estimators.base import ESTIMATORS, Estimated, Estimator


@ESTIMATORS.register("similarity")
class Similarity(Estimator):
    """score_i = 1 - ū_i·v̄_i, in [0, 2]: the mean over the image's views and its captions."""

    summary = "1 - cosine of image and caption under f (CLIPScore): a baseline"
    needs = frozenset({"embeddings"})

    def estimate(self, signals: Signals) -> Estimated:
        """Estimate ranks."""
        image, text = embeddings_of(signals)
        return Estimated(1 - (image.double() * text.double()).sum(dim=1).cpu().numpy())


def embeddings_of(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return f's embeddings of images and captions."""
    if signals.image is None or signals.text is None:
        raise InputError("embeddings", got="none", expected="those of images and captions", hint="Give a model.")
    return signals.image, signals.text
