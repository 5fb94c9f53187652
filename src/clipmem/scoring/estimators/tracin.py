"""`tracin`: a pair's influence on itself by the last layer's gradient, a published baseline."""

from clipmem.base.errors import InputError
from clipmem.models.signals import Signals
from clipmem.scoring.estimators.base import ESTIMATORS, Estimated, Estimator
from clipmem.scoring.estimators.similarity import embeddings_of
from clipmem.stats.memorization import self_influence


@ESTIMATORS.register("tracin")
class TracIn(Estimator):
    """`functional.self_influence` of f at the end of its training, over all pairs at once instead of its batches.

    Of models with a softmax loss only: a sigmoid loss (SigLIP) has another gradient.
    """

    summary = "TracIn (Pruthi et al. 2020) of each pair on itself: the last layer's gradient under f, a baseline"
    needs = frozenset({"embeddings", "logit scale"})

    def estimate(self, signals: Signals) -> Estimated:
        """Estimate ranks."""
        if signals.logit_scale is None:
            hint = "Give a model with a softmax loss."
            raise InputError("logit scale", got="none", expected="that of f", hint=hint)
        return Estimated(self_influence(*embeddings_of(signals), signals.logit_scale).cpu().numpy())
