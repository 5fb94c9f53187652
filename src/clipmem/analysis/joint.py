"""Claims about memorization and utility together, and claims that one of several methods has an effect."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clipmem.analysis.effects import ABOVE, Context, Effect, Results, weakest
from clipmem.analysis.run_specs import RunSpec

MARGIN = 0.02  # "not lower": by at most this share of the utility without mitigation; ours, set before any run


def relative(results: Results, values: Sequence[float], base: Sequence[float], sign: int, **named: object) -> Effect:
    """Return the change of a measure by seed in units of its mean in the base run, times `sign`, claimed above 0."""
    n = min(len(values), len(base))
    before, after = np.asarray(base[:n], dtype=np.float64), np.asarray(values[:n], dtype=np.float64)
    scale = sign / (abs(float(before.mean())) or 1.0)
    return results.effect("", (after * scale).tolist(), (before * scale).tolist(), ABOVE, **named)  # pyright: ignore[reportArgumentType]


def dominance(
    results: Results,
    base: tuple[Sequence[float], Sequence[float]],
    other: tuple[Sequence[float], Sequence[float]],
    measure: str,
    *,
    margin: float = 0.0,
    primary: bool = False,
) -> Effect:
    """Measure whether memorization falls and utility rises: the smaller of both relative changes, claimed above 0.

    Both must hold (an intersection-union test), so the interval needs no correction for there being two. With a margin,
    utility only must not fall by more than this share.

    Args:
        results: Gives the level of the interval.
        base: Memorization and utility by seed without mitigation.
        other: The same with it.
        measure: Name of the effect.
        margin: Share of the utility, 0 or more.
        primary: Whether it decides the finding.
    """
    fall = relative(results, other[0], base[0], -1, primary=primary)
    rise = relative(results, other[1], base[1], 1, primary=primary)
    ends = {end: None if getattr(rise, end) is None else getattr(rise, end) + margin for end in ("low", "high")}
    return weakest(measure, [fall, replace(rise, estimate=rise.estimate + margin, **ends)])


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
