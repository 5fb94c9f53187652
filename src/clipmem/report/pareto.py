"""Decide what beats what: differences over paired seeds, the Pareto front, and domination of a baseline."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clipmem.stats.comparisons import holm, paired_test
from clipmem.stats.verdict import Claim, verdict


class Point(NamedTuple):
    """A run's memorization and utility."""

    run: str
    memorization: float
    utility: float


def front(points: Sequence[Point]) -> list[str]:
    """Return the runs on the Pareto front of the means, in order of memorization."""
    kept = [one for one in points if not any(_beats(other, one) for other in points)]
    return [one.run for one in sorted(kept, key=lambda one: (one.memorization, -one.utility))]


def _beats(a: Point, b: Point) -> bool:
    return a.memorization <= b.memorization and a.utility >= b.utility and a[1:] != b[1:]


def is_useful(utility: float, baseline: float, chance: float | None) -> bool:
    """Return whether a mean utility is above chance and keeps half of the baseline's distance from it.

    u > c and u - c >= (b - c) / 2. A model that learned little memorizes little, and must not pass for a mitigation.
    The rule is about means, as the front is; a metric whose chance is unknown (None) has no rule.
    """
    return chance is None or (utility > chance and utility - chance >= (baseline - chance) / 2)


def difference(values: Sequence[float], base: Sequence[float], confidence: float) -> dict[str, Any]:
    """Return both means, the mean difference over paired seeds with its t interval, and its tests."""
    own, other = (np.asarray(side, dtype=np.float64) for side in (values, base))
    found = paired_test(own, other, confidence)
    tests = {name: getattr(found, name) for name in ("difference", "low", "high", "p", "wilcoxon_p", "effect")}
    return {"mean": float(own.mean()), "baseline": float(other.mean()), **tests}


def mean_over_seeds(values: Sequence[float], confidence: float) -> dict[str, float | None]:
    """Return the mean of values by seed with its t interval, which is that of paired differences from 0."""
    found = paired_test(np.asarray(values, dtype=np.float64), np.zeros(len(values)), confidence)
    return {"mean": found.difference, "low": found.low, "high": found.high}


def dominance(memorization: Mapping[str, Any], utility: Mapping[str, Any]) -> dict[str, Any]:
    """Decide from two differences whether a run dominates its baseline: memorization lower *and* utility higher.

    `dominates` is `yes` if both intervals exclude 0 on that side, `no` if one excludes 0 on the other side, otherwise
    `inconclusive`. `p` is the larger of the two p-values (an intersection-union test), where a difference of the
    opposite sign counts as 1; None if a difference has no interval.
    """
    sides = ((memorization, Claim("below"), -1), (utility, Claim("above"), 1))
    answers = [verdict(row["low"], row["high"], claim) for row, claim, _ in sides]
    order = ("no", "inconclusive", "yes")
    known = [row["p"] if sign * row["difference"] > 0 else 1.0 for row, _, sign in sides if row["p"] is not None]
    return {"dominates": min(answers, key=order.index), "p": max(known) if len(known) == 2 else None}


def adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Add `p_holm`, the Holm-adjusted `p`, to each row of a family of tests; None where `p` is None."""
    adjusted = holm(np.array([np.nan if row["p"] is None else row["p"] for row in rows], dtype=np.float64))
    for row, p in zip(rows, adjusted.tolist(), strict=True):
        row["p_holm"] = None if np.isnan(p) else p
