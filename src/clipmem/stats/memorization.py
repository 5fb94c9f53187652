"""CLIPMem: how much better a pair is aligned by models that trained on it than by models that did not.

CLIPMem(I, T) = mean over seeds of A(f; I, T) - mean over seeds of A(g; I, T) (design, section 2), where f saw the pair,
g did not, and nothing else differs.

Do not trust it if f and g differ in anything but the pair (pipeline, shared data, steps), if g's data had a
near-duplicate of the pair, or with one seed; also report `noise_floor`. Do not compare range-normalized scores between
studies.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipmem.base.require import require
from clipmem.stats.checks import check_same_length
from clipmem.stats.tensor_checks import check_rows


def _check_alignments(name: str, values: Float[Tensor, "seed n"]) -> None:
    require(len(values) > 0, name, "no seed", "at least one seed", "Score at least one model.")
    wrong = ~torch.isfinite(values).all(dim=0)
    check_rows(name, wrong, "not finite", "finite scores", "Look at the embeddings of that pair.")


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
    chosen = values[candidates]
    normalizer = float(chosen.max() - chosen.min())
    got = f"the same score {float(chosen[0]):.6g} for all {len(chosen)}"
    require(normalizer > 0, "candidates", got, "scores that differ", "Use the raw scores.")
    return values / normalizer, normalizer
