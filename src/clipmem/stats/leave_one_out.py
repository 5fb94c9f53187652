"""Ridge predictions of every row by a fit without that row, from one fit over all rows.

When not to trust it: means of features and targets are taken over all rows, the left-out one among them (an influence
of 1/n); rows that are near copies of another one predict each other unless they share a group.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.linalg import cholesky, solve_triangular

from clipmem.base import slices
from clipmem.base.errors import require
from clipmem.stats.checks import Groups, as_finite, check_same_length

RIDGE = 0.3  # share of the mean eigenvalue
LANDMARKS = 1000  # on 4,000 drawings 2,000 take 4 times as long and find mismatched captions .01 AUROC better
FITTED, _BLOCK = 100_000, 4096
_FLAT = 1e-20  # a variance that is rounding, as a share of the mean square
_JITTER = 1e-8

Features = Float[np.ndarray, "_ _"]  # in memory, or a memory map
Kernel = Literal["linear", "rbf"]


class LeftOut(NamedTuple):
    """Predictions of centered targets, shape (n, d), and the leverage H_ii of each row in [0, 1), shape (n,)."""

    prediction: Float64[np.ndarray, "n d"]
    leverage: Float64[np.ndarray, " n"]


# rows, their targets, predictions and leverages
_Block = tuple[Int[np.ndarray, " k"], Float64[np.ndarray, "k d"], Float64[np.ndarray, "k d"], Float64[np.ndarray, " k"]]


def leave_one_out(
    features: Features,
    targets: Features,
    *,
    group: Groups = None,
    ridge: float = RIDGE,
    kernel: Kernel = "linear",
    out: np.ndarray | None = None,
) -> LeftOut:
    """Predict the target of each row by ridge regression on all other rows.

    With centered features B (n, p) and targets Y (n, d), λ = ridge · trace(B'B) / p, H = B (B'B + λI)⁻¹ B' and Ŷ = H Y,

        P_i = (ŷ_i - H_ii y_i) / (1 - H_ii)

    which equals the prediction of a fit without row i. Rows of one group are left out together:
    P_G = (I - H_GG)⁻¹ (Ŷ_G - H_GG Y_G). Time O(n p (p + d)), memory O(p² + p d) beyond the input and the result.

    Args:
        features: Features of each row, shape (n, p).
        targets: Targets, shape (n, d).
        group: Group of each row, such as near-duplicates, any integers; by default each row has its own.
        ridge: Ridge penalty as a share of the mean eigenvalue of B'B, positive.
        kernel: `rbf` regresses on the features of `RbfFeatures`, with λ = ridge · trace(B'B) / n; above 200,000 rows
            n, means and sums are those of every k-th group, 100,000 to 200,000 rows, and the others have H = 0.
        out: Where predictions go, such as a memory map, shape (n, d); by default a new array.

    Returns:
        Predictions of the centered targets, and leverages.

    Raises:
        InputError: Features or targets are constant or not finite, lengths differ, there are fewer than 3 rows or 2
            groups, or `ridge` is not positive.

    Example:
        >>> x = np.array([[-1.0], [0.0], [1.0]])
        >>> leave_one_out(x, 2 * x, ridge=1.0).prediction.ravel().round(3).tolist()
        [-0.667, 0.0, 0.667]
    """
    n, d = features.shape[0], targets.shape[1]
    result = LeftOut(np.empty((n, d)) if out is None else out, np.empty(n))
    for rows, _, prediction, leverage in _left_out(features, targets, group, ridge, kernel):
        result.prediction[rows], result.leverage[rows] = prediction, leverage
    return result


def leave_one_out_scores(
    features: Features, targets: Features, *, group: Groups = None, ridge: float = RIDGE, kernel: Kernel = "linear"
) -> Float64[np.ndarray, " n"]:
    """Compute how badly the other rows predict each row: -cos(P_i, y_i), with `leave_one_out`'s P and centered y.

    Predictions are not kept. Arguments and errors are those of `leave_one_out`.

    Returns:
        Scores in [-1, 1], higher = less predictable; 0 where P_i or y_i is 0 and has no direction.

    Example:
        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> leave_one_out_scores(x, np.array([[3.0], [-3.0], [1.0], [-1.0]])).tolist()
        [1.0, 1.0, 1.0, -1.0]
    """
    scores = np.empty(features.shape[0])
    for rows, target, prediction, _ in _left_out(features, targets, group, ridge, kernel):
        lengths = np.linalg.norm(prediction, axis=1) * np.linalg.norm(target, axis=1)
        product = (prediction * target).sum(axis=1)
        scores[rows] = -np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return np.clip(scores, -1, 1)


def _left_out(features: Any, targets: Features, group: Groups, ridge: float, kernel: Kernel) -> Iterator[_Block]:
    """Yield the rows that are left out alone, in blocks, those of each larger group, and those that are not fitted."""
    n, d = features.shape[0], targets.shape[1]
    check_same_length("features", n, "targets", targets.shape[0])
    require(n >= 3, "features", f"{n} rows", "3 or more", "Give more pairs.")
    require(ridge > 0, "ridge", f"{ridge}", "a positive number", "Use 0.3.")
    group = np.arange(n) if group is None else group
    check_same_length("group", len(group), "features", n)
    number, size = np.unique(group, return_inverse=True, return_counts=True)[1:]
    require(len(size) > 1, "group", "one group", "two or more", "Check the near-duplicates: all pairs are one group.")
    step = min(max(1, n // FITTED), len(size) // 2) if kernel == "rbf" else 1
    alone, in_fit = size[number] == 1, number % step == 0
    order = np.argsort(number, kind="stable")
    order = order[(in_fit & ~alone)[order]]
    larger = [rows for rows in np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(rows)]
    fitted = np.flatnonzero(in_fit)
    n = len(fitted)
    if kernel == "rbf":
        features = RbfFeatures(features)
        ridge *= features.shape[1] / n  # relative to the n eigenvalues of the kernel matrix
    p = features.shape[1]
    # moments about the first row, which is near the mean: no cancellation if all rows have a large part in common
    origins = [x[:1].astype(np.float64) for x in (features, targets)]
    means, gram, cross, spread = [np.zeros(p), np.zeros(d)], np.zeros((p, p)), np.zeros((p, d)), 0.0

    def read(rows: Any) -> list[Float64[np.ndarray, "k c"]]:
        return [x[rows] - origin for x, origin in zip((features, targets), origins, strict=True)]

    for rows in (fitted[part] for part in slices(n, _BLOCK)):
        b, y = read(rows)
        for name, mean, x in zip(("features", "targets"), means, (b, y), strict=True):
            as_finite(name, x.sum(axis=1))
            mean += x.sum(axis=0) / n
        gram, cross, spread = gram + b.T @ b, cross + b.T @ y, spread + float((y * y).sum())
    gram, cross = gram - n * np.outer(means[0], means[0]), cross - n * np.outer(means[0], means[1])
    sizes = float(np.trace(gram)), spread - n * float(means[1] @ means[1])
    for name, size, origin in zip(("features", "targets"), sizes, origins, strict=True):
        varied = size > _FLAT * n * max(1.0, float((origin * origin).sum()))
        require(varied, name, f"the same in all {n} rows", "rows that differ", "Nothing can be learned from them.")
    gram[np.diag_indices(p)] += ridge * sizes[0] / p
    inverse = _inverse(cholesky(gram, lower=True))  # L L' = B'B + λI
    start, shift = inverse @ cross, means[0] + origins[0][0]
    # of kernels to Z = L⁻¹ B' in one product: H = Z'Z
    rbf = isinstance(features, RbfFeatures)
    whitening, offset = (inverse @ features.basis.T, inverse @ shift) if rbf else (inverse, np.zeros(p))

    def raw(rows: Any) -> tuple[Float64[np.ndarray, "k p"], Float64[np.ndarray, "k d"]]:
        x = features.kernel(rows) if isinstance(features, RbfFeatures) else features[rows] - shift
        return x, targets[rows] - (means[1] + origins[1])

    def whitened(rows: Any) -> tuple[Float64[np.ndarray, "p k"], Float64[np.ndarray, "k d"]]:
        x, y = raw(rows)
        return whitening @ x.T - offset[:, None], y

    singles, others = np.flatnonzero(alone & in_fit), np.flatnonzero(~in_fit)
    for rows in (singles[part] for part in slices(len(singles), _BLOCK)):
        z, y = whitened(rows)
        leverage = (z * z).sum(axis=0)
        prediction = (z.T @ start - leverage[:, None] * y) / (1 - leverage)[:, None]
        yield rows, y, prediction, leverage
    weights = whitening.T @ start
    for rows in (others[part] for part in slices(len(others), _BLOCK)):
        x, y = raw(rows)
        yield rows, y, x @ weights - offset @ start, np.zeros(len(rows))
    for rows in larger:
        z, y = whitened(rows)
        if len(rows) <= p:
            hat = z.T @ z
            prediction = np.linalg.solve(np.eye(len(rows)) - hat, z.T @ start - hat @ y)
        else:  # the same from the normal equations without the group: p x p
            prediction = z.T @ np.linalg.solve(np.eye(p) - z @ z.T, start - z @ y)
        yield rows, y, prediction, (z * z).sum(axis=0)


class RbfFeatures:
    """Features whose products are an RBF kernel, by Nyström's method, computed where they are read.

    φ(x) = L⁻¹ [k(x, l_j)]_j with L L' = [k(l_i, l_j)], k(x, x') = exp(-‖x - x'‖² / 2w²), w the median distance between
    landmarks l_j; where half are equal, of those that differ. The landmarks are 1,000 evenly spaced rows; with all rows
    as landmarks φ(x)·φ(x') = k(x, x').

    Raises:
        InputError: All landmarks are equal but for rounding, or one is not finite.
    """

    def __init__(self, x: Features, landmarks: int = LANDMARKS) -> None:
        n = x.shape[0]
        self._x, self._landmarks = x, x[np.arange(min(n, landmarks)) * n // min(n, landmarks)].astype(np.float64)
        squares = _squares(self._landmarks, as_finite("features", self._landmarks))
        between = squares[np.triu_indices_from(squares, 1)]
        differ = between[between > 1e-12 * float(np.square(self._landmarks).sum(axis=1).max())]
        hint = "Give rows that differ: equal ones say nothing of each other."
        require(len(differ), "features", f"{len(squares)} equal rows", "rows that differ", hint)
        self._width2 = float(np.median(between if len(differ) > len(between) / 2 else differ))
        kernel = np.exp(squares / (-2 * self._width2))
        self.basis = _inverse(cholesky(kernel + _JITTER * np.eye(len(kernel)), lower=True)).T

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and landmarks."""
        return self._x.shape[0], len(self._landmarks)

    def __getitem__(self, rows: Any) -> Float64[np.ndarray, "k m"]:
        """Compute the features of some rows."""
        return self.kernel(rows) @ self.basis

    def kernel(self, rows: Any) -> Float64[np.ndarray, "k m"]:
        """Compute k(x, l_j) of some rows; φ(x) is its product with `basis`."""
        kernel = _squares(np.asarray(self._x[rows], dtype=np.float64), self._landmarks)
        kernel *= -1 / (2 * self._width2)
        return np.exp(kernel, out=kernel)


def _inverse(factor: Float64[np.ndarray, "p p"]) -> Float64[np.ndarray, "p p"]:
    """Invert a lower triangular matrix: products with it take a quarter of the time of solving for many columns."""
    return solve_triangular(factor, np.eye(len(factor)), lower=True)


def _squares(a: Float64[np.ndarray, "m p"], b: Float64[np.ndarray, "k p"]) -> Float64[np.ndarray, "m k"]:
    squares = a @ b.T
    squares *= -2
    squares += np.add.outer((a * a).sum(axis=1), (b * b).sum(axis=1))
    return np.maximum(squares, 0, out=squares)
