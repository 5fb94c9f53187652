"""Scores by neighbors: whether pairs with similar images have similar captions, and the reverse."""

import numpy as np
from scipy.stats import rankdata

from clipmem.models.signals import Signals
from clipmem.scoring.evidence import evidence_of
from clipmem.scoring.pair_scores.base import PAIR_SCORES, PairScore, Scores
from clipmem.scoring.pair_scores.similarity import embeddings_of


@PAIR_SCORES.register("image-neighbors")
class ImageNeighbors(PairScore):
    """-cos(P_i, t_i): P the softmax-weighted mean caption of similar images, t the pair's caption."""

    summary = "Captions of images that look alike disagree with the pair's own; no model"
    needs = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        return -evidence_of(signals).own.by_images


@PAIR_SCORES.register("word-neighbors")
class WordNeighbors(PairScore):
    """-cos(Q_i, x_i): Q the softmax-weighted mean image of similar captions, x the pair's image."""

    summary = "Images with similar captions look unlike the pair's own; no model"
    needs = frozenset({"images"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        return -evidence_of(signals).own.by_words


@PAIR_SCORES.register("embedded-neighbors")
class EmbeddedNeighbors(PairScore):
    """Mean rank of low softmax agreement from image embeddings to words, and from words to image embeddings."""

    summary = "Words of pairs with similar image embeddings disagree with the pair's own, and the reverse"
    needs = frozenset({"embeddings"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        both = evidence_of(signals).agreement(embeddings_of(signals)[0])
        return -np.mean([rankdata(values) for values in both], axis=0) / len(signals.uids)
