"""The linear probe: accuracy of a linear classifier on frozen image embeddings.

L2 logistic regression by scikit-learn (`LogisticRegression`, lbfgs), as in CLIP (Radford et al. 2021, section 3.2 and
appendix A.3): C is chosen on a validation part of the training pairs, and the classifier is then fitted to all of them.
Embeddings are normalized to length 1, and each coordinate to mean 0 and standard deviation 1 over the fitted pairs.
Validation is drawn by group, so near-duplicates are never on both sides.

When not to trust it: with few training images per class it depends more on their number than on the embedding. It does
not involve the text tower. If C is at an end of its grid, extend the grid.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int

from clipmem.base.errors import require
from clipmem.base.random import generator
from clipmem.measure.zero_shot import class_ranks
from clipmem.stats.checks import Codes, check_same_length
from clipmem.stats.similarity import normalize

_ITERATIONS = 1000
_TOLERANCE, _CHOOSING = 1e-4, 1e-3  # of the final fit, and of those that choose C, which take a third of the time
# multiplications per step above which threads may help: at 6e7, two threads take five times as long as one
_WORTH_THREADS = 1e9


class Probe(NamedTuple):
    """Results of a probe: ranks of the test pairs, C, validation accuracy by C, whether all fits converged."""

    ranks: Float64[np.ndarray, " m"]
    c: float
    validation: list[float]
    converged: bool


class Classifier(NamedTuple):
    """A fitted classifier, with scores W x + b (up to a constant per image), and whether the fit converged."""

    classes: Int[np.ndarray, " c"]
    weights: Float[np.ndarray, "c d"]
    bias: Float[np.ndarray, " c"]
    converged: bool

    def ranks(self, features: Float[np.ndarray, "n d"], labels: Codes) -> Float64[np.ndarray, " n"]:
        """Rank the class of each image by its score; a class that was not fitted comes after all others."""
        column = np.minimum(np.searchsorted(self.classes, labels), len(self.classes) - 1)
        column = np.where(self.classes[column] == labels, column, -1)
        return class_ranks(features @ self.weights.T + self.bias, column)


def fit(
    features: Float[np.ndarray, "n d"], labels: Codes, c: float, warm: Any = None, *, tolerance: float = _TOLERANCE
) -> Classifier:
    """Fit an L2 logistic regression, whose classes are in the order of labels.

    It minimizes C Σ_i -log softmax(W x_i + b)_{y_i} + ½ ||W||² over W and b, b unpenalized; for two classes the binary
    form, C Σ_i log(1 + exp(-y_i (w·x_i + b))) + ½ ||w||². The estimator `warm` starts from its last fit; the fit stops
    when the gradient of the mean loss is below `tolerance`.
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from threadpoolctl import threadpool_limits  # after the libraries that it limits

    classes = np.unique(labels)
    if len(classes) == 1:  # refused by scikit-learn
        return Classifier(classes, np.zeros((1, features.shape[1])), np.zeros(1), True)
    model = (_estimator() if warm is None else warm).set_params(C=c, tol=tolerance)
    small = features.size * len(classes) < _WORTH_THREADS
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1 if small else None, user_api="blas"):
        warnings.simplefilter("always", ConvergenceWarning)
        # many classes for the number of images are no sign of a regression problem
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        model.fit(features, labels)
    # a warm estimator changes its arrays in place; of two classes it has the scores of the second
    weights, bias = model.coef_.copy(), model.intercept_.copy()
    if len(classes) == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return Classifier(classes, weights, bias, not any(issubclass(w.category, ConvergenceWarning) for w in caught))


def _estimator() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=_ITERATIONS, warm_start=True)


def _scaling(features: Float64[np.ndarray, "n d"]) -> Callable[[Float64[np.ndarray, "n d"]], Any]:
    # not StandardScaler: it would amplify the rounding errors of constant coordinates
    mean, sd = features.mean(axis=0), features.std(axis=0)
    sd = np.where(sd > 1e-9, sd, 1.0)
    # single precision: the fits take 0.6 of the time, and stop long before its rounding matters
    return lambda x: ((x - mean) / sd).astype(np.float32)


def validation_part(groups: Codes, share: float, *, seed: int) -> Bool[np.ndarray, " n"]:
    """Draw random groups until they have at least `share` of the pairs, leaving at least one group."""
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    expected = "at least 2, to fit on one part and choose C on the other"
    require(len(names) >= 2, "groups", f"{len(names)} group of pairs", expected, "Use more pairs.")
    order = generator(seed, "validation").permutation(len(names))
    before = np.cumsum(sizes[order]) - sizes[order]
    in_part = before < share * len(groups)
    in_part[-1] = False
    group_in_part = np.zeros(len(names), dtype=np.bool_)
    group_in_part[order[in_part]] = True
    return group_in_part[codes]


def linear_probe(
    train: tuple[Float[np.ndarray, "n d"], Codes],
    groups: Codes,
    test: tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " m"]],
    *,
    grid: Sequence[float] = (0.001, 0.01, 0.1, 1.0),
    share: float = 0.2,
    seed: int,
) -> Probe:
    """Fit a probe to some pairs, their embeddings and labels, and rank the classes of others."""
    (vectors, labels), (tested, test_labels) = train, test
    check_same_length("embeddings", len(vectors), "labels", len(labels))
    check_same_length("embeddings", len(vectors), "groups", len(groups))
    check_same_length("embeddings", len(tested), "labels", len(test_labels))
    got = f"{len(np.unique(labels))} class among {len(labels)} training pairs"
    require(len(np.unique(labels)) >= 2, "labels", got, "at least 2", "Choose pairs of several classes.")
    vectors, tested = (
        normalize(torch.from_numpy(np.asarray(values, dtype=np.float64)), name=f"{name} embeddings").numpy()
        for values, name in ((vectors, "training"), (tested, "test"))
    )
    held = validation_part(groups, share, seed=seed)
    scaling = _scaling(vectors[~held])
    x, validation_x = scaling(vectors[~held]), scaling(vectors[held])
    model, start, validation, converged = _estimator(), None, list[float](), True
    for c in grid:  # each fit starts from that with the next smaller C
        classifier = fit(x, labels[~held], c, warm=model, tolerance=_CHOOSING)
        validation.append(float((classifier.ranks(validation_x, labels[held]) <= 1).mean()))
        converged = converged and classifier.converged
        if validation[-1] > max(validation[:-1], default=-1.0) and len(classifier.classes) > 1:
            start = model.coef_.copy(), model.intercept_.copy()
    best = int(np.argmax(validation))
    if start:
        model.coef_, model.intercept_ = start
    scaling, same = _scaling(vectors), np.array_equal(np.unique(labels[~held]), np.unique(labels))
    final = fit(scaling(vectors), labels, grid[best], warm=model if same else None)
    return Probe(final.ranks(scaling(tested), test_labels), grid[best], validation, converged and final.converged)
