"""`lemon`: LEMoN with its authors' settings for data without labeled errors."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals, embeddings_of
from clipmem.stats.agreement import lemon


@DETECTORS.register("lemon")
class Lemon(Detector):
    """LEMoN (Zhang et al., ICML 2025) by `clipmem.stats.agreement.lemon` with its defaults.

    Its authors tune these on labeled errors where they have some. On CC3M, without any, they use these values. Captions
    swapped for the tuning would not do: a model that trained on the pairs tells a new pair by its low similarity.
    """

    summary = "LEMoN (Zhang et al., ICML 2025): similarity and neighbors under the model, with its settings for CC3M"
    needs = frozenset({"embeddings"})
    published = True

    def score(self, signals: Signals) -> Scores:
        return lemon(*embeddings_of(signals)).cpu().numpy()
