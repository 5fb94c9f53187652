"""Supervised confidence: the memorization that Feldman (2020) defined for classifiers, for a class head on an encoder.

mem(x, y) = Pr over models that saw (x, y) [h(x) = y] - Pr over models that did not [h(x) = y]
(Feldman 2020, equation 1; Feldman & Zhang 2020). `class_correct` is that event; `class_probability` is the softmax
probability of the true class, a smoother number that needs fewer models.

Do not compare it with CLIPMem's size: it is a difference of probabilities. It sees only what the class label can
show; a memorized caption that names the right class is invisible to it. A head trained on top of a frozen encoder
measures that head too: it must not have seen the pair either.

It is no detector of wrong captions: image-label training sees no caption at all, so a wrong one cannot show (on the
shipped data the AUROC's interval holds 0.5; docs/validation.md, "Planted wrong captions").
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.functional.resampling import in_out_means


def _check(logits: Tensor, label: Tensor) -> None:
    n, classes = logits.shape
    if len(label) != n:
        raise InputError(
            "label",
            got=f"{len(label)} labels for {n} rows",
            expected="one label a row",
            hint="Give each row its class.",
        )
    outside = (label < 0) | (label >= classes)
    if bool(outside.any()):
        row = int(torch.nonzero(outside)[0])
        raise InputError(
            "label",
            got=f"{int(label[row])} in row {row}",
            expected=f"classes from 0 to {classes - 1}",
            hint="Number the classes as the model's outputs.",
        )
    wrong = ~torch.isfinite(logits).all(dim=1)
    if bool(wrong.any()):
        raise InputError(
            "logits",
            got=f"{int(wrong.sum())} of {n} rows not finite, the first is row {int(torch.nonzero(wrong)[0])}",
            expected="finite numbers",
            hint="Look at the model and the input behind that row.",
        )


def class_probability(logits: Float[Tensor, "n class"], label: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Softmax probability of the true class.

    p_i = exp(z_i,y) / Σ_c exp(z_i,c). Higher is more confident.

    Args:
        logits: Class scores, finite, shape (n, class).
        label: True class of each row, in [0, class), shape (n,).

    Returns:
        Probability in [0, 1], float64, shape (n,).

    Raises:
        InputError: Lengths differ, a label is out of range, or a logit is not finite.

    Example:
        >>> class_probability(torch.tensor([[0.0, 0.0], [1e9, 0.0]]), torch.tensor([1, 0])).tolist()
        [0.5, 1.0]
    """
    _check(logits, label)
    return torch.log_softmax(logits.double(), dim=1).gather(1, label.long().unsqueeze(1)).squeeze(1).exp()


def class_correct(logits: Float[Tensor, "n class"], label: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Whether the true class scores highest; classes that tie at the top share the point.

    Args:
        logits: Class scores, finite, shape (n, class).
        label: True class of each row, in [0, class), shape (n,).

    Returns:
        1, 0, or 1 / ties, float64, shape (n,).

    Raises:
        InputError: As for `class_probability`.

    Example:
        >>> class_correct(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0])).tolist()
        [1.0, 0.5]
    """
    _check(logits, label)
    best = logits == logits.max(dim=1, keepdim=True).values
    own = best.gather(1, label.long().unsqueeze(1)).squeeze(1)
    return own.double() / best.sum(dim=1)


def label_memorization(
    confidence: Float[np.ndarray, "model n"], member: Bool[np.ndarray, "model n"]
) -> Float64[np.ndarray, "n"]:
    """Difference of the mean confidence of models that had the pair and of those that had not.

    mem = mean_{r: i in D_r} p_r,i - mean_{r: i not in D_r} p_r,i (Feldman & Zhang 2020, section 2).

    Args:
        confidence: `class_probability` or `class_correct` of each pair under each model, shape (model, n).
        member: Whether the model trained on the pair, shape (model, n).

    Returns:
        Memorization in [-1, 1], shape (n,); NaN for pairs that all models or no models had. For intervals give the same
        arguments to `jackknife_models`.

    Raises:
        InputError: Shapes differ, a value is not in [0, 1], or there is no model.

    Example:
        >>> label_memorization(np.array([[0.75], [0.5], [0.25]]), np.array([[True], [False], [False]])).tolist()
        [0.375]
    """
    values: Any = np.asarray(confidence, dtype=np.float64)
    outside = ~((values >= 0) & (values <= 1))
    if outside.any():
        raise InputError(
            "confidence",
            got=f"{int(outside.sum())} of {values.size} values outside [0, 1], the first at index"
            f" {np.argwhere(outside)[0].tolist()}",
            expected="probabilities",
            hint="Make them with clipmem.functional.class_probability.",
        )
    return in_out_means(values, member).score
