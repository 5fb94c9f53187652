"""Whether the captions of images that look alike say what a pair's own caption says, and the reverse.

Vectors may come from a model or from pixels and words alone (`clipmem.data.features`). Each pair is compared with all
others, or if there are more than 30,000 with those of near cells (`Cells`): time O(n^1.5 d) then instead of O(n² d).

When not to trust it: a singleton has no neighbor as evidence, however right its caption is.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import require, require_range
from clipmem.stats.cells import EXACT, Cells
from clipmem.stats.checks import Groups, as_finite, check_same_length
from clipmem.stats.similarity import unit_pairs

TEMPERATURE = 0.07  # on drawings .05 to .1 differ by less than .01 AUROC
NEIGHBORS, NEAR = 10, 0.05
_BLOCK = 1024
# rows, P of each, the nearest others of each: -1 where there are fewer
Near = tuple[slice | Int[Tensor, " b"], Float64[Tensor, "b d"], Int[Tensor, "b k"]]
# lengths are compared in the functions, so the axes of their arguments have two words
Queries = Float[Tensor, "n p"]
Values = Float[Tensor, "m d"]
Sides = Sequence[Float[Tensor, "m _"]]


def softmax_agreement(
    query: Queries, value: Values, *, group: Groups = None, temperature: float = TEMPERATURE
) -> Float64[Tensor, " n"]:
    """Compare each pair's value with the mean value of pairs with similar queries.

    With q and t the centered rows of query and value at length 1,

        P_i = Σ_j softmax_j(q_i·q_j / τ) t_j over pairs j of other groups,      agreement_i = cos(P_i, t_i)

    Args:
        query: What similarity is judged by, such as features of images, shape (n, p).
        value: What should agree, such as features of captions, shape (n, d). Swap both for the other direction.
        group: Group of each pair, such as near-duplicates, any integers; by default each pair has its own.
        temperature: τ, positive; small values ask the nearest pair alone.

    Returns:
        Agreement in [-1, 1]: low for a caption unlike those of similar images. 0 for a row that equals the mean.

    Raises:
        InputError: Rows are all the same or not finite, lengths differ, there are fewer than 2 groups, or `temperature`
            is not positive.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> softmax_agreement(x, x[[0, 0, 2, 0]]).round(decimals=3).tolist()
        [1.0, 1.0, -1.0, -1.0]
    """
    return softmax_agreements(query, [value], group=group, temperature=temperature)[0]


def softmax_agreements(
    query: Queries, values: Sides, *, group: Groups = None, temperature: float = TEMPERATURE
) -> Float64[Tensor, "v n"]:
    """Return `softmax_agreement` with each of several values, whose pairs are compared once; same errors."""
    sides = [directions(value, "value") for value in values]
    agreement = torch.empty(len(sides), len(query), dtype=torch.float64, device=query.device)
    for rows, mean, _ in softmax_means(query, sides, 1, group=group, temperature=temperature):
        for each, part, t in zip(agreement, mean.split([t.shape[1] for t in sides], dim=1), sides, strict=True):
            each[rows] = torch.nn.functional.cosine_similarity(part, t[rows])
    return agreement.clamp(-1, 1)


def softmax_means(
    query: Queries, sides: Sides, k: int = NEIGHBORS, *, group: Groups = None, temperature: float = TEMPERATURE
) -> Iterator[Near]:
    """Yield P of `softmax_agreement` for `directions` of values, side by side, and the k nearest pairs by query."""
    require(temperature > 0, "temperature", f"{temperature}", "a positive number", "Use 0.07.")
    for side in sides:
        check_same_length("query", len(query), "value", len(side))
    q = directions(query, "query")
    yield from _near(q, torch.cat(list(sides), dim=1), k, _groups(group, q, k), temperature)


def neighbor_votes(query: Queries, value: Values, k: int = NEIGHBORS, *, group: Groups = None) -> Float64[Tensor, " n"]:
    """Compute the share of the k pairs nearest by query that are among the nearest 5% by value (at least k pairs).

    Nearness is the cosine of centered rows; pairs of the same group do not vote. Arguments and errors are those of
    `softmax_agreement`; k is at most the number of pairs of other groups. Of many pairs, the 5% are of a sample.

    Returns:
        Shares in [0, 1]; 0.05 is chance.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> neighbor_votes(x, x, 1).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    check_same_length("query", len(query), "value", len(value))
    q, t, groups = directions(query, "query"), directions(value, "value"), _groups(group, query, k)
    step = -(-len(t) // EXACT)
    shares, near = q.new_empty(len(q)), max(k, round(NEAR * len(t[::step])))
    for rows, _, j in _near(q, None, k, groups):
        last = _cosines(t, groups, rows, step).topk(near, dim=1).values[:, -1:]
        votes = torch.einsum("id,ikd->ik", t[rows], t[j]) >= last - 1e-12  # but for rounding: the last one votes
        shares[rows] = (votes & (j >= 0)).double().mean(dim=1)
    return shares


def lemon(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "m e"],
    k: int = 30,
    *,
    group: Groups = None,
    weights: tuple[float, float] = (5.0, 5.0),
    tau: tuple[float, float] = (0.1, 5.0),
) -> Float64[Tensor, " n"]:
    """Compute LEMoN's score (Zhang et al., ICML 2025): distance of image and text, and of their neighbors.

    With u, v at length 1, D_i = 1 - u_i·v_i, and sums over the k pairs nearest to i by u (of other groups),

        s_n = 1/k Σ_j (1 - v_i·v_j) exp(-τ₁ (1 - u_i·u_j) - τ₂ D_j);      s_m the same with u and v swapped;
        score_i = D_i + beta s_n + gamma s_m

    The authors tune beta, gamma, τ₁, τ₂ and k on labeled errors. Without any, as on CC3M, they use these defaults
    (`hparam_dict` in train_clip_from_scratch.py of github.com/MLforHealth/LEMoN, k in experiments.py). Their code takes
    exp(τ₁ u_i·u_j) for exp(-τ₁ (1 - u_i·u_j)): its s_n and s_m are those above times e^.1, about 1.11.

    Args:
        image: Image embeddings, any length, shape (n, d).
        text: Text embeddings of the same model, shape (n, d).
        k: Number of neighbors, at most that of the pairs of other groups.
        group: As in `softmax_agreement`.
        weights: (beta, gamma): weights of s_n and of s_m.
        tau: (τ₁, τ₂): how fast far neighbors, and those that are themselves suspect, lose weight.

    Returns:
        Scores in [0, 2 + 2 beta + 2 gamma], higher = more likely a mismatched caption.

    Raises:
        InputError: Widths or lengths differ, a row is zero or not finite, or `k` is out of range.

    Example:
        >>> x = torch.eye(3)
        >>> lemon(x, x[[0, 1, 1]], 1, tau=(0.0, 0.0)).tolist()
        [10.0, 10.0, 11.0]
    """
    u, v = unit_pairs(image, text)
    apart, groups = 1 - (u * v).sum(dim=1), _groups(group, u, k)
    scores = apart.clone()
    for weight, by, other in zip(weights, (u, v), (v, u), strict=True):
        for rows, _, j in _near(by, None, k, groups):
            near, far = (torch.einsum("id,ikd->ik", x[rows], x[j]) for x in (by, other))
            trust = torch.exp(-tau[0] * (1 - near) - tau[1] * apart[j]) * (j >= 0)
            scores[rows] += weight * ((1 - far) * trust).mean(dim=1)
    return scores


