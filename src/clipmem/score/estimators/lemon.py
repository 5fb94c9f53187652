"""`lemon`: LEMoN's score with fixed settings, a published detector of wrong captions."""

from clipmem.embed.signals import Signals
from clipmem.functional.agreement import lemon
from clipmem.score.estimators.base import ESTIMATORS, Estimated, Estimator
from clipmem.score.estimators.similarity import embeddings_of


@ESTIMATORS.register("lemon")
class Lemon(Estimator):
    """Distances of image and text under f and of the 30 nearest pairs (see `clipmem.functional.agreement.lemon`)."""

    summary = "LEMoN (Zhang et al., ICML 2025): similarity and neighbors under f, with fixed settings"
    needs = frozenset({"embeddings"})

    def estimate(self, signals: Signals) -> Estimated:
        """Estimate ranks."""
        return Estimated(lemon(*embeddings_of(signals), group=signals.group).cpu().numpy())
