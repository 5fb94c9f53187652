"""Class probability of supervised models, for the memorization that Feldman (2020) defined for classifiers.

mem(x, y) = Pr over models that saw (x, y) [h(x) = y] - Pr over models that did not [h(x) = y] (Feldman 2020, equation
1; Feldman & Zhang 2020). The softmax probability of the true class replaces the event: it is smoother and needs fewer
models. `in_out_means` subtracts.

Do not compare its size with CLIPMem: it is a difference of probabilities. It depends on class labels alone, so it does
not detect wrong captions (on the shipped data the interval of the AUROC contains 0.5; docs/validation.md, "Planted
wrong captions"). If a head is trained on a frozen encoder, the head must not have seen the pair either.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.stats.checks import check_same_length
from clipmem.stats.tensor_checks import check_index, check_rows


def class_probability(logits: Float[Tensor, "n class"], label: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the softmax probability of the true class.

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
    check_same_length("logits", len(logits), "label", len(label))
    check_index("label", label, 0, logits.shape[1], "Number the classes as the model's outputs.")
    wrong = ~torch.isfinite(logits).all(dim=1)
    check_rows("logits", wrong, "not finite", "finite numbers", "Look at the model and the input behind that row.")
    return torch.log_softmax(logits.double(), dim=1).gather(1, label.long().unsqueeze(1)).squeeze(1).exp()
