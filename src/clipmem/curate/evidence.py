"""What the other pairs say of a pair, without a model: captions predicted from images, and images from captions.

Every prediction leaves the pair itself out, so that it serves for any caption on that image: a caption is planted on an
image by comparing it with what is predicted there, and nothing is computed again.

When not to trust it: a pair that is one of a kind has no other pair that could testify.
"""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int

from clipmem.embed.signals import Signals
from clipmem.functional.agreement import directions, softmax_means
from clipmem.functional.leave_one_out import leave_one_out

NEAR = 5  # testifying neighbors


class Fit(NamedTuple):
    """How well a caption fits an image, cosines in [-1, 1], shape (k,) each; higher = better.

    Attributes:
        by_images: Caption against the mean caption of similar images.
        by_words: Image against the mean image of similar captions.
        by_ridge: Caption against the one predicted from the image.
        by_ridge_image: Image against the one predicted from the caption.
    """

    by_images: Float64[np.ndarray, "k"]
    by_words: Float64[np.ndarray, "k"]
    by_ridge: Float64[np.ndarray, "k"]
    by_ridge_image: Float64[np.ndarray, "k"]


class Evidence:
    """Unit features of images x and captions t, and their predictions from the other pairs, centered.

    Attributes:
        image: x, shape (n, p).
        caption: t, shape (n, d).
        near: The nearest other images of each, shape (n, NEAR).
        own: Fit of each pair.
        strength: Lengths of the four predictions: short where the other pairs contradict each other or tell nothing.
    """

    def __init__(self, signals: Signals) -> None:
        raw = signals.shapes_and_colors if signals.pixels is not None or signals.image is None else signals.image
        images, words = np.asarray(raw, dtype=np.float64), np.asarray(signals.words[:], dtype=np.float64)
        x, t = torch.from_numpy(images), torch.from_numpy(words)
        self.image: Float32[np.ndarray, "n p"] = directions(x, "images").numpy().astype(np.float32)
        self.caption: Float32[np.ndarray, "n d"] = directions(t, "captions").numpy().astype(np.float32)
        k = min(NEAR, len(images) - 1)
        self._captions, self.near = _means(x, t, k)
        self._images, _ = _means(t, x, k)
        predicted = (leave_one_out(a, b, kernel="rbf").prediction for a, b in ((images, words), (words, images)))
        self._ridge, self._ridge_image = (one.astype(np.float32) for one in predicted)
        parts = (self._captions, self._images, self._ridge, self._ridge_image)
        self.strength = np.stack([_unit(one) for one in parts], axis=1)  # lengths, and unit rows from here
        rows = np.arange(len(images))
        self.own = self.fit(rows, rows)

    def fit(self, image: Int[np.ndarray, "k"], caption: Int[np.ndarray, "k"]) -> Fit:
        """Compare image i with caption j of two pairs; the pair j itself is among those that predict for i."""
        return Fit(
            *(
                np.einsum("kd,kd->k", a, b).astype(np.float64)
                for a, b in (
                    (self._captions[image], self.caption[caption]),
                    (self._images[caption], self.image[image]),
                    (self._ridge[image], self.caption[caption]),
                    (self._ridge_image[caption], self.image[image]),
                )
            )
        )

    def known(self, image: Int[np.ndarray, "k"], caption: Int[np.ndarray, "k"]) -> Float64[np.ndarray, "k 4"]:
        """Return how much the other pairs know: lengths of the predictions from the image and from the caption."""
        one = self.strength
        return np.stack([one[image, 0], one[caption, 1], one[image, 2], one[caption, 3]], axis=1)

    def all_fits(self, image: Int[np.ndarray, "k"]) -> Float64[np.ndarray, "k n"]:
        """Return the mean fit of every caption to some images, without the ridge prediction of images."""
        found = self._captions[image] @ self.caption.T + self.image[image] @ self._images.T
        return (found + self._ridge[image] @ self.caption.T).astype(np.float64) / 3

    def alike(self, caption: Int[np.ndarray, "k"]) -> Float32[np.ndarray, "k n"]:
        """Return the cosine of the images that captions predict: high for captions of the same sort of thing."""
        return self._ridge_image[caption] @ self._ridge_image.T


def _means(
    query: torch.Tensor, value: torch.Tensor, k: int
) -> tuple[Float32[np.ndarray, "n d"], Int[np.ndarray, "n k"]]:
    blocks = [(mean.numpy().astype(np.float32), near.numpy()) for _, mean, near in softmax_means(query, value, k)]
    means, near = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return means, near


def _unit(x: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n"]:
    """Divide rows by their lengths in place, and return these."""
    length = np.linalg.norm(x, axis=1)
    x /= np.where(length > 0, length, 1)[:, None]
    return length.astype(np.float64)


_KNOWN: WeakKeyDictionary[Signals, Evidence] = WeakKeyDictionary()


def evidence_of(signals: Signals) -> Evidence:
    """Return the evidence of a data set, computed once for all detectors."""
    if signals not in _KNOWN:
        _KNOWN[signals] = Evidence(signals)
    return _KNOWN[signals]
