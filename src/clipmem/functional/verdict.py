"""One rule that says whether a claimed effect holds, from the interval of its estimate.

A claim is a set of effects that would bear it out: those above 0, those below 0, or those within a margin of 0. The
interval answers `yes` when all of it lies in the set, `no` when none of it does, and otherwise `inconclusive`. A claim
with a size says more: an interval that reaches neither the claimed size nor shows the claimed side answers `no` too,
since the effect, if there is one, is smaller than claimed.

Do not trust a `yes` for the size of an effect: it answers for its side. Do not read many verdicts as one: with 95 %
intervals one true null in twenty is called `yes` or `no`. And an interval over a few seeds knows these data, this
length of training and this model, and nothing of others.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from clipmem.base.require import require, require_one_of

Answer = Literal["yes", "no", "inconclusive"]


class Claim(NamedTuple):
    """What is claimed of an effect.

    Attributes:
        side: "above" (effect > 0), "below" (effect < 0) or "zero" (|effect| < size).
        size: Claimed size of the effect, >= 0, without sign; of "zero" the margin, > 0. 0 claims a side alone.
    """

    side: Literal["above", "below", "zero"]
    size: float = 0.0


def verdict(low: float | None, high: float | None, claim: Claim) -> Answer:
    """Answer whether the interval of an effect bears a claim out.

    above: yes if low > 0; no if high < size, or high <= 0; below: the same of the mirrored interval [-high, -low].
    zero: yes if -size < low and high < size; no if low >= size or high <= -size. In every other case, and where there
    is no interval: inconclusive.

    Args:
        low: Lower end of the interval; None where there is none (one seed).
        high: Upper end, >= low.
        claim: What is claimed.

    Returns:
        "yes", "no" or "inconclusive".

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


def all_hold(answers: Iterable[Answer]) -> Answer:
    """Join the answers of the parts of one finding: yes if all are, no if one is, otherwise (or of none) inconclusive.

    Example:
        >>> all_hold(["yes", "inconclusive"]), all_hold(["yes", "no", "inconclusive"])
        ('inconclusive', 'no')
    """
    found = set(answers)
    if "no" in found:
        return "no"
    return "yes" if found == {"yes"} else "inconclusive"


def _check(low: float | None, high: float | None, claim: Claim) -> None:
    for name, value in (("low", low), ("high", high), ("size", claim.size)):
        hint = "Give None where there is no interval."
        require(value is None or not math.isnan(value), name, "nan", "a number", hint)
    require_one_of("side of the claim", claim.side, ("above", "below", "zero"))
    positive = claim.size > 0 if claim.side == "zero" else claim.size >= 0
    got, hint = f"{claim.size:.6g} with side {claim.side!r}", "Give the size without its sign."
    require(positive, "size of the claim", got, "0 or more, and more than 0 with 'zero'", hint)
    if low is not None and high is not None:
        require(low <= high, "interval", f"[{low:.6g}, {high:.6g}]", "low <= high", "Exchange the two ends.")
