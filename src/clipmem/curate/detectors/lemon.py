"""`lemon`: LEMoN with its settings chosen on planted errors."""

from itertools import product
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from sklearn.metrics import roc_auc_score

from clipmem.base.random import generator
from clipmem.curate.detectors.base import DETECTORS, Detector, Need, embeddings_of
from clipmem.embed.signals import Signals
from clipmem.functional.agreement import lemon

K, TAUS, WEIGHTS = (10, 30), ((0.1, 5.0), (5.0, 0.1)), (0.0, 1.0, 5.0, 20.0)
TUNED_ON, PLANTED = 1500, 0.05


@DETECTORS.register("lemon")
class Lemon(Detector):
    """LEMoN (Zhang et al., ICML 2025), see `clipmem.functional.agreement.lemon`.

    Its authors choose k, τ, β and gamma on labeled errors. Here 5% of the captions of 1,500 pairs are exchanged, and
    the settings that find them with the largest AUROC are taken.
    """

    summary = "LEMoN (Zhang et al., ICML 2025): similarity and neighbors under the model, tuned on planted errors"
    needs: ClassVar[frozenset[Need]] = frozenset({"embeddings"})
    published = True

    def score(self, signals: Signals) -> Float64[np.ndarray, "n"]:
        """Score every pair."""
        u, v = embeddings_of(signals)
        n = len(u)
        stream = generator(signals.seed, "lemon")
        rows = np.sort(stream.permutation(n)[:TUNED_ON])
        planted = stream.permutation(len(rows))[: max(2, round(PLANTED * len(rows)))]
        exchanged = rows.copy()
        exchanged[planted] = rows[np.roll(planted, 1)]
        wrong = np.isin(np.arange(len(rows)), planted)
        best = (-1.0, 30, (0.1, 5.0), 5.0, 5.0)
        for k, tau in product(K, TAUS):
            k = min(k, len(rows) - 1)
            none, image, text = (
                lemon(u[rows], v[exchanged], k, beta=beta, gamma=gamma, tau=tau).numpy()
                for beta, gamma in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
            )
            for beta, gamma in product(WEIGHTS, WEIGHTS):
                found = none + beta * (image - none) + gamma * (text - none)  # the score is linear in both
                best = max(best, (float(roc_auc_score(wrong, found)), k, tau, beta, gamma))
        _, k, tau, beta, gamma = best
        return lemon(u, v, min(k, n - 1), beta=beta, gamma=gamma, tau=tau).cpu().numpy()
