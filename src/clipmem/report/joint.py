"""Claims about memorization and utility together, and claims that one of several methods has an effect."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clipmem.report.effects import ABOVE, Context, Effect, Pair, Results
from clipmem.report.run_specs import RunSpec

MARGIN = 0.02  # "not lower": by at most this share of the utility without mitigation; ours, set before any run


def relative(values: Sequence[float], base: Sequence[float], sign: int) -> tuple[list[float], list[float]]:
    """Return both measures by seed in units of the mean in the base run, times `sign`."""
    n = min(len(values), len(base))
    before, after = np.asarray(base[:n], dtype=np.float64), np.asarray(values[:n], dtype=np.float64)
    scale = sign / (abs(float(before.mean())) or 1.0)
    return (after * scale).tolist(), (before * scale).tolist()


def dominance(
    results: Results,
    base: Pair,
    other: Pair,
    measure: str,
    *,
    margin: float = 0.0,
    primary: bool = False,
) -> Effect:
    """Measure whether memorization falls and utility rises: the smaller of both relative changes, claimed above 0.

    Both must hold (`Results.weakest`). With a margin, utility only must not fall by more than this share.

    Args:
        results: Gives the level of the interval.
        base: Memorization and utility by seed without mitigation.
        other: The same with it.
        measure: Name of the effect.
        margin: Share of the utility, 0 or more.
        primary: Whether it decides the finding.
    """
    after, before = relative(other[1], base[1], 1)
    changes = [relative(other[0], base[0], -1), ([value + margin for value in after], before)]
    return results.weakest(measure, changes, ABOVE, primary=primary)


def jointly(
    context: Context,
    results: Results,
    base: RunSpec,
    run: RunSpec,
    name: str,
    *,
    measure: str = "clipmem",
    margin: float = 0.0,
    primary: bool = False,
) -> list[Effect]:
    """Return the `dominance` of a run over the base run; empty if one of them was not measured."""
    pairs = [
        (results.memorization(one, among, measure), results.utility(one, context.scale.utility))
        for one, among in ((base, run), (run, base))
    ]
    if not all(values for pair in pairs for values in pair):
        return []
    return [dominance(results, pairs[0], pairs[1], name, margin=margin, primary=primary)]


def strongest(measure: str, effects: Sequence[Effect]) -> Effect:
    """Combine effects of which one must hold: the largest of each end (a union-intersection test).

    The effects must have intervals of level 1 - (1 - confidence) / m for m of them.
    """
    known = [one for one in effects if one.low is not None and one.high is not None]
    if not known:
        return replace(effects[0], measure=measure, low=None, high=None)
    low, high = (max(getattr(one, end) for one in known) for end in ("low", "high"))
    return replace(known[0], measure=measure, estimate=max(one.estimate for one in known), low=low, high=high)
