"""How sure the gaps of Déjà Vu memorization are: bootstrap over groups of pairs, and over training runs.

The population gaps and the AUC gap are means over pairs, and `bootstrap_mean` does them. The gaps at the top are not:
each draw of pairs has another top. So the draw is ranked again, and its own top is averaged:

    a draw takes every pair w_i times; its top holds the first max(1, ⌊x Σ w⌋) of the copies in the ranking's order.

When not to trust it: the top of 200 pairs at 0.1 % is one pair, and then the interval only says which other pairs might
have been that one. Below some ten pairs at the top, read it so. No interval here knows of the bias of the top gaps
(they select by what they average): compare them with those of g against another g, made in the same way.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from clipmem.base.errors import InputError
from clipmem.base.random import bootstrap_counts, generator
from clipmem.functional.checks import check_confidence, check_same_length
from clipmem.functional.dejavu import DejaVu
from clipmem.functional.intervals import Interval, bootstrap_mean

_CELLS = 2_000_000  # resampled pairs held at a time
_SPARE = 64  # pairs of the ranking that are looked at beyond twice the top


class TopIntervals(NamedTuple):
    """Gaps over the pairs ranked highest, averaged over seeds; `pairs` is how many those are."""

    fraction: float
    pairs: int
    precision: Interval
    recall: Interval
    f_score: Interval


class DejaVuIntervals(NamedTuple):
    """Gaps of Déjà Vu memorization, averaged over seeds, each with its interval (see `DejaVu`)."""

    precision_gap: Interval
    recall_gap: Interval
    auc_gap: Interval
    top: tuple[TopIntervals, ...]


def _checked(found: Sequence[DejaVu], groups: Int[np.ndarray, "n"]) -> Int[np.ndarray, "kept"]:
    """Return the group of each pair that counts."""
    if not found:
        raise InputError("seeds", got="none", expected="one result a seed", hint="Compare at least one pair of models.")
    kept = found[0].kept
    for one in found[1:]:
        if not np.array_equal(one.kept, kept):
            raise InputError(
                "kept",
                got=f"{len(one.kept)} pairs in one seed, {len(kept)} in the first",
                expected="the same pairs in every seed",
                hint="Give every seed the same true objects.",
            )
    if len(kept) and kept[-1] >= len(groups):
        check_same_length("pairs", int(kept[-1]) + 1, "groups", len(groups))
    return np.unique(groups[kept], return_inverse=True)[1]


def _draws(codes: Int[np.ndarray, "kept"], seed: int, draws: int) -> Iterator[Int[np.ndarray, "draw kept"]]:
    """Yield how often each pair is drawn, some draws at a time: the draws of `bootstrap_mean` with this seed."""
    count = int(codes.max()) + 1
    stream = generator(seed, "bootstrap", "groups")
    step = max(1, _CELLS // len(codes))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        yield bootstrap_counts(stream, rows, count)[:, codes]


def _top_rates(
    times: Int[np.ndarray, "draw kept"], size: Int[np.ndarray, "draw"], one: DejaVu, columns: int
) -> Float64[np.ndarray, "draw rate side"]:
    """Mean precision and recall of f and of g over the first `size` copies of each draw.

    Only the first `columns` pairs of the ranking are looked at, and more where a draw has too few copies of those.
    """
    order = one.order[:columns]
    ranked = times[:, order]
    until = np.cumsum(ranked, axis=1)
    if columns < len(one.order) and bool((until[:, -1] < size).any()):
        return _top_rates(times, size, one, len(one.order))
    inside = np.clip(size[:, None] - (until - ranked), 0, ranked).astype(np.float64)
    values = np.concatenate([one.precision, one.recall])[:, order]
    return (inside @ values.T / size[:, None]).reshape(len(times), 2, 2)


def _gaps(rates: Float64[np.ndarray, "draw rate side"]) -> Float64[np.ndarray, "draw kind"]:
    """Gaps of precision, recall and F-score from the mean precision and recall of f and of g."""
    total = rates.sum(axis=1)
    f_score = np.divide(2 * rates.prod(axis=1), total, out=np.zeros_like(total), where=total > 0)
    means = np.concatenate([rates, f_score[:, None]], axis=1)
    return means[..., 0] - means[..., 1]


def _drawn_tops(
    found: Sequence[DejaVu], codes: Int[np.ndarray, "kept"], seed: int, draws: int
) -> Float64[np.ndarray, "fraction draw kind"]:
    """Gaps at the top of every draw, averaged over the seeds that it drew."""
    fractions = [top.fraction for top in found[0].top]
    seeds = generator(seed, "bootstrap", "seeds")
    drawn: list[Float64[np.ndarray, "fraction draw kind"]] = []
    for times in _draws(codes, seed, draws):
        chosen = seeds.integers(len(found), size=(len(times), len(found)))
        tops: list[Float64[np.ndarray, "draw kind"]] = []
        for fraction in fractions:
            size = np.maximum(1, (times.sum(axis=1) * fraction).astype(np.int64))
            columns = min(len(codes), int(2 * fraction * len(codes)) + _SPARE)
            gaps = np.stack([_gaps(_top_rates(times, size, one, columns)) for one in found])
            tops.append(gaps[chosen, np.arange(len(times))[:, None]].mean(axis=1))
        drawn.append(np.stack(tops))
    return np.concatenate(drawn, axis=1)


def _tops(
    found: Sequence[DejaVu], codes: Int[np.ndarray, "kept"], seed: int, draws: int, confidence: float
) -> Iterator[TopIntervals]:
    several = bool(codes.max() > 0) and bool(found[0].top)  # one group has no spread
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    bounds = np.quantile(_drawn_tops(found, codes, seed, draws), ends, axis=1) if several else None
    for index, top in enumerate(found[0].top):
        kinds: list[Interval] = []
        for kind, name in enumerate(("precision", "recall", "f_score")):
            mean = float(np.mean([getattr(one.top[index], name) for one in found]))
            low, high = (None, None) if bounds is None else (float(end) for end in bounds[:, index, kind])
            kinds.append(Interval(mean, low, high))
        yield TopIntervals(top.fraction, top.pairs, *kinds)


def dejavu_intervals(
    found: Sequence[DejaVu],
    groups: Int[np.ndarray, "n"],
    *,
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
) -> DejaVuIntervals:
    """Average the gaps over seeds, with percentile intervals over groups of pairs and over seeds.

    Each draw takes as many groups as there are, with replacement, and as many seeds as there are, with replacement
    (when there are two or more). The limits of `bootstrap_mean` hold: too narrow with few groups or seeds.

    Args:
        found: One result of `dejavu` a seed, for the same pairs and fractions.
        groups: Group of each of the n pairs, any integers, shape (n,); near-duplicates share one.
        seed: Seed of the draws: the same seed gives the same intervals.
        draws: How many draws, >= 1.
        confidence: Coverage of the intervals, between 0 and 1.

    Returns:
        Every gap with its interval; low and high are None with one group.

    Raises:
        InputError: There is no seed, the seeds have other pairs, there are too few groups, or `draws` or `confidence`
            is out of range.

    Example:
        >>> import torch
        >>> from clipmem.functional import dejavu
        >>> true = torch.tensor([[True, True], [True, False]])
        >>> one = dejavu(true, true, torch.tensor([[True, False], [True, False]]))
        >>> dejavu_intervals([one], np.array([0, 1]), seed=0).recall_gap
        Interval(mean=0.5, low=0.0, high=1.0)
    """
    check_confidence(confidence)
    codes = _checked(found, groups)

    def mean_of(rows: list[Float64[np.ndarray, "kept"]]) -> Interval:
        return bootstrap_mean(np.stack(rows), codes, seed=seed, draws=draws, confidence=confidence)

    return DejaVuIntervals(
        mean_of([one.precision_sign for one in found]),
        mean_of([one.recall_sign for one in found]),
        mean_of([one.recall_difference for one in found]),
        tuple(_tops(found, codes, seed, draws, confidence)),
    )
