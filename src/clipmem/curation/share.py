"""How many captions are wrong: the observed pairs as a mixture of right ones and of ones like those planted.

Captions are swapped one at a time, all other pairs as they are. A swapped caption is that of a pair that the
predictions leave out together with the image's own (`evidence`), so that thousands of plantings cost no new
computation. Half of the swapped captions are drawn at random, half among those of the same sort of thing, which are as
hard to find as confusions in real data are.

When not to trust it: mismatched captions of another kind than swapped ones, such as vague ones, are not what is
planted. With few different captions, such as names of classes, the trees learn which of them are wrong more often, and
these look less wrong than planted ones. The mean fit, from which nothing is learned, is then given as well.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.stats import norm, poisson, rankdata
from threadpoolctl import threadpool_limits

from clipmem.base import slices
from clipmem.base.random import derive_seed, generator
from clipmem.curation.suspects import Share
from clipmem.scoring.evidence import EXACT, FITS, Evidence, Progress, ignore

TOP = 0.3  # share of the swapped captions that the estimate looks at: those least like right ones
RIGHT = 0.9  # of the pairs that look like these, a tenth are right ones (on drawings with 0 to 30% mismatched captions)
NEARLY_ALL = 0.9  # share that it looks at where this many are told from right ones
SURE = 0.985  # smallest AUROC of planted against right captions at which they may be
MOSTLY = 0.8  # share of the observed pairs among these that must not be right ones
CLEAR = 0.875  # smallest AUROC of planted against right captions for which a number can be told
BLIND = 0.75  # largest one at which no pair is called a suspect
PARTS = (0.05, 0.1, 0.2, 0.3)  # shares of the swapped captions that bound the share of wrong ones between these
CHANCE = 0.015  # comes out on clean data (drawings: 0.013)


PLANTINGS, MOST, LEARNED = 2, 20_000, 200_000  # swapped captions per image; images; observed pairs that trees learn
ALIKE = 0.1  # share of the captions that are of the same sort of thing
FOLDS, BINS = 3, 255
FEW, EACH = 1000, 5  # fewer different captions than this, of at least as many pairs each, are few
Rows = Int[np.ndarray, " k"]


class Planted(NamedTuple):
    """Scores of observed pairs and of swapped captions, higher = more like a planted error; shape (n,) and (k,).

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
        plantings: Swapped captions of each kind per image.
        progress: Called with each finished share of the work.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import

    n, stream = len(texts), generator(seed, "plant captions")
    order, sizes = np.argsort(evidence.fold, kind="stable"), np.bincount(evidence.fold)
    members = np.split(order, np.cumsum(sizes)[:-1])[: -(-MOST // int(sizes[0]))]
    image, anyone, alike = np.hstack([_swaps(evidence, texts, rows, plantings, stream) for rows in members])
    learned = np.sort(generator(seed, "learned pairs").permutation(n)[:LEARNED])
    pairs = ((learned, learned), (image, anyone), (image, alike))
    x = [evidence.inputs(*pair) for pair in pairs]
    edges = [
        np.unique(np.quantile(np.concatenate(columns), np.linspace(0, 1, BINS + 1)[1:-1]))
        for columns in zip(*(features.T for features in x), strict=True)
    ]
    binned = [_binned(features, edges) for features in x]
    fold = evidence.fold % FOLDS
    folds, models = [fold[pair[0]] for pair in pairs], list[Any]()

    def log_odds(features: Float64[np.ndarray, "k q"], numbers: Rows) -> Float64[np.ndarray, " k"]:
        binned, scores = _binned(features, edges), np.empty(len(features))
        for k in np.unique(numbers):
            scores[numbers == k] = models[k].decision_function(binned[numbers == k])
        return scores

    # of few rows two threads gain nothing, and beside other programs they take several times as long: each waits
    with threadpool_limits(1 if n <= EXACT else None):
        for k in range(FOLDS):
            train = [features[numbers != k] for features, numbers in zip(binned, folds, strict=True)]
            label = np.repeat((0, 1, 1), [len(features) for features in train])
            weight = np.where(label == 1, 0.5 / label.sum(), 0.5 / (label == 0).sum()) * len(label)
            trees = HistGradientBoostingClassifier(
                max_iter=80,
                learning_rate=0.1,
                max_leaf_nodes=8,
                l2_regularization=1.0,
                early_stopping=cast(Any, False),
                random_state=derive_seed(seed, "trees") % 2**32,
            )
            models.append(trees.fit(np.vstack(train), label, sample_weight=weight))
            progress(1 / FOLDS)
        blocks = (np.arange(part.start, part.stop) for part in slices(n, LEARNED))
        observed = [log_odds(evidence.inputs(rows, rows), fold[rows]) for rows in blocks]
        swapped = [log_odds(features, fold[image]) for features in x[1:]]
    few = len(np.unique(texts)) < min(FEW, n / EACH)
    means = (evidence.fits[: len(FITS)].T, *(features[:, : len(FITS)] for features in x[1:]))
    fits = (Planted(*(-features.mean(axis=1) for features in means)),) if few else ()
    return Planted(np.concatenate(observed), *swapped, fits=fits)


def _binned(features: Float64[np.ndarray, "k q"], edges: Sequence[np.ndarray]) -> Float64[np.ndarray, "k q"]:
    """Replace features by the numbers of quantile bins.

    Trees split between bins anyway, and find those of few different values in a hundredth of the time.
    """
    columns = zip(features.T, edges, strict=True)
    return np.stack([np.searchsorted(ends, values, side="right") for values, ends in columns], axis=1).astype(float)


def _swaps(
    evidence: Evidence, texts: Int[np.ndarray, " n"], members: Rows, plantings: int, stream: np.random.Generator
) -> Int[np.ndarray, "3 m"]:
    """Return images of a fold, and for each the pair of a caption drawn at random, and of one of the same sort."""
    different = texts[members, None] != texts[members]
    near = np.where(different, evidence.alike(members, members), -np.inf)
    most = min(len(members), max(2, round(ALIKE * len(members)))) - 1
    close = different & (near >= -np.partition(-near, most, axis=1)[:, [most]])
    rows = np.tile(np.flatnonzero(different.any(axis=1)), plantings)
    keys = [np.where(allowed[rows], stream.random((len(rows), len(members))), -1) for allowed in (different, close)]
    return members[np.stack([rows, *(key.argmax(axis=1) for key in keys)])]


def share_of(planted: Planted, confidence: float) -> Share:
    """Estimate the share π of mismatched captions from the tail with almost no right ones.

    With t the 70% quantile of the swapped captions' log odds, as many of the mismatched captions are at or above t, if
    they are like those planted: 30%, or more with equal odds. So

        π = .9 (share of observed pairs at or above t) / (share of swapped captions at or above t)

    As no AUROC of planted against right captions is above 1, π is at most 2 (1 - AUROC against all observed pairs). If
    this bound, with t the 10% quantile, leaves at most a fifth of the observed pairs at or above t to be right, and the
    AUROC is .985 or more, π by the ratio with t the median, then π is the ratio with the 10% quantile, without the
    factor .9, or the bound if that is smaller. Small differences among the swapped captions, which are all there is to
    see above the 70% quantile, do not matter then.

    The interval adds sampling error to the uncertainty about the kind of the errors: t from captions planted at random
    gives the lower end, t from those of the same sort of thing the upper one; or the other way round, if these are told
    from observed pairs more easily. With few different captions π is too small by the odds and too large by the mean
    fit: the share is the mean of both, and the interval contains those of both; unless one of them tells nearly all,
    by which share and upper end are then. Whether any are found is always by the 70% quantile, and the lower end is
    the smaller one of both quantiles; with the 10% quantile the ends have the factors .9 and 1 / .9.

    Where swapped captions are not told from right ones, right ones lie above t as well, and π is too large. The
    probabilities then assume the smallest ratio of these shares with t the 1 - p quantile, p = .05 to .3, times
    (AUROC - .75) / (.875 - .75), at least 0.
    """
    z, n = float(norm.ppf((1 + confidence) / 2)), len(planted.observed)
    fits = [(fit, np.concatenate([fit.random, fit.alike])) for fit in (planted, *planted.fits)]

    def shares(fits: Sequence[tuple[Planted, np.ndarray]], top: float, factor: float) -> tuple[np.ndarray, ...]:
        kinds = ((fit.observed, scores) for fit, both in fits for scores in (both, fit.random, fit.alike))
        observed, tops = np.array([_tails(*kind, top) for kind in kinds]).T
        values = factor * observed / tops
        return values, z * np.sqrt(np.maximum(values, 1 / n) * factor / tops / n), observed, tops

    values, margins, observed, tops = shares(fits, TOP, RIGHT)
    low, share, both = float((values - margins).min()), float(values[::3].mean()), fits[0][1]
    chance = float(poisson.ppf((1 + confidence) / 2, CHANCE * tops[0] * n / RIGHT))
    areas = [_area(fit.observed, scores) for fit, scores in fits]
    clearest = [
        k
        for k, (fit, scores) in enumerate(fits)
        if MOSTLY * np.divide(*_tails(fit.observed, scores, NEARLY_ALL)) <= 2 * (1 - areas[k])
        and _separation(areas[k], np.divide(*_tails(fit.observed, scores, 0.5))) >= SURE
    ]
    if clearest:
        values, margins, *_ = shares([fits[k] for k in clearest], NEARLY_ALL, 1.0)
        share = float(np.minimum(values[::3], [2 * (1 - areas[k]) for k in clearest]).mean())
        low, values = min(low, float((RIGHT * values - margins).min())), values / RIGHT
    high, separation = float((values + margins).max()), _separation(areas[0], share)
    detected = separation >= CLEAR and float(observed[0]) * n > chance
    clear = separation >= CLEAR and (detected or not planted.fits or high <= CHANCE)
    low = max(0.0, min(low, share)) if detected else 0.0
    least = min(above / top for above, top in (_tails(planted.observed, both, part) for part in PARTS))
    told = float(np.clip((separation - BLIND) / (CLEAR - BLIND), 0, 1))
    assumed = (share if detected else 0.0) if clear else min(share, least * told)
    return Share(min(share, 1.0), low, min(1.0, max(high, share)), detected, clear, separation, min(assumed, 1.0))


def _area(observed: Float64[np.ndarray, " n"], scores: Float64[np.ndarray, " k"]) -> float:
    """Return the AUROC of swapped captions against all observed pairs."""
    ranks = rankdata(np.concatenate([scores, observed]))[: len(scores)]
    return (float(ranks.mean()) - (len(scores) + 1) / 2) / len(observed)


def _separation(area: float, share: float) -> float:
    """Return the AUROC against the right ones, if the wrong ones are like the swapped captions."""
    return min(1.0, (area - share / 2) / max(1 - share, 0.1))


def _tails(observed: Float64[np.ndarray, " n"], scores: Float64[np.ndarray, " k"], top: float) -> tuple[float, float]:
    """Return the shares of observed pairs and of swapped captions at or above the threshold of the latter's top."""
    threshold = np.quantile(scores, 1 - top)
    return float((observed >= threshold).mean()), float((scores >= threshold).mean())


def posterior(
    planted: Planted, share: float, score: Float64[np.ndarray, " n"], swapped: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Return the probability that each caption is wrong, which never falls as the score rises."""
    from sklearn.isotonic import IsotonicRegression  # slow to import

    # density of planted over that of observed pairs at each observed one, rising with the log odds, mean 1
    both = np.concatenate([planted.random, planted.alike])
    sizes = len(planted.observed), len(both)
    x, label = np.concatenate([planted.observed, both]), np.repeat((0.0, 1.0), sizes)
    weight = np.repeat((1 / sizes[0], 1 / sizes[1]), sizes)
    odds = IsotonicRegression(out_of_bounds="clip").fit(x, label, sample_weight=weight).predict(planted.observed)
    ratio = odds / np.maximum(1 - odds, 1e-6)
    # a mean of 0: no observed pair looks like a planted one, as under a model that trained on the pairs
    probability = np.clip(share * (ratio / (ratio.mean() or 1.0)), 0, 1)
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score[swapped], probability[swapped])
    return np.asarray(fitted.predict(score), dtype=np.float64)
