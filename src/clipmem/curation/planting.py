"""Calibration by planted errors: what scores would be if captions were exchanged, and how many observed ones look so.

Captions are planted on images one at a time, all other pairs as they are. A planted caption is that of a pair that the
predictions leave out together with the image's own (`evidence`), so that thousands of plantings cost no new
computation. Half of the planted captions are drawn at random, half among those of the same sort of thing, which are as
hard to find as confusions in real data are.

When not to trust it: wrong captions of another kind than exchanged ones, such as vague ones, are not what is planted.
With few different captions, such as names of classes, the trees learn which of them are wrong more often, and these
look less wrong than planted ones. The mean fit, from which nothing is learned, is then given as well.
"""

from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float64, Int

from clipmem.base.random import derive_seed, generator
from clipmem.curation.evidence import Evidence, Fit, Progress, ignore

PLANTINGS, MOST = 2, 20_000
ALIKE = 0.1  # share of the captions that are of the same sort of thing
FOLDS = 3
FEW, EACH = 1000, 5  # fewer different captions than this, of at least as many pairs each, are few


class Planted(NamedTuple):
    """Scores of observed pairs and of planted captions, higher = more like a planted error; shape (n,) and (k,).

    Log odds of planted against observed, cross-fitted. `fits`: minus the mean fit, if there are few different captions.
    """

    observed: Float64[np.ndarray, " n"]
    random: Float64[np.ndarray, " k"]
    alike: Float64[np.ndarray, " k"]
    fits: tuple["Planted", ...] = ()


def plant(
    evidence: Evidence, texts: Int[np.ndarray, " n"], seed: int, plantings: int = PLANTINGS, progress: Progress = ignore
) -> Planted:
    """Plant captions on images, and learn to tell these from the observed pairs.

    Args:
        evidence: Predictions of each pair from the others.
        texts: Number of the caption of each pair, the same for equal captions: these are never planted on each other.
        seed: Of what is planted and of the folds.
        plantings: Planted captions of each kind per image.
        progress: Called with each finished share of the work.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import

    n, stream = len(texts), generator(seed, "plant captions")
    order, sizes = np.argsort(evidence.fold, kind="stable"), np.bincount(evidence.fold)
    members = np.split(order, np.cumsum(sizes)[:-1])[: -(-MOST // int(sizes[0]))]
    image, anyone, alike = np.hstack([_exchanges(evidence, texts, own, plantings, stream) for own in members])
    x = [_describe(evidence, *pair) for pair in ((np.arange(n), np.arange(n)), (image, anyone), (image, alike))]
    fold = evidence.fold % FOLDS
    folds = (fold, fold[image], fold[image])
    found = [np.empty(len(one)) for one in x]
    for k in range(FOLDS):
        train = [one[own != k] for one, own in zip(x, folds, strict=True)]
        label = np.repeat((0, 1, 1), [len(one) for one in train])
        weight = np.where(label == 1, 0.5 / label.sum(), 0.5 / (label == 0).sum()) * len(label)
        trees = HistGradientBoostingClassifier(
            max_iter=80,
            learning_rate=0.1,
            max_leaf_nodes=8,
            l2_regularization=1.0,
            early_stopping=cast(Any, False),
            random_state=derive_seed(seed, "trees") % 2**32,
        ).fit(np.vstack(train), label, sample_weight=weight)
        for values, one, own in zip(found, x, folds, strict=True):
            if (own == k).any():
                values[own == k] = trees.decision_function(one[own == k])
        progress(1 / FOLDS)
    few = len(np.unique(texts)) < min(FEW, n / EACH)
    return Planted(*found, fits=(Planted(*(-one[:, : len(Fit._fields)].mean(axis=1) for one in x)),) if few else ())


def _describe(
    evidence: Evidence, image: Int[np.ndarray, " k"], caption: Int[np.ndarray, " k"]
) -> Float64[np.ndarray, "k 8"]:
    return np.hstack([np.stack(evidence.fit(image, caption), axis=1), evidence.known(image, caption)])


def _exchanges(
    evidence: Evidence,
    texts: Int[np.ndarray, " n"],
    own: Int[np.ndarray, " k"],
    plantings: int,
    stream: np.random.Generator,
) -> Int[np.ndarray, "3 m"]:
    """Return images of a fold, and for each the pair of a caption drawn at random, and of one of the same sort."""
    different = texts[own, None] != texts[own]
    near = np.where(different, evidence.alike(own, own), -np.inf)
    most = min(len(own), max(2, round(ALIKE * len(own)))) - 1
    close = different & (near >= -np.partition(-near, most, axis=1)[:, [most]])
    rows = np.tile(np.flatnonzero(different.any(axis=1)), plantings)
    keys = [np.where(allowed[rows], stream.random((len(rows), len(own))), -1) for allowed in (different, close)]
    return own[np.stack([rows, *(key.argmax(axis=1) for key in keys)])]
