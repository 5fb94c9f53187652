"""Scores from a model's embeddings of images and captions, and from other pairs: do like images have like captions?"""

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import InputError
from clipmem.models.signals import Signals
from clipmem.scoring.evidence import FITS, Evidence
from clipmem.scoring.pair_scores.base import BOTH, MEMORIZATION, PAIR_SCORES, PairScore, Scores
from clipmem.stats.agreement import lemon
from clipmem.stats.memorization import self_influence
from clipmem.stats.similarity import contrast, normalize

_BLOCK = 8192


def embeddings_of(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return the model's embeddings of images and captions."""
    if signals.image is None or signals.text is None:
        raise InputError("embeddings", got="none", expected="those of images and captions", hint="Give a model.")
    return signals.image, signals.text


@PAIR_SCORES.register("similarity")
class Similarity(PairScore):
    """1 - the cosine of the mean embeddings of a pair's image and of its captions, in [0, 2] (CLIPScore)."""

    summary = "1 - cosine of image and caption under the model (CLIPScore)"
    source = "Hessel et al., EMNLP 2021"
    good_for = BOTH
    needs = frozenset({"embeddings"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        image, text = embeddings_of(signals)
        scores = np.empty(len(image))
        for rows in slices(len(scores), _BLOCK):
            u, v = (normalize(x[rows].double(), name="embeddings") for x in (image, text))
            scores[rows] = 1 - (u * v).sum(dim=1).cpu().numpy()
        return scores


@PAIR_SCORES.register("lemon")
class Lemon(PairScore):
    """LEMoN by `clipmem.stats.agreement.lemon` with its defaults; near-duplicates are no neighbors.

    Its authors tune the settings on labeled errors where they have some. On CC3M, without any, they use these values.
    Captions swapped for the tuning would not do: a model that trained on the pairs tells a new pair by its low
    similarity.
    """

    summary = "LEMoN: similarity and neighbors under the model, with its authors' settings for CC3M"
    source = "Zhang et al., ICML 2025"
    good_for = BOTH
    needs = frozenset({"embeddings"})

    def score(self, signals: Signals) -> Scores:
        return lemon(*embeddings_of(signals), group=signals.group).cpu().numpy()


@PAIR_SCORES.register("s-cliploss")
class ScaledLoss(PairScore):
    """Minus s-CLIPLoss, see `clipmem.stats.similarity`."""

    summary = "s-CLIPLoss: similarity against that to all other images and captions"
    source = "Wang et al., NeurIPS 2024"
    needs = frozenset({"embeddings"})

    def score(self, signals: Signals) -> Scores:
        return -contrast(*embeddings_of(signals)).scaled.cpu().numpy()


@PAIR_SCORES.register("tracin")
class TracIn(PairScore):
    """`functional.self_influence` of f at the end of its training, over all pairs at once instead of its batches.

    Of models with a softmax loss only: a sigmoid loss (SigLIP) has another gradient.
    """

    summary = "TracIn of each pair on itself: the last layer's gradient under f"
    source = "Pruthi et al., NeurIPS 2020"
    good_for = MEMORIZATION
    needs = frozenset({"embeddings", "logit scale"})

    def score(self, signals: Signals) -> Scores:
        if signals.logit_scale is None:
            hint = "Give a model with a softmax loss."
            raise InputError("logit scale", got="none", expected="that of f", hint=hint)
        return self_influence(*embeddings_of(signals), signals.logit_scale).cpu().numpy()


class Unlike(PairScore):
    """Minus a cosine of `clipmem.scoring.evidence`: how badly the other pairs predict the caption or the image."""

    needs = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        return -signals.once(Evidence).fits[FITS.index(self.name)]


@PAIR_SCORES.register("image-neighbors")
class ImageNeighbors(Unlike):
    """-cos(P_i, t_i): P the softmax-weighted mean caption of similar images, t the pair's caption."""

    summary = "Captions of images that look alike disagree with the pair's own; no model"


@PAIR_SCORES.register("word-neighbors")
class WordNeighbors(Unlike):
    """-cos(Q_i, x_i): Q the softmax-weighted mean image of similar captions, x the pair's image."""

    summary = "Images with similar captions look unlike the pair's own; no model"


@PAIR_SCORES.register("left-out")
class LeftOut(Unlike):
    """-cos(P_i, t_i): P predicts the caption from the image by kernel ridge regression (RBF) without i."""

    summary = "Ridge regression on all other pairs does not predict the caption from the image; no model"


@PAIR_SCORES.register("left-out-image")
class LeftOutImage(Unlike):
    """-cos(P_i, x_i): P predicts the image from the caption by kernel ridge regression (RBF) without i."""

    summary = "Ridge regression on all other pairs does not predict the image from the caption; no model"
    weight = 0.0


@PAIR_SCORES.register("embedded-neighbors")
class EmbeddedNeighbors(PairScore):
    """Mean rank of low softmax agreement from image embeddings to words, and from words to image embeddings."""

    summary = "Words of pairs with similar image embeddings disagree with the pair's own, and the reverse"
    needs = frozenset({"embeddings"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        both = signals.once(Evidence).agreement(embeddings_of(signals)[0])
        return -np.mean([rankdata(values) for values in both], axis=0) / len(signals.uids)
