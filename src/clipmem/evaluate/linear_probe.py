"""The linear probe: how well a linear classifier on the frozen image embeddings names the class of a picture.

L2 logistic regression by scikit-learn (`LogisticRegression`, lbfgs), as in CLIP (Radford et al. 2021, section 3.2 and
appendix A.3): C is the one that is best on a validation part of the training pairs, and the classifier is then fitted
to all of them with it. Embeddings are brought to length 1, and each coordinate to mean 0 and standard deviation 1 of
the pairs that are fitted. Validation is drawn by groups: near-duplicates are never on both sides.

When not to trust it: with few training pictures a class it measures their number more than the embedding. It needs no
text tower, and says nothing of one. C at an end of its grid means that the grid is too short.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from clipmem.base.errors import InputError
from clipmem.base.random import generator
from clipmem.evaluate.classification import class_ranks
from clipmem.functional.checks import as_finite, check_same_length

_ITERATIONS = 1000
_TOLERANCE = 1e-4
# multiplications of a step from which threads gain: below, waiting for each other makes them ten times slower
_WORTH_THREADS = 2e7


class Probe(NamedTuple):
    """A fitted probe, tested."""

    ranks: Float64[np.ndarray, "m"]
    c: float
    validation: list[float]
    converged: bool


class _Fitted(NamedTuple):
    """A fitted classifier: scores of its classes (n, c), the classes' labels, and whether the fit converged."""

    scores: Callable[[Float64[np.ndarray, "n d"]], Float64[np.ndarray, "n c"]]
    classes: Int[np.ndarray, "c"]
    converged: bool


def fit(
    features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], c: float
) -> Callable[[Float64[np.ndarray, "n d"]], Float64[np.ndarray, "n c"]]:
    """Fit an L2 logistic regression and return its class scores, a column a class in the order of their numbers.

    It minimises C Σ_i -log softmax(W x_i + b)_{y_i} + ½ ||W||² over W and b, b unpenalised; with two classes the
    binary form, C Σ_i log(1 + exp(-y_i (w·x_i + b))) + ½ ||w||². Scores are W x + b, up to a constant a picture.

    Example:
        >>> scores = fit(np.array([[-1.0], [1.0]]), np.array([3, 7]), 1.0)
        >>> scores(np.array([[2.0]])).argmax(axis=1).tolist()
        [1]
    """
    return _fit(features, labels, c).scores


