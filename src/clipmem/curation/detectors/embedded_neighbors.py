"""`embedded-neighbors`: neighbor agreement of words and images under the model, in both directions."""

import numpy as np
import torch
from scipy.stats import rankdata

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals, embeddings_of
from clipmem.curation.evidence import EXACT, agreement_near, evidence_of
from clipmem.stats.agreement import softmax_agreement


@DETECTORS.register("embedded-neighbors")
class EmbeddedNeighbors(Detector):
    """Mean rank of low softmax agreement from image embeddings to words, and from words to image embeddings."""

    summary = "Words of pairs with similar image embeddings disagree with the pair's own, and the reverse"
    needs = frozenset({"embeddings"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        n, evidence = len(signals.uids), evidence_of(signals)
        if n > EXACT:
            assert signals.image is not None  # noqa: S101  of `needs`
            both = agreement_near(signals.image.numpy(), evidence.caption, evidence.kept)
        else:
            u, words = embeddings_of(signals)[0], torch.from_numpy(evidence.caption).double()
            both = softmax_agreement(u, words).numpy(), softmax_agreement(words, u).numpy()
        return -np.mean([rankdata(one) for one in both], axis=0) / n
