"""`lemon`: LEMoN's score with fixed settings, a published detector of wrong captions."""

from clipmem.models.signals import Signals
from clipmem.scoring.estimators.base import ESTIMATORS, Estimated, Estimator
from clipmem.scoring.estimators.similarity import embeddings_of
from clipmem.stats.agreement import lemon


@ESTIMATORS.register("lemon")
class Lemon(Estimator):
    """Distances of image and text under f and of the 30 nearest pairs (see `clipmem.stats.agreement.lemon`)."""

    summary = "LEMoN (Zhang et al., ICML 2025): similarity and neighbors under f, with fixed settings"
    needs = frozenset({"embeddings"})

    def estimate(self, signals: Signals) -> Estimated:
        """Estimate ranks."""
        return Estimated(lemon(*embeddings_of(signals), group=signals.group).cpu().numpy())