def _fit(features: Any, labels: Int[np.ndarray, "n"], c: float, warm: Any = None) -> _Fitted:
    from sklearn.exceptions import ConvergenceWarning  # slow to import, and only needed here
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # sees what is loaded: after it

    classes = np.unique(labels)
    if len(classes) == 1:  # nothing to tell apart: scikit-learn refuses
        return _Fitted(_same_score, classes, True)
    model: Any = LogisticRegression(tol=_TOLERANCE, max_iter=_ITERATIONS, warm_start=True) if warm is None else warm
    model.set_params(C=c)
    small = features.size * len(classes) < _WORTH_THREADS
    with warnings.catch_warnings(record=True) as said, threadpool_limits(1 if small else None, user_api="blas"):
        warnings.simplefilter("always", ConvergenceWarning)
        # a few pictures of many classes are few pictures, and no regression
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        model.fit(features, labels)
    coefficients, intercept = model.coef_.copy(), model.intercept_.copy()

    def scores(x: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n c"]:
        values = x @ coefficients.T + intercept
        return np.hstack([-values, values]) if len(classes) == 2 else values

    return _Fitted(scores, classes, not any(issubclass(one.category, ConvergenceWarning) for one in said))


def _same_score(x: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n 1"]:
    return np.zeros((len(x), 1))


def unit_rows(features: Float[np.ndarray, "n d"], name: str) -> Float64[np.ndarray, "n d"]:
    """Return the rows at length 1 in float64."""
    values = as_finite(name, features)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    if (length == 0).any():
        row = int(np.flatnonzero(length[:, 0] == 0)[0])
        raise InputError(
            name, got=f"row {row} is zero", expected="rows with a direction", hint="Look at the picture behind it."
        )
    return values / length


class _Scaling(NamedTuple):
    mean: Float64[np.ndarray, "d"]
    sd: Float64[np.ndarray, "d"]

    def __call__(self, x: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
        return (x - self.mean) / self.sd


def _scaling(features: Float64[np.ndarray, "n d"]) -> _Scaling:
    sd = features.std(axis=0)
    # a coordinate that does not vary, but for rounding, tells nothing and must not be blown up
    return _Scaling(features.mean(axis=0), np.where(sd > 1e-9, sd, 1.0))


def validation_part(groups: Int[np.ndarray, "n"], share: float, *, seed: int) -> Bool[np.ndarray, "n"]:
    """Draw whole groups at random until they have at least `share` of the pairs; one group is always left.

    Example:
        >>> part = validation_part(np.array([4, 4, 5, 5]), 0.5, seed=0)
        >>> part.tolist() in ([True, True, False, False], [False, False, True, True])
        True
    """
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(
            "groups",
            got=f"{len(names)} group of pairs",
            expected="at least 2, to fit on one part and choose C on the other",
            hint="Use more pairs.",
        )
    order = generator(seed, "validation").permutation(len(names))
    before = np.cumsum(sizes[order]) - sizes[order]
    taken = before < share * len(groups)
    taken[-1] = False
    chosen = np.zeros(len(names), dtype=np.bool_)
    chosen[order[taken]] = True
    return chosen[codes]


def linear_probe(
    train: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"],
    test: Float[np.ndarray, "m d"],
    test_labels: Int[np.ndarray, "m"],
    *,
    grid: Sequence[float] = (0.001, 0.01, 0.1, 1.0),
    share: float = 0.2,
    seed: int,
) -> Probe:
    """Fit a probe to some pairs and rank the classes of others.

    Of equally good C the smallest is taken. See the module for the features and the choice of C.

    Example:
        >>> x, y = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]]), np.array([0, 0, 1, 1])
        >>> linear_probe(x, y, np.arange(4), x, y, seed=0).ranks.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    check_same_length("embeddings", len(train), "labels", len(labels))
    check_same_length("embeddings", len(train), "groups", len(groups))
    check_same_length("embeddings", len(test), "labels", len(test_labels))
    if len(np.unique(labels)) < 2:
        raise InputError(
            "labels",
            got=f"{len(np.unique(labels))} class among {len(labels)} training pairs",
            expected="at least 2",
            hint="Choose pairs of several classes.",
        )
    train, test = unit_rows(train, "training embeddings"), unit_rows(test, "test embeddings")
    held = validation_part(groups, share, seed=seed)
    validation, chosen, converged = _choose(train[~held], labels[~held], train[held], labels[held], grid)
    scaling = _scaling(train)
    final = _fit(scaling(train), labels, grid[chosen])
    ranks = class_ranks(final.scores(scaling(test)), _columns(final.classes, test_labels))
    return Probe(ranks, grid[chosen], validation, converged and final.converged)


def _columns(classes: Int[np.ndarray, "c"], labels: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Return the column of each label; -1 where there is none."""
    place = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    return np.where(classes[place] == labels, place, -1)


def _choose(
    fitted: Any, labels: Any, validation: Any, truth: Any, grid: Sequence[float]
) -> tuple[list[float], int, bool]:
    """Return acc1 on validation for each C, the place of the best, and whether all fits converged."""
    from sklearn.linear_model import LogisticRegression

    # each fit starts where that with the next smaller C ended
    model: Any = LogisticRegression(tol=_TOLERANCE, max_iter=_ITERATIONS, warm_start=True)
    scaling = _scaling(fitted)
    x, held = scaling(fitted), scaling(validation)
    accuracies: list[float] = []
    converged = True
    for c in grid:
        found = _fit(x, labels, c, warm=model)
        ranks = class_ranks(found.scores(held), _columns(found.classes, truth))
        accuracies.append(float((ranks <= 1).mean()))
        converged = converged and found.converged
    return accuracies, int(np.argmax(accuracies)), converged
