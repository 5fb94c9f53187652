"""Decide whether a claimed effect holds, from the interval of its estimate.

A claim is a set of effects: those above 0, below 0, or within a margin of 0. The answer is `yes` if the whole interval
is in the set, `no` if none of it is, and otherwise `inconclusive`. For a claim with a size, the answer is also `no` if
the interval excludes that size without establishing the side.

A `yes` concerns the side of an effect, not its size. With 95% intervals, one true null in twenty is called `yes` or
`no`. An interval over a few seeds applies to these data, this length of training and this model only.
"""

import math
from typing import Literal, NamedTuple

from clipmem.base.require import require, require_one_of

Answer = Literal["yes", "no", "inconclusive"]


class Claim(NamedTuple):
    """A claim about an effect.

    Attributes:
        side: "above" (effect > 0), "below" (effect < 0) or "zero" (|effect| < size).
        size: Claimed absolute size, >= 0 (0: only the side is claimed); for "zero" the margin, > 0.
    """

    side: Literal["above", "below", "zero"]
    size: float = 0.0


def verdict(low: float | None, high: float | None, claim: Claim) -> Answer:
    """Decide whether the interval of an effect supports a claim.

    above: yes if low > 0; no if high < size, or high <= 0; below: the same for the interval [-high, -low].
    zero: yes if -size < low and high < size; no if low >= size or high <= -size. Otherwise, or if there is no interval
    (None): inconclusive.

    Raises:
        InputError: low is above high, an end or the size is not a number, or a claim of "zero" has no margin.

    Example:
        >>> verdict(0.1, 0.3, Claim("above")), verdict(-0.1, 0.2, Claim("above"))
        ('yes', 'inconclusive')
        >>> verdict(-0.1, 0.02, Claim("above", 0.05)), verdict(-0.1, 0.02, Claim("zero", 0.2))
        ('no', 'yes')
    """
    _check(low, high, claim)
    if low is None or high is None:
        return "inconclusive"
    if claim.side == "zero":
        if -claim.size < low and high < claim.size:
            return "yes"
        return "no" if low >= claim.size or high <= -claim.size else "inconclusive"
    if claim.side == "below":
        low, high = -high, -low
    if low > 0:
        return "yes"
    return "no" if high < claim.size or high <= 0 else "inconclusive"


def _check(low: float | None, high: float | None, claim: Claim) -> None:
    for name, value in (("low", low), ("high", high), ("size", claim.size)):
        hint = "Use None if there is no interval."
        require(value is None or not math.isnan(value), name, "nan", "a number", hint)
    require_one_of("side of the claim", claim.side, ("above", "below", "zero"))
    positive = claim.size > 0 if claim.side == "zero" else claim.size >= 0
    got, hint = f"{claim.size:.6g} with side {claim.side!r}", "Give the size without its sign."
    require(positive, "size of the claim", got, "0 or more, above 0 for 'zero'", hint)
    if low is not None and high is not None:
        require(low <= high, "interval", f"[{low:.6g}, {high:.6g}]", "low <= high", "Swap the two ends.")
