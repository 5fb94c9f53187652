"""CLIPMem, how much better a pair is aligned by models that trained on it than by others; and scores beside it.

CLIPMem(I, T) = mean over seeds of A(f; I, T) - mean over seeds of A(g; I, T) (design, section 2), where f saw the pair,
g did not, and nothing else differs.

Do not trust it if f and g differ in anything but the pair (pipeline, shared data, steps), if g's data had a
near-duplicate of the pair, or with one seed; also report `noise_floor`. Do not compare range-normalized scores between
studies.
"""

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import require
from clipmem.stats.checks import check_same_length
from clipmem.stats.similarity import unit_pairs
from clipmem.stats.tensor_checks import check_index, check_rows


def _check_alignments(name: str, values: Float[Tensor, "seed n"]) -> None:
    require(len(values) > 0, name, "no seed", "at least one seed", "Score at least one model.")
    invalid = ~torch.isfinite(values).all(dim=0)
    check_rows(name, invalid, "not finite", "finite scores", "Look at the embeddings of that pair.")


def clipmem(target: Float[Tensor, "seed n"], reference: Float[Tensor, "other_seed n"]) -> Float[Tensor, " n"]:
    """Return the mean alignment under the target models minus that under the reference models.

    CLIPMem = mean_k A(f_k) - mean_k A(g_k). Higher is more memorized. Range: ±2 (1 + 2w) for the weight w of the
    alignment, so [-6, 6] for w = 1. Swapping the arguments negates it.

    Args:
        target: Alignment under the models f that trained on the pairs, shape (seed, n).
        reference: Alignment under the models g that did not, shape (other_seed, n).

    Returns:
        CLIPMem of each pair, float64, shape (n,).

    Raises:
        InputError: A side has no seed, the sides have different numbers of pairs, or an alignment is not finite.

    Example:
        >>> target, reference = torch.tensor([[0.75, 0.5], [0.25, 0.5]]), torch.tensor([[0.0, 0.5]])
        >>> clipmem(target, reference).tolist()
        [0.5, 0.0]
    """
    check_same_length("target", target.shape[1], "reference", reference.shape[1])
    _check_alignments("target", target)
    _check_alignments("reference", reference)
    return target.double().mean(dim=0) - reference.double().mean(dim=0)


def range_normalize(values: Float[Tensor, " n"], candidates: Bool[Tensor, " n"]) -> tuple[Float[Tensor, " n"], float]:
    """Divide scores by their range over the candidates, as published.

    clipmem_norm = clipmem / (max_C clipmem - min_C clipmem) (design, section 2), without a shift: 0 stays 0. The result
    depends on the two most extreme candidates: do not compare it between studies.

    Args:
        values: Score of every pair, finite, shape (n,).
        candidates: Which pairs are candidates, shape (n,).

    Returns:
        The normalized scores, float64, shape (n,), and the normalizer, > 0.

    Raises:
        InputError: There is no candidate, all candidates have the same score, a score is not finite, or lengths differ.

    Example:
        >>> candidates = torch.tensor([True, True, False])
        >>> scores, normalizer = range_normalize(torch.tensor([1.0, 3.0, 8.0]), candidates)
        >>> scores.tolist(), normalizer
        ([0.5, 1.5, 4.0], 2.0)
    """
    check_same_length("candidates", len(candidates), "values", len(values))
    require(bool(candidates.any()), "candidates", "none", "at least two", "Mark the candidates: the range is theirs.")
    _check_alignments("values", values.unsqueeze(0))
    values = values.double()
    selection = values[candidates]
    normalizer = float(selection.max() - selection.min())
    got = f"the same score {float(selection[0]):.6g} for all {len(selection)}"
    require(normalizer > 0, "candidates", got, "scores that differ", "Use the raw scores.")
    return values / normalizer, normalizer


def class_probability(logits: Float[Tensor, "n class"], label: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the softmax probability of the true class, for the memorization of classifiers (Feldman 2020).

    p_i = exp(z_i,y) / Σ_c exp(z_i,c). Higher is more confident.

    mem(x, y) = Pr over models that saw (x, y) [h(x) = y] - Pr over models that did not [h(x) = y] (Feldman 2020,
    equation 1; Feldman & Zhang 2020). The softmax probability of the true class replaces the event: it is smoother and
    needs fewer models. `in_out_means` subtracts.

    Do not compare its size with CLIPMem: it is a difference of probabilities. It depends on class labels alone, so it
    does not detect mismatched captions: on the shipped data the interval of the AUROC contains 0.5
    (experiments/validation/RESULTS.md, "Swapped captions"). If a head is trained on a frozen encoder, the
    head must not have seen the pair either.

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
    invalid = ~torch.isfinite(logits).all(dim=1)
    check_rows("logits", invalid, "not finite", "finite numbers", "Look at the model and the input behind that row.")
    return torch.log_softmax(logits.double(), dim=1).gather(1, label.long().unsqueeze(1)).squeeze(1).exp()


_BLOCK = 1024


def self_influence(image: Float[Tensor, "n d"], text: Float[Tensor, "m e"], scale: float) -> Float64[Tensor, " n"]:
    """Compute TracIn's self-influence: the squared norm of the gradient of each pair's loss by a bilinear last layer.

    When not to trust it: it is one gradient at the end of the training. A pair that the model fits has a small one,
    whether it generalizes to the pair or memorized it.

    With u, v at length 1, logits s u_i·M v_j at M = I and pair i's share of the contrastive loss over all pairs,

        L_i = -½ log softmax_j(s u_i·M v_j)_i - ½ log softmax_j(s u_j·M v_i)_i,
        ∂L_i/∂M = s/2 [u_i (v̄_i - v_i)' + (ū_i - u_i) v_i'],

    where v̄_i = Σ_j softmax_j(s u_i·v_j) v_j and ū_i = Σ_j softmax_j(s u_j·v_i) u_j, so that

        ‖∂L_i/∂M‖² = s²/4 [‖v̄_i - v_i‖² + ‖ū_i - u_i‖² + 2 ((v̄_i - v_i)·v_i) ((ū_i - u_i)·u_i)].

    This is TracIn (Pruthi et al. 2020) of a pair on itself, with one checkpoint and without the learning rate. M is the
    product of both towers' last projections, in coordinates of the unit embeddings.

    Args:
        image: Image embeddings, any length, shape (n, d).
        text: Text embeddings of the same model, shape (n, d).
        scale: s, the model's exponentiated logit scale, positive.

    Returns:
        Influences, 0 or more; 0 for a pair that is told apart with certainty.

    Raises:
        InputError: Widths or lengths differ, a row is zero or not finite, or the scale is not positive.

    Example:
        >>> self_influence(torch.eye(2), torch.eye(2)[[1, 0]], 100.0).round().tolist()
        [15000.0, 15000.0]
    """
    require(0 < scale < float("inf"), "logit scale", f"{scale}", "a positive number", "Use the model's own.")
    u, v = unit_pairs(image, text)
    squares, products = torch.zeros(len(u), dtype=u.dtype, device=u.device), torch.ones_like(u[:, 0])
    for a, b in ((u, v), (v, u)):
        for rows in slices(len(u), _BLOCK):
            apart = torch.softmax(scale * a[rows] @ b.T, dim=1) @ b - b[rows]
            squares[rows] += (apart * apart).sum(dim=1)
            products[rows] *= (apart * b[rows]).sum(dim=1)
    return (scale**2 / 4 * (squares + 2 * products)).clamp(min=0)
