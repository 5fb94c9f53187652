"""What each training pair does to the similarity of an image and a caption, from shadow models on complementary halves.

With m_ki = 1 if the first of the k-th pair of shadow models trained on pair i, -1 if the second one did, and d_kq the
similarity of query q, an image and a caption, under the first one minus that under the second one, effects τ that add
up give

    d_kq = Σ_i m_ki τ_iq + noise.

There are far fewer shadow models than pairs. So the effect is taken as a function of what pair and query have in
common, with the same weights for all queries, fitted by ridge regression over all k and q:

    τ_iq = Σ_f w_f φ_fiq        x_kqf = Σ_i m_ki φ_fiq        d_kq ≈ Σ_f w_f x_kqf

When not to trust it: two pairs with the same features get the same effect, whichever one it was.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.stats import rankdata

from clipmem.base.errors import require

SHARPNESS = 0.05  # of a kernel exp((cosine - 1) / SHARPNESS); on drawings .03 and .05 are better than .1 and .2
_PENALTIES = np.logspace(-4, 2, 13)  # shares of the largest eigenvalue
Side = Float64[np.ndarray, "_ _"]  # unit rows


class Tracing(NamedTuple):
    """A fitted tracing.

    Attributes:
        weight: w, one per feature.
        predicted: d_kq by weights fitted on the other pairs of shadow models, shape (couple, query).
        lds: Linear datamodeling score of each query (Park et al., ICML 2023): Spearman's rank correlation, over all
            shadow models, of its predicted and true similarity, in [-1, 1]; here of d and -d of each k.
    """

    weight: Float64[np.ndarray, " f"]
    predicted: Float64[np.ndarray, "couple query"]
    lds: Float64[np.ndarray, " query"]


def common(image: Sequence[tuple[Side, Side]], text: Sequence[tuple[Side, Side]]) -> Float64[np.ndarray, "f query n"]:
    """Return φ: what queries and pairs have in common, by several embeddings.

    With s and t the cosines of images and captions, and K(c) = exp((c - 1) / 0.05): s, t, s t, K(s), K(t), K(s) K(t),
    K(s) t, s K(t) of each embedding; of the first, which has both in one space, also those of the query's image with
    the pair's caption, and of its caption with the pair's image.

    Args:
        image: For each embedding, unit rows of the queries' images and of the pairs' images.
        text: The same of the captions.
    """
    features = [image[0][0] @ text[0][1].T, text[0][0] @ image[0][1].T]
    for images, captions in zip(image, text, strict=True):
        s, t = (query @ pairs.T for query, pairs in (images, captions))
        near = [np.exp((cosine - 1) / SHARPNESS) for cosine in (s, t)]
        features += [s, t, s * t, *near, near[0] * near[1], near[0] * t, s * near[1]]
    return np.stack(features)


def fit(x: Float64[np.ndarray, "couple query f"], d: Float64[np.ndarray, "couple query"]) -> Tracing:
    """Fit the weights; the penalty is that with the smallest error for pairs of shadow models that are left out.

    Features are divided by their root mean square.

    Raises:
        InputError: There are fewer than two pairs of shadow models.

    Example:
        >>> x = np.array([[[1.0], [2.0]], [[-3.0], [1.0]]])
        >>> fitted = fit(x, 2 * x[:, :, 0])
        >>> fitted.weight.round(2).tolist(), fitted.lds.round(6).tolist()
        ([2.0], [1.0, 1.0])
    """
    require(len(d) > 1, "shadow models", f"{2 * len(d)}", "4 or more", "Set halves.pairs to 2 or more.")
    scale = np.sqrt((x**2).mean(axis=(0, 1)))
    x = x / np.where(scale > 0, scale, 1)
    squares, products = np.einsum("kqf,kqg->kfg", x, x), np.einsum("kqf,kq->kf", x, d)
    penalties = _PENALTIES * float(np.linalg.eigvalsh(squares.sum(axis=0))[-1])

    def solved(square: np.ndarray, product: np.ndarray, penalty: float) -> np.ndarray:
        return np.linalg.solve(square + penalty * np.eye(len(product)), product)

    def left_out(penalty: float) -> np.ndarray:
        rest = [(squares.sum(axis=0) - squares[k], products.sum(axis=0) - products[k]) for k in range(len(d))]
        return np.stack([x[k] @ solved(*sums, penalty) for k, sums in enumerate(rest)])

    penalty = min(penalties.tolist(), key=lambda penalty: float(((left_out(penalty) - d) ** 2).sum()))
    predicted = left_out(penalty)
    weight = solved(squares.sum(axis=0), products.sum(axis=0), penalty) / np.where(scale > 0, scale, 1)
    return Tracing(weight, predicted, lds(predicted, d))


def lds(
    predicted: Float64[np.ndarray, "couple query"], d: Float64[np.ndarray, "couple query"]
) -> Float64[np.ndarray, " query"]:
    """Return the rank correlation of predicted and true similarities of each query; 0 where one of both is constant."""
    a, b = (rankdata(np.concatenate([values, -values]), axis=0) for values in (predicted, d))
    a, b = (ranks - ranks.mean(axis=0) for ranks in (a, b))
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return (a * b).sum(axis=0) / np.where(size > 0, size, 1)
