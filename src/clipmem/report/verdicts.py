"""The side of a value that an interval is on: "above", "below" or "inconclusive"."""

import math
from collections.abc import Mapping
from typing import Any, Literal

Number = int | float  # of a JSON file: 1.0 may have been written as 1
Side = Literal["above", "below", "inconclusive"]


def side_of(entry: Mapping[str, Any], of: Number = 0) -> Side:
    """Return the side of `of` that an entry's interval is on; inconclusive if it contains it or there is none."""
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "inconclusive"
    return "above" if low > of else "below" if high < of else "inconclusive"


def higher_of(a: Mapping[str, Any], b: Mapping[str, Any]) -> Side:
    """Compare two entries: `a` is above or below `b` if their intervals do not overlap."""
    if None in (a["low"], a["high"], b["low"], b["high"]):
        return "inconclusive"
    return "above" if a["low"] > b["high"] else "below" if a["high"] < b["low"] else "inconclusive"