def directions(x: Float[Tensor, "n d"], name: str) -> Float64[Tensor, "n d"]:
    """Return the centered rows at length 1; a row that equals the mean stays 0.

    Raises:
        InputError: Rows are all the same or not finite.
    """
    as_finite(name, x.double().sum(dim=1).cpu())
    centered = x.double() - x.double().mean(dim=0)
    length, largest = torch.linalg.vector_norm(centered, dim=1, keepdim=True), x.double().abs().max()
    varied = length > 1e-9 * largest
    require(bool(varied.any()), name, f"the same in all {len(x)} rows", "rows that differ", "They tell nothing.")
    return torch.where(varied, centered / torch.where(varied, length, 1.0), 0.0)


def directions_into(
    out: Float32[np.ndarray, "n d"], x: Float[np.ndarray, "n d"], name: str, *, block: int = 8192
) -> Float32[np.ndarray, "n d"]:
    """Write `directions` of rows that are read some at a time into an array or memory map, and return it.

    Raises:
        InputError: Rows are all the same or not finite.
    """
    n, mean, largest = len(out), np.zeros(out.shape[1]), 0.0
    blocks = list(slices(n, block))
    for rows in blocks:
        values = np.asarray(x[rows], dtype=np.float64)
        as_finite(name, values.sum(axis=1))
        mean += values.sum(axis=0) / n
        largest = max(largest, float(np.abs(values).max()))
    any_varied = False
    for rows in blocks:
        centered = np.asarray(x[rows], dtype=np.float64) - mean
        length = np.linalg.norm(centered, axis=1, keepdims=True)
        varied = length > 1e-9 * largest
        out[rows] = np.where(varied, centered / np.where(varied, length, 1.0), 0.0)
        any_varied |= bool(varied.any())
    require(any_varied, name, f"the same in all {n} rows", "rows that differ", "They tell nothing.")
    return out


def _groups(group: Groups, rows: Float[Tensor, "n d"], k: int) -> Int[Tensor, " n"]:
    """Return a code of each row's group on its device; each row has `k` others at least."""
    n = len(rows)
    check_same_length("group", n if group is None else len(group), "query", n)
    _, codes, size = np.unique(np.arange(n) if group is None else group, return_inverse=True, return_counts=True)
    require_range("k", k, 1, int(n - size.max(initial=0)), "Use fewer neighbors, or more groups of pairs.")
    return torch.from_numpy(codes).to(rows.device)


def _cosines(
    unit: Float64[Tensor, "n d"], groups: Int[Tensor, " n"], rows: slice | Tensor, step: int = 1
) -> Float64[Tensor, "b m"]:
    """Return cosines of rows with every so many rows, -inf within a group."""
    return (unit[rows] @ unit[::step].T).masked_fill_(groups[rows, None] == groups[::step], -torch.inf)


def _near(unit: Queries, value: Values | None, k: int, groups: Int[Tensor, " n"], tau: float = 1.0) -> Iterator[Near]:
    """Yield softmax-weighted means of values and the nearest rows of other groups (-1: fewer), for blocks of rows."""
    if len(unit) <= EXACT:
        for rows in slices(len(unit), _BLOCK):
            cosine = _cosines(unit, groups, rows)
            near = cosine.topk(k, dim=1).indices
            yield rows, cosine[:, :0] if value is None else torch.softmax(cosine.div_(tau), dim=1) @ value, near
        return
    q, t = (x.cpu().numpy().astype(np.float32) for x in (unit, unit[:, :1] if value is None else value))
    for block in Cells(q).means(t, k, groups.cpu().numpy(), temperature=tau, device=str(unit.device)):
        rows, mean, near = (torch.from_numpy(x).to(unit.device) for x in block)
        yield rows, mean.double(), near
