"""`s-cliploss`: similarity against the similarities to all other captions and images."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals, embeddings_of
from clipmem.stats.similarity import contrast


@DETECTORS.register("s-cliploss")
class ScaledLoss(Detector):
    """Minus s-CLIPLoss (Wang et al., NeurIPS 2024), see `clipmem.stats.similarity`."""

    summary = "s-CLIPLoss (Wang et al., NeurIPS 2024): similarity against that to all other images and captions"
    needs = frozenset({"embeddings"})
    published = True

    def score(self, signals: Signals) -> Scores:
        return -contrast(*embeddings_of(signals)).scaled.cpu().numpy()
