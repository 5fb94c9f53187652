"""Which side of a value an interval lies on: the one rule behind "above", "below" and "not shown" in every report."""

import math
from collections.abc import Mapping
from typing import Any, Literal

Number = int | float  # of a JSON file: 1.0 may have been written as 1
Side = Literal["above", "below", "inconclusive"]


def which_side(low: Number | None, high: Number | None, of: Number = 0) -> Side:
    """Return the side of a value on which an interval lies; inconclusive where it holds it or there is none.

    Example:
        >>> which_side(0.1, 0.2), which_side(-0.1, 0.2), which_side(0.1, 0.2, of=0.5), which_side(None, None)
        ('above', 'inconclusive', 'below', 'inconclusive')
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "inconclusive"
    return "above" if low > of else "below" if high < of else "inconclusive"


def side_of(entry: Mapping[str, Any], of: Number = 0) -> Side:
    """Return the side of a value on which an entry's interval, its keys `low` and `high`, lies."""
    return which_side(entry.get("low"), entry.get("high"), of)


def higher_of(a: Mapping[str, Any], b: Mapping[str, Any]) -> Side:
    """Compare two entries by their intervals: `a` is above or below `b` where the intervals do not overlap.

    Example:
        >>> higher_of({"low": 0.5, "high": 0.6}, {"low": 0.1, "high": 0.2})
        'above'
    """
    if None in (a["low"], a["high"], b["low"], b["high"]):
        return "inconclusive"
    return "above" if a["low"] > b["high"] else "below" if a["high"] < b["low"] else "inconclusive"
