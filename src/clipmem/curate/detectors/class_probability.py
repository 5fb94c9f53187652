"""`class-probability`: out-of-sample probability of the caption's class (confident learning, as cleanlab ranks)."""

from typing import Any, ClassVar, cast

import numpy as np
from jaxtyping import Float64

from clipmem.base.random import derive_seed
from clipmem.curate.detectors.base import DETECTORS, Detector, Need
from clipmem.curate.evidence import evidence_of
from clipmem.embed.signals import Signals

CLASSES, FOLDS = 40, 5


@DETECTORS.register("class-probability")
class ClassProbability(Detector):
    """1 - p(class | image): self-confidence, by logistic regression on the pairs of other folds.

    Captions have no classes: they are grouped by k-means of their words into 40 classes, fewer for few pairs. Images
    are the model's embeddings, else pixels. The quality score is cleanlab's default (Northcutt et al., JAIR 2021),
    computed with scikit-learn.
    """

    summary = "1 - out-of-sample probability of the caption's class (self-confidence, as cleanlab ranks)"
    needs: ClassVar[frozenset[Need]] = frozenset({"images"})
    published = True

    def score(self, signals: Signals) -> Float64[np.ndarray, "n"]:
        """Score every pair."""
        from sklearn.cluster import KMeans  # slow to import
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        evidence, seed = evidence_of(signals), derive_seed(signals.seed, "classes") % 2**32
        known = evidence.image if signals.image is None else signals.image.cpu().numpy()
        count = int(np.clip(len(known) // 25, 2, CLASSES))
        label = KMeans(count, n_init=cast(Any, 1), random_state=seed).fit_predict(evidence.caption.astype(np.float64))
        few = np.bincount(label, minlength=count) < FOLDS
        # a class needs a pair in each fold
        label = np.unique(np.where(few[label], count, label), return_inverse=True)[1]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        probability = cross_val_predict(model, known.astype(np.float64), label, cv=folds, method="predict_proba")
        return 1 - np.asarray(probability)[np.arange(len(label)), label]
